"""`unrolled explain memory`: the command and its tables. No torch is imported before it runs."""

import json as json_
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unrolled.errors import InputError, UnrolledError

if TYPE_CHECKING:
    from rich.table import Table

NAMES = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM"}
MIB = 2**20
FEW = 100
"""Updates below which a training has hardly begun."""


def memory(
    *files: Path,
    seconds: float = 20.0,
    out: Path = Path("runs/memory"),
    overwrite: bool = False,
    seed: int = 0,
    json: Annotated[bool, Parameter(help="Print one JSON object on standard output, instead of tables.")] = False,
) -> int:
    """How far back a network remembers, and what any length and more layers cost: measured on models trained for it.

    Parameters
    ----------
    files
        Text files or folders. Default: the Python source that this Python brings along.
    seconds
        Training time of each of the seven models.
    out
        Folder for memory.png and memory.json.
    overwrite
        Replace those of an earlier measurement.
    seed
        Seed of the initial weights.
    """
    from unrolled.app.signals import Signals

    _check(out, overwrite, files)
    with Signals() as signals:
        try:
            found = _measure(files, seconds, seed, out)
        except KeyboardInterrupt:  # there is nothing to keep, so the first signal ends it at once
            _say("interrupted: nothing was written")
            return signals.exit_code or 130
    if json:
        print(json_.dumps(found, ensure_ascii=False))
    else:
        show(found)
        print(f"{out / 'memory.png'}\n{out / 'memory.json'}")
    return 0


def _check(out: Path, overwrite: bool, reads: tuple[Path, ...]) -> None:
    """Before anything is trained, so that nothing is trained in vain."""
    from unrolled.training.files import check_apart

    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is not a folder: choose another --out")
    if (out / "memory.json").exists() and not overwrite:
        raise InputError(f"{out} holds a measurement already: choose another --out, or add --overwrite to replace it")
    for name in ("memory.png", "memory.json"):
        check_apart(out / name, reads)


def _measure(files: tuple[Path, ...], seconds: float, seed: int, out: Path) -> dict[str, Any]:
    from unrolled.app.demo import library_source
    from unrolled.engines.native import build
    from unrolled.inspection import memory_picture, pictures
    from unrolled.inspection.memory import Settings, measure_memory
    from unrolled.training.files import write

    build.building_note = _say
    found = measure_memory(files or library_source(), Settings(seconds=seconds, seed=seed), _say)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnrolledError(f"cannot create the folder {out}: {error.strerror}; choose another --out") from error
    pictures.save(memory_picture.draw(found), out / "memory.png")
    write(out / "memory.json", (json_.dumps(found, ensure_ascii=False, indent=1) + "\n").encode())
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- what is printed -------------------------------------------------------------------------------------------------


def show(found: dict[str, Any]) -> None:
    """The tables, each with what it means."""
    from rich.console import Console

    console = Console(highlight=False)
    for title, table, meaning in (_reach(found), _long_run(found), _depth(found)):
        console.print(title, style="bold", markup=False)
        console.print(table)
        console.print(meaning + "\n", markup=False)


def _table(first: str, *columns: str) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _reach(found: dict[str, Any]) -> tuple[str, "Table", str]:
    settings, lags = found["settings"], found["settings"]["lags"]
    table = _table("", "to 1/10", "1/100", "1/1000", "untrained: 1/1000", "bits a character")
    for cell, name in NAMES.items():
        each = found["gradients"][cell]
        for node, line in each["trained"].items():
            fallen = [_steps(k, lags) for k in line["reach"].values()]
            before = _steps(each["untrained"][node]["reach"]["0.001"], lags)
            bits = f"{found['models'][cell]['bits_per_character']:.3f}" if node == "h" else ""
            table.add_row(f"{name} {node}", *fallen, before, bits)
    meaning = (
        f"The gradient of one character's loss by the states h and c up to {lags} characters before it, against its "
        f"size one character back; median of {found['gradients']['windows']} stretches of validation text. What lies "
        f"further back hardly moves the weights. All have {settings['hidden']} units. An LSTM's c is the gradient "
        "highway: its direct path multiplies by the forget gate alone."
    )
    return "How far back gradients reach: characters until the gradient has fallen", table, meaning


def _steps(k: int | None, lags: int) -> str:
    return f"> {lags}" if k is None else str(k)


def _long_run(found: dict[str, Any]) -> tuple[str, "Table", str]:
    run, model = found["long_run"], found["models"]["lstm"]
    table = _table("timesteps", "read: MiB", "µs", "write: MiB", "µs", "full BPTT: MiB", "µs")
    rows: dict[int, list[str]] = {}
    for number, name in enumerate(("read", "write", "backpropagate")):
        for row in run[name]:
            cells = rows.setdefault(row["steps"], [""] * 6)
            cells[2 * number] = "–" if row["bytes"] is None else f"{max(0, row['bytes']) / MIB:.1f}"
            cells[2 * number + 1] = f"{1e6 * row['seconds_per_step']:.0f}"
    for steps, cells in rows.items():
        table.add_row(f"{steps:,}", *cells)
    in_turn, at_once = (1e6 * run["wait"][f"seconds_per_step_{name}"] for name in ("in_turn", "at_once"))
    note = f" Memory is not measured: {run['memory_not_measured']}." if run["memory_not_measured"] else ""
    meaning = (
        "Reading and writing carry a state of fixed size, however long the text; gradients through all timesteps "
        f"need memory for each, which is why training cuts texts into chunks (here of {model['bptt']}).{note} And "
        f"every timestep waits for the one before it: {run['wait']['steps']:,} of the layer in turn take "
        f"{in_turn:.1f} µs each, the same arithmetic at once {at_once:.1f} µs."
    )
    return f"Any length: growth of memory, and time a timestep (LSTM 1 × {model['hidden']}, one text)", table, meaning


def _depth(found: dict[str, Any]) -> tuple[str, "Table", str]:
    seconds, steps = found["settings"]["seconds"], found["settings"]["steps"]
    table = _table("layers", "units", "parameters", "updates", "bits a character", "against 1 layer")
    shallow = found["depth"]["same_width"][0]
    rows = [shallow, *found["depth"]["same_width"][1:], *found["depth"]["same_parameters"][1:]]
    for row in rows:
        more = row["bits_per_character"] - shallow["bits_per_character"]
        table.add_row(
            *(str(row["layers"]), str(row["hidden"]), f"{row['parameters']:,}", f"{row['steps']:,}"),
            f"{row['bits_per_character']:.3f}",
            "" if row is shallow else f"{more:+.3f}",
        )
    best = min(rows, key=lambda row: row["bits_per_character"])
    meaning = (
        "One layer, then more of the same width, then more with as many parameters: best (fewest bits) is "
        f"{best['layers']} × {best['hidden']}. One training each, so small differences are chance: try another --seed."
    )
    fewest = min(row["steps"] for row in rows)
    if fewest < FEW:
        meaning += (
            f" The least trained one made {fewest} updates, so all this tells of beginnings: give more --seconds."
        )
    return f"Depth: LSTMs after {f'{steps} updates' if steps else f'{seconds:g} s'} of training each", table, meaning
