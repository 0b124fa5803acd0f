"""From files and options to a trained model: read the data, make the run folder, train, resume."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from unrolled import engines
from unrolled.cells import CELLS
from unrolled.data import corpus, tokenizers
from unrolled.data.corpus import Scan, Tokens
from unrolled.data.sources import TextSource
from unrolled.data.tokenizers import Tokenizer
from unrolled.errors import InputError
from unrolled.tasks import recipe
from unrolled.tasks.language_model import (
    ARCHITECTURE,
    DEFAULT_SECONDS,
    LanguageModelTask,
    Network,
    check_memory,
    resolve,
)
from unrolled.tasks.models import LanguageModel, load
from unrolled.tasks.options import LanguageModelOptions
from unrolled.training import checkpoint
from unrolled.training.loop import Result, Trainer
from unrolled.training.observer import Observer
from unrolled.training.run import Run
from unrolled.training.schedule import RESERVE, Clock

Paths = Sequence[str | os.PathLike[str]]


@dataclass
class Fitted:
    """A training that ended, and the best model of it."""

    model: LanguageModel
    result: Result
    engine: str
    run: Run | None


@dataclass
class Prepared:
    """Text ready for training."""

    splits: dict[str, Tokens]
    tokenizer: Tokenizer
    scans: list[Scan]
    notes: list[str]


def fit_language_model(
    paths: Paths,
    *,
    options: LanguageModelOptions,
    val: str | os.PathLike[str] | None = None,
    start_from: str | os.PathLike[str] | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    clock: Clock | None = None,
    observer: Observer | None = None,
) -> Fitted:
    """Train a language model. `out`: the run folder, None for memory alone."""
    clock, observer = clock or Clock(), observer or Observer()
    if out is not None:
        Run.check(out, overwrite, keep=[Path(p) for p in (*paths, val, start_from) if p is not None])
    device = pick_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    start = load(start_from, task=LanguageModelTask.name) if start_from is not None else None
    if start is not None:
        options = _architecture_of(start, options)
    prepared = prepare(paths, options, val=val, tokenizer=start.tokenizer if start else None)
    if options.steps is None and options.topology != "one_to_one":
        options, why = _choose(options, prepared, clock, device)
        prepared.notes.append(why)
    options = resolve(options)
    task = LanguageModelTask(options, prepared.tokenizer, prepared.splits, device)
    _check_full(task)
    for note in prepared.notes:
        observer.report({"note": note})
    config = {
        "task": task.name,
        "data": [str(Path(p).resolve()) for p in paths],
        "val": None if val is None else str(Path(val).resolve()),
        "sha256": [s.sha256 for s in prepared.scans],
        "options": asdict(options),
        "vocabulary": prepared.tokenizer.to_json(),
    }
    weights = start.network.state_dict() if start else None
    trainer = _trainer(task, clock, observer, start=weights)
    if out is not None:  # last of all: until here a mistake costs nothing
        trainer.run = Run.create(out, config, overwrite)
    return _fitted(trainer, task)


def _choose(
    options: LanguageModelOptions, prepared: "Prepared", clock: Clock, device: torch.device
) -> tuple[LanguageModelOptions, str]:
    """What is left open, for the time that is left."""
    options = replace(options, seconds=options.seconds or DEFAULT_SECONDS)
    assert options.seconds
    flops = recipe.measure_flops(device, options.engine)
    left = (1 - RESERVE) * options.seconds - clock.elapsed()
    budget = recipe.Budget(left, flops, prepared.splits["train"].predictions, prepared.tokenizer.size)
    return recipe.choose(options, budget)


def resume_language_model(folder: Path, *, clock: Clock | None = None, observer: Observer | None = None) -> Fitted:
    """Go on with a stopped run, bit for bit under `steps`, with the seconds that are left under `seconds`."""
    clock, observer = clock or Clock(), observer or Observer()
    run, config = Run.open(folder)
    if config["task"] != LanguageModelTask.name:
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
    options = LanguageModelOptions(**config["options"])
    device = pick_device(description["device"])
    torch.set_num_threads(description["threads"])
    tokenizer = tokenizers.from_json(config["vocabulary"])
    prepared = prepare(config["data"], options, val=config["val"], tokenizer=tokenizer)
    if [s.sha256 for s in prepared.scans] != config["sha256"]:
        raise InputError(f"the text of {folder} has changed since its training began: put it back, or train again")
    task = LanguageModelTask(replace(options, engine=description["engine"]), tokenizer, prepared.splits, device)
    trainer = _trainer(task, clock, observer)
    trainer.run = run
    trainer.restore(tensors, description)
    return _fitted(trainer, task)


def prepare(
    paths: Paths,
    options: LanguageModelOptions,
    *,
    val: str | os.PathLike[str] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Prepared:
    """Read, check, split and encode the text. A tokeniser that is not given comes from the training part alone."""
    source = TextSource(paths)
    scanned = corpus.scan(source)
    cut = scanned.characters if val is not None else int(scanned.characters * (1 - options.val_fraction))
    if tokenizer is None:
        tokenizer = corpus.make_tokenizer(options.tokens or "char", source, scanned, cut, options.vocabulary)
    train, rest = corpus.encode(source, tokenizer, None if val is not None else cut)
    scans, skipped = [scanned], source.skipped
    if val is not None:
        val_source = TextSource([val])
        scans.append(corpus.scan(val_source))
        rest, _ = corpus.encode(val_source, tokenizer)
        skipped = skipped + val_source.skipped
    assert rest is not None
    for what, tokens in (("training", train), ("validation", rest)):
        if tokens.predictions < 1:
            raise InputError(
                f"{source.name} is too short: {scanned.characters:,} characters leave nothing to predict for {what}; "
                "give more text" + ("" if val is not None else " or another --val-fraction")
            )
    notes = [f"left out {len(skipped)} files that are not UTF-8 text, such as {skipped[0]}"] if skipped else []
    return Prepared({"train": train, "val": rest}, tokenizer, scans, notes)


def tokens_of(tokenizer: Tokenizer, paths: Paths, split: str | None, val_fraction: float) -> Tokens:
    """A text in a model's tokens: all of it, or the part that a training would train or validate on."""
    source = TextSource(paths)
    scanned = corpus.scan(source)
    if split not in (None, "train", "val"):
        raise InputError(f"unknown split {split!r}: choose train or val")
    cut = None if split is None else int(scanned.characters * (1 - val_fraction))
    first, rest = corpus.encode(source, tokenizer, cut)
    tokens = rest if split == "val" and rest is not None else first
    if tokens.predictions < 1:
        raise InputError(f"{source.name} is too short to measure: give at least 2 characters")
    return tokens


def pick_device(name: str | None) -> torch.device:
    """The device called `name`; None: CUDA where there is one."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).item()  # the "meta" device, for one, holds no numbers
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device {name} cannot be used ({reason}): choose --device cpu") from error
    return device


def _trainer(
    task: LanguageModelTask, clock: Clock, observer: Observer, start: dict[str, Tensor] | None = None
) -> Trainer:
    """A trainer that is ready to begin; it has no run folder yet."""
    options = task.options
    assert options.lr
    trainer = Trainer(
        task,
        options,
        learning_rate=options.lr,
        device=task.device,
        clock=clock,
        observer=observer,
        start=start,
    )
    engine = _network(trainer).engine_name()
    trainer.place = {"engine": engine, "threads": torch.get_num_threads(), "device": str(task.device)}
    return trainer


def _fitted(trainer: Trainer, task: LanguageModelTask) -> Fitted:
    """Train, and return the best model."""
    network = _network(trainer)
    trainer.observer.report({"note": _introduction(task, network, trainer.place["engine"])})
    if trainer.step:
        trainer.observer.report({"note": f"resumed at step {trainer.step:,}"})
    result = trainer.train()
    model = LanguageModel(network, task.tokenizer, task.options, result.metrics, result.best_step)
    return Fitted(model, result, trainer.place["engine"], trainer.run)


def _network(trainer: Trainer) -> Network:
    assert isinstance(trainer.model, Network)
    return trainer.model


def _introduction(task: LanguageModelTask, network: Network, engine: str) -> str:
    parameters = sum(p.numel() for p in network.parameters())
    train, val = task.splits["train"], task.splits["val"]
    options = task.options
    order = engines.auto_order(task.device.type, CELLS[options.cell or "lstm"])
    how = f" (auto: {', '.join(order)})" if options.engine == "auto" and engine != "none" else ""
    shape = f"{options.cell} {options.layers} × {options.hidden}" if engine != "none" else "one_to_one"
    return (
        f"{shape}, {parameters:,} parameters, {task.tokenizer.size} tokens ({options.tokens}); "
        f"train {len(train.ids):,}, validation {len(val.ids):,} tokens; engine {engine}{how}, "
        f"{task.device}, {torch.get_num_threads()} threads"
    )


def _check_full(task: LanguageModelTask) -> None:
    if task.options.bptt_steps is not None:
        return
    stream = task.batches("train")
    available = _free_memory() if task.device.type == "cpu" else torch.cuda.mem_get_info(task.device)[0]
    check_memory(task.options, task.tokenizer.size, stream.longest, stream.lanes, available)


def _free_memory() -> int:
    """Bytes that can be had without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux: half of the whole is a cautious guess
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024


def _architecture_of(start: LanguageModel, options: LanguageModelOptions) -> LanguageModelOptions:
    """The options with the architecture of the model to start from; refuses a contradiction."""
    for name in ARCHITECTURE:
        asked, has = getattr(options, name), getattr(start.options, name)
        if asked is not None and asked != has:
            raise InputError(f"--{name} {asked} contradicts the model to start from, which has {has}: leave it out")
    return replace(options, **{name: getattr(start.options, name) for name in ARCHITECTURE})
