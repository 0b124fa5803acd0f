"""What the training loop knows of a task."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Batch(Protocol):
    def to(self, device: torch.device) -> Any: ...


class Stream(Iterator[Any], Protocol):
    """Batches with a place that a checkpoint can keep."""

    def cursor(self) -> dict[str, Any]: ...
    def seek(self, cursor: dict[str, Any]) -> None: ...


class Evaluation(NamedTuple):
    metrics: dict[str, float]
    size: int
    """How many items (for a language model: tokens) were measured."""
    generated: int | None = None
    """For how many examples the network wrote something by itself; None where a task writes nothing."""


class Task(Protocol):
    """Joins data, a topology and a metric."""

    name: str
    monitor: tuple[str, str]
    """The metric that says which model is best, and whether "min" or "max" is."""

    unit: str
    """What is predicted, one by one, in the plural: characters, words, clips."""

    def model(self) -> nn.Module:
        """A new model. Its forward(batch, state) returns (loss, state); state is a tuple of tensors."""
        ...

    def batches(self, split: str) -> Stream: ...

    def size(self, split: str) -> int:
        """How much a whole evaluation of the split measures."""
        ...

    def examples(self, split: str) -> int | None:
        """How many texts, pairs, pictures or clips the monitor compares; None where it is a loss over tokens."""
        ...

    def evaluate(
        self, model: nn.Module, split: str, limit: int | None = None, *, write: int | None = None
    ) -> Evaluation:
        """Metrics over the split, or its first `limit` items; a network that writes does so for at most `write`
        examples, where that is given."""
        ...

    def public(self, model: nn.Module) -> Any:
        """The model as users hold it."""
        ...

    def describe(self) -> dict[str, Any]:
        """What must travel with the weights: task, options, vocabulary."""
        ...


State = tuple[Tensor, ...]
