"""A decoder: recurrent layers that write tokens from what they remember of a sentence, a picture or a clip."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.cells import Inputs, State
from unrolled.errors import InputError
from unrolled.nn import Recurrent
from unrolled.nn.attention import attention as attention_of
from unrolled.nn.dropout import dropout
from unrolled.topologies.memory import Memory
from unrolled.topologies.one_to_many import Bridge


class Decoder(nn.Module):
    """One to many from a context vector (`use`: see `Bridge`), with attention over a sequence of values as a setting.

    context, values: features of the context vector and of one value; values count with attention alone.
    attention: "none", "dot" or "additive" (see `nn/attention.py`), applied after the recurrent layers and not fed back
    (Luong et al. 2015 without input feeding), so that in training all timesteps run at once:

        readout_t = tanh(W [h_t; context_t])      y_t = W_hy readout_t + b_y

    Without attention the readout is h_t. tied: W_hy is the table of the tokens (Press & Wolf 2017, arXiv:1608.05859),
    which comes with the inputs; the readout then is tanh(W ...) of the table's width. Begin such a table small, normal
    with deviation 1/sqrt(width), or the first scores are wild. `dropout` acts on the readout.
    """

    def __init__(
        self,
        decoder: Recurrent,
        outputs: int,
        context: int,
        values: int = 0,
        *,
        attention: str = "none",
        use: str | None = None,
        tied: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.decoder, self.dropout, self.tied = decoder, dropout, tied
        self.bridge = Bridge(decoder, context, use or ("both" if attention == "none" else "initial"))
        self.attention = attention_of(attention, decoder.hidden_size, values)
        seen = decoder.hidden_size + (values if self.attention else 0)
        size = decoder.input_size if tied else decoder.hidden_size
        self.combine = nn.Linear(seen, size, bias=False) if self.attention or tied else None
        self.output = None if tied else nn.Linear(size, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs)) if tied else None

    def remember(self, context: Tensor, values: Tensor | None = None, lengths: Tensor | None = None) -> Memory:
        """context (B, C), and with attention values (S, B, K) and their lengths (B,), to all that the decoder knows."""
        memory = self.bridge(context)
        if self.attention is None:
            return memory
        if values is None:
            raise InputError("a decoder with attention needs the values that it looks at")
        return memory._replace(keys=self.attention.project(values), values=values, lengths=lengths)

    def decode(self, target: Inputs, memory: Memory, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The decoder's inputs (T, B, ...), lengths (B,) to readouts (T, B, R) and attention weights (T, B, S)."""
        inputs = target._replace(constant=memory.constant)
        hidden, _ = self.decoder.unroll(inputs, memory.start, lengths)
        return self._readout(hidden, memory)

    def _readout(self, hidden: Tensor, memory: Memory) -> tuple[Tensor, Tensor | None]:
        """Decoder states (T, B, H) to readouts (T, B, R) and weights (T, B, S)."""
        weights = None
        if self.attention is not None:
            assert memory.values is not None
            context, weights = self.attention(hidden, memory.values, memory.lengths, memory.keys)
            hidden = torch.cat([hidden, context], -1)
        if self.combine is not None:
            hidden = torch.tanh(self.combine(hidden))
        return dropout(hidden, self.dropout, self.training, self.decoder.locked), weights

    def score(self, readout: Tensor, table: Tensor | None = None) -> Tensor:
        """Readouts (..., R) to scores (..., outputs); table (outputs, R): the target's, where the output is tied to it.

        A loss needs the scores of real timesteps alone: `score(readouts[real], table)` saves those of the padding.
        """
        if self.output is not None:
            return self.output(readout)
        if table is None:
            raise InputError("the output is tied to the target's table: give the decoder's inputs with their table")
        return F.linear(readout, table, self.bias)

    def step(self, x_t: Inputs, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        """One timestep in evaluation: inputs (N, ...) to scores (N, outputs), the state and weights (N, S).

        N is B, or a multiple of it: several hypotheses a sentence, side by side (see `Memory`).
        """
        hidden, state = self.decoder.step(memory.enter(x_t), state)
        # the hypotheses of a sentence ask as if they were its timesteps, so that its keys are not copied for each
        queries = hidden.unflatten(0, (memory.start[0].shape[1], -1)).transpose(0, 1)
        readout, weights = self._readout(queries, memory)
        weights = None if weights is None else weights.transpose(0, 1).flatten(0, 1)
        return self.score(readout.transpose(0, 1).flatten(0, 1), x_t.table), state, weights
