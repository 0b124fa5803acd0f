"""Sequence to sequence: an encoder reads one sequence, a decoder writes another."""

from torch import Tensor

from unrolled.cells import Inputs
from unrolled.nn import Recurrent
from unrolled.topologies.decoder import Decoder
from unrolled.topologies.memory import Memory


class SequenceToSequence(Decoder):
    """Many to one, then one to many (Sutskever, Vinyals & Le 2014, arXiv:1409.3215): a `Decoder` behind an encoder.

    The context is the encoder's final h of every layer and direction, side by side; `use` says how it enters the
    decoder: by default as the initial state and, without attention, at every timestep as well (Cho et al. 2014,
    arXiv:1406.1078). The attention goes over the encoder's outputs.
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
        context = encoder.num_layers * encoder.output_size
        super().__init__(
            decoder, outputs, context, encoder.output_size, attention=attention, use=use, tied=tied, dropout=dropout
        )
        self.encoder = encoder

    def encode(self, source: Inputs, lengths: Tensor | None = None) -> Memory:
        """source (S, B, ...), lengths (B,) to all that the decoder knows of it."""
        values, final = self.encoder.unroll(source, None, lengths)
        return self.remember(final[0].transpose(0, 1).flatten(1), values, lengths)

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
