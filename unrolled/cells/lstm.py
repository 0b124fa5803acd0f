"""The long short-term memory cell."""

from typing import final

import torch
from torch import Tensor

from unrolled.cells.cell import Cell, Saved, State, sigmoid_backward, tanh_backward


@final
class LSTM(Cell):
    """Input, forget, cell and output gate, in `torch.nn`'s order i, f, g, o of the rows of W_ih and W_hh.

        i = σ(a_i)   f = σ(a_f)   g = tanh(a_g)   o = σ(a_o)      where a = W_ih x + b_ih + W_hh h + b_hh
        c' = f c + i g
        h' = o tanh(c')

    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000.
    The state is (h, c).
    """

    name = "lstm"
    gates = 4
    states = 2

    def pointwise(self, xg: Tensor, hg: Tensor, state: State) -> tuple[State, Saved]:
        a = xg + hg
        squashed = torch.sigmoid(a)  # all four in one call, which is faster than the three that need it
        i, f, _, o = squashed.chunk(4, -1)
        g = torch.tanh(a.chunk(4, -1)[2])
        c = torch.addcmul(f * state[1], i, g)
        tanh_c = torch.tanh(c)
        return (o * tanh_c, c), (squashed, g, tanh_c)

    def pointwise_backward(
        self, dstate: State, saved: Saved, state: State
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
        dh, dc = dstate
        squashed, g, tanh_c = saved
        i, f, _, o = squashed.chunk(4, -1)
        dc = dc + tanh_backward(dh * o, tanh_c)  # c' also reaches the loss through h' = o tanh(c')
        d = sigmoid_backward(torch.cat([dc * g, dc * state[1], dc, dh * tanh_c], -1), squashed)
        d.chunk(4, -1)[2].copy_(tanh_backward(dc * i, g))
        return d, d, (None, dc * f)
