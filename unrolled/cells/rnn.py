"""The vanilla (Elman) recurrent cell."""

from typing import Literal, final

import torch
from torch import Tensor

from unrolled.cells.cell import Cell, Saved, State, tanh_backward


@final
class RNN(Cell):
    """h' = f(W_ih x + b_ih + W_hh h + b_hh), f = tanh or relu.

    Source: Elman, "Finding structure in time", 1990; CS231n lecture on recurrent networks:
    h_t = tanh(W_hh h_{t-1} + W_xh x_t + b). ReLU: Le, Jaitly & Hinton 2015, arXiv:1504.00941.
    """

    gates = 1
    states = 1

    def __init__(self, nonlinearity: Literal["tanh", "relu"] = "tanh") -> None:
        self.name = f"rnn_{nonlinearity}"
        self.nonlinearity = nonlinearity

    def pointwise(self, xg: Tensor, hg: Tensor, state: State) -> tuple[State, Saved]:
        h = torch.tanh(xg + hg) if self.nonlinearity == "tanh" else torch.relu(xg + hg)
        return (h,), (h,)

    def pointwise_backward(
        self, dstate: State, saved: Saved, state: State
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
        (dh,), (h,) = dstate, saved
        d = tanh_backward(dh, h) if self.nonlinearity == "tanh" else dh * (h > 0)  # as in PyTorch, relu'(0) = 0
        return d, d, (None,)
