"""What a training tells people in plain lines, and who shows it: lines where output is piped, else `live.py`."""

import os
from collections.abc import Callable
from typing import Any, TextIO

from unrolled.inspection.losses import LossCurve
from unrolled.training.lines import text
from unrolled.training.observer import Observer, Progress


class Lines(Observer):
    """One line a report; with a prompt also what the model writes by then; nothing at all if brief."""

    def __init__(
        self, stream: TextIO, stop: Callable[[int], bool], prompt: str | None = None, brief: bool = False
    ) -> None:
        self.stream, self._stop, self.prompt, self.brief = stream, stop, prompt, brief
        self.curve = LossCurve()
        self.now: Progress | None = None
        self.left = False
        """Nobody reads the stream any more."""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: Any) -> None:
        """Nothing was opened."""

    def report(self, line: dict[str, Any]) -> None:
        # where tokens are not characters, the training's loss, which is nats a token, has another scale
        if "val_loss" in line and self.now is not None and self.now.unit == "characters":
            self.curve.validation.append((self.now.fraction, line["seconds"], line["val_loss"]))
        if "best_step" in line and self.now is not None:  # the last line of a training
            self.now = self.now._replace(fraction=1.0, left=0.0, elapsed=line["seconds"])
        self.say(line)

    def say(self, line: dict[str, Any]) -> None:
        """Show a report."""
        if not self.brief:
            self._print(text(line))

    def progress(self, now: Progress) -> None:
        self.now = now
        self.curve.add(now.fraction, now.elapsed, now.loss)

    def watch(self, model: Any) -> None:
        if self.prompt is not None and self.now is not None:
            written = visible(model.sample(self.prompt, length=160, temperature=0.7, seed=1))
            self._print(quoted(written))

    def stop(self, step: int) -> bool:
        return self.left or self._stop(step)

    def _print(self, lines: str) -> None:
        try:
            print(lines, file=self.stream, flush=True)
        except BrokenPipeError:  # the reader has left, as `head` does: the training stops as after Ctrl-C
            self.left = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def display(stream: TextIO, stop: Callable[[int], bool], prompt: str | None = None, brief: bool = False) -> Lines:
    """The live display on a terminal that can show it, else plain lines. brief: it vanishes at the end."""
    if stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb") and _can_write(stream, "⣿│"):
        from unrolled.app.live import LEAST_COLUMNS, LEAST_ROWS, Live

        columns, rows = os.get_terminal_size(stream.fileno())
        if columns >= LEAST_COLUMNS and rows >= LEAST_ROWS:
            return Live(stream, stop, prompt, brief)
    return Lines(stream, stop, prompt, brief)


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding)
    except UnicodeEncodeError:
        return False
    return True


def visible(text: str) -> str:
    """Without characters that a terminal would obey.

    >>> visible("a\\x1b[2Jb\\tc\\r\\nd")
    'a␛[2Jb    c␍\\nd'
    """
    return "".join(
        c if c.isprintable() or c == "\n" else "    " if c == "\t" else chr(0x2400 + ord(c)) if ord(c) < 32 else "·"
        for c in text
    )


def quoted(written: str, columns: int = 80) -> str:
    """What a model wrote, set off from what is said about it.

    >>> print(quoted("def f():\\n    pass", columns=13))
       | def f():
       |     pass
    """
    room = columns - 5
    lines = (line[at : at + room] for line in written.splitlines() for at in range(0, max(1, len(line)), room))
    return "\n".join("   | " + line for line in lines)
