"""One to one: the vanilla network without recurrence, each output from its own input alone."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.cells import Inputs, State


class OneToOne(nn.Module):
    """y = W_hy tanh(W_xh x + b_h) + b_y. The baseline that shows what recurrence adds: it has no state.

    On a language model it is a bigram model, so its loss cannot go below the entropy of a character given the last.
    """

    def __init__(self, input_size: int, hidden_size: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.hidden = nn.Linear(input_size, hidden_size)
        self.output = nn.Linear(hidden_size, outputs)

    def initial_state(self, batch: int) -> State:
        return ()

    def forward(
        self, inputs: Inputs, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """inputs (T, B, ...) to scores (T, B, outputs) and the empty state."""
        return self.step(inputs, ())

    def step(self, x_t: Inputs, state: State) -> tuple[Tensor, State]:
        """One timestep: inputs (B, ...) to scores (B, outputs) and the empty state."""
        if x_t.is_tokens and x_t.table is None:  # one-hot: a column of W_xh
            below = F.embedding(x_t.x, self.hidden.weight.t()) + self.hidden.bias
        else:
            x = x_t.x if x_t.table is None else F.embedding(x_t.x, x_t.table)
            below = self.hidden(x)
        hidden = F.dropout(torch.tanh(below), self.dropout, self.training)
        return self.output(hidden), ()
