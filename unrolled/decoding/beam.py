"""Writing token by token, many sentences and several hypotheses of each at once.

The hypotheses of all sentences are the rows of one batch, those of a sentence side by side. A timestep is one step of
the network, one choice of candidates for each row, and one sort for each sentence. Sentences that are done leave.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from unrolled.cells import State
from unrolled.errors import InputError, UnrolledError
from unrolled.topologies import Memory

NO_END = "the model gives the end token a probability of zero, so no text can end"


class Step(Protocol):
    """A network that writes: see `search.stepper` for those of this library."""

    def __call__(self, tokens: Tensor, state: State, memory: Memory, /) -> tuple[Tensor, State, Tensor | None]:
        """The last tokens (N,) and state (layers, N, H) to scores (N, V), the new state, and attention weights (N, S).

        Rows b * n to b * n + n - 1 are the hypotheses of row b of the memory, N = B * n.
        """
        ...


@dataclass(frozen=True)
class Limits:
    """Where texts begin and end.

    begin: the token before the first, one for all or one a sentence (B,). end: the token that ends a text; None where
    there is none, then every text has max_length tokens. max_length: tokens at most, for all or a sentence (B,); `end`
    is not counted, and after so many it is what follows, whatever its score. min_length: no `end` before so many.
    no_repeat_ngram: no n tokens in a row appear twice in a text (Paulus et al. 2017, arXiv:1705.04304); 0 allows it.
    Where min_length and no_repeat_ngram leave no token at all, they give way for that token.
    """

    begin: int | Tensor
    end: int | None
    max_length: int | Tensor
    min_length: int = 0
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        least = 0 if self.end is not None else 1
        longest = torch.as_tensor(self.max_length)
        if longest.numel() and int(longest.min()) < least:
            raise InputError(f"max_length is {int(longest.min())}: it must be at least {least}")
        if self.min_length < 0 or (isinstance(self.max_length, int) and self.min_length > self.max_length):
            raise InputError(f"min_length is {self.min_length}: it must be from 0 to max_length, {self.max_length}")
        if self.no_repeat_ngram < 0:
            raise InputError(f"no_repeat_ngram is {self.no_repeat_ngram}: it must be at least 0 (0 allows repetition)")

    def constrain(self, scores: Tensor, written: Tensor, full: Tensor) -> Tensor:
        """Scores (N, V) with -inf for the tokens that may not follow the tokens written (N, n).

        full (N,): rows that have as many tokens as they may.
        """
        allowed, n, size = scores, written.shape[1], self.no_repeat_ngram
        if self.end is not None and n < self.min_length:
            allowed = scores.clone()
            allowed[:, self.end] = -torch.inf
        if size and n >= size:
            grams = written.unfold(1, size, 1)
            rows, places = (grams[..., :-1] == written[:, None, n - size + 1 :]).all(-1).nonzero(as_tuple=True)
            banned = torch.full((), -torch.inf, dtype=scores.dtype, device=scores.device)
            allowed = allowed.index_put((rows, grams[rows, places, -1]), banned)
        if allowed is not scores:
            allowed = torch.where(allowed.amax(-1, keepdim=True) == -torch.inf, scores, allowed)
        if self.end is not None and bool(full.any()):
            others = torch.arange(scores.shape[1], device=scores.device) != self.end
            allowed = torch.where(full[:, None], scores, allowed).masked_fill(full[:, None] & others, -torch.inf)
        return allowed


class Hypothesis(NamedTuple):
    """One finished text."""

    tokens: list[int]
    """without begin and end"""
    score: float
    """what hypotheses are ranked by: the log-probability divided by the length penalty"""
    log_probability: float
    """sum of the tokens' and the end's natural logarithms"""
    alignment: Tensor | None
    """attention weights (len(tokens), S), with one row more for the end where there is one"""


Choose = Callable[[Tensor, Tensor, int], Tensor]
"""Allowed scores (N, V), the numbers of their sentences (N,) and that of the timestep to k candidates each (N, k), the
first the best."""


def highest(scores: Tensor, k: int) -> Tensor:
    """The places (N, k) of the k highest of each row, in order; of equal ones the lower comes first.

    `topk` alone promises no order among equal numbers, so rows where that matters are sorted whole.
    """
    k = min(k, scores.shape[1])
    values, places = scores.topk(min(k + 1, scores.shape[1]))
    tied = ((values[:, 1:] == values[:, :-1]) & (values[:, 1:] > -torch.inf)).any(1)
    if bool(tied.any()):
        places[tied] = scores[tied].argsort(dim=-1, descending=True, stable=True)[:, : places.shape[1]]
    return places[:, :k]


class Beams:
    """The hypotheses of all sentences in the middle of their texts.

    A finished hypothesis keeps its place, so a sentence of f finished ones goes on with the best `width` - f, and is
    done when none is left, or none that could still come among its `keep` best.
    """

    def __init__(self, step: Step, start: Memory, limits: Limits, width: int, penalty: float, keep: int) -> None:
        self.step, self.limits, self.width, self.penalty, self.keep = step, limits, width, penalty, keep
        device, self.count = start.start[0].device, start.start[0].shape[1]
        count = self.count
        self.sentences = torch.arange(count, device=device)
        """(B,) which sentences are still here"""
        self.longest = torch.as_tensor(limits.max_length, device=device).expand(count)
        self.places = [None] * count if start.lengths is None else start.lengths.tolist()
        """Of each sentence's values: what lies beyond is padding"""
        self.finished = torch.zeros(count, dtype=torch.long, device=device)
        self.best = torch.full((count, keep), -torch.inf, dtype=torch.float64, device=device)
        """(B, keep) scores of the best finished ones"""
        self.totals = torch.zeros(count, 1, dtype=torch.float64, device=device)
        """(B, w) log-probabilities; -inf: no hypothesis"""
        self.tokens = torch.as_tensor(limits.begin, device=device).expand(count)
        self.written = torch.empty(count, 0, dtype=torch.long, device=device)
        """(B * w, n) tokens"""
        self.path = torch.empty_like(self.written)
        """(B * w, n) the row that each timestep of a hypothesis had in its batch: where its weights are"""
        self.state, self.memory = start.start, start
        self.weights: list[Tensor | None] = []
        self.ended: list[_Ended] = []

    def run(self, choose: Choose) -> list[list[Hypothesis]]:
        """Write until every sentence is done: for each its `keep` best, the best first."""
        while len(self.sentences):
            self._advance(choose)
        return self._results()

    def _advance(self, choose: Choose) -> None:
        """One timestep."""
        scores, self.state, weights = self.step(self.tokens, self.state, self.memory)
        self.weights.append(weights)
        rows, w = self.totals.shape
        n = self.written.shape[1]
        own = torch.arange(rows, device=scores.device).repeat_interleave(w)
        allowed = self.limits.constrain(scores, self.written, (self.longest == n)[own])
        normaliser = scores.logsumexp(1, keepdim=True)
        if not bool(normaliser.isfinite().all()):
            raise UnrolledError(
                "the model's scores are not finite numbers, so no token can be chosen: its weights are damaged or its "
                "training diverged (train it again, with a lower --lr)"
            )
        tokens = choose(allowed, self.sentences[own], n)
        k = tokens.shape[1]
        added = allowed.gather(1, tokens).double() - normaliser.double()
        totals = (self.totals[..., None] + added.view(rows, w, k)).flatten(1)
        totals, order = totals.sort(dim=-1, descending=True, stable=True)  # of equal ones the lower hypothesis first
        totals, order = totals[:, : self.width], order[:, : self.width]
        places = torch.arange(totals.shape[1], device=totals.device) < (self.width - self.finished)[:, None]
        totals = totals.masked_fill(~places, -torch.inf)
        parents = order.div(k, rounding_mode="floor") + w * torch.arange(rows, device=order.device)[:, None]
        tokens = tokens.reshape(rows, w * k).gather(1, order)
        self._go_on(totals, parents, tokens, self._end(totals, parents, tokens))

    def _end(self, totals: Tensor, parents: Tensor, tokens: Tensor) -> Tensor:
        """Put finished hypotheses aside: totals, parent rows and tokens (B, w) to which have ended (B, w)."""
        length = self.written.shape[1] + 1
        here = (self.longest == length)[:, None] if self.limits.end is None else tokens == self.limits.end
        ended = here & (totals > -torch.inf)
        scores = totals / ((5 + length) / 6) ** self.penalty
        self.best = torch.cat([self.best, scores.masked_fill(~ended, -torch.inf)], 1).topk(self.keep).values
        self.finished = self.finished + ended.sum(1)
        if bool(ended.any()):
            rows, parent = ended.nonzero()[:, 0], parents[ended]
            self.ended.append(
                _Ended(
                    self.sentences[rows],
                    scores[ended],
                    totals[ended],
                    torch.cat([self.written[parent], tokens[ended][:, None]], 1),
                    torch.cat([self.path[parent], parent[:, None]], 1),
                )
            )
        return ended

    def _go_on(self, totals: Tensor, parents: Tensor, tokens: Tensor, ended: Tensor) -> None:
        """Keep the sentences that are not done and, of their candidates (B, w), the hypotheses that have not ended."""
        totals = totals.masked_fill(ended, -torch.inf)
        # no hypothesis can end better: log-probabilities only fall, and the penalty divides at most by its last value
        longest = self.longest + (self.limits.end is not None)
        hope = totals.amax(1) / ((5 + longest.double()) / 6) ** self.penalty
        going = (hope > self.best[:, -1]).nonzero()[:, 0]
        if len(going) < len(self.sentences):
            totals, parents, tokens = totals[going], parents[going], tokens[going]
            self.sentences, self.longest = self.sentences[going], self.longest[going]
            self.finished, self.best = self.finished[going], self.best[going]
            self.memory = self.memory.select(going)
        alive = totals > -torch.inf
        order = alive.int().argsort(dim=-1, descending=True, stable=True)
        order = order[:, : int(alive.sum(1).max()) if len(going) else 0]
        rows = parents.gather(1, order).flatten()
        self.totals, self.tokens = totals.gather(1, order), tokens.gather(1, order).flatten()
        self.state = tuple(s.index_select(1, rows) for s in self.state)
        self.written = torch.cat([self.written[rows], self.tokens[:, None]], 1)
        self.path = torch.cat([self.path[rows], rows[:, None]], 1)

    def _results(self) -> list[list[Hypothesis]]:
        found: list[list[Hypothesis]] = [[] for _ in range(self.count)]
        for ended in self.ended:
            alignment = None
            if self.weights[0] is not None:
                steps = [w[rows] for w, rows in zip(self.weights, ended.path.t(), strict=False) if w is not None]
                alignment = torch.stack(steps, 1)
            stop = ended.tokens.shape[1] - (self.limits.end is not None)
            numbers = zip(ended.sentences.tolist(), ended.scores.tolist(), ended.totals.tolist(), strict=True)
            for i, (sentence, score, total) in enumerate(numbers):
                tokens = ended.tokens[i, :stop].tolist()
                looked = None if alignment is None else alignment[i, :, : self.places[sentence]]
                found[sentence].append(Hypothesis(tokens, score, total, looked))
        if not all(found):
            raise UnrolledError(NO_END)
        return [sorted(texts, key=lambda h: -h.score)[: self.keep] for texts in found]


class _Ended(NamedTuple):
    """Hypotheses that ended at the same timestep."""

    sentences: Tensor
    """(m,)"""
    scores: Tensor
    """(m,)"""
    totals: Tensor
    """(m,)"""
    tokens: Tensor
    """(m, n), the end included"""
    path: Tensor
    """(m, n)"""
