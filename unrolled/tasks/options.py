"""The options of each task: its flags, its Python keywords, and stored in its models. No torch here."""

from dataclasses import dataclass
from typing import Literal

from unrolled.errors import InputError
from unrolled.training.options import TrainingOptions

CELLS = ("rnn", "rnn_relu", "lstm", "gru")
TOKENS = ("char", "byte", "word", "bpe")
LEAST_TOKENS = {"word": 3, "bpe": 257}
"""A word besides the two for unknown ones; a merge besides the bytes."""


@dataclass(frozen=True, kw_only=True)
class LanguageModelOptions(TrainingOptions):
    """Options of a language model. Under --seconds what is left open is chosen from the time, the size of the text and
    the speed of the machine (and said); under --steps it is fixed, so that the same command gives the same bits.

    Attributes
    ----------
    cell
        rnn, rnn_relu, lstm or gru. Default: chosen; under --steps lstm.
    hidden
        Hidden units of a layer. Default: chosen; under --steps 256.
    layers
        Recurrent layers. Default: 1.
    embedding
        Size of the vectors that tokens become before the first layer; 0 for one-hot. Default: 64, at most --hidden.
    topology
        many_to_many, or one_to_one: the next token from the current one alone, a baseline. Default: many_to_many.
    dropout
        Between layers and before the output. Default: chosen; under --steps 0.
    forget_bias
        Start value of an LSTM's forget-gate bias.
    tokens
        char: one token a character, others as bytes; byte: one token a UTF-8 byte; word: the most frequent words; bpe:
        frequent parts of words, found by byte-pair encoding. Default: char.
    vocabulary
        How many tokens at most, for word and bpe. Default: 10,000 words; 2,000 for bpe.
    val_fraction
        Part of the text, at its end, that is kept for validation.
    """

    cell: str | None = None
    hidden: int | None = None
    layers: int | None = None
    embedding: int | None = None
    topology: Literal["many_to_many", "one_to_one"] | None = None
    dropout: float | None = None
    forget_bias: float = 1.0
    tokens: Literal["char", "byte", "word", "bpe"] | None = None
    vocabulary: int | None = None
    val_fraction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell is not None and self.cell not in CELLS:
            raise InputError(f"unknown cell {self.cell!r}: choose one of {', '.join(CELLS)}")
        for name in ("hidden", "layers"):
            self._at_least(name, above=0)
        self._at_least("embedding", low=0)
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"--dropout is {self.dropout}: it must be at least 0 and less than 1")
        if not 0 < self.val_fraction < 1:
            raise InputError(f"--val-fraction is {self.val_fraction}: it must lie between 0 and 1")
        for name, allowed in (("topology", ("many_to_many", "one_to_one")), ("tokens", TOKENS)):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise InputError(f"unknown {name} {value!r}: choose {', '.join(allowed[:-1])} or {allowed[-1]}")
        if self.vocabulary is not None:
            if self.tokens in ("char", "byte"):
                raise InputError(f"--vocabulary has no meaning for --tokens {self.tokens}: it is for word and bpe")
            self._at_least("vocabulary", low=LEAST_TOKENS.get(self.tokens or "", 3))
