"""From translation pairs and options to a translation task: read, divide, build the vocabularies, encode."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from unrolled.data import tokenizers
from unrolled.data.examples import fingerprint, train_and_val, trained_on
from unrolled.data.pairs import Pairs, read_pairs
from unrolled.data.vocabulary import Vocabulary
from unrolled.errors import InputError
from unrolled.metrics import translation
from unrolled.metrics.text import measured_by_characters
from unrolled.tasks.options import TranslateOptions
from unrolled.tasks.translate import LONGEST, Languages, TranslateTask, resolve
from unrolled.tasks.translator import Translator
from unrolled.training.schedule import Clock

PathLike = str | os.PathLike[str]
ARCHITECTURE = ("cell", "hidden", "layers", "attention", "embedding", "tokens", "vocabulary")
"""Options that come from the model to start from."""
ROOM = 1.5
"""A translation may grow by so much more than nearly all training pairs do."""


def prepare_translate(
    paths: Sequence[PathLike],
    options: TranslateOptions,
    *,
    val: Sequence[PathLike] | None,
    device: torch.device,
    clock: Clock,
    start: Any = None,
    vocabulary: dict[str, Any] | None = None,
) -> TranslateTask:
    """The task, ready for training. start: a model to go on from; vocabulary: that of a training to resume.

    val: two files, or one table.
    """
    translation.library()  # what the best model is chosen with, before anything takes long
    if start is not None:
        options = _like(start, options)
    how = {name: getattr(options, name) for name in ("source_column", "target_column", "encoding")}
    train, held_out, notes, digest = train_and_val(
        partial(read_pairs, **how),
        paths,
        val,
        fraction=options.val_fraction,
        seed=options.seed,
        again=bool(vocabulary),
    )
    options = resolve(options)
    if vocabulary:
        languages = Languages.from_json(vocabulary)
    else:
        languages = start.languages if start is not None else _languages(train, options)
    examples = languages.examples(train)
    short = examples.sizes().max(1) <= LONGEST
    if not short.any():
        raise InputError(f"every pair has a side of more than {LONGEST:,} tokens: divide the texts into sentences")
    if not short.all():
        notes = [*notes, f"left out {int((~short).sum()):,} training pairs with a side of more than {LONGEST:,} tokens"]
        examples = languages.examples(train.take(np.flatnonzero(short)))
    if languages.growth is None:
        languages = replace(languages, growth=_growth(examples.sizes()))
    splits = {"train": examples, "val": languages.examples(held_out)}
    task = TranslateTask(options, languages, splits, held_out.targets, device)
    learnt = tokenizers.notes(languages.source.tokenizer, languages.target.tokenizer)
    task.notes = [*notes, *measured_by_characters(held_out.targets, "BLEU's n-grams"), *learnt]
    task.trained_on = trained_on(val, digest)
    task.sha256 = [fingerprint(part.sources, part.targets) for part in (train, held_out)]
    task.start = start.network.state_dict() if start is not None else None
    return task


def _languages(train: Pairs, options: TranslateOptions) -> Languages:
    """From the training pairs alone."""
    assert options.tokens
    source, target = (
        Vocabulary.learn(options.tokens, texts, options.vocabulary) for texts in (train.sources, train.targets)
    )
    return Languages(source, target)


def _growth(sizes: np.ndarray) -> float:
    """Of training pairs with so many tokens (N, 2)."""
    return ROOM * float(np.quantile(sizes[:, 1] / (sizes[:, 0] + 10), 0.999))


def _like(start: Any, options: TranslateOptions) -> TranslateOptions:
    """The options with the architecture of the model to start from; refuses a contradiction."""
    if not isinstance(start, Translator):
        raise InputError("the model to start from is no translator: start from one of those")
    return options.like(start.options, ARCHITECTURE)
