"""What tasks share whose networks write tokens from what they have read: the loss, and what is written freely."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.cells import State
from unrolled.data.batches import ExampleBatch, Examples, Limit, in_order_of_length
from unrolled.data.vocabulary import BEGIN, END
from unrolled.decoding.search import Hypothesis, Limits, beam_search, stepper
from unrolled.tasks.options import SearchOptions
from unrolled.topologies import Decoder, Memory

GREEDY = SearchOptions(beam=1)
BEAM = 5


class Network(Protocol):
    """A network that writes; an `nn.Module`."""

    table: nn.Parameter
    writable: Tensor
    """(V,) bool: tokens that a text may have"""
    training: bool
    read_at_once: Limit
    """Of a batch that is only read"""

    @property
    def topology(self) -> Decoder: ...
    def train(self, mode: bool = True) -> nn.Module: ...
    def read(self, batch: ExampleBatch) -> Memory:
        """What the decoder knows of each example."""
        ...

    def scores(self, batch: ExampleBatch) -> tuple[Tensor, Tensor]:
        """Scores (N, V) of the real target tokens, each after the true ones before it, and these tokens (N,)."""
        ...


class Lengths(Protocol):
    def limits(self, lengths: Tensor) -> Tensor:
        """The lengths (B,) of what is read to the tokens (B,) of what is written, at most."""
        ...


@torch.no_grad()
def mean_loss(network: Network, examples: Examples, device: torch.device, most: int | None = None) -> tuple[float, int]:
    """Nats a token with teacher forcing (no label smoothing), and how many tokens; `most`: of so many examples."""
    was_training, nats, count = network.training, 0.0, 0
    network.train(False)
    for batch in in_order_of_length(examples, network.read_at_once, most):
        scores, targets = network.scores(batch.to(device))
        nats += F.cross_entropy(scores, targets, reduction="sum").item()
        count += len(targets)
    network.train(was_training)
    return nats / max(1, count), count


@torch.inference_mode()
def write(
    network: Network,
    lengths: Lengths,
    examples: Examples,
    device: torch.device,
    *,
    search: SearchOptions = GREEDY,
    most: int | None = None,
    aligned: bool = False,
) -> tuple[list[int], list[Hypothesis]]:
    """Which examples, ascending, and the best text found of each.

    most: of so many examples at most; aligned: with attention weights.
    """
    step, was_training = stepper(network.topology, network.table), network.training

    def allowed(x: Tensor, state: State, memory: Memory, /) -> tuple[Tensor, State, Tensor | None]:
        scores, state, weights = step(x, state, memory)
        return scores.masked_fill(~network.writable, -torch.inf), state, weights if aligned else None

    network.train(False)
    found: dict[int, Hypothesis] = {}
    for batch in in_order_of_length(examples, network.read_at_once.shared(search.beam), most):
        batch = batch.to(device)
        longest: Tensor | int | None = search.max_length
        if longest is None:
            longest = lengths.limits(batch.lengths).clamp(min=search.min_length)
        limits = Limits(BEGIN, END, longest, search.min_length, search.no_repeat_ngram)
        texts = beam_search(allowed, network.read(batch), limits, search.beam, search.penalty)
        found.update(zip(batch.rows.tolist(), (best for (best,) in texts), strict=True))
    network.train(was_training)
    rows = sorted(found)
    return rows, [found[row] for row in rows]
