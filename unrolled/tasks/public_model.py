"""What the models that users hold have in common, whatever the task."""

from abc import ABC, abstractmethod
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from unrolled.training import model_file


class PublicModel(ABC):
    """A trained network with its options and vocabulary: it moves between devices and saves itself."""

    task: str

    def __init__(self, network: nn.Module, options: Any, metrics: dict[str, float] | None, step: int) -> None:
        self.network: Any = network.eval()
        self.options = options
        self.metrics, self.step = dict(metrics or {}), step

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        self.network.to(device)
        return self

    @abstractmethod
    def vocabulary(self) -> dict[str, Any]:
        """What turns data into tokens and back, as the model file keeps it."""

    def save(self, path: str | Path) -> None:
        """One self-contained `.safetensors`; an existing file is replaced whole or not at all."""
        description = {
            "task": self.task,
            "options": asdict(self.options),
            "vocabulary": self.vocabulary(),
            "metrics": self.metrics,
            "step": self.step,
        }
        model_file.save(Path(path), self.network.state_dict(), description)
