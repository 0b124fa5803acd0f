"""Dropout for sequences."""

import torch
from torch import Tensor


def variational_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """x (T, B, F) with the same features dropped at every timestep of a row, in training; others grow by 1/(1 - p).

    Source: Gal & Ghahramani 2016, arXiv:1512.05287. A T-th of the random numbers of ordinary dropout, which on a CPU
    cost as much as a quarter of a layer.
    """
    if not p or not training:
        return x
    kept = torch.empty(x.shape[1:], dtype=x.dtype, device=x.device).bernoulli_(1 - p)
    return x * kept.div_(1 - p)
