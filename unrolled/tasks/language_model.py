"""The language model: the next token of a text, at every timestep.

`Network` is the module, `LanguageModelTask` what the training loop sees of it; what users hold is in `models.py`.
"""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.cells import CELLS, Inputs, State
from unrolled.data.corpus import Tokens
from unrolled.data.examples import Skipped
from unrolled.data.streams import IGNORED, Batch, LaneStream
from unrolled.data.tokenizers import SPACED, Tokenizer
from unrolled.engines import said
from unrolled.metrics.text import bits
from unrolled.nn import Recurrent
from unrolled.nn.dropout import embedding_dropout
from unrolled.nn.frequencies import begin_at_frequencies
from unrolled.tasks.options import LanguageModelOptions
from unrolled.topologies import ManyToMany, OneToOne
from unrolled.training.task import Evaluation

if TYPE_CHECKING:
    from unrolled.tasks.models import LanguageModel

LEARNING_RATES = {"lstm": 8e-3, "gru": 8e-3, "rnn": 4e-3, "rnn_relu": 2e-3}
"""AdamW's peak rate for 256 hidden units. It goes with 1/width (Yang et al. 2022, arXiv:2203.03466), up to 1e-2."""
DEFAULT_SECONDS = 300.0
EMBEDDING = {"char": 64, "byte": 64, "word": 256, "bpe": 256}
"""Its size where it is not told: words have more to say than characters."""
UNITS = {"char": "characters", "byte": "bytes", "word": "words", "bpe": "tokens"}
SCORES = 1 << 23
"""Numbers that an evaluation holds at a time: many tokens make large scores."""
COUNTED = 10_000_000
"""Tokens of the training text that are counted for the output's first bias."""
ARCHITECTURE = ("cell", "hidden", "layers", "embedding", "topology", "tokens", "vocabulary")
"""The options that make a model what it is: with --start-from they come from that model."""


def resolve(options: LanguageModelOptions) -> LanguageModelOptions:
    """The options with every choice made that does not depend on the text, the time or the machine (`recipe.py`)."""
    cell, hidden, tokens = options.cell or "lstm", options.hidden or 256, options.tokens or "char"
    return replace(
        options,
        cell=cell,
        hidden=hidden,
        layers=options.layers or 1,
        embedding=min(hidden, EMBEDDING[tokens]) if options.embedding is None else options.embedding,
        topology=options.topology or "many_to_many",
        tokens=tokens,
        batch=options.batch or 32,
        bptt=options.bptt or 32,
        dropout=options.dropout or 0.0,
        forget_bias=(1.0 if options.forget_bias is None else options.forget_bias) if cell == "lstm" else None,
        lr=options.lr or min(1e-2, LEARNING_RATES[cell] * 256 / hidden),
        seconds=DEFAULT_SECONDS if options.seconds is None and options.steps is None else options.seconds,
    )


class Network(nn.Module):
    """Tokens to the scores of the next token. Takes resolved options."""

    def __init__(self, vocabulary: int, options: LanguageModelOptions) -> None:
        super().__init__()
        assert options.cell and options.hidden and options.layers
        assert options.embedding is not None and options.dropout is not None
        self.table = nn.Parameter(torch.randn(vocabulary, options.embedding)) if options.embedding else None
        self.options = options
        below = options.embedding or vocabulary
        self.topology: ManyToMany | OneToOne
        if options.topology == "one_to_one":
            self.topology = OneToOne(below, options.hidden, vocabulary, options.dropout)
        else:
            recurrent = Recurrent(
                CELLS[options.cell],
                below,
                options.hidden,
                options.layers,
                dropout=options.dropout,
                locked=options.locked,
                weight_drop=options.weight_drop,
                forget_bias=options.forget_bias if options.cell == "lstm" else None,
                orthogonal=True,
                engine=options.engine,
            )
            self.topology = ManyToMany(recurrent, vocabulary, options.dropout)

    def forward(self, batch: Batch, state: State | None) -> tuple[Tensor, State]:
        """The mean loss of the batch's timesteps in nats, and the state to carry on."""
        scores, state = self.scores(batch, state)
        return F.cross_entropy(scores.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED), state

    def scores(self, batch: Batch, state: State | None) -> tuple[Tensor, State]:
        """(T, B, V); the state of a row that does not carry on starts at zero."""
        if state is not None and not bool(batch.carry.all()):
            state = tuple(torch.where(batch.carry[:, None], s, 0) for s in state)
        table: Tensor | None = self.table
        if table is not None:
            table = embedding_dropout(table, self.options.embedding_dropout, self.training)
        return self.topology(Inputs(batch.inputs, table), state, batch.lengths)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Tokens (B,) to scores (B, V)."""
        return self.topology.step(Inputs(tokens, self.table), state)

    def engine_name(self) -> str:
        """The engine that runs the recurrent layers."""
        if not isinstance(self.topology, ManyToMany):
            return "none"
        recurrent, device = self.topology.recurrent, self.topology.output.weight.device
        tokens = torch.zeros(1, 1, dtype=torch.long, device=device)
        return recurrent.chosen_engine(Inputs(tokens, self.table), recurrent.initial_state(1)).name


class LanguageModelTask:
    """A text to train on, a text to validate on, and the network between them."""

    name = "language-model"
    monitor = ("val_loss", "min")

    def __init__(
        self, options: LanguageModelOptions, tokenizer: Tokenizer, splits: dict[str, Tokens], device: torch.device
    ) -> None:
        self.options, self.tokenizer, self.splits, self.device = options, tokenizer, splits, device
        self.unit = UNITS[options.tokens or "char"]
        self.notes: list[str] = []
        self.sha256: list[str] = []
        self.old_sha256: Callable[[], list[str]] | None = None
        self.decoders = ""
        self.start: dict[str, Tensor] | None = None
        self.trained_on: dict[str, Any] | None = None
        self.skipped: list[Skipped] = []

    def model(self) -> Network:
        """A new network that knows how frequent each token is: the output's bias begins at the logarithm, which saves
        the first updates learning it."""
        network = Network(self.tokenizer.size, self.options)
        counts = np.bincount(self.splits["train"].ids[:COUNTED], minlength=self.tokenizer.size)
        begin_at_frequencies(network.topology.output.bias, counts)
        return network

    def batches(self, split: str) -> LaneStream:
        assert self.options.batch
        return LaneStream(self.splits[split], self.options.batch, self.options.bptt_steps)

    def size(self, split: str) -> int:
        return len(self.splits[split].ids)

    def examples(self, split: str) -> None:
        """Its measure is a loss over tokens."""

    def evaluate(
        self, model: nn.Module, split: str, limit: int | None = None, *, write: int | None = None
    ) -> Evaluation:
        assert isinstance(model, Network)
        return evaluate(model, self.tokenizer, self.splits[split], self.device, limit)

    def public(self, model: nn.Module) -> "LanguageModel":
        from unrolled.tasks.models import LanguageModel  # the other way round at import

        assert isinstance(model, Network)
        return LanguageModel(model, self.tokenizer, self.options)

    def introduction(self, model: nn.Module, engine: str) -> str:
        """What is trained on what, in one line."""
        options, train, val = self.options, self.splits["train"], self.splits["val"]
        asked = options.engine if engine != "none" else ""
        runs = said(engine, asked, self.device.type, CELLS[options.cell or "lstm"])
        shape = f"{options.cell} {options.layers} × {options.hidden}" if engine != "none" else "one_to_one"
        return (
            f"{shape}, {sum(p.numel() for p in model.parameters()):,} parameters, {self.tokenizer.size} tokens "
            f"({options.tokens}); train {len(train.ids):,}, validation {len(val.ids):,} tokens; {runs}, "
            f"{self.device}, {torch.get_num_threads()} threads"
        )

    def describe(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "options": asdict(self.options),
            "vocabulary": self.tokenizer.to_json(),
            "trained_on": self.trained_on,
        }


@torch.no_grad()
def evaluate(
    network: Network, tokenizer: Tokenizer, tokens: Tokens, device: torch.device, limit: int | None = None
) -> Evaluation:
    """Loss over the text (or its first `limit` tokens) with carried state: nats a character, whatever the tokens.

    Up to 64 contiguous lanes of at least 1,024 tokens; a lane begins without a past. Word and bpe also have the
    perplexity of a token. For words, `unknown` is the part of the predicted tokens that are unknown words: what
    spelling them would take is not in the loss, so losses are comparable where it is the same.
    """
    if limit is not None:
        limit = max(2, limit)
        tokens = Tokens(tokens.ids[:limit], tokens.documents[tokens.documents < limit])
    lanes = max(1, min(64, tokens.predictions // 1024))
    counts = torch.zeros(tokenizer.size, dtype=torch.int64)
    was_training, state, nats = network.training, None, 0.0
    network.eval()
    steps = max(1, min(128, SCORES // (lanes * tokenizer.size)))
    for batch in LaneStream(tokens, lanes, steps, repeat=False):
        batch = batch.to(device)
        scores, state = network.scores(batch, state)
        flat = scores.flatten(0, 1)
        nats += F.cross_entropy(flat, batch.targets.flatten(), ignore_index=IGNORED, reduction="sum").item()
        counts += torch.bincount(batch.targets[batch.targets != IGNORED], minlength=tokenizer.size).cpu()
    network.train(was_training)
    predicted = int(counts.sum())
    loss = nats / max(1.0, float(counts.double() @ torch.from_numpy(tokenizer.lengths)))
    metrics = {"val_loss": loss, "bits_per_character": bits(loss)}
    if tokenizer.kind in SPACED:
        metrics["perplexity"] = float(torch.tensor(nats / max(1, predicted), dtype=torch.float64).exp())
    if tokenizer.unknown:
        metrics["unknown"] = int(counts[list(tokenizer.unknown)].sum()) / max(1, predicted)
    return Evaluation(metrics, len(tokens.ids))
