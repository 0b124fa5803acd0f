"""From files and options to a trained model, whatever the task: make the run folder, train, resume."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unrolled.data.examples import CONTENT, RULES, Skipped
from unrolled.data.folders import leaving_out
from unrolled.errors import InputError
from unrolled.tasks.kinds import KINDS, Kind, PreparedTask
from unrolled.tasks.models import load
from unrolled.tasks.recipe import compile_kernels
from unrolled.training import checkpoint, memory, model_file
from unrolled.training.loop import Result, Trainer
from unrolled.training.observer import Observer
from unrolled.training.options import TrainingOptions
from unrolled.training.run import CHECKSUM, Claim, Run
from unrolled.training.schedule import Clock
from unrolled.training.untouched import untouched
from unrolled.training.validation import advice

PathLike = str | os.PathLike[str]


@dataclass
class Fitted:
    """A training that ended, and the best model of it."""

    model: Any
    """As users hold it: `LanguageModel`, …"""
    result: Result
    engine: str
    run: Run | None
    skipped: list[Skipped]
    """Files that could not be read and were left out"""


@untouched()
def fit(
    paths: Sequence[PathLike],
    *,
    options: TrainingOptions,
    val: PathLike | Sequence[PathLike] | None = None,
    start_from: PathLike | None = None,
    out: Path | Claim | None = None,
    overwrite: bool = False,
    clock: Clock | None = None,
    observer: Observer | None = None,
) -> Fitted:
    """Train a model of the task whose options these are. `val`: one path or several; `out`: the run folder, None for
    memory alone. The process has the random states and threads afterwards that it had before."""
    clock, observer = clock or Clock(), observer or Observer()
    held_out = _paths(val)
    keep = [Path(p) for p in (*paths, *(held_out or ()), start_from) if p is not None]
    if isinstance(out, Path):
        Run.check(out, overwrite, keep)
        out = Claim(out, overwrite)
    with out or nullcontext():
        device = pick_device(options.device)
        if options.threads:
            torch.set_num_threads(options.threads)
        options.check_together(val=held_out is not None, start=start_from is not None)
        start = load(start_from) if start_from is not None else None
        kind = _kind(options)
        with leaving_out(None if out is None else out.folder):
            task = kind.prepare(paths, options, val=held_out, device=device, clock=clock, start=start)
        memory.check(task)
        compile_kernels(device, clock)
        for note in [*task.notes, *advice(task)]:
            observer.report({"note": note})
        trainer = _trainer(task, clock, observer)
        if out is not None:  # last of all: until here a mistake costs nothing
            trainer.run = out.begin(
                {
                    "task": task.name,
                    "data": [str(Path(p).resolve()) for p in paths],
                    "val": None if held_out is None else [str(Path(p).resolve()) for p in held_out],
                    "sha256": task.sha256,
                    "decoders": task.decoders,
                    "rules": RULES.get(),
                    **task.describe(),
                },
                keep,
            )
        return _fitted(trainer, task)


@untouched()
def resume(
    folder: Path,
    *,
    data: Sequence[PathLike] | None = None,
    val: Sequence[PathLike] | None = None,
    clock: Clock | None = None,
    observer: Observer | None = None,
) -> Fitted:
    """Go on with a stopped run, bit for bit under `steps`, with the seconds that are left under `seconds`.

    data, val: where the training's data are now, if they have moved. Raises `InputError` where they are others."""
    clock, observer = clock or Clock(), observer or Observer()
    run, config = Run.open(folder)
    if config["task"] not in KINDS:
        raise InputError(f"{folder} is a run of {config['task']}, which this version of unrolled does not know")
    newest = checkpoint.latest(folder)
    if newest is None:
        raise InputError(f"{folder} has no checkpoint yet: train again with --overwrite")
    tensors, description = checkpoint.load(newest)
    checkpoint.check_description(newest, description)
    kind = KINDS[config["task"]]
    if description["done"]:
        raise InputError(f"{folder} has finished at step {description['step']:,}: {_further(folder, config['task'])}")
    try:
        options = kind.options.from_json({**config["options"], "engine": description["engine"]})
        if CHECKSUM not in config:
            _agrees(config, run)
    except (InputError, TypeError) as error:  # the latter at an option that is not known here
        raise InputError(
            f"{folder / 'run.json'} makes no sense ({error}): the run cannot be resumed, but its model can be used"
        ) from error
    device = pick_device(description["device"])
    moved = _moved(folder, config, data, val)
    torch.set_num_threads(description["threads"])
    with _rules(config.get("rules", 1)):
        task = kind.prepare(
            moved["data"],
            options,
            val=moved["val"],
            device=device,
            clock=clock,
            vocabulary=config["vocabulary"],
        )
    if not _same_data(task, config["sha256"]):
        raise InputError(
            f"the data of {folder} have changed since its training began, or this version reads them otherwise: put "
            "them back, or train again"
        )
    memory.check(task)
    compile_kernels(device, clock)
    task.trained_on = config.get("trained_on") or task.trained_on
    for note in [*task.notes, *_other_decoders(task.decoders, config.get("decoders", task.decoders))]:
        observer.report({"note": note})
    trainer = _trainer(task, clock, observer)
    trainer.run = run
    if data is not None or val is not None:
        run.describe({**config, **moved})
    trainer.restore(tensors, description)
    return _fitted(trainer, task)


def _agrees(config: dict[str, Any], run: Run) -> None:
    """Raise `InputError` where run.json and the run's model, which has a checksum, disagree: run.json had none in
    version 0.1.0."""
    kept = model_file.load(run.model)[1]
    options = kept["options"]
    if config["vocabulary"] != kept["vocabulary"]:
        raise InputError(f"its vocabulary is not that of {run.model}")
    for name, value in config["options"].items():
        if name != "engine" and value != options.get(name, value):
            raise InputError(f"{name} of its options is {value!r}, and {options[name]!r} in {run.model}")


def _further(folder: Path, task: str) -> str:
    """What to do with a model whose training has finished."""
    if KINDS[task].goes_on:
        return f"to train its model further, use train --start-from {shlex.quote(str(folder))}"
    return f"{task} cannot train a model further yet, so train anew for longer"


@contextmanager
def _rules(number: int) -> Iterator[None]:
    before = RULES.set(number)
    try:
        yield
    finally:
        RULES.reset(before)


def _same_data(task: PreparedTask, stored: list[str]) -> bool:
    """Whether these are the data that the training began with."""
    if task.old_sha256 is None or any(one.startswith(CONTENT) for one in stored):
        return task.sha256 == stored
    return task.old_sha256() == stored


def _other_decoders(now: str, then: str) -> list[str]:
    """What people should know where other versions read the data than when the training began."""
    new, old = now.split(", "), then.split(", ")
    if new == old:
        return []
    listed = (", ".join(part for part in some if part not in others) for some, others in ((new, old), (old, new)))
    return ["read by {}, and when the training began by {}: the frames may differ a little".format(*listed)]


def _moved(
    folder: Path, config: dict[str, Any], data: Sequence[PathLike] | None, val: Sequence[PathLike] | None
) -> dict[str, Any]:
    """Where the data of a run are now. Raises `InputError` where they are not where they were, and no other place is
    named."""
    if val is not None and config["val"] is None:
        raise InputError(f"the training of {folder} was given no --val: leave it out")
    found = {}
    for flag, given in (("data", data), ("val", val)):
        was = _paths(config[flag])
        found[flag] = was if given is None else [str(Path(path).resolve()) for path in given]
        gone = [path for path in was or () if not Path(path).exists()] if given is None else []
        if gone:
            raise InputError(
                f"{gone[0]}, which {folder} was trained on, is not there any more: put it back, or say where it is, "
                f"unrolled resume {shlex.quote(str(folder))} --{flag} PATH"
            )
    return found


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
    model.metrics, model.step, model.trained_on = dict(result.metrics), result.best_step, task.trained_on
    return Fitted(model, result, trainer.place["engine"], trainer.run, task.skipped)
