"""From labelled clips and options to a video-classification task: read, divide, decode."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unrolled.data.batches import Examples
from unrolled.data.examples import fingerprint
from unrolled.data.labelled import Classes
from unrolled.data.splits import divide
from unrolled.data.thin_clips import Clips, read_clips
from unrolled.errors import InputError
from unrolled.tasks.classify_video import VideoClassifierTask, resolve
from unrolled.tasks.media_options import VideoClassifierOptions
from unrolled.tasks.video import Shape, held_out
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
    classes = Classes(vocabulary["labels"]) if vocabulary else Classes.of(train)  # type: ignore[arg-type]
    shape = Shape(**vocabulary["shape"]) if vocabulary else Shape.of(train.paths, options, options.frames)
    splits = {
        name: Examples(shape.read(part.paths), classes.numbers(part))  # type: ignore[arg-type]
        for name, part in (("train", train), ("val", held))
    }
    task = VideoClassifierTask(options, shape, classes.names, splits, device)
    task.notes = notes
    task.sha256 = [fingerprint([str(p) for p in part.paths], part.labels) for part in (train, held)]
    return task


def _read(
    paths: Sequence[PathLike], options: VideoClassifierOptions, val: Sequence[PathLike] | None
) -> tuple[Clips, Clips, list[str]]:
    """The clips to train on and to validate on."""
    read = read_clips([Path(p) for p in paths])
    if val is not None:
        other = read_clips([Path(p) for p in val])
        return read, other, [*read.notes, *other.notes]
    asked = options.val_groups
    splits = held_out(read.groups, asked, read.places.name) if asked else read.splits
    parts = divide(len(read), splits=splits, strata=read.labels, fraction=options.val_fraction, seed=options.seed)
    return read.take(parts.train), read.take(parts.val), [*read.notes, parts.how]
