"""Many to many: an output at every timestep."""

from torch import Tensor, nn

from unrolled.cells import Inputs, State
from unrolled.nn import Recurrent
from unrolled.nn.dropout import dropout


class ManyToMany(nn.Module):
    """Recurrent layers and, at every timestep, y_t = W_hy h_t + b_y with the same W_hy for all.

    `dropout` acts on what enters the output layer, of the kind of `recurrent`, to which that between layers belongs.
    """

    def __init__(self, recurrent: Recurrent, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.recurrent, self.dropout = recurrent, dropout
        self.output = nn.Linear(recurrent.output_size, outputs)

    def initial_state(self, batch: int) -> State:
        return self.recurrent.initial_state(batch)

    def forward(
        self, inputs: Inputs, state: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """inputs (T, B, ...) to scores (T, B, outputs) and the final state; lengths (B,), padded on the right."""
        hidden, state = self.recurrent.unroll(inputs, state, lengths)
        return self.output(dropout(hidden, self.dropout, self.training, self.recurrent.locked)), state

    def step(self, x_t: Inputs, state: State) -> tuple[Tensor, State]:
        """One timestep: inputs (B, ...) to scores (B, outputs) and the new state."""
        hidden, state = self.recurrent.step(x_t, state)
        return self.output(hidden), state
