"""Translation: a text in, another text out. Sequence to sequence.

`Network` is the module, `TranslateTask` what the training loop sees of it, `translator.py` what users hold.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

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
    shifted,
)
from unrolled.data.contents import check
from unrolled.data.examples import Skipped
from unrolled.data.pairs import Pairs
from unrolled.data.streams import IGNORED
from unrolled.data.vocabulary import BEGIN, PADDING, Vocabulary
from unrolled.engines import said
from unrolled.errors import InputError
from unrolled.metrics import translation
from unrolled.nn import Recurrent
from unrolled.nn.dropout import embedding_dropout
from unrolled.nn.frequencies import begin_at_frequencies
from unrolled.tasks.options import TranslateOptions
from unrolled.tasks.writing import mean_loss
from unrolled.tasks.writing import write as written
from unrolled.topologies import Memory, SequenceToSequence
from unrolled.training.task import Evaluation

if TYPE_CHECKING:
    from unrolled.tasks.translator import Translator

DEFAULT_SECONDS = 900.0
WIDTHS = {"bpe": 512, "word": 512, "char": 256, "byte": 256}
EMBEDDINGS = {"bpe": 256, "word": 256, "char": 64, "byte": 64}
DROPOUTS = {"bpe": 0.3, "word": 0.3, "char": 0.1, "byte": 0.1}
SMOOTHING = {"bpe": 0.1, "word": 0.1, "char": 0.0, "byte": 0.0}
"""Characters are for notations and spellings: less to know than a language, and one right answer."""
VOCABULARIES = {"bpe": 4000, "word": 10_000}
TRAINED = 4096
"""Timesteps times rows of a training batch, at most."""
LONGEST = 1000
"""Tokens of a side of a training pair, and of a translation, at most."""
READ = 10_000
"""Tokens of a text to translate, at most: with more, what has been read drowns, and each step looks at all of it."""


def resolve(options: TranslateOptions) -> TranslateOptions:
    """The options with every choice made."""
    tokens = options.tokens or "bpe"
    hidden = options.hidden or WIDTHS[tokens]
    return replace(
        options,
        tokens=tokens,
        vocabulary=options.vocabulary or VOCABULARIES.get(tokens),
        cell=options.cell or "gru",
        hidden=hidden,
        layers=options.layers or 1,
        attention=options.attention or "additive",
        embedding=options.embedding or min(hidden, EMBEDDINGS[tokens]),
        dropout=DROPOUTS[tokens] if options.dropout is None else options.dropout,
        label_smoothing=SMOOTHING[tokens] if options.label_smoothing is None else options.label_smoothing,
        batch=options.batch or 128,
        bptt="full",
        lr=options.lr or min(1e-2, 2 / hidden),
        seconds=DEFAULT_SECONDS if options.seconds is None and options.steps is None else options.seconds,
    )


@dataclass(frozen=True)
class Languages:
    """The tokens of both sides, and how long a target grows from a source."""

    source: Vocabulary
    target: Vocabulary
    growth: float | None = None
    """None: not known yet. A source of S tokens has a target of growth * (S + 10) tokens, at most"""

    def limits(self, lengths: Tensor) -> Tensor:
        """(B,) source tokens to (B,) target tokens, at most."""
        assert self.growth is not None
        return (self.growth * (lengths + 10)).ceil().long().clamp(max=LONGEST)

    def examples(self, pairs: Pairs) -> Examples:
        return Examples(self.sources(pairs.sources), self.targets(pairs.targets))

    def sources(self, texts: Sequence[str]) -> Sequences:
        """Each with its end: a source has at least one token, and attention a place that means none of the words."""
        return Sequences.pack((self.source.encode(text, end=True) for text in texts), self.source.size)

    def targets(self, texts: Sequence[str]) -> Sequences:
        return Sequences.pack((self.target.encode(text, end=True) for text in texts), self.target.size)

    def to_json(self) -> dict[str, Any]:
        return {"source": self.source.to_json(), "target": self.target.to_json(), "growth": self.growth}

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> "Languages":
        check(description["growth"], float, "the growth of its translations")
        if not 0 < description["growth"] < LONGEST:
            raise InputError(f"its translations grow by a factor of {description['growth']}, which makes no sense")
        source, target = (Vocabulary.from_json(description[name]) for name in ("source", "target"))
        return cls(source, target, description["growth"])


class Network(nn.Module):
    """An encoder that reads both ways, and a decoder. Takes resolved options.

    The output is tied to the target's table (Press & Wolf 2017, arXiv:1608.05859).
    """

    read_at_once = Limit(256, 1 << 14)

    def __init__(self, languages: Languages, options: TranslateOptions) -> None:
        super().__init__()
        o = options
        assert o.cell and o.hidden and o.layers and o.embedding and o.attention and o.dropout is not None
        sources, targets = languages.source.size, languages.target.size
        self.source_table = nn.Parameter(torch.randn(sources, o.embedding))
        self.table = nn.Parameter(torch.randn(targets, o.embedding) / o.embedding**0.5)

        def layers(hidden: int, bidirectional: bool) -> Recurrent:
            assert o.cell and o.layers and o.embedding and o.dropout is not None
            return Recurrent(
                CELLS[o.cell],
                o.embedding,
                hidden,
                o.layers,
                dropout=o.dropout,
                locked=o.locked,
                weight_drop=o.weight_drop,
                bidirectional=bidirectional,
                forget_bias=1.0 if o.cell == "lstm" else None,
                orthogonal=True,
                engine=o.engine,
            )

        encoder, decoder = layers(o.hidden // 2, True), layers(o.hidden, False)
        with torch.no_grad():  # the table is small for the sake of the output, so what it brings in grows again
            decoder.get_parameter("weight_ih_l0").mul_(o.embedding**0.5)
        self.topology = SequenceToSequence(
            encoder, decoder, targets, attention=o.attention, tied=True, dropout=o.dropout
        )
        self.options = options
        self.writable: Tensor
        self.register_buffer("writable", torch.from_numpy(languages.target.writable), persistent=False)

    def forward(self, batch: ExampleBatch, state: State | None) -> tuple[Tensor, State]:
        """The mean loss of the batch's target tokens in nats (teacher forcing); there is no state to carry on."""
        scores, targets = self.scores(batch)
        assert self.options.label_smoothing is not None
        return F.cross_entropy(scores, targets, label_smoothing=self.options.label_smoothing), ()

    def scores(self, batch: ExampleBatch) -> tuple[Tensor, Tensor]:
        """Scores (N, V) of the real target tokens, each after the true ones before it, and these tokens (N,)."""
        before = self._embed(shifted(batch.targets, BEGIN, PADDING), self.table)
        readouts, _ = self.topology.decode(before, self.read(batch), batch.target_lengths)
        real = batch.targets != IGNORED
        return self.topology.score(readouts[real], self.table), batch.targets[real]

    def read(self, batch: ExampleBatch) -> Memory:
        return self.topology.encode(self._embed(batch.inputs, self.source_table), batch.lengths)

    def _embed(self, tokens: Tensor, table: Tensor) -> Inputs:
        table = embedding_dropout(table, self.options.embedding_dropout, self.training)
        if not self.training or not self.options.dropout:
            return Inputs(tokens, table)
        x = F.embedding(tokens, table)
        # the same units at every timestep: the text cannot give away what was dropped (Gal & Ghahramani 2016)
        return Inputs(x * F.dropout(x.new_ones(1, *x.shape[1:]), self.options.dropout))

    def engine_name(self) -> str:
        """The engine that runs the recurrent layers."""
        encoder = self.topology.encoder
        return encoder.chosen_engine(Inputs(self.source_table[:1, None]), encoder.initial_state(1)).name


class TranslateTask:
    """Pairs to train on, others to validate on, and the network between them."""

    name = "translate"
    unit = "tokens"
    monitor = ("bleu", "max")

    def __init__(
        self,
        options: TranslateOptions,
        languages: Languages,
        splits: dict[str, Examples],
        references: Sequence[str],
        device: torch.device,
    ) -> None:
        """references: the targets of the validation pairs, as texts."""
        self.options, self.languages, self.splits, self.device = options, languages, splits, device
        self.references, self.bleu = references, translation.bleu_for(references)
        self.notes: list[str] = []
        self.sha256: list[str] = []
        self.old_sha256: Callable[[], list[str]] | None = None
        self.decoders = ""
        self.start: dict[str, Tensor] | None = None
        self.trained_on: dict[str, Any] | None = None
        self.skipped: list[Skipped] = []

    def model(self) -> Network:
        network, targets = Network(self.languages, self.options), self.splits["train"].targets
        assert isinstance(targets, Sequences) and network.topology.bias is not None
        counts = np.bincount(targets.ids, minlength=self.languages.target.size)
        begin_at_frequencies(network.topology.bias, counts)
        return network

    def batches(self, split: str) -> BucketStream:
        assert self.options.batch
        return BucketStream(self.splits[split], Limit(self.options.batch, TRAINED), self.options.seed)

    def size(self, split: str) -> int:
        targets = self.splits[split].targets
        assert isinstance(targets, Sequences)
        return len(targets.ids)

    def examples(self, split: str) -> int:
        return len(self.splits[split])

    def evaluate(
        self, model: nn.Module, split: str, limit: int | None = None, *, write: int | None = None
    ) -> Evaluation:
        """val_loss of pairs with about `limit` target tokens together, and bleu, chrf and exact of what the network
        writes by itself, greedily, for at most `write` of these pairs. A loss that is not finite comes alone."""
        assert isinstance(model, Network) and split == "val"
        examples = self.splits[split]
        most = len(examples) if limit is None else max(1, limit * len(examples) // self.size(split))
        loss, size = mean_loss(model, examples, self.device, most)
        if not math.isfinite(loss):
            return Evaluation({"val_loss": loss}, size)
        rows, found = written(model, self.languages, examples, self.device, most=min(most, write or most))
        texts = [self.languages.target.decode(hypothesis.tokens) for hypothesis in found]
        scores, _ = translation.scores(texts, [self.references[row] for row in rows], self.bleu)
        return Evaluation({**scores, "val_loss": loss}, size, len(rows))

    def public(self, model: nn.Module) -> "Translator":
        from unrolled.tasks.translator import Translator  # the other way round at import

        assert isinstance(model, Network)
        return Translator(model, self.languages, self.options)

    def introduction(self, model: nn.Module, engine: str) -> str:
        """What is trained on what, in one line."""
        o, sides = self.options, self.languages
        runs = said(engine, o.engine, self.device.type, CELLS[o.cell or "gru"])
        return (
            f"{o.cell} {o.layers} × {o.hidden}, attention {o.attention}, "
            f"{sum(p.numel() for p in model.parameters()):,} parameters, tokens ({o.tokens}) {sides.source.size:,} to "
            f"{sides.target.size:,}; train {len(self.splits['train']):,}, validation {len(self.splits['val']):,} "
            f"pairs; {runs}, {self.device}, {torch.get_num_threads()} threads"
        )

    def describe(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "options": asdict(self.options),
            "vocabulary": self.languages.to_json(),
            "trained_on": self.trained_on,
        }
