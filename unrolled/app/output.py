"""Flags and words that several commands share. No torch here."""

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

from cyclopts import Parameter

JsonFlag = Annotated[bool, Parameter(help="Print one JSON object on standard output.")]
DeviceFlag = Annotated[str | None, Parameter(help="cpu, cuda, … Default: cuda where there is one.")]
ModelArgument = Annotated[Path, Parameter(help="A model file or a run folder.")]

T = TypeVar("T")
BAR_SECONDS, LINE_SECONDS = 0.25, 10.0
"""Between two states of a bar, and between two lines."""


def print_json(values: dict[str, Any]) -> None:
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    print(json.dumps(clean, ensure_ascii=False))


def say_what_takes_long() -> None:
    """Compiling the kernels, at first use, is announced on standard error; so is what is computed of many files."""
    from unrolled.data import frame_cache
    from unrolled.engines.native import build

    frame_cache.watcher = FilesRead(sys.stderr)

    build.building_note = lambda note: print(note, file=sys.stderr, flush=True)


class FilesRead:
    """How many files have been decoded or given to a network: a bar on a terminal, else a line now and then.

    Told done and total, which are equal at the end, also where an error makes the end come early.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.begun, self.first, self.said, self.drawn = stream, 0.0, -1, 0.0, False

    def __call__(self, done: int, total: int) -> None:
        now, bar = time.monotonic(), self.stream.isatty()
        if self.first < 0:  # what the cache has is there at once
            self.begun = self.said = now
            self.first = done
        if done == total:
            if self.drawn:
                print("\r" + " " * 70 + "\r", end="", file=self.stream, flush=True)
            self.first, self.drawn = -1, False
        elif done > self.first and now - self.said >= (BAR_SECONDS if bar else LINE_SECONDS):
            self.said, self.drawn = now, bar
            left = (now - self.begun) * (total - done) / (done - self.first)
            text = f"read {done:,} of {total:,} files, {left:.0f} s left"
            shown = f"{'━' * (24 * done // total):╌<24} {text}" if bar else text
            print(f"\r{shown:<69}" if bar else text, end="" if bar else "\n", file=self.stream, flush=True)


def told(groups: Iterable[Sequence[T]], inputs: Sequence[str], json: bool) -> Iterator[Sequence[T]]:
    """Groups of files that are read one after the other, with progress on standard error. inputs: as they were given.
    Nothing is said where standard input names the files, nor where answers that appear on the terminal tell enough."""
    if "-" in (inputs or ("-",)) or (sys.stdout.isatty() and not json):
        yield from groups
        return
    listed, progress, done = list(groups), FilesRead(sys.stderr), 0
    total = sum(map(len, listed))
    progress(0, total)
    try:
        for group in listed:
            yield group
            done += len(group)
            progress(done, total)
    finally:
        if done < total:
            progress(done, done)
