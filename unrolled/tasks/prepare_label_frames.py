"""From clips in segments and options to a frame-labelling task: read, divide, decode."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from unrolled.data.batches import Examples, Sequences
from unrolled.data.clips import Segmented, read_segments
from unrolled.data.examples import skipped_of, train_and_val, trained_on
from unrolled.data.frames import Frames
from unrolled.data.labelled import Classes
from unrolled.errors import InputError
from unrolled.tasks.label_frames import FrameLabelerTask, resolve
from unrolled.tasks.media_options import FrameLabelerOptions
from unrolled.tasks.video import Shape, begun_with, groups_of, old_fingerprint, read_part
from unrolled.training.schedule import Clock

PathLike = str | os.PathLike[str]


def prepare_frame_labeler(
    paths: Sequence[PathLike],
    options: FrameLabelerOptions,
    *,
    val: Sequence[PathLike] | None,
    device: torch.device,
    clock: Clock,
    start: Any = None,
    vocabulary: dict[str, Any] | None = None,
) -> FrameLabelerTask:
    """The task, ready for training. vocabulary: that of a training to resume."""
    if start is not None:
        raise InputError("a frame labeler starts from nothing yet: leave --start-from out")
    train, held, notes, digest = train_and_val(
        lambda where: read_segments(where, bad_files=options.bad_files),
        paths,
        val,
        fraction=options.val_fraction,
        seed=options.seed,
        groups=lambda found: found.groups,
        again=bool(vocabulary),
        val_groups=groups_of(options),
    )
    options = resolve(options)
    shape = Shape.from_json(vocabulary["shape"]) if vocabulary else Shape.of(train.paths, options)
    (train, kept), (held, held_kept) = (read_part(part, shape, options, notes) for part in (train, held))
    frames, held_frames = kept.frames, held_kept.frames
    classes = Classes(vocabulary["labels"]) if vocabulary else train.classes(lengths_of(train, frames, shape.stride))
    count = len(classes.names)
    numbers, held_numbers = (
        numbers_of(part, shown, classes, shape.stride) for part, shown in ((train, frames), (held, held_frames))
    )
    splits = {
        "train": Examples(*cut(frames, numbers, options.window, count)),
        "val": Examples(held_frames, Sequences.pack(held_numbers, count)),
    }
    task = FrameLabelerTask(options, shape, classes.names, splits, device)
    task.notes, task.trained_on = notes, trained_on(val, digest)
    task.skipped = skipped_of(train, held)
    begun_with(
        task,
        [(kept, train.segments), (held_kept, held.segments)],
        old=lambda: [old_fingerprint(frames, train.segments), old_fingerprint(held_frames, held.segments)],
    )
    return task


def numbers_of(clips: Segmented, frames: Frames, classes: Classes, stride: int) -> list[np.ndarray]:
    """The labels (T,) of the frames that are read of each clip, as numbers."""
    lengths = lengths_of(clips, frames, stride)
    return [clips.numbers_of(clip, length, classes)[::stride] for clip, length in enumerate(lengths)]


def lengths_of(clips: Segmented, frames: Frames, stride: int) -> list[int]:
    """The frames of each clip. Of a clip of which every `stride`-th is read, they are known to the stride: then the end
    of the last segment says it, if it can."""
    found = []
    for segments, read in zip(clips.segments, frames.lengths.tolist(), strict=True):
        end = max(end for _, end, _ in segments)
        found.append(min(stride * read, max(stride * (read - 1) + 1, end)))
    return found


def cut(frames: Frames, labels: Sequence[np.ndarray], window: int, classes: int) -> tuple[Frames, Sequences]:
    """The clips, those that are longer than the window cut into equal pieces."""
    lengths = np.diff(frames.offsets).tolist()
    edges = [np.linspace(0, n, -(-n // window) + 1).round().astype(np.int64) for n in lengths]
    begins = [begin + edge[:-1] for begin, edge in zip(frames.offsets[:-1], edges, strict=True)]
    first = np.cumsum([0, *map(len, begins)])  # of each stored clip: the number of its first piece
    rows = [np.arange(first[stored], first[stored + 1]) for stored in frames.rows]
    pieces = [
        clip[a:b]
        for stored, clip in zip(frames.rows.tolist(), labels, strict=True)
        for a, b in zip(edges[stored][:-1], edges[stored][1:], strict=True)
    ]
    offsets = np.append(np.concatenate(begins), frames.offsets[-1])
    return Frames(frames.array, offsets, np.concatenate(rows)), Sequences.pack(pieces, classes)
