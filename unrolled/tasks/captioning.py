"""What the tasks that write captions share: the network that writes from what it remembers, its loss, its measures.

A caption is a text with its begin and its end. A picture or a clip has several; each is an example of its own for the
loss, and all of them are the references of what the network writes by itself.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.cells import CELLS, Inputs, State
from unrolled.data.batches import (
    BucketStream,
    ExampleBatch,
    Examples,
    Limit,
    Sequences,
    Several,
    shifted,
)
from unrolled.data.contents import check
from unrolled.data.examples import Skipped
from unrolled.data.frames import Frames
from unrolled.data.streams import IGNORED
from unrolled.data.tokenizers import decode
from unrolled.data.vocabulary import BEGIN, PADDING, SPECIALS, Vocabulary
from unrolled.decoding.search import Hypothesis
from unrolled.errors import InputError
from unrolled.metrics import captions
from unrolled.metrics.text import measured_by_characters
from unrolled.nn import Recurrent
from unrolled.nn.dropout import embedding_dropout
from unrolled.nn.frequencies import begin_at_frequencies
from unrolled.tasks.writing import mean_loss
from unrolled.tasks.writing import write as written
from unrolled.topologies import Decoder, Memory
from unrolled.training.task import Evaluation


class Caption(NamedTuple):
    """What a captioner writes."""

    text: str
    score: float
    """What the beam search ranks by: the log-probability, divided by the length penalty"""
    log_probability: float
    """In nats, of the tokens and the end"""
    tokens: list[str]
    """With the end"""
    attention: list[list[float]] | None
    """A row a token, a column a region of the picture, row by row from the top left, or a frame of those that were
    looked at; None without attention, and where it was not asked for"""


@dataclass(frozen=True)
class Words:
    """The tokens of captions, and how many a caption may have."""

    vocabulary: Vocabulary
    longest: int

    @classmethod
    def learn(cls, texts: Sequence[str], options: Any) -> "Words":
        """From the training captions alone. options: tokens, vocabulary, and for words min_count and cased."""
        how = {"min_count": options.min_count, "lower": not options.cased} if options.tokens == "word" else {}
        vocabulary = Vocabulary.learn(options.tokens, texts, options.vocabulary, **how)
        return cls(vocabulary, max(len(vocabulary.encode(text)) for text in texts))

    def limits(self, lengths: Tensor) -> Tensor:
        """(B,) whatever is described to (B,) tokens, at most: as in the longest training caption."""
        return torch.full_like(lengths, self.longest)

    def encode(self, texts: Sequence[str]) -> Sequences:
        """Each with its end."""
        return Sequences.pack((self.vocabulary.encode(text, end=True) for text in texts), self.vocabulary.size)

    def caption(self, found: Hypothesis) -> Caption:
        """What was found, as text."""
        pieces = [decode(self.vocabulary.tokenizer, [token - SPECIALS]) for token in found.tokens]
        attention = None if found.alignment is None else found.alignment.tolist()
        text = self.vocabulary.decode(found.tokens)
        return Caption(text, found.score, found.log_probability, [*pieces, "<end>"], attention)

    def to_json(self) -> dict[str, Any]:
        return {**self.vocabulary.to_json(), "longest": self.longest}

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> "Words":
        check(description.get("longest"), int, "the length of its captions")
        if description["longest"] < 1:
            raise InputError(f"its captions have at most {description['longest']} tokens, which says nothing")
        return cls(Vocabulary.from_json(description), description["longest"])


class CaptionNetwork(nn.Module, ABC):
    """A decoder whose output is tied to the table of its tokens (Press & Wolf 2017, arXiv:1608.05859). Subclasses say
    what it remembers of an input. Takes resolved options.

    context, values: features of the vector that the decoder begins with, and of what its attention looks at.
    """

    read_at_once = Limit(64)

    def __init__(
        self,
        words: Words,
        options: Any,
        context: int,
        values: int = 0,
        *,
        attention: str = "none",
        use: str = "initial",
    ) -> None:
        super().__init__()
        o, size = options, words.vocabulary.size
        self.options = options
        self.table = nn.Parameter(torch.randn(size, o.embedding) / o.embedding**0.5)
        layers = Recurrent(
            CELLS[o.cell],
            o.embedding,
            o.hidden,
            o.layers,
            dropout=o.dropout,
            locked=o.locked,
            weight_drop=o.weight_drop,
            forget_bias=1.0 if o.cell == "lstm" else None,
            orthogonal=True,
            engine=o.engine,
        )
        with torch.no_grad():  # the table is small for the sake of the output, so what it brings in grows again
            layers.get_parameter("weight_ih_l0").mul_(o.embedding**0.5)
        self.topology = Decoder(
            layers, size, context, values, attention=attention, use=use, tied=True, dropout=o.dropout
        )
        writable = words.vocabulary.writable
        writable[list(words.vocabulary.unknown)] = False
        self.writable: Tensor
        self.register_buffer("writable", torch.from_numpy(writable), persistent=False)

    @abstractmethod
    def read(self, batch: ExampleBatch) -> Memory:
        """What the decoder knows of the inputs of a batch."""

    def forward(self, batch: ExampleBatch, state: State | None) -> tuple[Tensor, State]:
        """The mean loss of the batch's tokens in nats (teacher forcing); there is no state to carry on."""
        scores, targets = self.scores(batch)
        return F.cross_entropy(scores, targets, label_smoothing=self.options.label_smoothing), ()

    def scores(self, batch: ExampleBatch) -> tuple[Tensor, Tensor]:
        """Scores (N, V) of the real tokens, each after the true ones before it, and these tokens (N,)."""
        return self.written(batch, self.read(batch))

    def written(self, batch: ExampleBatch, memory: Memory) -> tuple[Tensor, Tensor]:
        """The same, from what the decoder remembers."""
        before = self._embed(shifted(batch.targets, BEGIN, PADDING))
        if batch.owners is not None:
            memory = memory.select(batch.owners)
        readouts, _ = self.topology.decode(before, memory, batch.target_lengths)
        real = batch.targets != IGNORED
        return self.topology.score(readouts[real], self.table), batch.targets[real]

    def _embed(self, tokens: Tensor) -> Inputs:
        table = embedding_dropout(self.table, self.options.embedding_dropout, self.training)
        if not self.training or not self.options.dropout:
            return Inputs(tokens, table)
        x = F.embedding(tokens, table)
        # the same units at every timestep: the text cannot give away what was dropped (Gal & Ghahramani 2016)
        return Inputs(x * F.dropout(x.new_ones(1, *x.shape[1:]), self.options.dropout))

    def begin_with(self, counts: np.ndarray) -> None:
        """How frequent each token is (V,), so that the network knows it before it learns anything."""
        assert self.topology.bias is not None
        begin_at_frequencies(self.topology.bias, counts)

    def engine_name(self) -> str:
        """The engine that runs the recurrent layers."""
        layers = self.topology.decoder
        return layers.chosen_engine(Inputs(self.table[:1, None]), layers.initial_state(1)).name


def counted(captions_of_each: Sequence[Sequence[str]]) -> list[str]:
    """What people should know of how captions are compared with these."""
    return measured_by_characters((text for several in captions_of_each for text in several), "CIDEr, BLEU and ROUGE")


class CaptionTask(ABC):
    """Inputs with captions to train on, others to validate on. Subclasses make the network and know its users' class.

    pairs: the captions of each part, "train" and "val", each with its input. held: the inputs to validate on, once
    each; references: the captions of each of them.
    """

    name: str
    unit = "tokens"
    monitor = ("cider", "max")

    def __init__(
        self,
        options: Any,
        words: Words,
        pairs: dict[str, Examples],
        held: Frames,
        references: Sequence[Sequence[str]],
        device: torch.device,
    ) -> None:
        self.options, self.words, self.pairs, self.device = options, words, pairs, device
        self.held, self.references, self.cut = inputs_alone(held), references, captions.cut_for(references)
        self.notes: list[str] = []
        self.sha256: list[str] = []
        self.old_sha256: Callable[[], list[str]] | None = None
        self.decoders = ""
        self.start: dict[str, Tensor] | None = None
        self.trained_on: dict[str, Any] | None = None
        self.skipped: list[Skipped] = []

    @abstractmethod
    def network(self) -> CaptionNetwork:
        """A new one."""

    def model(self) -> CaptionNetwork:
        network = self.network()
        network.begin_with(np.bincount(tokens_of(self.pairs["train"]), minlength=self.words.vocabulary.size))
        return network

    def batches(self, split: str) -> BucketStream:
        return BucketStream(self.pairs[split], Limit(self.options.batch), self.options.seed)

    def size(self, split: str) -> int:
        return len(tokens_of(self.pairs[split]))

    def examples(self, split: str) -> int:
        """Pictures or clips; of the training part, captions or what has them, as the network reads them."""
        return len(self.held) if split == "val" else len(self.pairs[split])

    def evaluate(
        self, model: nn.Module, split: str, limit: int | None = None, *, write: int | None = None
    ) -> Evaluation:
        """cider, bleu_1 to bleu_4 and rouge_l of what the network writes by itself, greedily, of at most `write`
        inputs, and val_loss of captions with about `limit` tokens together. A loss that is not finite comes alone."""
        assert isinstance(model, CaptionNetwork) and split == "val"
        share = 1.0 if limit is None else min(1.0, limit / self.size(split))
        loss, size = mean_loss(model, self.pairs[split], self.device, max(1, round(share * len(self.pairs[split]))))
        if not math.isfinite(loss):
            return Evaluation({"val_loss": loss}, size)
        most = max(1, round(share * len(self.held)))
        rows, found = written(model, self.words, self.held, self.device, most=min(most, write or most))
        texts = [self.words.vocabulary.decode(hypothesis.tokens) for hypothesis in found]
        scores = captions.scores(texts, [self.references[row] for row in rows], self.cut)
        return Evaluation({"cider": scores.pop("cider"), **scores, "val_loss": loss}, size, len(rows))

    @abstractmethod
    def public(self, model: nn.Module) -> Any:
        """The model as users hold it."""


def inputs_alone(inputs: Frames) -> Examples:
    """Inputs without captions."""
    return Examples(inputs, np.zeros(len(inputs), dtype=np.int64))


def captions_of(examples: Examples) -> int:
    """How many."""
    targets = examples.targets
    assert not isinstance(targets, np.ndarray)
    return len(targets if isinstance(targets, Sequences) else targets.sequences)


def tokens_of(examples: Examples) -> np.ndarray:
    """All tokens of all captions."""
    targets = examples.targets
    assert not isinstance(targets, np.ndarray)
    return targets.ids if isinstance(targets, Sequences) else targets.sequences.ids


def with_captions(inputs: Frames, texts: Sequence[Sequence[str]], words: Words) -> Examples:
    """An example a caption: inputs (N), and the captions of each."""
    rows = np.repeat(np.arange(len(inputs)), [len(several) for several in texts])
    return Examples(inputs.take(rows), words.encode([text for several in texts for text in several]))


def with_all_captions(inputs: Frames, texts: Sequence[Sequence[str]], words: Words) -> Examples:
    """An example an input, with all its captions: what is costly to read is read once for all of them."""
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return Examples(inputs, Several(words.encode([text for several in texts for text in several]), offsets))
