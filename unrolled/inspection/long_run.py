"""Any length in constant memory: a trained model reads and writes ever longer texts; and what that is bought with.

Each measurement has a process of its own, which starts fresh. Counted is how far the resident memory rises, at its peak
during the run, above its level after a short run that loads code, starts threads and compiles kernels.

    read           T timesteps in chunks of `CHUNK` with carried state, as a text is read that streams in
    write          T characters by `LanguageModel.stream`; its start (packing weights) is measured apart
    backpropagate  the loss of all T timesteps and its gradients, by full backpropagation through time
    wait           T timesteps one after the other, and the same arithmetic at once, with all states known beforehand

The first three run in one thread, since a single row is one thread's work; in `wait` both have all threads.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.cells import Inputs, State
from unrolled.data.streams import Batch
from unrolled.errors import UnrolledError
from unrolled.inspection import resident
from unrolled.tasks.models import LanguageModel, load
from unrolled.topologies import ManyToMany

CHUNK = 10
"""Timesteps of one call while reading."""
TOGETHER = 1000
"""A short run is repeated until its repetitions have so many timesteps."""
WAITING = 1000
"""Timesteps of `wait`."""
Row = dict[str, Any]


def measure_long_run(
    model: LanguageModel, tokens: np.ndarray, lengths: Sequence[int], trained_lengths: Sequence[int]
) -> dict[str, Any]:
    """Memory and time of `read`, `write` (at `lengths`) and `backpropagate` (at `trained_lengths`), and of `wait`.

    model: with recurrent layers; tokens: (N,), a text, read round and round where it is shorter than a run. Rows have
    `steps`, `bytes` (None where the system does not tell) and `seconds_per_step`. Raises `UnrolledError` where a
    measuring process fails.
    """
    with tempfile.TemporaryDirectory(prefix="unrolled-") as folder:
        model.save(Path(folder) / "model.safetensors")
        np.save(Path(folder) / "tokens.npy", np.resize(tokens, max(*lengths, *trained_lengths) + 1).astype(np.int64))

        def measured(kind: str, at: Sequence[int]) -> Any:
            return _in_a_fresh_process({"kind": kind, "folder": folder, "lengths": list(at)})

        return {
            "chunk": CHUNK,
            "memory_not_measured": None if resident.readable() else resident.NO_PROC,
            "read": measured("read", lengths),
            "write": measured("write", lengths),
            # a process for each length, so that none finds memory that the one before has left
            "backpropagate": [measured("backpropagate", [length])[0] for length in trained_lengths],
            "wait": measured("wait", [WAITING]),
        }


def _in_a_fresh_process(what: dict[str, Any]) -> Any:
    command = [sys.executable, "-m", "unrolled.inspection.long_run", json.dumps(what)]
    # the package that asks is the one that measures, installed or not
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UnrolledError(f"the process that measures how a long text is handled ({what['kind']}) failed: {reason}")
    return json.loads(done.stdout)


# --- in the process of its own ---------------------------------------------------------------------------------------


def measure(what: dict[str, Any]) -> Any:
    """What the process that is told `what` prints."""
    model = load(Path(what["folder"]) / "model.safetensors")
    tokens = torch.from_numpy(np.load(Path(what["folder"]) / "tokens.npy"))
    if what["kind"] == "wait":
        return wait(model, tokens[: what["lengths"][0]])
    torch.set_num_threads(1)  # a single row is one thread's work: a second would only be waited for
    runs: dict[str, Callable[[int], Row]] = {
        "read": lambda steps: read(model, tokens[:steps]),
        "write": lambda steps: write(model, steps),
        "backpropagate": lambda steps: backpropagate(model, tokens[: steps + 1]),
    }
    return _at_lengths(runs[what["kind"]], what["lengths"])


def _at_lengths(run: Callable[[int], Row], lengths: Sequence[int]) -> list[Row]:
    """One row a length; run(T) returns its seconds, and what else there is to say."""
    for _ in range(1 + TOGETHER // CHUNK):
        run(CHUNK)
    level = resident.now() if resident.readable() else 0
    rows = []
    for steps in lengths:
        if resident.readable():
            resident.forget_peak()
        # few enough that a loop of short runs is no long one in disguise: each begins with a new state
        runs = [run(steps) for _ in range(max(1, TOGETHER // steps))]
        medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        rows.append(
            {
                "steps": steps,
                "bytes": resident.peak() - level if resident.readable() else None,
                "seconds_per_step": medians.pop("seconds") / steps,
                **medians,
            }
        )
    return rows


@torch.inference_mode()
def read(model: LanguageModel, tokens: Tensor) -> Row:
    """The scores after every token, thrown away chunk by chunk. tokens: (T,)"""
    topology, table = model.network.topology, model.network.table
    state = topology.initial_state(1)
    begun = time.perf_counter()
    for first in range(0, len(tokens), CHUNK):
        _, state = topology(Inputs(tokens[first : first + CHUNK, None], table), state)
    return {"seconds": time.perf_counter() - begun}


def write(model: LanguageModel, steps: int) -> Row:
    """So many characters, thrown away piece by piece."""
    begun = time.perf_counter()
    pieces = model.stream("", steps, seed=steps)
    started = time.perf_counter()
    for _ in pieces:
        pass
    return {"seconds": time.perf_counter() - started, "start_seconds": started - begun}


def backpropagate(model: LanguageModel, tokens: Tensor) -> Row:
    """Forward over all timesteps, then backward. tokens: (T + 1,)"""
    network = model.network
    network.zero_grad(set_to_none=False)
    batch = Batch(tokens[:-1, None], tokens[1:, None], None, torch.zeros(1, dtype=torch.bool))
    begun = time.perf_counter()
    loss, _ = network(batch, None)
    loss.backward()
    return {"seconds": time.perf_counter() - begun}


@torch.inference_mode()
def wait(model: LanguageModel, tokens: Tensor, runs: int = 9) -> Row:
    """Seconds a timestep of the recurrent layers: one after the other, and at once. tokens: (T,)

    The best of a few runs, since whatever disturbs one only makes it slower. At once is plain PyTorch: compiled kernels
    would take less.
    """
    topology = model.network.topology
    assert isinstance(topology, ManyToMany)
    inputs = Inputs(tokens[:, None], model.network.table)
    known = states_before(topology, inputs)
    took: dict[str, list[float]] = {"seconds_per_step_in_turn": [], "seconds_per_step_at_once": []}
    for _ in range(runs + 1):  # the first warms up
        for name, work in zip(
            took, (lambda: topology.recurrent.unroll(inputs), lambda: at_once(topology, inputs, known)), strict=True
        ):
            begun = time.perf_counter()
            work()
            took[name].append((time.perf_counter() - begun) / len(tokens))
    return {"steps": len(tokens), **{name: min(seconds[1:]) for name, seconds in took.items()}}


def states_before(topology: ManyToMany, inputs: Inputs) -> list[State]:
    """Of each layer, the states before all T timesteps, as tensors (T, H). inputs: (T, 1) tokens."""
    recurrent, known = topology.recurrent, []
    for layer in range(recurrent.num_layers):
        w, state = recurrent.weights(layer), recurrent.cell.zero_state(1, recurrent.hidden_size, topology.output.weight)
        before, outputs = [], []
        for t in range(len(inputs.x)):
            before.append(state)
            state = recurrent.cell.step(w, inputs.at(t), state)
            outputs.append(state[0])
        known.append(tuple(torch.cat(part) for part in zip(*before, strict=True)))
        inputs = Inputs(torch.stack(outputs))
    return known


def at_once(topology: ManyToMany, inputs: Inputs, known: list[State]) -> Tensor:
    """The outputs (T, H) of the top layer, all timesteps in one product: what `unroll` computes, but for the waiting.

    known: what `states_before` returns. Only here, where the states are known already, can it be done.
    """
    recurrent = topology.recurrent
    below = inputs._replace(x=inputs.x[:, 0])
    for layer, state in enumerate(known):
        below = Inputs(recurrent.cell.step(recurrent.weights(layer), below, state)[0])
    return below.x


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
