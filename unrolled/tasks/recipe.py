"""What a language model is made of where its options leave it open: from time, text and machine.

The rule is that of scaling laws: for a given number of operations the best width grows with their fourth root, so that
parameters and the tokens they are trained on grow together, each with the square root (Hoffmann et al. 2022,
arXiv:2203.15556). Its constants were found on texts other than those whose figures are published; see results/.
"""

import math
import time
from dataclasses import replace
from typing import NamedTuple

import torch

from unrolled.cells import CELLS, Inputs
from unrolled.engines.native import build
from unrolled.nn import Recurrent
from unrolled.tasks.options import LanguageModelOptions
from unrolled.training.schedule import Clock

CHOSEN = ("cell", "hidden", "layers", "batch", "bptt", "dropout")
"""What is chosen where it is left open."""
WIDTH_AT_TERAFLOP = 192
"""Hidden units that make the most of 10^12 operations."""
WIDEST, NARROWEST = 1024, 64
GRU_UNTIL = 3e12
"""Up to so many operations a GRU learns more than an LSTM does."""


class Budget(NamedTuple):
    """What a training can spend."""

    seconds: float
    """Left for training"""
    flops: float
    """A second, forward and backward, measured on this machine"""
    tokens: int
    """Of the training text"""
    vocabulary: int

    @property
    def operations(self) -> float:
        return self.flops * max(self.seconds, 1.0)


def choose(options: LanguageModelOptions, budget: Budget) -> tuple[LanguageModelOptions, str]:
    """The options with cell, width, batch, chunk length and dropout chosen where they are open, and why."""
    total = budget.operations
    cell = options.cell or ("gru" if total < GRU_UNTIL else "lstm")
    layers = options.layers or 1
    hidden = options.hidden or width(total, layers)
    seen = total / operations_per_token(cell, hidden, layers, budget.vocabulary)
    passes = seen / budget.tokens
    chosen = replace(
        options,
        cell=cell,
        hidden=hidden,
        layers=layers,
        batch=options.batch or 32,
        bptt=options.bptt or chunk_length(total),
        dropout=dropout(passes) if options.dropout is None else options.dropout,
    )
    why = (
        f"chosen for {max(0.0, budget.seconds):.0f} s of training at {budget.flops / 1e9:.0f} GFLOP/s on "
        f"{budget.tokens:,} tokens: "
        f"{cell} {layers} × {hidden} (the width grows with the fourth root of the operations), "
        f"batch {chosen.batch}, chunks of {chosen.bptt}, "
        f"dropout {chosen.dropout:g} (about {passes:.1f} passes over the text)"
    )
    return chosen, why


def width(operations: float, layers: int = 1) -> int:
    """Hidden units for so many operations, a multiple of 32.

    >>> [width(n * 1e12) for n in (0.01, 1, 6, 50, 160, 10_000)]
    [64, 192, 288, 512, 672, 1024]
    """
    best = WIDTH_AT_TERAFLOP * (operations / 1e12) ** 0.25 / math.sqrt(2 * layers - 1)
    return min(WIDEST, max(NARROWEST, 32 * round(best / 32)))


def operations_per_token(cell: str, hidden: int, layers: int, vocabulary: int) -> float:
    """Of forward and backward. The first layer's input is a look-up, so it costs its recurrent product alone."""
    return 6 * hidden * (CELLS[cell].gates * hidden * (2 * layers - 1) + vocabulary)


def chunk_length(operations: float) -> int:
    """Timesteps of truncated backpropagation: short while many updates matter most, longer when there is time."""
    return 32 if operations < 3e12 else 64 if operations < 3e13 else 96


def dropout(passes: float) -> float:
    """Before the output: none while the text is new, more the more often it is seen.

    >>> [dropout(n) for n in (0.5, 2, 4, 9, 100)]
    [0.0, 0.0, 0.15, 0.35, 0.5]
    """
    if passes <= 2:
        return 0.0
    return min(0.5, round(0.16 * math.log2(passes / 2) * 20) / 20)


def compile_kernels(device: torch.device, clock: Clock) -> None:
    """The kernels for this machine, where they are not there yet: once per machine, so the clock does not count it."""
    if device.type == "cpu":
        with clock.paused():
            build.unavailable()


def measure_flops(device: torch.device, engine: str) -> float:
    """Operations a second of a layer's forward and backward: what this machine has for training.

    The best of a few tries, since whatever disturbs one only makes it slower.
    """
    steps, rows, hidden, vocabulary = 64, 32, 256, 64
    layer = Recurrent(CELLS["lstm"], hidden, hidden, engine=engine, device=device)
    tokens = torch.zeros(steps, rows, dtype=torch.long, device=device)
    table = torch.zeros(vocabulary, hidden, device=device)

    def once() -> float:
        begun = time.perf_counter()
        layer.unroll(Inputs(tokens, table))[0].sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begun

    once()  # the first is slower
    begun, took = time.perf_counter(), [once()]
    while time.perf_counter() - begun < 0.4 or len(took) < 3:
        took.append(once())
    return steps * rows * 6 * 4 * hidden**2 / min(took)
