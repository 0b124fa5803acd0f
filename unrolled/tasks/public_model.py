"""What the models that users hold have in common, whatever the task."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from unrolled.engines.native import build
from unrolled.training import lines, model_file
from unrolled.training.options import TrainingOptions

PathLike = str | os.PathLike[str]


class PublicModel(ABC):
    """A trained network with its options and vocabulary: it moves between devices and saves itself."""

    task: str
    options_class: type[TrainingOptions]
    """Of the task: its fields are the keywords of `fit`"""

    def __init__(self, network: nn.Module, options: Any, metrics: dict[str, float] | None, step: int) -> None:
        self.network: Any = network.eval()
        self.options = options
        self.metrics, self.step = dict(metrics or {}), step

    @classmethod
    def fit(
        cls,
        *paths: PathLike,
        val: PathLike | Sequence[PathLike] | None = None,
        progress: bool | None = None,
        **options: Any,
    ) -> Self:
        """Train on what `unrolled train` takes for the task: paths and `val` as there, keywords for its flags.

        progress: True writes a line for each report to standard error, False nothing; None writes where that is a
        terminal. The random states and the threads of the process are afterwards as before.
        Raises `InputError` for unusable files or options and `NonFiniteError` where the loss is not finite.
        """
        from unrolled.tasks.fitting import fit  # the other way round at import

        told = lines.observer(progress)
        before = build.building_note
        if isinstance(told, lines.PlainLines):
            build.building_note = lambda note: told.report({"note": note})
        try:
            model = fit(paths, val=val, options=cls.options_class(**options), observer=told).model
        finally:
            build.building_note = before
        assert isinstance(model, cls)
        return model

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def to(self, device: str | torch.device) -> Self:
        self.network.to(device)
        return self

    def __repr__(self) -> str:
        o = self.options
        size = f"{o.cell} {o.layers} × {o.hidden}" if o.cell else "no recurrent layers"
        parameters = sum(p.numel() for p in self.network.parameters())
        metrics = [f"{name} {value:.4f}" for name, value in self.metrics.items() if isinstance(value, float)]
        return (
            f"<{type(self).__name__}: {size}, {self._knows()}, {parameters:,} parameters; "
            f"step {self.step:,}{''.join(', ' + metric for metric in metrics)}>"
        )

    @abstractmethod
    def _knows(self) -> str:
        """The sizes of what it reads and writes, for `repr`."""

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
