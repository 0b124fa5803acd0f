"""N sequences of arrays, one after the other: the frames of clips, the features of frames, the regions of pictures.

`Frames` is to arrays what `batches.Sequences` is to tokens, so `Examples` and the streams of batches take either.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Frames:
    """N sequences of arrays of the same shape. The arrays may be memory-mapped; only what a batch needs is read."""

    array: np.ndarray
    """(sum of lengths, ...): frames (H, W, C) uint8, features (F,) float, …"""
    offsets: np.ndarray
    """(S + 1,) int64: stored sequence s is array[offsets[s] : offsets[s + 1]]"""
    rows: np.ndarray
    """(N,) int64: sequence n is the stored sequence rows[n]. Several may be the same: a picture with five captions is
    stored once"""

    @classmethod
    def pack(cls, sequences: Sequence[np.ndarray]) -> "Frames":
        """sequences: each (T_n, ...), at least one."""
        offsets = np.cumsum([0, *map(len, sequences)], dtype=np.int64)
        return cls(np.concatenate(sequences), offsets, np.arange(len(sequences)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> np.ndarray:
        stored = self.rows[row]
        return self.array[self.offsets[stored] : self.offsets[stored + 1]]

    def take(self, rows: np.ndarray) -> "Frames":
        """These sequences, in any order, any of them more than once; nothing is copied."""
        return Frames(self.array, self.offsets, self.rows[rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one array."""
        return self.array.shape[1:]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64"""
        return np.diff(self.offsets)[self.rows]

    def padded(self, rows: np.ndarray, padding: float) -> tuple[Tensor, Tensor]:
        """These sequences: (T, B, ...) in the type of the array, padded on the right; their lengths (B,) int64."""
        lengths = self.lengths[rows]
        arrays = np.full((lengths.max(initial=0), len(rows), *self.shape), padding, dtype=self.array.dtype)
        for column, row in enumerate(rows):
            arrays[: lengths[column], column] = self[row]
        return torch.from_numpy(arrays), torch.from_numpy(lengths)
