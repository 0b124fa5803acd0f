"""Text classification: a text in, a label out. Many to one.

`Network` is the module, `TextClassifierTask` what the training loop sees of it, `text_classifier.py` what users hold.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.cells import CELLS, Inputs, State
from unrolled.data.batches import BucketStream, ExampleBatch, Examples, Limit, Sequences
from unrolled.data.examples import Skipped
from unrolled.data.labelled import listed
from unrolled.data.tokenizers import SPACED, Tokenizer
from unrolled.engines import said
from unrolled.metrics import classification
from unrolled.nn import Recurrent
from unrolled.nn.dropout import embedding_dropout
from unrolled.nn.frequencies import begin_at_frequencies
from unrolled.tasks.classified import outcomes
from unrolled.tasks.options import TextClassifierOptions
from unrolled.topologies import ManyToOne
from unrolled.training.task import Evaluation

if TYPE_CHECKING:
    from unrolled.tasks.text_classifier import TextClassifier

DEFAULT_SECONDS = 300.0
DEVIATION = 0.1
"""Of the numbers of the token vectors at the beginning: small, so that the first updates can turn them."""
LONGEST = 1 << 14
"""Tokens of a training text that are read, at most."""
USUAL = 1024
"""Tokens of a text up to which a training batch has all its rows; of longer ones it has fewer."""
EVALUATED, TOKENS = 256, 1 << 16
"""Rows, and timesteps times rows, of a batch that is only read."""


def resolve(options: TextClassifierOptions) -> TextClassifierOptions:
    """The options with every choice made."""
    hidden, tokens = options.hidden or 192, options.tokens or "word"
    return replace(
        options,
        tokens=tokens,
        vocabulary=options.vocabulary or (20_000 if tokens in ("word", "bpe") else None),
        cell=options.cell or "gru",
        hidden=hidden,
        layers=options.layers or 1,
        embedding=options.embedding or 128,
        batch=options.batch or 64,
        bptt="full",
        lr=options.lr or 2e-3,
        seconds=DEFAULT_SECONDS if options.seconds is None and options.steps is None else options.seconds,
    )


class Network(nn.Module):
    """Tokens of a text to the scores of its classes. Takes resolved options."""

    read_at_once = Limit(EVALUATED, TOKENS)

    def __init__(
        self, vocabulary: int, classes: int, options: TextClassifierOptions, weights: Tensor | None = None
    ) -> None:
        super().__init__()
        assert options.cell and options.hidden and options.layers and options.embedding
        self.table = nn.Parameter(DEVIATION * torch.randn(vocabulary, options.embedding))
        self.hidden_token = nn.Parameter(torch.zeros(options.embedding))
        """Stands in a training for a token that the network is not shown."""
        recurrent = Recurrent(
            CELLS[options.cell],
            options.embedding,
            options.hidden,
            options.layers,
            dropout=options.dropout,
            locked=options.locked,
            weight_drop=options.weight_drop,
            bidirectional=not options.one_directional,
            forget_bias=1.0 if options.cell == "lstm" else None,
            orthogonal=True,
            engine=options.engine,
        )
        self.topology = ManyToOne(recurrent, classes, options.pooling, options.dropout)
        self.options = options
        self.weights: Tensor | None
        self.register_buffer("weights", weights, persistent=False)  # of the training alone, on the network's device

    def forward(self, batch: ExampleBatch, state: State | None) -> tuple[Tensor, State]:
        """The mean loss of the batch's texts in nats; there is no state to carry on."""
        loss = F.cross_entropy(
            self.scores(batch), batch.targets, weight=self.weights, label_smoothing=self.options.label_smoothing
        )
        return loss, ()

    def scores(self, batch: ExampleBatch) -> Tensor:
        """(B, classes)"""
        x = F.embedding(batch.inputs, embedding_dropout(self.table, self.options.embedding_dropout, self.training))
        if self.training:
            hide = torch.rand(batch.inputs.shape, device=x.device) < self.options.token_dropout
            x = torch.where(hide[..., None], self.hidden_token, x)
            # the same units at every timestep: the text cannot give away what was dropped (Gal & Ghahramani 2016)
            x = x * F.dropout(x.new_ones(1, *x.shape[1:]), self.options.dropout)
        return self.topology(Inputs(x), batch.lengths)

    def probabilities(self, batch: ExampleBatch) -> Tensor:
        """(B, classes) float64"""
        return torch.softmax(self.scores(batch).double(), -1)

    def engine_name(self) -> str:
        """The engine that runs the recurrent layers."""
        recurrent = self.topology.recurrent
        return recurrent.chosen_engine(Inputs(self.table[:1, None]), recurrent.initial_state(1)).name


class TextClassifierTask:
    """Labelled texts to train on, others to validate on, and the network between them."""

    name = "classify-text"
    unit = "texts"

    def __init__(
        self,
        options: TextClassifierOptions,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        splits: dict[str, Examples],
        device: torch.device,
    ) -> None:
        self.options, self.tokenizer, self.labels, self.splits = options, tokenizer, list(labels), splits
        self.device = device
        self.monitor = ("f1" if options.balance else "accuracy", "max")
        self.notes: list[str] = []
        self.sha256: list[str] = []
        self.old_sha256: Callable[[], list[str]] | None = None
        self.decoders = ""
        self.start: dict[str, Tensor] | None = None
        self.trained_on: dict[str, Any] | None = None
        self.skipped: list[Skipped] = []

    def model(self) -> Network:
        counts = np.bincount(self._numbers("train"), minlength=len(self.labels))
        even = torch.from_numpy(counts.sum() / len(counts) / np.maximum(counts, 1)).float()
        weights = even if self.options.balance else None
        network = Network(self.tokenizer.size, len(self.labels), self.options, weights)
        if weights is None:
            begin_at_frequencies(network.topology.output.bias, counts)
        return network

    def batches(self, split: str) -> BucketStream:
        assert self.options.batch
        return BucketStream(
            self.splits[split], Limit(self.options.batch, USUAL * self.options.batch), self.options.seed
        )

    def size(self, split: str) -> int:
        return len(self.splits[split])

    def examples(self, split: str) -> int:
        return len(self.splits[split])

    def evaluate(
        self, model: nn.Module, split: str, limit: int | None = None, *, write: int | None = None
    ) -> Evaluation:
        assert isinstance(model, Network)
        rows, found = outcomes(model, self.splits[split], self.device, limit)
        return Evaluation(measure(self._numbers(split)[rows], found, len(self.labels)), len(rows))

    def _numbers(self, split: str) -> np.ndarray:
        """(N,) the classes."""
        targets = self.splits[split].targets
        assert isinstance(targets, np.ndarray)
        return targets

    def public(self, model: nn.Module) -> "TextClassifier":
        from unrolled.tasks.text_classifier import TextClassifier  # the other way round at import

        assert isinstance(model, Network)
        return TextClassifier(model, self.tokenizer, self.labels, self.options)

    def introduction(self, model: nn.Module, engine: str) -> str:
        """What is trained on what, in one line."""
        o = self.options
        runs = said(engine, o.engine, self.device.type, CELLS[o.cell or "gru"])
        ways = "" if o.one_directional else ", both directions"
        return (
            f"{o.cell} {o.layers} × {o.hidden}{ways}, {o.pooling} pooling, "
            f"{sum(p.numel() for p in model.parameters()):,} parameters, {self.tokenizer.size:,} tokens ({o.tokens}), "
            f"{listed(self.labels)}; train {len(self.splits['train']):,}, validation {len(self.splits['val']):,} "
            f"texts; {runs}, {self.device}, {torch.get_num_threads()} threads"
        )

    def describe(self) -> dict[str, Any]:
        vocabulary = {"tokenizer": self.tokenizer.to_json(), "labels": self.labels}
        return {
            "task": self.name,
            "options": asdict(self.options),
            "vocabulary": vocabulary,
            "trained_on": self.trained_on,
        }


def encode_all(tokenizer: Tokenizer, texts: Sequence[str], lower: bool) -> Sequences:
    """The texts as tokens."""
    return Sequences.pack(map(tokenizer.encode, plain(texts, tokenizer.kind, lower)), tokenizer.size)


def plain(texts: Iterable[str], kind: str, lower: bool) -> Iterator[str]:
    """As the tokeniser gets them: where tokens hold a space, with one in front, so that a text's first word is the same
    token as elsewhere."""
    front = " " if kind in SPACED else ""
    return (front + (text.lower() if lower else text) if text else "" for text in texts)


def measure(true: np.ndarray, found: classification.Outcomes, classes: int) -> dict[str, float]:
    """accuracy, macro-F1, and the loss in nats."""
    counts = classification.Tally.of(true, found.predicted, classes)
    return {**classification.scores(counts), "val_loss": found.loss()}
