"""From labelled texts and options to a text-classification task: read, divide, build the vocabulary, encode."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unrolled.data import tokenizers
from unrolled.data.batches import Examples
from unrolled.data.examples import fingerprint
from unrolled.data.labelled import Classes, Labelled, read_labelled
from unrolled.data.splits import divide
from unrolled.data.tokenizers import Tokenizer
from unrolled.errors import InputError
from unrolled.tasks.classify_text import TextClassifierTask, encode_all, plain, resolve
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import TextClassifierOptions
from unrolled.training.schedule import Clock

FROM_LANGUAGE_MODEL = ("cell", "hidden", "layers", "embedding", "tokens")
"""Options that come from the language model to start from."""


def prepare_text_classifier(
    paths: Sequence[str | os.PathLike[str]],
    options: TextClassifierOptions,
    *,
    val: Sequence[str | os.PathLike[str]] | None,
    device: torch.device,
    clock: Clock,
    start: Any = None,
    vocabulary: dict[str, Any] | None = None,
) -> TextClassifierTask:
    """The task, ready for training. start: a language model whose layers to begin with; vocabulary: that of a training
    to resume."""
    if start is not None:
        options = _like(start, options)
    train, held_out, notes = _read(paths, options, val)
    options = resolve(options)
    classes = Classes(vocabulary["labels"]) if vocabulary else Classes.of(train)
    if vocabulary:
        tokenizer = tokenizers.from_json(vocabulary["tokenizer"])
    else:
        tokenizer = start.tokenizer if start is not None else _tokenizer(train, options)
    splits = {
        name: Examples(encode_all(tokenizer, part.texts, options.lower), classes.numbers(part))
        for name, part in (("train", train), ("val", held_out))
    }
    task = TextClassifierTask(options, tokenizer, classes.names, splits, device)
    task.notes = notes
    task.sha256 = [fingerprint(part.texts, part.labels) for part in (train, held_out)]
    if start is not None:
        task.start = _beginning(task, start)
    return task


def _read(
    paths: Sequence[str | os.PathLike[str]],
    options: TextClassifierOptions,
    val: Sequence[str | os.PathLike[str]] | None,
) -> tuple[Labelled, Labelled, list[str]]:
    """The texts to train on and to validate on."""
    how = {name: getattr(options, name) for name in ("text_column", "label_column", "encoding")}
    read = read_labelled(paths, **how)
    if val is not None:
        other = read_labelled(val, **how)
        return read, other, [*read.notes, *other.notes]
    parts = divide(len(read), splits=read.splits, strata=read.labels, fraction=options.val_fraction, seed=options.seed)
    return read.take(parts.train), read.take(parts.val), [*read.notes, parts.how]


def _tokenizer(train: Labelled, options: TextClassifierOptions) -> Tokenizer:
    """From the training texts alone."""
    assert options.tokens
    texts = plain(train.texts, options.tokens, options.lower)
    return tokenizers.train(options.tokens, texts, options.vocabulary)


def _like(start: Any, options: TextClassifierOptions) -> TextClassifierOptions:
    """The options with the architecture of the language model; refuses a contradiction."""
    if not isinstance(start, LanguageModel):
        raise InputError("the model to start from is no language model: a classifier starts from one of those")
    has = start.options
    if has.topology != "many_to_many" or not has.embedding:
        raise InputError("the model to start from has no recurrent layers or no embedding: train one that has both")
    return replace(options.like(has, FROM_LANGUAGE_MODEL), one_directional=True)


def _beginning(task: TextClassifierTask, start: LanguageModel) -> dict[str, Tensor]:
    """A new network's weights, with embedding and recurrent layers of the language model."""
    with torch.random.fork_rng():
        torch.manual_seed(task.options.seed)
        weights = task.model().state_dict()
    for name, tensor in start.network.state_dict().items():
        if name == "table" or name.startswith("topology.recurrent."):
            assert weights[name].shape == tensor.shape
            weights[name] = tensor
    return weights
