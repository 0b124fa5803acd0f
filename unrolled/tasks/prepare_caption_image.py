"""From captioned pictures and options to a captioning task: read, divide, compute features, build the vocabulary."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from unrolled.data import tokenizers
from unrolled.data.captioned import Captioned, read_captions
from unrolled.data.examples import fingerprint, skipped_of, train_and_val, trained_on
from unrolled.data.frame_cache import Kept
from unrolled.errors import InputError
from unrolled.nn.vision import Backbone
from unrolled.tasks.caption_image import Eye, ImageCaptionTask, encoder_of, examples, features_of, resolve
from unrolled.tasks.captioning import Words, counted
from unrolled.tasks.image_captioner import ImageCaptioner
from unrolled.tasks.media_options import ImageCaptionerOptions
from unrolled.tasks.video import begun_with
from unrolled.training.memory import refuse_above
from unrolled.training.schedule import Clock

PathLike = str | os.PathLike[str]
ARCHITECTURE = (
    "image",
    "tokens",
    "vocabulary",
    "min_count",
    "cased",
    "cell",
    "hidden",
    "layers",
    "embedding",
    "features",
    "size",
    "channels",
)
"""Options that come from the model to start from."""


def prepare_image_captioner(
    paths: Sequence[PathLike],
    options: ImageCaptionerOptions,
    *,
    val: Sequence[PathLike] | None,
    device: torch.device,
    clock: Clock,
    start: Any = None,
    vocabulary: dict[str, Any] | None = None,
) -> ImageCaptionTask:
    """The task, ready for training. start: a model to go on from; vocabulary: that of a training to resume."""
    if start is not None:
        options = _like(start, options)
    options = resolve(options)
    eye = _eye(options, start, vocabulary).to(device)
    train, held, notes, digest = train_and_val(
        lambda where: read_captions(where, encoding=options.encoding, bad_files=options.bad_files),
        paths,
        val,
        fraction=options.val_fraction,
        seed=options.seed,
        groups=lambda found: found.groups,
        again=bool(vocabulary),
    )
    (train, kept), (held, held_kept) = (_seen(part, eye, options, notes) for part in (train, held))
    inputs, held_inputs = kept.frames, held_kept.frames
    if vocabulary:
        words = Words.from_json(vocabulary["words"])
    else:
        texts = [text for several in train.captions for text in several]
        words = start.words if start is not None else Words.learn(texts, options)
    pairs = {
        "train": examples(inputs, train.captions, words, options),
        "val": examples(held_inputs, held.captions, words, options),
    }
    task = ImageCaptionTask(options, words, eye, pairs, held_inputs, held.captions, device)
    task.notes = [*notes, *counted(held.captions), *tokenizers.notes(words.vocabulary.tokenizer)]
    task.trained_on = trained_on(val, digest)
    task.skipped = skipped_of(train, held)
    begun_with(
        task,
        [(kept, train.captions), (held_kept, held.captions)],
        old=lambda: [_old_fingerprint(part) for part in (train, held)],
    )
    task.start = start.network.state_dict() if start is not None else None
    return task


def _eye(options: ImageCaptionerOptions, start: Any, vocabulary: dict[str, Any] | None) -> Eye:
    if options.backbone is None:
        with torch.device("meta"):
            planned = encoder_of(options)
        weights = sum(tensor.nbytes for tensor in planned.parameters())
        refuse_above(weights, torch.device("cpu"), f"--channels {options.channels}", "give fewer")
        return encoder_of(options)
    if start is not None:
        return start.network.eye
    backbone = Backbone.open(options.backbone)
    if vocabulary and backbone.sha256() != vocabulary["backbone_sha256"]:
        raise InputError(f"{options.backbone} has changed since the training began: put it back, or train again")
    return backbone


def _seen(part: Captioned, eye: Eye, options: ImageCaptionerOptions, notes: list[str]) -> tuple[Captioned, Kept]:
    """The pictures that can be read, and what is known of them before a training."""
    assert options.image
    kept = features_of(eye, part.paths, options.image, options.bad_files)
    notes += kept.notes
    part.skipped.extend(kept.skipped)
    return part.take(kept.rows), kept


def _old_fingerprint(part: Captioned) -> str:
    """For runs begun by commit 5096622 and before, which did not heed what the pictures show."""
    return fingerprint([path.name for path in part.paths], ["\n".join(several) for several in part.captions])


def _like(start: Any, options: ImageCaptionerOptions) -> ImageCaptionerOptions:
    """The options with the architecture of the model to start from; refuses a contradiction."""
    if not isinstance(start, ImageCaptioner):
        raise InputError("the model to start from is no captioner of pictures: start from one of those")
    eye = start.network.eye
    if options.backbone is not None and (
        not isinstance(eye, Backbone) or Backbone.open(options.backbone).sha256() != eye.sha256()
    ):
        raise InputError(f"{options.backbone} is not the backbone of the model to start from: leave --backbone out")
    return replace(options.like(start.options, ARCHITECTURE), backbone=start.options.backbone)
