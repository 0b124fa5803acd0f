"""The long short-term memory cell."""

from typing import final

import torch
from torch import Tensor

from unrolled.cells.cell import Cell, Saved, State


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
        i, f, g, o = (xg + hg).chunk(4, -1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        c = torch.addcmul(f * state[1], i, g)
        tanh_c = torch.tanh(c)
        return (o * tanh_c, c), (i, f, g, o, tanh_c)

    def pointwise_backward(
        self, dstate: State, saved: Saved, state: State
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
        dh, dc = dstate
        i, f, g, o, tanh_c = saved
        dc = torch.addcmul(dc, dh * o, 1 - tanh_c * tanh_c)  # c' also reaches the loss through h' = o tanh(c')
        d = torch.cat(
            [
                dc * g * i * (1 - i),
                dc * state[1] * f * (1 - f),
                dc * i * (1 - g * g),
                dh * tanh_c * o * (1 - o),
            ],
            -1,
        )
        return d, d, (None, dc * f)
