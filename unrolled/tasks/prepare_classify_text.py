"""From labelled texts and options to a text-classification task: read, divide, build the vocabulary, encode."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unrolled.data import tokenizers
from unrolled.data.batches import Examples, Sequences
from unrolled.data.examples import fingerprint, skipped_of, train_and_val, trained_on
from unrolled.data.labelled import Classes, Labelled, read_labelled, told_apart
from unrolled.data.tokenizers import Tokenizer
from unrolled.errors import InputError
from unrolled.tasks.classify_text import DEVIATION, LONGEST, TextClassifierTask, encode_all, plain, resolve
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
    how = {name: getattr(options, name) for name in ("text_column", "label_column", "encoding", "bad_files")}
    train, held_out, notes, digest = train_and_val(
        partial(read_labelled, **how),
        paths,
        val,
        fraction=options.val_fraction,
        seed=options.seed,
        strata=lambda found: found.labels if vocabulary else told_apart(found),
        again=bool(vocabulary),
    )
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
    splits["train"], cut = _shortened(splits["train"], tokenizer.size)
    task = TextClassifierTask(options, tokenizer, classes.names, splits, device)
    task.notes, task.trained_on = notes + cut + tokenizers.notes(tokenizer), trained_on(val, digest)
    task.skipped = skipped_of(train, held_out)
    task.sha256 = [fingerprint(part.texts, part.labels) for part in (train, held_out)]
    if start is not None:
        task.start = _beginning(task, start)
    return task


def _shortened(examples: Examples, size: int) -> tuple[Examples, list[str]]:
    """The examples with the beginning of texts that are too long to train on, and what to say of them."""
    sources = examples.sources
    assert isinstance(sources, Sequences)
    long = int((sources.lengths > LONGEST).sum())
    if not long:
        return examples, []
    short = Sequences.pack((sources[row][:LONGEST] for row in range(len(sources))), size)
    what = "1 training text has" if long == 1 else f"{long:,} training texts have"
    return Examples(short, examples.targets), [f"{what} more than {LONGEST:,} tokens, of which the first are read"]


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
    return options.like(has, FROM_LANGUAGE_MODEL)


def _beginning(task: TextClassifierTask, start: LanguageModel) -> dict[str, Tensor]:
    """A new network's weights, with embedding and recurrent layers of the language model.

    They read forwards. The other direction begins anew, and a layer above it heeds it only once it has learnt to: with
    zeros where the language model has no weights, the forward direction begins as it was. The token vectors are made as
    small as those of a new classifier and the first layer's W_ih as much larger: the same function, but AdamW's steps
    are as long whatever the numbers, and on large ones they would take far longer to turn a word's vector.
    """
    with torch.random.fork_rng():
        torch.manual_seed(task.options.seed)
        weights = task.model().state_dict()
    for name, tensor in start.network.state_dict().items():
        if name == "table" or name.startswith("topology.recurrent."):
            weights[name] = F.pad(tensor, (0, weights[name].shape[-1] - tensor.shape[-1]))
    scale = weights["table"].std() / DEVIATION
    weights["table"] = weights["table"] / scale
    weights["topology.recurrent.weight_ih_l0"] = weights["topology.recurrent.weight_ih_l0"] * scale
    return weights
