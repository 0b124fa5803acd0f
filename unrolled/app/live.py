"""The live display of a training on a terminal: loss curve, speed, gradient norm, time left, what the model writes."""

import math
import time
from collections.abc import Callable
from typing import Any, TextIO

from rich import live
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from unrolled.app.braille import curve
from unrolled.app.progress import Lines, visible
from unrolled.training.observer import Progress

LEAST_COLUMNS, LEAST_ROWS = 76, 20
WIDE = 116
"""From so many columns on, curve and sample stand side by side."""
REFRESH_SECONDS = 0.25
AXIS = 6
"""Columns for the numbers beside the curve."""
SAMPLE = 400
"""Characters of a sample, of which as many are shown as there is room for."""


class Live(Lines):
    """The display while a training runs; what is said beside it stays above it."""

    def __init__(
        self, stream: TextIO, stop: Callable[[int], bool], prompt: str | None = None, brief: bool = False
    ) -> None:
        super().__init__(stream, stop, prompt, brief)
        self.console = Console(file=stream, highlight=False)
        self.metrics: dict[str, float] = {}
        self.sample: tuple[int, str] | None = None
        """After how many updates, and the text."""
        self._refreshed = -math.inf
        self._live = live.Live(console=self.console, auto_refresh=False, transient=brief, vertical_overflow="crop")

    def __enter__(self) -> "Live":
        self._live.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.now is not None:
            self._refresh()
        self._live.stop()

    # --- what the training says ------------------------------------------------------------------------------------

    def say(self, line: dict[str, Any]) -> None:
        if "note" in line and not self.brief:
            self.console.print(Text(str(line["note"]), style="dim"))
        if not {"note", "train_loss"} & line.keys():  # so it is a validation
            self.metrics = {
                k: v for k, v in line.items() if k not in ("step", "seconds", "best_step", "generated_examples")
            }

    def progress(self, now: Progress) -> None:
        super().progress(now)
        if time.monotonic() - self._refreshed >= REFRESH_SECONDS:
            self._refresh()

    def watch(self, model: Any) -> None:
        if not hasattr(model, "sample"):  # it labels or translates, and writes nothing by itself
            return
        step = self.now.step if self.now else 0
        self.sample = step, visible(model.sample(self.prompt or "", length=SAMPLE, temperature=0.7, seed=1))

    # --- how it looks ----------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        self._live.update(self.picture(*self.console.size), refresh=True)
        self._refreshed = time.monotonic()

    def picture(self, columns: int, rows: int) -> RenderableType:
        """Everything, at most rows - 1 lines."""
        assert self.now is not None
        head = [self._bar(self.now, columns), self._figures(self.now)]
        room = rows - 1 - 5  # the bar, two lines of figures, an empty line around the rest
        if columns < WIDE:
            chart = max(5, room // 2)
            return Group(*head, Text(), *self._chart(columns, chart), Text(), *self._written(columns, room - chart - 2))
        height = min(room, 24)
        sides = Table.grid(padding=(0, 2))
        left = columns // 2
        sides.add_row(Group(*self._chart(left, height)), Group(*self._written(columns - left - 4, height + 1)))
        return Group(*head, Text(), sides)

    def _bar(self, now: Progress, columns: int) -> RenderableType:
        left = f" · {_duration(now.left)} left" if math.isfinite(now.left) and now.left >= 0.5 else ""
        grid = Table.grid(padding=(0, 1))
        words = Text.assemble((f"{now.fraction:4.0%}", "bold"), f"  {_duration(now.elapsed)}{left} · step {now.step:,}")
        grid.add_row(
            ProgressBar(
                1.0,
                now.fraction,
                width=max(10, columns - 50),
                style="dim",
                complete_style="green",
                finished_style="green",
            ),
            words,
        )
        return grid

    def _figures(self, now: Progress) -> RenderableType:
        first = Text.assemble(
            ("loss ", "dim"), (f"{self.curve.last:.3f}", "bold blue"), (f" nats a {_singular(now.unit)}", "dim"),
            ("   validation ", "dim"), *self._validated(),
        )  # fmt: skip
        second = Text.assemble(
            (f"{now.tokens_per_second:,.0f}", "bold"), (f" {now.unit}/s", "dim"),
            ("   gradient norm ", "dim"), (f"{now.gradient_norm:.2f}", "bold"),
            ("   learning rate ", "dim"), (f"{now.learning_rate:.1e}", "bold"),
        )  # fmt: skip
        return Group(first, second)

    def _validated(self) -> list[tuple[str, str]]:
        """The task's own metrics, or a language model's loss in nats and bits."""
        known, strong = self.metrics, "bold magenta"
        if not known:
            return [("…", strong)]
        if "bits_per_character" in known:
            nats, bits = (f"{known[name]:.3f}" for name in ("val_loss", "bits_per_character"))
            return [(nats, strong), (" = ", "dim"), (bits, strong), (" bits a character", "dim")]
        shown = [(name, value) for name, value in known.items() if name != "val_loss"]
        return [part for name, value in shown for part in ((f"{name} ", "dim"), (f"{value:.3g}  ", strong))]

    def _chart(self, columns: int, height: int) -> list[Text]:
        """The loss of the training as a line, that of the validations as points."""
        width = columns - AXIS - 3
        values = self.curve.columns(2 * width)
        seen = [v for v in values if v is not None] + [loss for _, _, loss in self.curve.validation]
        low, high = min(seen), max(seen)
        points = {}
        for fraction, _, loss in self.curve.validation:
            share = (high - loss) / (high - low) if high > low else 0.5
            points[round(share * (height - 1)), min(width - 1, int(fraction * width))] = True
        lines = []
        for row, dots in enumerate(curve(values, height, low, high)):
            labelled = row % max(1, (height - 1) // 3) == 0 or row == height - 1
            value = high - (high - low) * row / max(1, height - 1)
            line = Text(f"{value:{AXIS}.2f} ┤" if labelled else " " * AXIS + " │", style="dim")
            for column, dot in enumerate(dots):
                mark = (row, column) in points
                line.append("●" if mark else dot, style="not dim magenta" if mark else "not dim blue")
            lines.append(line)
        lines.append(Text(" " * AXIS + " └" + "─" * width, style="dim"))
        return lines

    def _written(self, columns: int, height: int) -> list[Text]:
        if self.sample is None or height < 2:
            return []
        step, written = self.sample
        updates = "1 update" if step == 1 else f"{step:,} updates"
        title = f"after {updates} it writes:" if step else "before the first update it writes:"
        lines: list[Text] = []
        for line in written.split("\n"):
            lines += Text(line).wrap(self.console, columns - 2, tab_size=4) if line else [Text()]
        return [Text(title, style="dim"), *(Text.assemble(("│ ", "green"), line) for line in lines[: height - 1])]


def _duration(seconds: float) -> str:
    """
    >>> _duration(59.6), _duration(61), _duration(7300)
    ('60 s', '1 min 01 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole <= 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _singular(unit: str) -> str:
    return unit.removesuffix("s")
