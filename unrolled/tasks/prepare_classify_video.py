"""From labelled clips and options to a video-classification task: read, divide, decode."""

import os
from collections.abc import Sequence
from typing import Any

import torch

from unrolled.data.batches import Examples
from unrolled.data.clips import read_clips
from unrolled.data.examples import skipped_of, train_and_val, trained_on
from unrolled.data.labelled import Classes, told_apart
from unrolled.errors import InputError
from unrolled.tasks.classify_video import VideoClassifierTask, resolve
from unrolled.tasks.media_options import VideoClassifierOptions
from unrolled.tasks.video import Shape, begun_with, groups_of, old_fingerprint, read_part
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
    train, held, notes, digest = train_and_val(
        lambda where: read_clips(where, bad_files=options.bad_files),
        paths,
        val,
        fraction=options.val_fraction,
        seed=options.seed,
        strata=lambda found: found.labels if vocabulary else told_apart(found, "clips"),
        groups=lambda found: found.groups,
        again=bool(vocabulary),
        val_groups=groups_of(options),
    )
    options = resolve(options)
    classes = Classes(vocabulary["labels"]) if vocabulary else Classes.of(train, "clips")
    shape = Shape.from_json(vocabulary["shape"]) if vocabulary else Shape.of(train.paths, options, options.frames)
    splits, parts, old = dict[str, Examples](), [], []
    for name, part in (("train", train), ("val", held)):
        classes.numbers(part)  # an unknown label is said before the clips are decoded
        part, kept = read_part(part, shape, options, notes)
        splits[name] = Examples(kept.frames, classes.numbers(part))
        parts.append((kept, part.labels))
        old.append((kept.frames, classes.numbers(part).tolist()))
    task = VideoClassifierTask(options, shape, classes.names, splits, device)
    task.notes, task.trained_on = notes, trained_on(val, digest)
    task.skipped = skipped_of(train, held)
    begun_with(task, parts, old=lambda: [old_fingerprint(*part) for part in old])
    return task
