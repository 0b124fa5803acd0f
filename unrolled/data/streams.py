"""Lanes and chunks: how a long text becomes batches whose rows go on where they left off.

The text is cut into B contiguous lanes, one a row of the batch. Each batch is the next chunk of T steps of every lane,
so that the state carried from one batch to the next is the right one. A row's state starts afresh at the lane's
beginning (also when it wraps) and at the beginning of a document: `carry` says so, row by row. A chunk ends where
its document or lane ends, so rows may differ in length.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.data.contents import check
from unrolled.data.corpus import Tokens

IGNORED = -100
"""The target of a padded timestep: `torch.nn.functional.cross_entropy` leaves it out."""


class Batch(NamedTuple):
    inputs: Tensor
    """(T, B) tokens, time first"""
    targets: Tensor
    """(T, B) the tokens that follow; `IGNORED` where padded"""
    lengths: Tensor | None
    """(B,), None where every row has all T timesteps"""
    carry: Tensor
    """(B,) booleans: does the state go on from the last batch"""

    def to(self, device: torch.device) -> "Batch":
        lengths = None if self.lengths is None else self.lengths.to(device)
        return Batch(self.inputs.to(device), self.targets.to(device), lengths, self.carry.to(device))


class LaneStream(Iterator[Batch]):
    """Endless (or with repeat=False one pass of) chunks over the lanes of a text.

    steps: timesteps of a chunk; None for a whole lane or document at once. Only tokens with a predecessor in the
    same document are predicted. Lanes are counted in predictions, so each prediction is in exactly one lane.
    """

    def __init__(self, tokens: Tokens, lanes: int, steps: int | None, repeat: bool = True) -> None:
        # a text too short to give every lane a chunk gets fewer lanes
        lanes = max(1, min(lanes, tokens.predictions // (steps or 1)))
        self._ids = tokens.ids
        # prediction k has its input at token k + d, d being its document: the last token of a document predicts nothing
        self._documents = tokens.documents - np.arange(len(tokens.documents))
        edges = np.linspace(0, tokens.predictions, lanes + 1).astype(np.int64)
        self._first, self._end = edges[:-1], edges[1:]
        self._steps, self._repeat = steps, repeat
        self._at = self._first.copy()
        self._carry = np.zeros(lanes, dtype=bool)

    @property
    def lanes(self) -> int:
        return len(self._first)

    @property
    def longest(self) -> int:
        """Timesteps of the longest possible chunk."""
        if self._steps is not None:
            return self._steps
        lane = int((self._end - self._first).max())
        documents = np.diff(np.append(self._documents, self._end[-1]))
        return min(lane, int(documents.max()))

    def largest(self) -> tuple[int]:
        """Timesteps times rows of a batch, padding included."""
        return (self.longest * self.lanes,)

    def __next__(self) -> Batch:
        at = self._at
        if (at >= self._end).all():
            raise StopIteration
        document = np.searchsorted(self._documents, at, side="right") - 1
        ends = np.append(self._documents, np.iinfo(np.int64).max)[document + 1]
        length = np.minimum(ends, self._end) - at
        if self._steps is not None:
            length = np.minimum(length, self._steps)
        longest = int(length.max())
        offset = np.minimum(np.arange(longest)[:, None], np.maximum(length - 1, 0))  # padding repeats a token
        where = np.minimum(at + document, len(self._ids) - 2) + offset
        inputs, targets = self._ids[where].astype(np.int64), self._ids[where + 1].astype(np.int64)
        ragged = bool((length < longest).any())
        if ragged:
            targets[np.arange(longest)[:, None] >= length] = IGNORED
        batch = Batch(
            torch.from_numpy(inputs),
            torch.from_numpy(targets),
            torch.from_numpy(length) if ragged else None,
            torch.from_numpy(self._carry),
        )
        self._advance(length)
        return batch

    def _advance(self, length: np.ndarray) -> None:
        at = self._at + length
        wrapped = (at >= self._end) & self._repeat
        at = np.where(wrapped, self._first, at)
        index = np.searchsorted(self._documents, at)
        begins = self._documents[np.minimum(index, len(self._documents) - 1)] == at
        self._at, self._carry = at, ~(wrapped | begins)

    def cursor(self) -> dict[str, Any]:
        """Where the stream stands, for a checkpoint."""
        return {"at": self._at.tolist(), "carry": self._carry.tolist()}

    def seek(self, cursor: dict[str, Any]) -> None:
        """Go on from a cursor of a stream over the same text."""
        check(cursor["at"], list[int], "the place in the text")
        check(cursor["carry"], list[bool], "the place in the text")
        at, carry = np.array(cursor["at"], dtype=np.int64), np.array(cursor["carry"], dtype=bool)
        fits = at.shape == carry.shape == self._first.shape
        if not fits or (at < self._first).any() or (at > self._end).any():
            raise ValueError("the place in the text is none of this text")
        self._at, self._carry = at, carry
