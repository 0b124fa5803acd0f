"""Generation, side by side: characters a second, sampling at temperature 1 included.

Ours is what users call, `LanguageModel.sample` and `sample_many`, with text as its result; the peers run the same
weights and write token numbers. Before anything is timed, all write the same text greedily.
"""

import gc
import string
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unrolled.app.bench.measure import Contender, Effort, alternate, compare, geometric_mean
from unrolled.app.bench.peers import GATES, TorchModel, with_weights_of
from unrolled.app.bench.training import OURS, first_line, model_options, zero_state
from unrolled.app.bench.writers import INSTALL, Writer, compiled_writers, eager_writers, fastest, greedy, onnx_writers
from unrolled.data.tokenizers import CharTokenizer
from unrolled.errors import UnrolledError
from unrolled.tasks.language_model import Network
from unrolled.tasks.models import LanguageModel

CHARACTERS = "\n !$&',-.3:;?" + string.ascii_letters
"""The 65 of tiny Shakespeare."""
EAGER, COMPILED, ONNX = "PyTorch", "torch.compile", "ONNX Runtime"
CHECKED = 24
"""Characters that all contenders must write alike, greedily."""
Say = Callable[[str], None]
Row = dict[str, Any]


def sizes(effort: Effort) -> list[tuple[str, int, int, int]]:
    """(cell, layers, hidden, batch)"""
    if effort.quick:
        return [("lstm", 1, 8, 1), ("rnn", 1, 8, 2)]
    models = [("lstm", 2, 512), ("lstm", 2, 128), ("gru", 2, 512), ("rnn", 1, 128)]
    return [(*model, batch) for batch in (1, 8) for model in models]


def generation_suite(effort: Effort, engine: str, say: Say) -> dict[str, Any]:
    effort = (
        effort if effort.quick else Effort(effort.rounds, 2 * effort.seconds)
    )  # the slowest peer writes 60 a second
    rows = []
    for cell, layers, hidden, batch in sizes(effort):
        rows.append(generation_row(cell, layers, hidden, batch, effort, engine))
        say(_progress(rows[-1]))
        gc.collect()
    means = {
        f"geometric_mean_ratio_batch_{batch}": geometric_mean(row["ratio"] for row in rows if row["batch"] == batch)
        for batch in dict.fromkeys(row["batch"] for row in rows)
    }
    return {"generation": {"rows": rows, **means}}


def _progress(row: Row) -> str:
    speeds = (
        f"{name} {found['characters_per_second']:,.0f}/s" + (f" ({found['variant']})" if "variant" in found else "")
        for name, found in row["contenders"].items()
    )
    model = f"{row['cell']} {row['layers']}×{row['hidden']}, {row['batch']} rows"
    return f"{model}: {', '.join(speeds)}; ratio {row['ratio']:.2f}"


def untrained(cell: str, layers: int, hidden: int, engine: str) -> LanguageModel:
    """A language model with random weights; the time it takes does not depend on them."""
    options = model_options(cell, layers, hidden, engine)
    torch.manual_seed(3)
    tokenizer = CharTokenizer(CHARACTERS)
    return LanguageModel(Network(tokenizer.size, options), tokenizer, options)


def generation_row(cell: str, layers: int, hidden: int, batch: int, effort: Effort, engine: str) -> Row:
    model = untrained(cell, layers, hidden, engine)
    first = int(model.tokenizer.encode("\n")[0])  # what our model reads before it writes
    peer = with_weights_of(model.network, cell, len(CHARACTERS)).eval()
    state = zero_state(cell, layers, batch, hidden)
    writers, extra, missing = _peers(peer, state, first, effort)
    _agree(model, writers)

    def sample(units: int) -> Any:
        if batch == 1:
            return model.sample("", units, seed=units)
        return model.sample_many(batch, "", units, seed=units)

    contenders = [Contender(OURS, sample), *(Contender(name, writer) for name, writer in writers.items())]
    timings = alternate(contenders, effort)
    found = {
        name: {
            "seconds": timing.seconds / batch,
            "characters_per_second": batch / timing.seconds,
            "rounds": [seconds / batch for seconds in timing.rounds],
            **extra.get(name, {}),
        }
        for name, timing in timings.items()
    }
    return {
        **{"cell": cell, "layers": layers, "hidden": hidden, "batch": batch},
        "flop": 2 * (layers * GATES[cell] * hidden * 2 * hidden + hidden * len(CHARACTERS)),
        "contenders": found,
        "not_measured": missing,
        **compare(timings, OURS, writers),
    }


def _peers(
    model: TorchModel, state: tuple[Tensor, ...], first: int, effort: Effort
) -> tuple[dict[str, Writer], dict[str, Any], dict[str, str]]:
    """The fastest variant of each family; which it was, with the speeds of all; and why a family is missing."""
    writers: dict[str, Writer] = {}
    extra: dict[str, Any] = {}
    missing: dict[str, str] = {}

    def heat(family: str, variants: dict[str, Writer]) -> None:
        best, speeds = fastest(variants, effort)
        writers[family] = variants[best]
        batch = state[0].shape[1]
        extra[family] = {"variant": best, "variants": {name: batch * speed for name, speed in speeds.items()}}

    heat(EAGER, eager_writers(model, state, first))
    if effort.quick:
        missing[COMPILED] = "--quick leaves it out, since compiling takes longer than all the rest"
    else:
        try:
            heat(COMPILED, compiled_writers(model, state, first, writers[EAGER].threads))
        except Exception as error:  # noqa: BLE001 (whatever stops the compiler is told in the result)
            missing[COMPILED] = first_line(error)
    try:
        heat(ONNX, onnx_writers(model, state, first))
    except ImportError as error:
        missing[ONNX] = f"{error.name} is not there: {INSTALL}"
    return writers, extra, missing


def _agree(model: LanguageModel, writers: dict[str, Writer]) -> None:
    """Raise where a peer writes another text than we: then their times cannot be compared."""
    text = model.sample("", CHECKED, temperature=0)
    for name, writer in writers.items():
        theirs = model.tokenizer.to_bytes(int(tokens[0]) for tokens in writer.write(CHECKED, greedy)).decode()
        if theirs != text:
            raise UnrolledError(f"{name} writes {theirs!r} where our model of the same weights writes {text!r}")
