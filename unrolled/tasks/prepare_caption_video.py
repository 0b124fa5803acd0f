"""From captioned clips and options to a video-captioning task: read, divide, decode, learn the words."""

import os
from collections.abc import Sequence
from typing import Any

import torch

from unrolled.data.captioned import Captioned, read_captions
from unrolled.data.examples import fingerprint
from unrolled.data.splits import divide
from unrolled.errors import InputError
from unrolled.tasks.caption_video import VideoCaptionTask, described, resolve
from unrolled.tasks.captioning import Words, with_all_captions
from unrolled.tasks.media_options import VideoCaptionerOptions
from unrolled.tasks.video import Shape
from unrolled.training.schedule import Clock

PathLike = str | os.PathLike[str]


def prepare_video_captioner(
    paths: Sequence[PathLike],
    options: VideoCaptionerOptions,
    *,
    val: Sequence[PathLike] | None,
    device: torch.device,
    clock: Clock,
    start: Any = None,
    vocabulary: dict[str, Any] | None = None,
) -> VideoCaptionTask:
    """The task, ready for training. vocabulary: that of a training to resume."""
    if start is not None:
        raise InputError("a video captioner starts from nothing yet: leave --start-from out")
    train, held, notes = _read(paths, options, val)
    options = resolve(options)
    if vocabulary:
        words, shape = described(vocabulary)
    else:
        words = Words.learn([text for several in train.captions for text in several], options)
        shape = Shape.of(train.paths, options, options.frames)
    inputs, held_inputs = shape.read(train.paths), shape.read(held.paths)
    pairs = {
        "train": with_all_captions(inputs, train.captions, words),
        "val": with_all_captions(held_inputs, held.captions, words),
    }
    task = VideoCaptionTask(options, words, shape, pairs, held_inputs, held.captions, device)
    task.notes = notes
    task.sha256 = [
        fingerprint([str(p) for p in part.paths], ["\n".join(several) for several in part.captions])
        for part in (train, held)
    ]
    return task


def _read(
    paths: Sequence[PathLike], options: VideoCaptionerOptions, val: Sequence[PathLike] | None
) -> tuple[Captioned, Captioned, list[str]]:
    """The clips to train on and to validate on."""
    read = read_captions(paths, encoding=options.encoding)
    if val is not None:
        other = read_captions(val, encoding=options.encoding)
        return read, other, [*read.notes, *other.notes]
    parts = divide(len(read), splits=read.splits, groups=read.groups, fraction=options.val_fraction, seed=options.seed)
    return read.take(parts.train), read.take(parts.val), [*read.notes, parts.how]
