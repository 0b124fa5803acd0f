"""Dropout with cheap random numbers, in the kinds that recurrent networks use."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, p: float, training: bool, locked: bool = False) -> Tensor:
    """As `torch.nn.functional.dropout`: in training a number is zero with probability p, the others grow by 1/(1 - p).

    locked: of x (T, B, ...) the same numbers at every timestep, each row its own (variational dropout: Gal &
    Ghahramani 2016, arXiv:1512.05287); what was dropped at one timestep cannot be read off its neighbours.

    On the CPU PyTorch's random numbers take as long as a quarter of a layer. Here 16 bits decide on a number (so p is a
    multiple of 1/65,536, and the others grow accordingly), drawn by NumPy from a seed of PyTorch's generator.
    """
    if locked and p and training:
        return x * dropout(x.new_ones(1, *x.shape[1:]), p, training)
    if not p or not training or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p, training)
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.Generator(np.random.SFC64(seed)).integers(0, 2**64, -(-x.numel() // 4), dtype=np.uint64)
    numbers = torch.from_numpy(words.view(np.int16))[: x.numel()].view(x.shape)
    dropped = round(p * 65536)
    return x * (numbers >= dropped - 32768) * (65536 / (65536 - dropped)) if dropped < 65536 else x * 0.0


def embedding_dropout(table: Tensor, p: float, training: bool) -> Tensor:
    """The table (V, E) without whole tokens: in training a vector is zero with probability p, wherever its token stands
    in the batch, the others grow by 1/(1 - p) (Gal & Ghahramani 2016; Merity et al. 2017, arXiv:1708.02182)."""
    if not p or not training:
        return table
    return table * dropout(table.new_ones(len(table), 1), p, training)
