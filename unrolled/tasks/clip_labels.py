"""What the tasks that give labels to clips share, one to a clip or one to each frame: what the training loop sees of
them, and what users hold."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.cells import CELLS
from unrolled.data.batches import BucketStream, Examples
from unrolled.data.examples import Skipped
from unrolled.data.labelled import listed, named
from unrolled.engines import said
from unrolled.errors import InputError
from unrolled.nn.convnet import precision
from unrolled.nn.frequencies import begin_at_frequencies
from unrolled.tasks.public_model import PublicModel, built
from unrolled.tasks.video import Shape, VideoNetwork
from unrolled.training.task import Evaluation


class ClipTask(ABC):
    """Labelled clips to train on, others to validate on, and the network between them."""

    name: str
    unit: str
    monitor = ("accuracy", "max")
    network: type[VideoNetwork]
    """Made of shape, classes and options; its topology has the output layer"""

    def __init__(
        self, options: Any, shape: Shape, labels: Sequence[str], splits: dict[str, Examples], device: torch.device
    ) -> None:
        self.options, self.shape, self.labels, self.splits = options, shape, list(labels), splits
        self.device = device
        self.notes: list[str] = []
        self.sha256: list[str] = []
        self.old_sha256: Callable[[], list[str]] | None = None
        self.decoders = ""
        self.start: dict[str, Tensor] | None = None
        self.trained_on: dict[str, Any] | None = None
        self.skipped: list[Skipped] = []

    def model(self) -> Any:
        network: Any = self.network(self.shape, len(self.labels), self.options)
        begin_at_frequencies(network.topology.output.bias, self.frequencies())
        return network

    @abstractmethod
    def frequencies(self) -> np.ndarray:
        """How often each class occurs in training (classes,)."""

    @abstractmethod
    def batches(self, split: str) -> BucketStream:
        """See `training/task.py`, as for what follows."""

    @abstractmethod
    def size(self, split: str) -> int:
        """In frames, which are what an evaluation takes its time for."""

    def examples(self, split: str) -> int:
        """Clips."""
        return len(self.splits[split])

    @abstractmethod
    def evaluate(
        self, model: nn.Module, split: str, limit: int | None = None, *, write: int | None = None
    ) -> Evaluation:
        """Of clips with about `limit` frames together."""

    @abstractmethod
    def public(self, model: nn.Module) -> Any:
        """The model as users hold it."""

    @abstractmethod
    def reads(self) -> str:
        """How the recurrent layers read a clip, for the introduction."""

    def most(self, split: str, limit: int | None) -> int | None:
        """How many clips have about `limit` frames."""
        return None if limit is None else max(1, limit * len(self.splits[split]) // self.size(split))

    def introduction(self, model: nn.Module, engine: str) -> str:
        """What is trained on what, in one line."""
        o, s = self.options, self.shape
        counts = {name: f"{len(part):,}" for name, part in self.splits.items()}
        if self.unit == "frames":
            counts = {name: f"{self.size(name):,}" for name in self.splits}
        return (
            f"frames {s.width}×{s.height} {'grey' if s.grey else 'colour'}, "
            f"convolutions in {precision(self.device)}, "
            f"{o.cell} {o.layers} × {o.hidden}, {self.reads()}, "
            f"{sum(p.numel() for p in model.parameters()):,} parameters, {listed(self.labels)}; "
            f"train {counts['train']}, validation {counts['val']} {self.unit}; "
            f"{said(engine, o.engine, self.device.type, CELLS[o.cell])}, {self.device}, "
            f"{torch.get_num_threads()} threads"
        )

    def describe(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "options": asdict(self.options),
            "vocabulary": vocabulary(self.labels, self.shape),
            "trained_on": self.trained_on,
        }


class ClipModel(PublicModel):
    """A trained network that labels clips or their frames."""

    network_class: type[VideoNetwork]
    reading = ("encoding", "bad_files")

    def __init__(
        self,
        network: nn.Module,
        shape: Shape,
        labels: Sequence[str],
        options: Any,
        metrics: dict[str, float] | None = None,
        step: int = 0,
    ) -> None:
        super().__init__(network, options, metrics, step)
        self.shape, self.labels = shape, list(labels)

    @classmethod
    def from_file(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """From what `model_file.load` returns."""
        options: Any = cls.options_class.from_json(description["options"])
        kept = description["vocabulary"]
        shape, labels = Shape.from_json(kept["shape"]), named(kept["labels"])
        # the engine of the training need not exist where the model is used
        make: Any = cls.network_class
        network = built(lambda: make(shape, len(labels), replace(options, engine="auto")), tensors)
        return cls(network, shape, labels, options, description["metrics"], description["step"])

    def vocabulary(self) -> dict[str, Any]:
        return vocabulary(self.labels, self.shape)

    def _knows(self) -> str:
        return f"{len(self.labels):,} labels"


def vocabulary(labels: Sequence[str], shape: Shape) -> dict[str, Any]:
    """What travels with the weights."""
    return {"labels": list(labels), "shape": shape.to_json()}


def several(clips: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Raises `InputError` where one path stands for a list of them."""
    if isinstance(clips, str | os.PathLike):
        raise InputError("predict takes a list of clips: put the path into brackets")
    return [Path(clip) for clip in clips]
