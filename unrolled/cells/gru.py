"""The gated recurrent unit."""

from typing import final

import torch
from torch import Tensor

from unrolled.cells.cell import Cell, Saved, State, sigmoid_backward, tanh_backward


@final
class GRU(Cell):
    """Reset gate, update gate and candidate, in `torch.nn`'s order r, z, n of the rows of W_ih and W_hh.

        r = σ(xg_r + hg_r)   z = σ(xg_z + hg_z)   n = tanh(xg_n + r hg_n)
        h' = (1 - z) n + z h

    Source: Cho et al. 2014, arXiv:1406.1078, in the form of cuDNN and `torch.nn` where r multiplies W_hn h + b_hn
    (so the two biases of n are not redundant).
    """

    name = "gru"
    gates = 3
    states = 1

    def pointwise(self, xg: Tensor, hg: Tensor, state: State) -> tuple[State, Saved]:
        (h,) = state
        size = h.shape[-1]
        rz = torch.sigmoid(xg[..., : 2 * size] + hg[..., : 2 * size])
        r, z = rz.chunk(2, -1)
        hg_n = hg[..., 2 * size :]
        n = torch.tanh(torch.addcmul(xg[..., 2 * size :], r, hg_n))
        return (torch.addcmul(n, z, h - n),), (rz, n, hg_n)

    def pointwise_backward(
        self, dstate: State, saved: Saved, state: State
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
        (dh,), (h,) = dstate, state
        rz, n, hg_n = saved
        r, z = rz.chunk(2, -1)
        dh_z = dh * z
        dn = tanh_backward(dh - dh_z, n)
        drz = sigmoid_backward(torch.cat([dn * hg_n, dh * (h - n)], -1), rz)
        return torch.cat([drz, dn], -1), torch.cat([drz, dn * r], -1), (dh_z,)
