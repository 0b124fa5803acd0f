"""Many to one: a sequence to one output."""

import torch
from torch import Tensor, nn

from unrolled.cells import Inputs, State
from unrolled.engines.engine import alive
from unrolled.errors import InputError
from unrolled.nn import Recurrent
from unrolled.nn.attention import masked_softmax
from unrolled.nn.dropout import dropout

POOLINGS = ("final", "mean", "max", "attention")


class ManyToOne(nn.Module):
    """Recurrent layers, their outputs pooled into one vector, and y = W_hy pooled + b_y.

    pooling: "final" takes the top layer's final state (both directions side by side); "mean" and "max" go over the
    row's real timesteps, feature by feature; "attention" is their mean weighted with softmax_t(v . tanh(W h_t)) (Lin et
    al. 2017, arXiv:1703.03130, with one row). A row without timesteps pools to zero. `dropout` acts on what enters the
    output layer.
    """

    def __init__(self, recurrent: Recurrent, outputs: int, pooling: str = "final", dropout: float = 0.0) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            raise InputError(f"pooling is {pooling!r}: choose one of {', '.join(POOLINGS)}")
        self.recurrent, self.pooling, self.dropout = recurrent, pooling, dropout
        size = recurrent.output_size
        if pooling == "attention":
            self.attention = nn.Sequential(
                nn.Linear(size, recurrent.hidden_size, bias=False),
                nn.Tanh(),
                nn.Linear(recurrent.hidden_size, 1, bias=False),
            )
        self.output = nn.Linear(size, outputs)

    def forward(self, inputs: Inputs, lengths: Tensor | None = None) -> Tensor:
        """inputs (T, B, ...) to scores (B, outputs); lengths (B,), padded on the right."""
        return self.score(self.pool(inputs, lengths)[0])

    def score(self, pooled: Tensor) -> Tensor:
        """(B, H * directions) to (B, outputs)."""
        return self.output(dropout(pooled, self.dropout, self.training))

    def pool(self, inputs: Inputs, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The pooled vector (B, H * directions), and each timestep's share in it (B, T).

        The shares are the weights of a mean or an attention; for "max" and "final" they are the share of the vector's
        features that come from the timestep. They sum to 1, or to 0 for a row without timesteps.
        """
        hidden, state = self.recurrent.unroll(inputs, None, lengths)
        if self.pooling == "final":
            return self._final(hidden, state, lengths)
        if self.pooling == "max":
            return _maximum(hidden, lengths)
        scores = hidden.new_zeros(hidden.shape[:2]) if self.pooling == "mean" else self.attention(hidden)[..., 0]
        weights = masked_softmax(scores.t(), lengths)
        return torch.einsum("bt,tbh->bh", weights, hidden), weights

    def _final(self, hidden: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        directions = self.recurrent.directions
        steps, rows = hidden.shape[:2]
        last = torch.full((rows,), steps, device=hidden.device) if lengths is None else lengths.to(hidden.device)
        time = torch.arange(steps, device=hidden.device)
        ends = [(time == last[:, None] - 1), (time == 0) & (last[:, None] > 0)][:directions]
        shares = torch.stack(ends).to(hidden.dtype).mean(0)
        return state[0][-directions:].transpose(0, 1).flatten(1), shares


def _maximum(hidden: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """The highest value of each feature of hidden (T, B, F), and the share of features highest at each timestep."""
    steps, rows, features = hidden.shape
    shares = hidden.new_zeros(rows, steps)
    if steps == 0:
        return hidden.new_zeros(rows, features), shares
    real = alive(lengths, steps, hidden)
    highest, at = (hidden if real is None else hidden.masked_fill(~real, -torch.inf)).max(0)
    shares.scatter_add_(1, at, torch.full_like(highest.detach(), 1 / features))
    if real is None:
        return highest, shares
    return torch.where(real[0], highest, 0), shares * real[0]
