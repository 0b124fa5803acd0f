"""One to many: one vector (a picture, a class) to a sequence."""

import torch
from torch import Tensor, nn

from unrolled.cells import Inputs, State
from unrolled.errors import InputError
from unrolled.nn import Recurrent
from unrolled.nn.dropout import dropout
from unrolled.topologies.memory import Memory

USES = ("initial", "every-step", "both")
"""How the vector enters: as the initial state, in the input part of every timestep, or both."""


class Bridge(nn.Module):
    """A vector v to where a one-directional stack begins and what enters each of its timesteps.

    initial: h_0 = tanh(W v + b) of every layer, and an LSTM's c_0 = W v + b. every-step: W_ih v is added to the input
    part of the first layer at every timestep, h_t = tanh(W_xh x_t + W_hh h_{t-1} + W_ih v), in an LSTM or GRU to every
    gate's, as if v stood beside each x_t (CS231n's image captioning; Vinyals et al. 2015, arXiv:1411.4555).
    """

    def __init__(self, recurrent: Recurrent, context: int, use: str = "both") -> None:
        super().__init__()
        if use not in USES:
            raise InputError(f"use is {use!r}: choose one of {', '.join(USES)}")
        if recurrent.bidirectional:
            raise InputError("a chain that writes goes one way: its recurrent layers cannot be bidirectional")
        self.shape = (recurrent.cell.states, recurrent.num_layers, recurrent.hidden_size)
        states, layers, hidden = self.shape
        self.initial = None if use == "every-step" else nn.Linear(context, states * layers * hidden)
        rows = recurrent.cell.gates * hidden
        self.every_step = None if use == "initial" else nn.Linear(context, rows, bias=False)

    def forward(self, v: Tensor) -> Memory:
        """v (B, context) to the initial state and the constant."""
        constant = None if self.every_step is None else self.every_step(v)
        if self.initial is None:
            states, layers, hidden = self.shape
            return Memory(tuple(v.new_zeros(layers, len(v), hidden) for _ in range(states)), constant)
        h, *cells = self.initial(v).unflatten(1, self.shape).permute(1, 2, 0, 3)
        return Memory((torch.tanh(h), *cells), constant)


class OneToMany(nn.Module):
    """Recurrent layers that begin with, or always see, one vector v, and an output at every timestep.

    use: "initial", "every-step" or "both" (see `Bridge`). `dropout` acts on what enters the output layer.
    """

    def __init__(
        self, recurrent: Recurrent, outputs: int, context: int, use: str = "both", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.recurrent, self.dropout = recurrent, dropout
        self.bridge = Bridge(recurrent, context, use)
        self.output = nn.Linear(recurrent.output_size, outputs)

    def start(self, v: Tensor) -> Memory:
        """v (B, context) to what a chain that writes begins with."""
        return self.bridge(v)

    def forward(
        self, inputs: Inputs, v: Tensor, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """inputs (T, B, ...), v (B, context) to scores (T, B, outputs) and the final state.

        state: None to begin with v, or what an earlier chunk of the sequence ended with; lengths (B,).
        """
        memory = self.start(v)
        inputs = inputs._replace(constant=memory.constant)
        hidden, state = self.recurrent.unroll(inputs, memory.start if state is None else state, lengths)
        return self.output(dropout(hidden, self.dropout, self.training, self.recurrent.locked)), state

    def step(self, x_t: Inputs, state: State, memory: Memory) -> tuple[Tensor, State]:
        """One timestep in evaluation: inputs (N, ...) to scores (N, outputs) and the new state."""
        hidden, state = self.recurrent.step(memory.enter(x_t), state)
        return self.output(hidden), state
