"""A training's reports as plain lines of text."""

import sys
from typing import Any, TextIO

from unrolled.training.observer import Observer


class PlainLines(Observer):
    """One line for each report, on a stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def report(self, line: dict[str, Any]) -> None:
        print(text(line), file=self.stream, flush=True)


def observer(progress: bool | None) -> Observer:
    """Who is told of a training in a Python process: lines on standard error if `progress`, and with None where that
    is a terminal."""
    shown = progress if progress is not None else sys.stderr is not None and sys.stderr.isatty()
    return PlainLines(sys.stderr) if shown else Observer()


def text(line: dict[str, Any]) -> str:
    """One report as a line.

    >>> text({"step": 1200, "seconds": 30.5, "val_loss": 1.7, "bits_per_character": 2.4526})
    'step  1,200    30.5 s  val_loss 1.7000  bits_per_character 2.4526'
    """
    if "note" in line:
        return str(line["note"])
    parts = [f"step {line['step']:>6,}  {line['seconds']:>6.1f} s"]
    if "train_loss" in line:
        parts.append(f"train {line['train_loss']:.4f}")
        parts.append(f"gradient {line['gradient_norm']:.2f}")
        parts.append(f"lr {line['learning_rate']:.1e}")
        parts.append(f"{line['tokens_per_second']:,.0f} tokens/s")
    parts += [
        f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in line.items()
        if name not in ("step", "seconds", "train_loss", "gradient_norm", "learning_rate", "tokens_per_second")
    ]
    return "  ".join(parts)
