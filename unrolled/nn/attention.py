"""Attention: for each decoder state a weighted mean of the encoder's states, by how well each fits.

T: queries (decoder timesteps, or hypotheses of a beam), S: source timesteps, B: rows, D and K: features of a query and
of a key. All T queries are answered at once. What depends on the source alone is computed once, by `project`.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unrolled.engines.engine import alive
from unrolled.errors import InputError

CHUNK = 1 << 23
"""Numbers of T x S x B x A that additive attention has in memory at once: 32 MiB in float32."""


def masked_softmax(scores: Tensor, lengths: Tensor | None) -> Tensor:
    """scores (..., B, S) to weights that sum to 1 over the first lengths[b] places; all zero where that is none."""
    real = alive(lengths, scores.shape[-1], scores)
    if real is None:
        return scores.softmax(-1)
    real = real[..., 0].t()
    # not -inf: the softmax of a row of those is NaN, and so is its gradient
    return scores.masked_fill(~real, torch.finfo(scores.dtype).min).softmax(-1) * real


class Attention(nn.Module, ABC):
    """What every kind of attention has in common: the weighted mean. Subclasses say what the scores are."""

    @abstractmethod
    def project(self, keys: Tensor) -> Tensor:
        """keys (S, B, K) to what queries are compared with (S, B, A)."""

    @abstractmethod
    def scores(self, queries: Tensor, projected: Tensor) -> Tensor:
        """queries (T, B, D) and projected keys (S, B, A) to scores (T, B, S)."""

    def forward(
        self, queries: Tensor, keys: Tensor, lengths: Tensor | None = None, projected: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """queries (T, B, D), keys (S, B, K), lengths (B,) to contexts (T, B, K) and weights (T, B, S).

        projected: `project(keys)`, where it is known already. A source of length 0 gives a context of zeros.
        """
        projected = self.project(keys) if projected is None else projected
        weights = masked_softmax(self.scores(queries, projected), lengths)
        return torch.bmm(weights.transpose(0, 1), keys.transpose(0, 1)).transpose(0, 1), weights


class DotAttention(Attention):
    """score = q . (W k): "general" of Luong, Pham & Manning 2015 (arXiv:1508.04025, eq. 8), not scaled.

    Costs T S B D multiplications, two batched products in all.
    """

    def __init__(self, queries: int, keys: int) -> None:
        super().__init__()
        self.weight = nn.Linear(keys, queries, bias=False)

    def project(self, keys: Tensor) -> Tensor:
        return self.weight(keys)

    def scores(self, queries: Tensor, projected: Tensor) -> Tensor:
        return torch.bmm(queries.transpose(0, 1), projected.permute(1, 2, 0)).transpose(0, 1)


class AdditiveAttention(Attention):
    """score = v . tanh(W q + U k + b): Bahdanau, Cho & Bengio 2014 (arXiv:1409.0473), with `size` A hidden units.

    Costs a tanh for each of T S B A numbers, so it is the slower kind by far, and A is small. Beyond `CHUNK` numbers
    the queries go chunk by chunk, and the backward computes each chunk again instead of keeping it.
    """

    def __init__(self, queries: int, keys: int, size: int = 128) -> None:
        super().__init__()
        self.query = nn.Linear(queries, size, bias=False)
        self.key = nn.Linear(keys, size)
        self.score = nn.Linear(size, 1, bias=False)

    def project(self, keys: Tensor) -> Tensor:
        return self.key(keys)

    def scores(self, queries: Tensor, projected: Tensor) -> Tensor:
        asked = self.query(queries)
        if len(asked) * projected.numel() <= CHUNK:
            return self._score(asked, projected)
        chunks = asked.split(max(1, CHUNK // projected.numel()))
        return torch.cat(
            [checkpoint(self._score, c, projected, use_reentrant=False, preserve_rng_state=False) for c in chunks]
        )

    def _score(self, asked: Tensor, projected: Tensor) -> Tensor:
        """(T, B, A), (S, B, A) to (T, B, S)."""
        hidden = torch.tanh(asked.unsqueeze(2) + projected.transpose(0, 1))
        return F.linear(hidden, self.score.weight).squeeze(-1)


ATTENTIONS: dict[str, type[DotAttention] | type[AdditiveAttention]] = {
    "dot": DotAttention,
    "additive": AdditiveAttention,
}


def attention(kind: str, queries: int, keys: int) -> Attention | None:
    """The attention of this kind between queries and keys of so many features; None for "none"."""
    if kind == "none":
        return None
    if kind not in ATTENTIONS:
        raise InputError(f"attention is {kind!r}: choose one of none, {', '.join(ATTENTIONS)}")
    return ATTENTIONS[kind](queries, keys)
