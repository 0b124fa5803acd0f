"""From files and options to a trained model, whatever the task: make the run folder, train, resume."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unrolled.errors import InputError
from unrolled.tasks.kinds import KINDS, Kind, PreparedTask
from unrolled.tasks.models import load
from unrolled.training import checkpoint
from unrolled.training.loop import Result, Trainer
from unrolled.training.observer import Observer
from unrolled.training.options import TrainingOptions
from unrolled.training.run import Run
from unrolled.training.schedule import Clock
from unrolled.training.untouched import untouched

PathLike = str | os.PathLike[str]


@dataclass
class Fitted:
    """A training that ended, and the best model of it."""

    model: Any
    """As users hold it: `LanguageModel`, …"""
    result: Result
    engine: str
    run: Run | None


@untouched()
def fit(
    paths: Sequence[PathLike],
    *,
    options: TrainingOptions,
    val: PathLike | Sequence[PathLike] | None = None,
    start_from: PathLike | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    clock: Clock | None = None,
    observer: Observer | None = None,
) -> Fitted:
    """Train a model of the task whose options these are. `val`: one path or several; `out`: the run folder, None for
    memory alone. The process has the random states and threads afterwards that it had before."""
    clock, observer = clock or Clock(), observer or Observer()
    held_out = _paths(val)
    if out is not None:
        Run.check(out, overwrite, keep=[Path(p) for p in (*paths, *(held_out or ()), start_from) if p is not None])
    device = pick_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    kind = _kind(options)
    start = load(start_from) if start_from is not None else None
    task = kind.prepare(paths, options, val=held_out, device=device, clock=clock, start=start)
    for note in task.notes:
        observer.report({"note": note})
    config = {
        "task": task.name,
        "data": [str(Path(p).resolve()) for p in paths],
        "val": None if held_out is None else [str(Path(p).resolve()) for p in held_out],
        "sha256": task.sha256,
        **task.describe(),
    }
    trainer = _trainer(task, clock, observer)
    if out is not None:  # last of all: until here a mistake costs nothing
        trainer.run = Run.create(out, config, overwrite)
    return _fitted(trainer, task)


@untouched()
def resume(folder: Path, *, clock: Clock | None = None, observer: Observer | None = None) -> Fitted:
    """Go on with a stopped run, bit for bit under `steps`, with the seconds that are left under `seconds`."""
    clock, observer = clock or Clock(), observer or Observer()
    run, config = Run.open(folder)
    if config["task"] not in KINDS:
        raise InputError(f"{folder} is a run of {config['task']}, which this version of unrolled does not know")
    newest = checkpoint.latest(folder)
    if newest is None:
        raise InputError(f"{folder} has no checkpoint yet: train again with --overwrite")
    tensors, description = checkpoint.load(newest)
    if description["done"]:
        raise InputError(
            f"{folder} has finished at step {description['step']:,}: to train its model further, "
            f"use train --start-from {folder}"
        )
    kind = KINDS[config["task"]]
    options = kind.options(**{**config["options"], "engine": description["engine"]})
    torch.set_num_threads(description["threads"])
    task = kind.prepare(
        config["data"],
        options,
        val=_paths(config["val"]),
        device=pick_device(description["device"]),
        clock=clock,
        vocabulary=config["vocabulary"],
    )
    if task.sha256 != config["sha256"]:
        raise InputError(f"the text of {folder} has changed since its training began: put it back, or train again")
    trainer = _trainer(task, clock, observer)
    trainer.run = run
    trainer.restore(tensors, description)
    return _fitted(trainer, task)


def _paths(val: PathLike | Sequence[PathLike] | None) -> Sequence[PathLike] | None:
    return [val] if isinstance(val, str | os.PathLike) else val


def pick_device(name: str | None) -> torch.device:
    """The device called `name`; None: CUDA where there is one."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).item()  # the "meta" device, for one, holds no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device {name} cannot be used ({reason}): choose --device cpu") from error
    return device


def _kind(options: TrainingOptions) -> Kind:
    return next(kind for kind in KINDS.values() if type(options) is kind.options)


def _trainer(task: PreparedTask, clock: Clock, observer: Observer) -> Trainer:
    """A trainer that is ready to begin; it has no run folder yet."""
    trainer = Trainer(
        task,
        task.options,
        learning_rate=task.options.lr,
        device=task.device,
        clock=clock,
        observer=observer,
        start=task.start,
    )
    engine: str = trainer.model.engine_name()  # type: ignore[operator]
    trainer.place = {"engine": engine, "threads": torch.get_num_threads(), "device": str(task.device)}
    return trainer


def _fitted(trainer: Trainer, task: PreparedTask) -> Fitted:
    """Train, and return the best model."""
    trainer.observer.report({"note": task.introduction(trainer.model, trainer.place["engine"])})
    if trainer.step:
        trainer.observer.report({"note": f"resumed at step {trainer.step:,}"})
    result = trainer.train()
    model = task.public(trainer.model)
    model.metrics, model.step = dict(result.metrics), result.best_step
    return Fitted(model, result, trainer.place["engine"], trainer.run)
