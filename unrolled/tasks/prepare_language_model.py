"""From text files and options to a language-model task: read, split, encode, choose what is open, check the memory."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unrolled.data import corpus, tokenizers
from unrolled.data.corpus import Scan, Tokens
from unrolled.data.sources import TextSource
from unrolled.data.tokenizers import Tokenizer
from unrolled.errors import InputError
from unrolled.tasks import recipe
from unrolled.tasks.language_model import ARCHITECTURE, DEFAULT_SECONDS, LanguageModelTask, check_memory, resolve
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions
from unrolled.training.schedule import RESERVE, Clock

Paths = Sequence[str | os.PathLike[str]]


@dataclass
class Prepared:
    """Text ready for training."""

    splits: dict[str, Tokens]
    tokenizer: Tokenizer
    scans: list[Scan]
    notes: list[str]


def prepare_language_model(
    paths: Paths,
    options: LanguageModelOptions,
    *,
    val: Paths | None,
    device: torch.device,
    clock: Clock,
    start: Any = None,
    vocabulary: dict[str, Any] | None = None,
) -> LanguageModelTask:
    """The task, ready for training. start: a model to go on from; vocabulary: that of a training to resume."""
    if start is not None:
        options = _architecture_of(start, options)
    tokenizer = start.tokenizer if start is not None else vocabulary and tokenizers.from_json(vocabulary)
    prepared = prepare(paths, options, val=val, tokenizer=tokenizer or None)
    if options.steps is None and options.topology != "one_to_one" and vocabulary is None:
        options, why = _choose(options, prepared, clock, device)
        prepared.notes.append(why)
    task = LanguageModelTask(resolve(options), prepared.tokenizer, prepared.splits, device)
    task.notes, task.sha256 = prepared.notes, [scan.sha256 for scan in prepared.scans]
    task.start = start.network.state_dict() if start is not None else None
    _check_full(task)
    return task


def _choose(
    options: LanguageModelOptions, prepared: "Prepared", clock: Clock, device: torch.device
) -> tuple[LanguageModelOptions, str]:
    """What is left open, for the time that is left."""
    options = replace(options, seconds=options.seconds or DEFAULT_SECONDS)
    assert options.seconds
    recipe.compile_kernels(device, clock)
    flops = recipe.measure_flops(device, options.engine)
    left = (1 - RESERVE) * options.seconds - clock.elapsed()
    budget = recipe.Budget(left, flops, prepared.splits["train"].predictions, prepared.tokenizer.size)
    return recipe.choose(options, budget)


def prepare(
    paths: Paths,
    options: LanguageModelOptions,
    *,
    val: Paths | None = None,
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
        val_source = TextSource(val)
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


def _architecture_of(start: Any, options: LanguageModelOptions) -> LanguageModelOptions:
    """The options with the architecture of the model to start from; refuses a contradiction."""
    if not isinstance(start, LanguageModel):
        raise InputError("the model to start from is none of a language: start from a language model")
    return options.like(start.options, ARCHITECTURE)
