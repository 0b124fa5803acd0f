"""From text files and options to a language-model task: read, split, encode, choose what is open, check the memory."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unrolled.data import corpus, tokenizers
from unrolled.data.corpus import Scan, Tokens
from unrolled.data.examples import Skipped, all_parts, doubts, given_twice, is_held_out, trained_on
from unrolled.data.sources import TextSource, training_text
from unrolled.data.splits import FRACTION
from unrolled.data.tokenizers import Tokenizer
from unrolled.errors import InputError
from unrolled.tasks import recipe
from unrolled.tasks.language_model import ARCHITECTURE, DEFAULT_SECONDS, LanguageModelTask, resolve
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
    skipped: list[Skipped]


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
    left_open = options.topology != "one_to_one" and any(getattr(options, name) is None for name in recipe.CHOSEN)
    if options.steps is None and left_open and vocabulary is None:
        options, why = _choose(options, prepared, clock, device)
        prepared.notes.append(why)
    task = LanguageModelTask(resolve(options), prepared.tokenizer, prepared.splits, device)
    if vocabulary is None and options.forget_bias is not None and task.options.cell != "lstm":
        raise InputError(
            f"--forget-bias is what an LSTM begins with, and a {task.options.cell} was chosen: --cell lstm"
        )
    task.notes, task.sha256 = prepared.notes, [scan.sha256 for scan in prepared.scans]
    task.trained_on, task.skipped = trained_on(val, prepared.scans[0].sha256), prepared.skipped
    task.start = start.network.state_dict() if start is not None else None
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
    source, val_source, notes = training_text(paths, val)
    scanned = corpus.scan(source)
    cut = scanned.characters if val_source is not None else first_part(scanned, options.val_fraction)
    if tokenizer is None:
        tokenizer = corpus.make_tokenizer(options.tokens or "char", source, scanned, cut, options.vocabulary)
    train, rest = corpus.encode(source, tokenizer, None if val_source is not None else cut)
    scans, skipped = [scanned], source.skipped
    notes += given_twice(source.documents)
    if val_source is not None:
        scans.append(corpus.scan(val_source))
        rest, _ = corpus.encode(val_source, tokenizer)
        skipped = skipped + [path for path in val_source.skipped if path not in skipped]
        known = {path.resolve() for path in source.documents}
        notes += given_twice(val_source.documents)
        if same := [path for path in val_source.documents if path.resolve() in known]:
            notes.append(f"{len(same):,} files are trained on and validated on, the first of them {same[0]}")
        elif scans[0].sha256 == scans[1].sha256:
            notes.append("the texts to train on and to validate on are the same")
    assert rest is not None
    for what, tokens in (("training", train), ("validation", rest)):
        if tokens.predictions < 1:
            raise InputError(
                f"{source.name} is too short: {scanned.characters:,} characters leave nothing to predict for {what}; "
                "give more text" + ("" if val_source is not None else " or another --val-fraction")
            )
    notes += tokenizers.notes(tokenizer)
    return Prepared({"train": train, "val": rest}, tokenizer, scans, notes, left_out(skipped))


def left_out(skipped: Sequence[Path]) -> list[Skipped]:
    """The files of folders that were left out."""
    return [Skipped(str(path), "not UTF-8 text") for path in skipped]


def first_part(scanned: Scan, fraction: float | None) -> int:
    """How many characters are for training."""
    return int(scanned.characters * (1 - (FRACTION if fraction is None else fraction)))


def measured_part(model: LanguageModel, paths: Paths, split: str | None) -> tuple[Tokens, list[str], list[Skipped]]:
    """The part of a text that the model's training would use for `split`, what people should know of it, and what was
    left out. Raises `InputError` where the training validated on another text, or the text does not say what is for
    test."""
    if split not in (None, "train", "val", "test"):
        raise InputError(f"unknown split {split!r}: choose train, val or test")
    source, trained = TextSource(paths), model.trained_on
    notes = [*source.notes, *given_twice(source.documents), *(all_parts(source.parts) if split is None else [])]
    given = split in ("train", "val") and (
        is_held_out(split, paths, trained) or (trained and trained["val"] is not None)
    )
    told = split is None or given  # --val was given: then a text is as a whole for one or the other
    if split == "test" and "test" not in source.parts:
        raise InputError(f"{source.name} does not say what is for test: leave --split out")
    if split is not None and any(source.parts):
        told = told or split == "test" or "val" in source.parts
        if not given or split in source.parts:
            source = source.of_part(split if told else "train")
    scanned = corpus.scan(source)
    if not told:
        notes += doubts(trained, scanned.sha256)
    first, rest = corpus.encode(
        source, model.tokenizer, None if told else first_part(scanned, model.options.val_fraction)
    )
    tokens = rest if split == "val" and rest is not None else first
    if tokens.predictions < 1:
        raise InputError(f"{source.name} is too short to measure: give at least 2 characters")
    return tokens, notes, left_out(source.skipped)


def _architecture_of(start: Any, options: LanguageModelOptions) -> LanguageModelOptions:
    """The options with the architecture of the model to start from; refuses a contradiction."""
    if not isinstance(start, LanguageModel):
        raise InputError("the model to start from is none of a language: start from a language model")
    return options.like(start.options, ARCHITECTURE)
