"""What the tasks share that give an example one label of several: the probabilities, and what became of each example.

With many classes the probabilities of all examples are more numbers than memory holds, so a measurement keeps of each
example what it needs (`Outcomes`), batch by batch.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.data.batches import ExampleBatch, Examples, Limit, in_order_of_length
from unrolled.metrics.classification import Outcomes


class Network(Protocol):
    """A network that labels; an `nn.Module`."""

    training: bool
    read_at_once: Limit
    """Of a batch that is only read"""

    def train(self, mode: bool = True) -> nn.Module: ...
    def probabilities(self, batch: ExampleBatch) -> Tensor:
        """(B, classes) float64"""
        ...


def predict(network: Network, examples: Examples, device: torch.device) -> np.ndarray:
    """The probabilities (N, classes) of each example."""
    found = list(_predicted(network, examples, device, None))
    order = np.argsort(np.concatenate([batch.rows.numpy() for batch, _ in found]))
    return np.concatenate([chances for _, chances in found])[order]


def outcomes(
    network: Network, examples: Examples, device: torch.device, most: int | None = None
) -> tuple[np.ndarray, Outcomes]:
    """Which examples (N,), ascending, and what is predicted of each; `most`: of so many at most."""
    rows, found = [], []
    for batch, chances in _predicted(network, examples, device, most):
        rows.append(batch.rows.numpy())
        found.append(Outcomes.of(batch.targets.numpy(), chances))
    order = np.argsort(np.concatenate(rows))
    return np.concatenate(rows)[order], Outcomes.join(found, order)


@torch.no_grad()
def _predicted(
    network: Network, examples: Examples, device: torch.device, most: int | None
) -> Iterator[tuple[ExampleBatch, np.ndarray]]:
    was_training = network.training
    network.train(False)
    for batch in in_order_of_length(examples, network.read_at_once, most):
        yield batch, network.probabilities(batch.to(device)).cpu().numpy()
    network.train(was_training)
