"""Sampling: from scores to the next token, the same on every path for the same seed.

The scores of a token become probabilities in float64, filters act in order temperature, top-k, top-p, min-p, and one
uniform number in [0, 1) from one seeded generator picks a token by the inverse of the cumulated distribution.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unrolled.cells import State
from unrolled.errors import InputError


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


def probabilities(scores: Tensor, how: Sampling) -> Tensor:
    """scores (..., V) to filtered probabilities (..., V), float64, each row summing to 1."""
    scores = scores.double()
    if how.temperature == 0:
        return torch.nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).double()
    scores = scores - scores.amax(-1, keepdim=True)  # so that no temperature, however small, divides into infinity
    p = torch.softmax(scores / how.temperature, -1)
    if how.top_k and how.top_k < p.shape[-1]:
        # sorted stably, so that of equal scores the lower token number is kept
        order = p.argsort(dim=-1, descending=True, stable=True)
        p = p.scatter(-1, order[..., how.top_k :], 0.0)
    if how.top_p < 1:
        ranked, order = p.sort(dim=-1, descending=True, stable=True)
        ranked = ranked / ranked.sum(-1, keepdim=True)
        outside = ranked.cumsum(-1) - ranked >= how.top_p  # what lies before a token reaches p already
        p = p.masked_fill(outside.gather(-1, order.argsort(-1)), 0.0)
    if how.min_p:
        p = p.masked_fill(p < how.min_p * p.amax(-1, keepdim=True), 0.0)
    return p / p.sum(-1, keepdim=True)


def draw(p: Tensor, u: Tensor) -> Tensor:
    """The tokens (B,) at which the cumulated p (B, V) first exceeds u (B,) in [0, 1); float64."""
    cumulated = p.cumsum(-1)
    return torch.searchsorted(cumulated, u[..., None] * cumulated[..., -1:], right=True).squeeze(-1)


def generate(
    step: Callable[[Tensor, State], tuple[Tensor, State]],
    scores: Tensor,
    state: State,
    how: Sampling,
    seeds: list[int],
) -> Iterator[list[int]]:
    """Tokens without end, B at a time, a list an item.

    step: tokens (B,) and state to scores (B, V) and state; scores: (B, V) of the first token. Row b draws from its own
    generator, seeded with seeds[b], so a row is the same alone and among others.
    """
    generators = [np.random.Generator(np.random.PCG64(seed)) for seed in seeds]
    while True:
        u = torch.tensor([g.random() for g in generators], dtype=torch.float64)
        tokens = draw(probabilities(scores.cpu(), how), u)
        yield tokens.tolist()
        scores, state = step(tokens.to(scores.device), state)


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
