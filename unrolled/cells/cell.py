"""What every recurrent cell has in common: the parts of one timestep.

A cell is stateless mathematics: it owns no parameters and knows nothing of time, layers or data. One timestep is

    xg = W_ih x + b_ih          the input part: does not depend on the state, so all timesteps are one product
    hg = W_hh h + b_hh          the recurrent part: the only matrix product that has to wait for the state
    state' = pointwise(xg, hg, state)

(the decomposition of FlashRNN, Pöppel et al. 2024, arXiv:2412.07752), and each cell's file defines `pointwise` and its
derivative side by side. Shapes and gate order are those of `torch.nn`. B: rows of the batch, H: hidden size,
G: gates of the cell, I: input size, V: vocabulary size.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

State = tuple[Tensor, ...]
"""Each (B, H). `state[0]` is the output h; an LSTM has (h, c)."""

Saved = tuple[Tensor, ...]
"""What `pointwise` keeps for `pointwise_backward`."""


sigmoid_backward = torch.ops.aten.sigmoid_backward.default
"""(dy, y) to dy y (1 - y) in one kernel."""
tanh_backward = torch.ops.aten.tanh_backward.default
"""(dy, y) to dy (1 - y²) in one kernel."""


class Weights(NamedTuple):
    """One layer, one direction, in `torch.nn`'s shapes and gate order."""

    ih: Tensor
    """(G*H, I)"""
    hh: Tensor
    """(G*H, H)"""
    bias_ih: Tensor | None
    """(G*H)"""
    bias_hh: Tensor | None
    """(G*H)"""


class Inputs(NamedTuple):
    """What enters the chain: (T, B, ...) for a sequence, (B, ...) for one timestep."""

    x: Tensor
    """floats (..., B, I), or integer tokens (..., B)"""
    table: Tensor | None = None
    """(V, I), the embedding of tokens; None with tokens means one-hot (then I = V)"""
    constant: Tensor | None = None
    """(B, G*H), added to the input part of every timestep: the W_ih v of one-to-many"""

    @property
    def is_tokens(self) -> bool:
        return not self.x.is_floating_point()

    @property
    def pays_to_look_up(self) -> bool:
        """Tokens, and no more rows in the table than tokens: projecting the table once is cheaper."""
        return self.is_tokens and (self.table is None or len(self.table) <= self.x.numel())

    def at(self, t: int) -> "Inputs":
        """The inputs of timestep t."""
        return self._replace(x=self.x[t])

    def dense(self, w: Weights) -> Tensor:
        """Floats (..., B, I): tokens become rows of the table, or one-hot vectors."""
        if not self.is_tokens:
            return self.x
        if self.table is not None:
            return F.embedding(self.x, self.table)
        return F.one_hot(self.x.long(), w.ih.shape[1]).to(w.ih.dtype)


class Cell(ABC):
    """One timestep of a recurrent network. Subclasses are final."""

    name: str
    gates: int
    """How many blocks of H rows the weight matrices have."""
    states: int
    """How many tensors the state has."""

    @abstractmethod
    def pointwise(self, xg: Tensor, hg: Tensor, state: State) -> tuple[State, Saved]:
        """The elementwise part of a timestep.

        xg, hg: (B, G*H); state: tensors (B, H). Returns the new state and what the backward needs.
        """

    @abstractmethod
    def pointwise_backward(
        self, dstate: State, saved: Saved, state: State
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, ...]]:
        """The derivative of `pointwise`.

        dstate: gradient of the new state; state: the state before the timestep. Returns the gradients of xg and hg
        (the very same tensor where only xg + hg enters) and of the state directly, that is not through hg;
        None stands for zero.
        """

    def project(self, w: Weights, inputs: Inputs) -> Tensor:
        """The input part (..., B, G*H) of all timesteps at once, bias_ih included.

        A token that enters a layer is a look-up, not a product: where the vocabulary is no larger than the number of
        tokens, the whole table is projected once and rows are gathered; otherwise rows are gathered, then projected.
        The numbers are the same either way.
        """
        if inputs.pays_to_look_up:
            xg = F.embedding(inputs.x, self.project_table(w, inputs.table))
        else:
            xg = F.linear(inputs.dense(w), w.ih, w.bias_ih)
        return xg if inputs.constant is None else xg + inputs.constant

    def project_table(self, w: Weights, table: Tensor | None) -> Tensor:
        """The input part (V, G*H) of every token, bias_ih included; without a table tokens are one-hot."""
        if table is not None:
            return F.linear(table, w.ih, w.bias_ih)
        return w.ih.t() if w.bias_ih is None else w.ih.t() + w.bias_ih

    def step(self, w: Weights, x_t: Inputs, state: State) -> State:
        """One timestep; x_t holds floats (B, I) or tokens (B,). What sampling, beam search and streaming use."""
        hg = F.linear(state[0], w.hh, w.bias_hh)
        return self.pointwise(self.project(w, x_t), hg, state)[0]

    def zero_state(self, batch: int, hidden: int, like: Tensor) -> State:
        """The state before the first timestep, in the dtype and on the device of `like`."""
        return tuple(torch.zeros(batch, hidden, dtype=like.dtype, device=like.device) for _ in range(self.states))
