"""`unrolled evaluate`: the command and its tables. No torch is imported before it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.cells import cell_len

from unrolled.app.given import BadFiles, say, searched
from unrolled.app.output import DeviceFlag, JsonFlag, ModelArgument, print_json, say_what_takes_long
from unrolled.app.page import left
from unrolled.errors import InputError
from unrolled.tasks.options import SearchOptions


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the data are read; nothing of it comes from the training, but columns that it named.

    Attributes
    ----------
    encoding
        Of the texts or the table, such as latin-1. Default: utf-8.
    bad_files
        What a file means that is missing, damaged or empty: stop, or skip (it is left out and named). Default: stop.
    text_column
        Of a text classifier's table: column of the text, its name or its number from 1. Default: the training's, where
        the table has it, else by the usual names.
    label_column
        Column of the label, in the same way.
    source_column
        Of a translator's table: column of the sources, in the same way.
    target_column
        Column of the targets, in the same way.
    """

    encoding: str | None = None
    bad_files: BadFiles | None = None
    text_column: str | None = None
    label_column: str | None = None
    source_column: str | None = None
    target_column: str | None = None

    def for_model(self, loaded: Any, model: Path) -> dict[str, Any]:
        """The keywords of the model's `evaluate`. Raises `InputError` at one that means nothing to it."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        for name in given:
            if name not in loaded.reading:
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag} means nothing to {model}, a model for {loaded.task}: leave it out")
        return given


def evaluate(
    model: ModelArgument,
    *data: Path,
    split: str | None = None,
    reading: Reading | None = None,
    search: Annotated[SearchOptions | None, Parameter(name="*")] = None,
    device: DeviceFlag = None,
    json: JsonFlag = False,
) -> int:
    """Measure a model on data.

    Parameters
    ----------
    data
        Text files or folders; for a classifier labelled texts, for a translator sources and targets, as a training
        takes them.
    split
        train or val: the part that the training used so, divided again as it did; test where the data say so. Default:
        all.
    """
    from unrolled.tasks.fitting import pick_device
    from unrolled.tasks.models import load

    say_what_takes_long()
    loaded = load(model, pick_device(device))
    how = {**(reading or Reading()).for_model(loaded, model), **searched(search, loaded, model)}
    metrics = loaded.evaluate(*data, split=split, **how)
    say(metrics["notes"])
    if json:
        print_json({"model": str(model), "data": [str(d) for d in data], "split": split, **metrics})
    else:
        print("\n".join(_measured(metrics)))
    return 0


def _measured(metrics: dict[str, Any]) -> list[str]:
    """Figures, then what is known of each class and who is taken for whom."""
    lines = [f"{name:20} {value:.4f}" for name, value in metrics.items() if isinstance(value, float)]
    lines += [f"{name:20} {value}" for name, value in metrics.items() if isinstance(value, str | int)]
    if "report" in metrics:
        lines += _classes(metrics["report"], metrics["confusion"])
    return lines


SHOWN = 40
"""Classes up to which a page shows who is taken for whom."""


def _classes(report: Sequence[dict[str, Any]], confusion: Sequence[Sequence[int]] | None) -> list[str]:
    """Two tables, with the names of the classes as they are; one where there are too many classes for the other."""
    names = [" ".join(row["label"].split()) for row in report]
    width = max(8, *map(cell_len, names))
    widths = [max(10, cell_len(name) + 2) for name in names]
    each = [
        "",
        f"{'class':{width}}  precision  recall      f1   count",
        *(
            f"{left(name, width)}  {r['precision']:9.4f}  {r['recall']:6.4f}  {r['f1']:6.4f}  {r['count']:6,}"
            for name, r in zip(names, report, strict=True)
        ),
    ]
    if confusion is None:  # the notes say so
        return each
    if len(names) > SHOWN:
        return [*each, "", f"who is taken for whom, of {len(names):,} classes, is too wide for a page: see --json"]
    return [
        *each,
        "",
        "confusion (rows: the truth, columns: predicted)",
        " " * width + "".join(" " * (w - cell_len(name)) + name for name, w in zip(names, widths, strict=True)),
        *(
            left(name, width) + "".join(f"{count:{w},}" for count, w in zip(counts, widths, strict=True))
            for name, counts in zip(names, confusion, strict=True)
        ),
    ]
