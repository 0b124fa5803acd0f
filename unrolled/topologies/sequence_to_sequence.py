"""Sequence to sequence: an encoder reads one sequence, a decoder writes another."""

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


class SequenceToSequence(nn.Module):
    """Many to one, then one to many (Sutskever, Vinyals & Le 2014, arXiv:1409.3215), with attention as a setting.

    The context is the encoder's final h of every layer and direction, side by side; `use` says how it enters the
    decoder (see `Bridge`): by default as the initial state and, without attention, at every timestep as well (Cho et
    al. 2014, arXiv:1406.1078).
    attention: "none", "dot" or "additive" (see `nn/attention.py`), applied after the decoder's recurrent layers and not
    fed back (Luong et al. 2015 without input feeding), so that in training all target timesteps run at once:

        readout_t = tanh(W [h_t; context_t])      y_t = W_hy readout_t + b_y

    Without attention the readout is h_t. tied: W_hy is the target's table (Press & Wolf 2017, arXiv:1608.05859), which
    comes with the decoder's inputs; the readout then is tanh(W ...) of the table's width. Begin such a table small,
    normal with deviation 1/sqrt(width), or the first scores are wild. `dropout` acts on the readout.
    """

    def __init__(
        self,
        encoder: Recurrent,
        decoder: Recurrent,
        outputs: int,
        *,
        attention: str = "dot",
        use: str | None = None,
        tied: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.dropout, self.tied = encoder, decoder, dropout, tied
        use = use or ("both" if attention == "none" else "initial")
        self.bridge = Bridge(decoder, encoder.num_layers * encoder.output_size, use)
        self.attention = attention_of(attention, decoder.hidden_size, encoder.output_size)
        seen = decoder.hidden_size + (encoder.output_size if self.attention else 0)
        size = decoder.input_size if tied else decoder.hidden_size
        self.combine = nn.Linear(seen, size, bias=False) if self.attention or tied else None
        self.output = None if tied else nn.Linear(size, outputs)
        self.bias = nn.Parameter(torch.zeros(outputs)) if tied else None

    def encode(self, source: Inputs, lengths: Tensor | None = None) -> Memory:
        """source (S, B, ...), lengths (B,) to all that the decoder knows of it."""
        values, final = self.encoder.unroll(source, None, lengths)
        memory = self.bridge(final[0].transpose(0, 1).flatten(1))
        if self.attention is None:
            return memory
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

    def forward(
        self,
        source: Inputs,
        source_lengths: Tensor | None,
        target: Inputs,
        target_lengths: Tensor | None = None,
    ) -> Tensor:
        """source (S, B, ...) and the decoder's inputs (T, B, ...), the begin token first, to scores (T, B, outputs)."""
        readouts, _ = self.decode(target, self.encode(source, source_lengths), target_lengths)
        return self.score(readouts, target.table)

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
