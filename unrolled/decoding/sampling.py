"""Sampling: from scores to the next token, the same on every path for the same seed.

The scores of a token become probabilities in float64, filters act in order temperature, top-k, top-p, min-p, and one
uniform number in [0, 1) from one seeded generator picks a token by the inverse of the cumulated distribution.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unrolled.errors import InputError, NonFiniteError

FIRST_BLOCK = 8
"""Tokens of the first block, which come at once."""
GROWTH = 4
"""How many times as long as the last a block may be."""
BLOCK_SECONDS = 0.03


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. Each filter is off at its default.

    temperature: scores are divided by it; 0 takes the likeliest token. top_k: only the k likeliest (Fan et al. 2018,
    arXiv:1805.04833). top_p: only the likeliest that together reach p, the "nucleus" (Holtzman et al. 2019,
    arXiv:1904.09751). min_p: only those at least min_p times as likely as the likeliest (Nguyen et al. 2024,
    arXiv:2407.01082).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"--temperature is {self.temperature}: it must be at least 0 and finite")
        if self.top_k < 0:
            raise InputError(f"--top-k is {self.top_k}: it must be at least 0 (0 keeps all)")
        if not 0 < self.top_p <= 1:
            raise InputError(f"--top-p is {self.top_p}: it must be above 0 and at most 1 (1 keeps all)")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"--min-p is {self.min_p}: it must be from 0 (keeps all) to 1")


def finite(scores: np.ndarray) -> bool:
    """Whether tokens can be drawn from scores (..., V): none is NaN, and the highest of each row is finite."""
    return bool(np.isfinite(scores.max(-1)).all())  # a maximum is NaN where a number is


def probabilities(scores: np.ndarray, how: Sampling) -> np.ndarray:
    """scores (..., V) to filtered probabilities (..., V), float64, each row summing to 1."""
    if how.temperature == 0:
        certain = np.zeros_like(scores, dtype=np.float64)
        np.put_along_axis(certain, scores.argmax(-1, keepdims=True), 1.0, -1)
        return certain
    scores = scores.astype(np.float64)
    scores -= scores.max(-1, keepdims=True)  # so that no temperature, however small, divides into infinity
    with np.errstate(over="ignore", under="ignore"):
        p = np.exp(scores / how.temperature)
    p /= p.sum(-1, keepdims=True)
    if how.top_k and how.top_k < p.shape[-1]:
        # sorted stably, so that of equal scores the lower token number is kept
        order = np.argsort(-p, axis=-1, kind="stable")
        np.put_along_axis(p, order[..., how.top_k :], 0.0, -1)
    if how.top_p < 1:
        order = np.argsort(-p, axis=-1, kind="stable")
        ranked = np.take_along_axis(p, order, -1)
        ranked /= ranked.sum(-1, keepdims=True)
        ranked[ranked.cumsum(-1) - ranked >= how.top_p] = 0.0  # what lies before a token reaches p already
        np.put_along_axis(p, order, ranked, -1)
    if how.min_p:
        p[p < how.min_p * p.max(-1, keepdims=True)] = 0.0
    return p / p.sum(-1, keepdims=True)


def draw(p: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The tokens (B,) at which the cumulated p (B, V) first exceeds u (B,) in [0, 1); float64."""
    cumulated = p.cumsum(-1)
    return (cumulated <= u[:, None] * cumulated[:, -1:]).sum(-1)


class Writer(Protocol):
    """A model in the middle of B texts."""

    def write(self, u: np.ndarray, how: Sampling) -> np.ndarray:
        """Tokens (n, B) that go on from the last ones, one for each uniform number u (n, B).

        Fewer where the next scores are no numbers to draw from.
        """
        ...


def generate(writer: Writer, how: Sampling, seeds: Sequence[int], left: Callable[[], int]) -> Iterator[np.ndarray]:
    """Tokens, a block (n, B) an item, until none is left to write.

    left: how many tokens a row are wanted at least, asked before each block. Row b draws from its own generator, seeded
    with seeds[b], so a row is the same alone and among others. Blocks are short, so that the text flows and Ctrl-C is
    answered: a few tokens, then as many as take about `BLOCK_SECONDS`.
    """
    generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
    size = FIRST_BLOCK
    while (wanted := min(size, left())) > 0:
        begun = time.perf_counter()
        tokens = writer.write(np.stack([g.random(wanted) for g in generators], 1), how)
        took = time.perf_counter() - begun
        if len(tokens):
            yield tokens
        if len(tokens) < wanted:
            raise NonFiniteError(
                "the model's scores are not finite numbers, so there is nothing to draw from: its weights are damaged "
                "or its training diverged (train it again, with a lower --lr)"
            )
        size = max(1, int(wanted * min(GROWTH, BLOCK_SECONDS / max(took, 1e-9))))


class StopAt:
    """Cuts a stream of text at a stop string, holding back what may be its beginning.

    >>> s = StopAt("END")
    >>> [s.feed(t) for t in ("a", "bE", "N", "x", "EN", "Dz")], s.stopped
    (['a', 'b', '', 'ENx', '', ''], True)
    """

    def __init__(self, stop: str | None) -> None:
        self.stop, self.stopped, self._held = stop or "", False, ""

    def feed(self, text: str) -> str:
        """What can be shown now."""
        if not self.stop or self.stopped:
            return "" if self.stopped else text
        self._held += text
        at = self._held.find(self.stop)
        if at >= 0:
            self.stopped = True
            return self._held[:at]
        keep = next(
            (n for n in range(min(len(self.stop) - 1, len(self._held)), 0, -1) if self._held.endswith(self.stop[:n])),
            0,
        )
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """What was held back, when the stream has ended without the stop string."""
        shown, self._held = ("" if self.stopped else self._held), ""
        return shown
