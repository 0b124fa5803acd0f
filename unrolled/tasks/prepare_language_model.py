"""From text files and options to a language-model task: read, split, encode, choose what is open, check the memory."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unrolled.data import corpus, tokenizers
from unrolled.data.corpus import Scan, Tokens
from unrolled.data.examples import Skipped, doubts, given_twice, is_held_out, trained_on
from unrolled.data.sources import TextSource
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
    if options.steps is None and options.topology != "one_to_one" and vocabulary is None:
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
    cut = scanned.characters if val is not None else first_part(scanned, options.val_fraction)
    if tokenizer is None:
        tokenizer = corpus.make_tokenizer(options.tokens or "char", source, scanned, cut, options.vocabulary)
    train, rest = corpus.encode(source, tokenizer, None if val is not None else cut)
    scans, skipped, notes = [scanned], source.skipped, given_twice(source.documents)
    if val is not None:
        val_source = TextSource(val)
        scans.append(corpus.scan(val_source))
        rest, _ = corpus.encode(val_source, tokenizer)
        skipped = skipped + val_source.skipped
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
                "give more text" + ("" if val is not None else " or another --val-fraction")
            )
    notes = not_text(skipped) + notes + tokenizers.notes(tokenizer)
    return Prepared({"train": train, "val": rest}, tokenizer, scans, notes, left_out(skipped))


def not_text(skipped: Sequence[Path]) -> list[str]:
    """A note on the files of folders that were left out."""
    return [f"left out {len(skipped)} files that are not UTF-8 text, such as {skipped[0]}"] if skipped else []


def left_out(skipped: Sequence[Path]) -> list[Skipped]:
    """The same, file by file."""
    return [Skipped(str(path), "not UTF-8 text") for path in skipped]


def first_part(scanned: Scan, fraction: float | None) -> int:
    """How many characters are for training."""
    return int(scanned.characters * (1 - (FRACTION if fraction is None else fraction)))


def tokens_of(tokenizer: Tokenizer, paths: Paths, split: str | None, val_fraction: float | None) -> Tokens:
    """A text in a model's tokens: all of it, or the part that a training would train or validate on."""
    source = TextSource(paths)
    return part_of_text(tokenizer, source, corpus.scan(source), split, val_fraction)


def part_of_text(
    tokenizer: Tokenizer, source: TextSource, scanned: Scan, split: str | None, val_fraction: float | None
) -> Tokens:
    """The same of a text that has been looked through."""
    if split not in (None, "train", "val"):
        raise InputError(f"unknown split {split!r}: choose train or val")
    cut = None if split is None else first_part(scanned, val_fraction)
    first, rest = corpus.encode(source, tokenizer, cut)
    tokens = rest if split == "val" and rest is not None else first
    if tokens.predictions < 1:
        raise InputError(f"{source.name} is too short to measure: give at least 2 characters")
    return tokens


def measured_part(model: LanguageModel, paths: Paths, split: str | None) -> tuple[Tokens, list[str], list[Skipped]]:
    """The part of a text that the model's training would use for `split`, what people should know of it, and what was
    left out. Raises `InputError` where the training validated on another text."""
    source, trained = TextSource(paths), model.trained_on
    scanned = corpus.scan(source)
    notes = [*not_text(source.skipped), *given_twice(source.documents)]
    if split in ("train", "val") and (is_held_out(split, paths, trained) or (trained and trained["val"] is not None)):
        split = None  # --val was given: then a text is as a whole for one or the other
    elif split in ("train", "val"):
        notes += doubts(trained, scanned.sha256)
    tokens = part_of_text(model.tokenizer, source, scanned, split, model.options.val_fraction)
    return tokens, notes, left_out(source.skipped)


def _architecture_of(start: Any, options: LanguageModelOptions) -> LanguageModelOptions:
    """The options with the architecture of the model to start from; refuses a contradiction."""
    if not isinstance(start, LanguageModel):
        raise InputError("the model to start from is none of a language: start from a language model")
    return options.like(start.options, ARCHITECTURE)
