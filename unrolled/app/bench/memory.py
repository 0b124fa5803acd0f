"""Memory of training steps, a fresh process for each measurement: ours, and `torch.nn`'s with an embedding.

Counted is how far the resident memory rises, at its peak during three steps, above its level before the first:
gradients, the optimiser's moments, what the backward needs, and what libraries set up for that size. The model itself
is there before, and a step of a tiny model has loaded the libraries' code.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from unrolled.app.bench.measure import Effort, geometric_mean
from unrolled.errors import UnrolledError
from unrolled.inspection import resident

OURS, PEER = "unrolled", "torch.nn"
STEPS = 3
QUICK_SIZE = {"layers": 1, "hidden": 128, "batch": 16, "steps": 16}
"""Large enough to be noticed."""
Say = Callable[[str], None]


def memory_suite(effort: Effort, engine: str, say: Say) -> dict[str, Any]:
    """Bytes of both at the sizes of the training suite, medians of three."""
    from unrolled.app.bench.peers import LAYERS
    from unrolled.app.bench.training import training_sizes

    if not resident.readable():
        return {"memory": {"rows": [], "not_measured": resident.NO_PROC}}
    rows = []
    for cell in LAYERS if not effort.quick else ["lstm"]:
        for size in [QUICK_SIZE] if effort.quick else training_sizes(effort):
            rows.append(_row({"cell": cell, "engine": engine, **size}, runs=1 if effort.quick else 3))
            times = (f"{name} {found['bytes'] / 2**20:.1f} MiB" for name, found in rows[-1]["contenders"].items())
            say(f"{cell} {size['layers']}×{size['hidden']}: {', '.join(times)}; ratio {rows[-1]['ratio']:.2f}")
    mean = geometric_mean(row["ratio"] for row in rows)
    return {"memory": {"rows": rows, "geometric_mean_ratio": mean}}


def _row(what: dict[str, Any], runs: int) -> dict[str, Any]:
    found: dict[str, list[int]] = {OURS: [], PEER: []}
    for _ in range(runs):
        for name, peaks in found.items():
            peaks.append(_in_a_fresh_process({**what, "who": name}))
    medians = {name: statistics.median(peaks) for name, peaks in found.items()}
    return {
        **{name: value for name, value in what.items() if name != "engine"},
        "contenders": {name: {"bytes": medians[name], "runs": peaks} for name, peaks in found.items()},
        "ratio": medians[PEER] / medians[OURS],
    }


def _in_a_fresh_process(what: dict[str, Any]) -> int:
    command = [sys.executable, "-m", "unrolled.app.bench.memory", json.dumps(what)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UnrolledError(f"the process that measures the memory of {what['who']} failed: {reason}")
    return int(done.stdout)


def growth(what: dict[str, Any]) -> int:
    """Bytes by which the steps of this process raise its resident memory at most."""
    tiny = {**what, "layers": 1, "hidden": 8, "batch": 2, "steps": 2}
    _steps(tiny)(1)  # loads code, starts threads, compiles kernels
    steps = _steps(what)
    resident.forget_peak()
    before = resident.now()
    steps(STEPS)
    return resident.peak() - before


def _steps(what: dict[str, Any]) -> Callable[[int], None]:
    """What makes so many training steps."""
    from unrolled.app.bench.peers import TorchModel, TorchTraining
    from unrolled.app.bench.training import VOCABULARY, random_chunks, trainer, zero_state

    cell, layers, hidden, batch = (what[name] for name in ("cell", "layers", "hidden", "batch"))
    chunks = random_chunks(batch, what["steps"])
    if what["who"] == PEER:
        model = TorchModel(cell, VOCABULARY, hidden, layers)
        return TorchTraining(model, list(model.parameters()), chunks, zero_state(cell, layers, batch, hidden))
    mine = trainer(cell, what["engine"], chunks, layers, hidden)

    def update(units: int) -> None:
        for _ in range(units):
            mine._update(0.0)

    return update


if __name__ == "__main__":
    print(growth(json.loads(sys.argv[1])))
