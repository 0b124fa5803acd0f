"""`unrolled predict`: the command. No torch is imported before it runs."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TextIO

from cyclopts import Parameter

from unrolled.app.output import DeviceFlag, JsonFlag, ModelArgument, print_json, say_what_takes_long
from unrolled.errors import InputError


def predict(
    model: ModelArgument,
    *inputs: str,
    encoding: Annotated[str, Parameter(help="Of files and of standard input.")] = "utf-8",
    device: DeviceFlag = None,
    json: JsonFlag = False,
) -> int:
    """Label texts: one line a text, with the label, its probability and the text.

    Parameters
    ----------
    inputs
        Texts, or files of which each line is a text; - or nothing reads standard input, and answers line by line.
    """
    from unrolled.tasks.fitting import pick_device
    from unrolled.tasks.models import load

    say_what_takes_long()
    loaded = load(model, pick_device(device), task="classify-text")
    rows: list[dict[str, Any]] = []
    for texts in _texts(inputs, encoding):
        for text, found in zip(texts, loaded.predict(texts), strict=True):
            if json:
                rows.append({"text": text, **found._asdict()})
            else:
                print(f"{found.label}\t{found.probability:.4f}\t{text}", flush=True)
    if json:
        print_json({"model": str(model), "predictions": rows})
    return 0


def _texts(inputs: tuple[str, ...], encoding: str) -> Iterator[list[str]]:
    """In groups: a file's lines together, those of standard input each as it comes."""
    for given in inputs or ("-",):
        if given == "-":
            yield from ([line] for line in _lines(_standard_input(encoding), "standard input"))
        elif _is_file(given):
            with open(given, encoding=encoding, newline="\n") as file:
                yield list(_lines(file, given))
        else:
            yield [given]


def _is_file(given: str) -> bool:
    if not given.strip():  # Path("") is the current folder
        return False
    try:
        path = Path(given)
        if path.is_dir():
            raise InputError(f"{given} is a folder: name a file, a line of which is a text")
        return path.is_file()
    except OSError:  # a text that is too long to be a name
        return False


def _standard_input(encoding: str) -> TextIO:
    sys.stdin.reconfigure(encoding=encoding)  # type: ignore[union-attr]
    return sys.stdin


def _lines(stream: TextIO, name: str) -> Iterator[str]:
    read = 0
    try:
        for line in stream:
            read += 1
            yield line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is not {error.encoding} somewhere after line {read:,}: name its --encoding, such as latin-1"
        ) from None
    except LookupError:
        raise InputError(f"{name}: there is no such encoding: name one such as utf-8 or latin-1") from None
