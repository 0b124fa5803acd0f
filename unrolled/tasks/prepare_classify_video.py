"""From labelled clips and options to a video-classification task: read, divide, decode."""

import os
from collections.abc import Sequence
from typing import Any

import torch

from unrolled.data.batches import Examples
from unrolled.data.clips import Clips, read_clips
from unrolled.data.labelled import Classes
from unrolled.data.splits import divide
from unrolled.errors import InputError
from unrolled.tasks.classify_video import VideoClassifierTask, resolve
from unrolled.tasks.media_options import VideoClassifierOptions
from unrolled.tasks.video import Shape, fingerprint_of, groups_of, shown
from unrolled.training.schedule import Clock

PathLike = str | os.PathLike[str]


def prepare_video_classifier(
    paths: Sequence[PathLike],
    options: VideoClassifierOptions,
    *,
    val: Sequence[PathLike] | None,
    device: torch.device,
    clock: Clock,
    start: Any = None,
    vocabulary: dict[str, Any] | None = None,
) -> VideoClassifierTask:
    """The task, ready for training. vocabulary: that of a training to resume."""
    if start is not None:
        raise InputError("a video classifier starts from nothing yet: leave --start-from out")
    train, held, notes = _read(paths, options, val)
    options = resolve(options)
    classes = Classes(vocabulary["labels"]) if vocabulary else Classes.of(train, "clips")
    shape = Shape(**vocabulary["shape"]) if vocabulary else Shape.of(train.paths, options, options.frames)
    parts = {"train": train, "val": held}
    numbers = {name: classes.numbers(part) for name, part in parts.items()}  # before the frames: it is quicker
    splits = {name: Examples(shape.read(part.paths), numbers[name]) for name, part in parts.items()}
    task = VideoClassifierTask(options, shape, classes.names, splits, device)
    task.notes = notes
    task.sha256 = [fingerprint_of(shown(splits[name]), part.labels) for name, part in parts.items()]
    return task


def _read(
    paths: Sequence[PathLike], options: VideoClassifierOptions, val: Sequence[PathLike] | None
) -> tuple[Clips, Clips, list[str]]:
    """The clips to train on and to validate on."""
    read = read_clips(paths)
    if val is not None:
        other = read_clips(val)
        return read, other, [*read.notes, *other.notes]
    parts = divide(
        len(read),
        splits=read.splits,
        strata=read.labels,
        groups=read.groups,
        val_groups=groups_of(options),
        fraction=options.val_fraction,
        seed=options.seed,
    )
    return read.take(parts.train), read.take(parts.val), [*read.notes, parts.how]
