"""Flags and words that several commands share. No torch here."""

import json
import math
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

JsonFlag = Annotated[bool, Parameter(help="Print one JSON object on standard output.")]
DeviceFlag = Annotated[str | None, Parameter(help="cpu, cuda, … Default: cuda where there is one.")]
ModelArgument = Annotated[Path, Parameter(help="A model file or a run folder.")]


def print_json(values: dict[str, Any]) -> None:
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    print(json.dumps(clean, ensure_ascii=False))


def say_what_takes_long() -> None:
    """Compiling the kernels, at first use, is announced on standard error."""
    from unrolled.engines.native import build

    build.building_note = lambda note: print(note, file=sys.stderr, flush=True)
