"""What the models that users hold have in common, whatever the task."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from unrolled.training import model_file
from unrolled.training.options import TrainingOptions

PathLike = str | os.PathLike[str]


def built(make: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> Any:
    """The network that `make` makes, with these weights.

    Their shapes are compared with those of a network without memory first: a small file can ask for a network that
    fits into no machine. Raises `RuntimeError` where they differ, as PyTorch does.
    """
    with torch.device("meta"):
        plan = make().state_dict()
    wrong = sorted(plan.keys() ^ tensors.keys())
    if wrong:
        raise RuntimeError(f"its tensors and its options disagree on {wrong[0]}, which one of them lacks")
    for name, planned in plan.items():
        found = tensors[name]
        if found.shape != planned.shape or found.dtype != planned.dtype:
            raise RuntimeError(
                f"{name} is {tuple(found.shape)} {found.dtype}, and its options and vocabulary ask for "
                f"{tuple(planned.shape)} {planned.dtype}"
            )
    network = make()
    network.load_state_dict(tensors)
    return network


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
    def fit(cls, *paths: PathLike, val: PathLike | Sequence[PathLike] | None = None, **options: Any) -> Self:
        """Train on what `unrolled train` takes for the task: paths and `val` as there, keywords for its flags.

        Raises `InputError` for unusable files or options and `NonFiniteError` where the loss is not finite.
        """
        from unrolled.tasks.fitting import fit  # the other way round at import

        model = fit(paths, val=val, options=cls.options_class(**options)).model
        assert isinstance(model, cls)
        return model

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
