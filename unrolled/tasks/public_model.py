"""What the models that users hold have in common, whatever the task."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from unrolled.data.examples import Read, Skipped, all_parts, given_twice, part_asked
from unrolled.data.tables import NoColumn
from unrolled.engines.native import build
from unrolled.tasks.arguments import options_of, paths_of
from unrolled.tasks.video import groups_of
from unrolled.training import lines, model_file
from unrolled.training.options import TrainingOptions

PathLike = str | os.PathLike[str]
R = TypeVar("R", bound=Read)


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
    reading: tuple[str, ...] = ()
    """The keywords of `evaluate` that say how files are read"""

    def __init__(self, network: nn.Module, options: Any, metrics: dict[str, float] | None, step: int) -> None:
        self.network: Any = network.eval()
        self.options = options
        self.metrics, self.step = dict(metrics or {}), step
        self.trained_on: dict[str, Any] | None = None
        """Of the data of its training; see `examples.trained_on`. None in files of older versions"""

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
        paths: each one path or a list of them.
        Raises `InputError` for unusable files or options and `NonFiniteError` where the loss is not finite.
        """
        from unrolled.tasks.fitting import fit  # the other way round at import

        told = lines.observer(progress)
        before = build.building_note
        if isinstance(told, lines.PlainLines):
            build.building_note = lambda note: told.report({"note": note})
        try:
            given = paths_of(paths)
            held = None if val is None else paths_of([val], "the data of val=")
            model = fit(given, val=held, options=options_of(cls.options_class, options), observer=told).model
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
        paths_of([path], "the places to save to")
        description = {
            "task": self.task,
            "options": asdict(self.options),
            "vocabulary": self.vocabulary(),
            "metrics": self.metrics,
            "step": self.step,
            "trained_on": self.trained_on,
        }
        model_file.save(Path(path), self.network.state_dict(), description)

    def part(
        self,
        found: R,
        split: str | None,
        paths: Sequence[PathLike],
        what: str,
        *,
        strata: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
    ) -> R:
        """The part of the data that this model's training would use for `split`; all of them for None. `what` an
        example is. Raises `InputError` where there is no such part."""
        found.notes[:0] = given_twice(paths)
        if split is None:
            found.notes.extend(all_parts(found.splits))
            return found
        o = self.options
        return part_asked(
            found,
            split,
            paths,
            self.trained_on,
            what,
            fraction=o.val_fraction,
            seed=o.seed,
            strata=strata,
            groups=groups,
            val_groups=groups_of(o) if hasattr(o, "val_groups") else None,
        )

    def with_columns(self, read: Callable[..., R], **asked: str | None) -> R:
        """What `read` finds with these columns. Of those that are not asked for, the ones that the training named are
        read where the data have them, and a note says so; else `read` guesses as a training does."""
        kept = {name: getattr(self.options, name) for name, column in asked.items() if column is None}
        kept, missing = {name: column for name, column in kept.items() if column is not None}, list[str]()
        while True:
            try:
                found = read(**{**asked, **kept})
                break
            except NoColumn as error:
                gone = [name for name, column in kept.items() if error.asked in (column, None)]
                if not gone:
                    raise
                missing += [kept.pop(name) for name in gone]
        if kept:
            flags = " ".join(f"--{name.replace('_', '-')} {column}" for name, column in kept.items())
            found.notes.append(f"columns as in the training: {flags}")
        if missing:
            found.notes.append(f"the training's columns ({', '.join(missing)}) are not there: others were guessed")
        return found


def remarks(notes: Sequence[str], skipped: Sequence[Skipped]) -> dict[str, Any]:
    """What an evaluation says beside its figures."""
    return {"notes": list(notes), "skipped": [one._asdict() for one in skipped]}
