"""The options of each task: its flags, its Python keywords, and stored in its models. No torch here."""

from dataclasses import dataclass
from typing import Literal

from unrolled.errors import InputError
from unrolled.training.options import TrainingOptions

CELLS = ("rnn", "rnn_relu", "lstm", "gru")
TOKENS = ("char", "byte", "word", "bpe")
DROPOUT_KINDS = ("standard", "locked")
BAD_FILES = ("stop", "skip")
LEAST_TOKENS = {"word": 3, "bpe": 257}
"""A word besides the two for unknown ones; a merge besides the bytes."""


@dataclass(frozen=True, kw_only=True)
class RecurrentOptions(TrainingOptions):
    """What every task with recurrent layers over tokens can be told.

    Attributes
    ----------
    dropout_kind
        Between layers and before the output: standard, each timestep for itself, or locked, the same units at every
        timestep.
    embedding_dropout
        Part of the vocabulary that is left out of a batch, whole tokens wherever they stand.
    weight_drop
        Part of the recurrent weights W_hh that is left out of a batch (DropConnect).
    """

    dropout_kind: Literal["standard", "locked"] = "standard"
    embedding_dropout: float = 0.0
    weight_drop: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("dropout_kind", DROPOUT_KINDS)
        for name in ("embedding_dropout", "weight_drop"):
            self._below_one(name)

    @property
    def locked(self) -> bool:
        return self.dropout_kind == "locked"


@dataclass(frozen=True, kw_only=True)
class LanguageModelOptions(RecurrentOptions):
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
        Start value of an LSTM's forget-gate bias. Default: 1.
    tokens
        char: one token a character, others as bytes; byte: one token a UTF-8 byte; word: the most frequent words; bpe:
        frequent parts of words, found by byte-pair encoding. Default: char.
    vocabulary
        How many tokens at most, for word and bpe. Default: 10,000 words; 2,000 for bpe.
    val_fraction
        Part of the text, at its end, that is kept for validation. Default: 0.1.
    """

    cell: str | None = None
    hidden: int | None = None
    layers: int | None = None
    embedding: int | None = None
    topology: Literal["many_to_many", "one_to_one"] | None = None
    dropout: float | None = None
    forget_bias: float | None = None
    tokens: Literal["char", "byte", "word", "bpe"] | None = None
    vocabulary: int | None = None
    val_fraction: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("cell", CELLS)
        for name in ("hidden", "layers"):
            self._at_least(name, above=0)
        self._at_least("embedding", low=0)
        self._below_one("dropout")
        check_fraction(self.val_fraction)
        if self.embedding == 0 and self.embedding_dropout:
            raise InputError(
                "--embedding-dropout leaves vectors out, and --embedding 0 has none: leave one of them out"
            )
        if self.topology == "one_to_one" and (self.locked or self.weight_drop):
            raise InputError(
                "one_to_one has no recurrent layers: leave out --dropout-kind and --weight-drop, or train many_to_many"
            )
        for name, allowed in (("topology", ("many_to_many", "one_to_one")), ("tokens", TOKENS)):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise InputError(f"unknown {name} {value!r}: choose {', '.join(allowed[:-1])} or {allowed[-1]}")
        if self.vocabulary is not None:
            if self.tokens in ("char", "byte"):
                raise InputError(f"--vocabulary has no meaning for --tokens {self.tokens}: it is for word and bpe")
            self._at_least("vocabulary", low=LEAST_TOKENS.get(self.tokens or "", 3))

    @property
    def whole(self) -> bool:
        return False

    def check_together(self, *, val: bool, start: bool) -> None:
        super().check_together(val=val, start=start)
        if self.topology == "one_to_one":
            for name in ("cell", "layers", "forget_bias"):
                if getattr(self, name) is not None:
                    flag = "--" + name.replace("_", "-")
                    raise InputError(f"one_to_one has no recurrent layers: leave out {flag}, or train many_to_many")
        if self.forget_bias is not None and (start or self.cell not in ("lstm", None)):
            why = "the model to start from has its own" if start else f"a {self.cell} has none"
            raise InputError(f"--forget-bias is what an LSTM begins with, and {why}: leave it out")


POOLINGS = ("final", "mean", "max", "attention")


@dataclass(frozen=True, kw_only=True)
class TextClassifierOptions(RecurrentOptions):
    """Options of a text classifier.

    Attributes
    ----------
    text_column
        Column of the text: its name, or its number from 1. Default: the usual names, else the only other column.
    label_column
        Column of the label, in the same way.
    encoding
        Of the files, such as latin-1. Default: utf-8, or what a byte-order mark says.
    bad_files
        What a file means that is missing or not text in this encoding: stop, or skip (it is left out and listed).
    val_fraction
        Part of each class that is kept for validation, where no split is given; drawn by --seed. Default: 0.1.
    tokens
        word, bpe (both need unrolled[text]), char or byte. Default: word.
    vocabulary
        Largest number of tokens of word and bpe. Default: 20,000.
    lower
        Words in lower case.
    cell
        rnn, rnn_relu, lstm or gru.
    hidden
        Hidden units of a layer and direction.
    layers
        Recurrent layers.
    one_directional
        Read from left to right only. Default: both ways.
    pooling
        What of the states becomes the text's vector: final, mean, max (over time) or attention.
    embedding
        Size of the vectors that tokens become.
    dropout
        On embeddings (the same units at every timestep), between layers and before the output.
    token_dropout
        Part of the tokens of a training text that are hidden from the network.
    label_smoothing
        Part of the probability that the targets give to all classes alike.
    balance
        Weigh classes so that each counts the same in the loss, and choose the best model by macro-F1.
    """

    text_column: str | None = None
    label_column: str | None = None
    encoding: str | None = None
    bad_files: Literal["stop", "skip"] = "stop"
    val_fraction: float | None = None
    tokens: Literal["word", "bpe", "char", "byte"] | None = None
    vocabulary: int | None = None
    lower: bool = False
    cell: str | None = None
    hidden: int | None = None
    layers: int | None = None
    one_directional: bool = False
    pooling: Literal["final", "mean", "max", "attention"] = "attention"
    embedding: int | None = None
    dropout: float = 0.5
    token_dropout: float = 0.1
    label_smoothing: float = 0.1
    balance: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("cell", CELLS)
        self._one_of("pooling", POOLINGS)
        self._one_of("tokens", TOKENS)
        self._one_of("bad_files", BAD_FILES)
        for name in ("hidden", "layers", "embedding", "vocabulary"):
            self._at_least(name, above=0)
        for name in ("dropout", "token_dropout", "label_smoothing"):
            self._below_one(name)
        check_fraction(self.val_fraction)

    def check_together(self, *, val: bool, start: bool) -> None:
        super().check_together(val=val, start=start)
        if self.vocabulary is not None:
            if start:
                raise InputError("--vocabulary is that of the model to start from: leave it out")
            if self.tokens in ("char", "byte"):
                raise InputError(f"--vocabulary has no meaning for --tokens {self.tokens}: it is for word and bpe")


ATTENTIONS = ("none", "dot", "additive")


@dataclass(frozen=True, kw_only=True)
class TranslateOptions(RecurrentOptions):
    """Options of a translator.

    Attributes
    ----------
    source_column
        Column of the sources in a table: its name, or its number from 1. Default: source or src, else the first of two.
    target_column
        Column of the targets, in the same way.
    encoding
        Of the files, such as latin-1. Default: utf-8, or what a byte-order mark says.
    val_fraction
        Part of the pairs that is kept for validation, where no split is given; drawn by --seed. Default: 0.1.
    tokens
        bpe (needs unrolled[text]), word, char or byte; each side has its own. Default: bpe.
    vocabulary
        Largest number of tokens of a side, for word and bpe. Default: 4,000 for bpe; 10,000 words.
    cell
        rnn, rnn_relu, lstm or gru.
    hidden
        Hidden units of a decoder's layer; each direction of the encoder has half of them. Default: 512; 256 for char
        and byte.
    layers
        Recurrent layers of the encoder, and of the decoder.
    attention
        none, dot or additive. Default: additive.
    embedding
        Size of the vectors that tokens become.
    dropout
        On embeddings (the same units at every timestep), between layers and before the output. Default: 0.3; 0.1 for
        char and byte.
    label_smoothing
        Part of the probability that the targets give to all tokens alike. Default: 0.1; 0 for char and byte.
    """

    source_column: str | None = None
    target_column: str | None = None
    encoding: str | None = None
    val_fraction: float | None = None
    tokens: Literal["bpe", "word", "char", "byte"] | None = None
    vocabulary: int | None = None
    cell: str | None = None
    hidden: int | None = None
    layers: int | None = None
    attention: Literal["none", "dot", "additive"] | None = None
    embedding: int | None = None
    dropout: float | None = None
    label_smoothing: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("cell", CELLS), ("tokens", TOKENS), ("attention", ATTENTIONS)):
            self._one_of(name, allowed)
        for name in ("layers", "embedding"):
            self._at_least(name, above=0)
        if self.hidden is not None and (self.hidden < 2 or self.hidden % 2):
            raise InputError(f"--hidden is {self.hidden}: it must be even, since each direction has half of the units")
        if self.vocabulary is not None:
            if self.tokens in ("char", "byte"):
                raise InputError(f"--vocabulary has no meaning for --tokens {self.tokens}: it is for word and bpe")
            self._at_least("vocabulary", low=LEAST_TOKENS.get(self.tokens or "bpe", 3))
        for name in ("dropout", "label_smoothing"):
            self._below_one(name)
        check_fraction(self.val_fraction)


WIDEST = 1000
"""Hypotheses, at most: a search for the likeliest text hardly changes above ten."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How a translator or a captioner writes.

    Attributes
    ----------
    beam
        Hypotheses that it follows; 1 takes the likeliest token each time.
    length_penalty
        Texts are ranked by log-probability / ((5 + tokens) / 6)^this: 0 favours short ones, more longer ones. Default:
        1; 0 with --beam 1.
    min_length
        Tokens of a text at least.
    max_length
        Tokens of a text at most. Default: by the length of its source, as in the training pairs; of a caption as many
        as the longest of the training has.
    no_repeat_ngram
        No so many tokens in a row come twice in a text; 0 allows it.
    """

    beam: int = 5
    length_penalty: float | None = None
    min_length: int = 0
    max_length: int | None = None
    no_repeat_ngram: int = 0

    def __post_init__(self) -> None:
        if self.beam > WIDEST:
            raise InputError(f"--beam is {self.beam:,}: it must be at most {WIDEST:,}")
        for name, low in (
            ("beam", 1),
            ("length_penalty", 0),
            ("min_length", 0),
            ("max_length", 0),
            ("no_repeat_ngram", 0),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} is {value}: it must be at least {low} and finite")
        if self.max_length is not None and self.min_length > self.max_length:
            raise InputError(
                f"--min-length is {self.min_length} and --max-length {self.max_length}: give less, or more"
            )

    @property
    def penalty(self) -> float:
        """The length penalty."""
        return float(self.beam > 1) if self.length_penalty is None else self.length_penalty


def check_fraction(value: float | None) -> None:
    if value is not None and not 0 < value < 1:
        raise InputError(f"--val-fraction is {value}: it must lie between 0 and 1")
