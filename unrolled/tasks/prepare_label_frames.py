"""From clips in segments and options to a frame-labelling task: read, divide, decode."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unrolled.data.batches import Examples, Sequences
from unrolled.data.examples import fingerprint
from unrolled.data.frames import Frames
from unrolled.data.splits import divide
from unrolled.data.thin_clips import Segmented, read_segments
from unrolled.errors import InputError
from unrolled.tasks.label_frames import BACKGROUND, FrameLabelerTask, resolve
from unrolled.tasks.media_options import FrameLabelerOptions
from unrolled.tasks.video import Shape, held_out
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
    train, held, notes = _read(paths, options, val)
    options = resolve(options)
    shape = Shape(**vocabulary["shape"]) if vocabulary else Shape.of(train.paths, options)
    frames = {"train": shape.read(train.paths), "val": shape.read(held.paths)}
    words = {name: words_of(part, frames[name], shape.stride) for name, part in (("train", train), ("val", held))}
    labels = vocabulary["labels"] if vocabulary else sorted({word for clip in words["train"] for word in clip})
    if len(labels) < 2:
        raise InputError(f"all frames of {train.places.name} have the label {labels[0]!r}: give at least two")
    numbered = {name: numbers_of(words[name], labels, part) for name, part in (("train", train), ("val", held))}
    splits = {
        "train": Examples(*cut(frames["train"], numbered["train"], options.window, len(labels))),
        "val": Examples(frames["val"], Sequences.pack(numbered["val"], len(labels))),
    }
    task = FrameLabelerTask(options, shape, labels, splits, device)
    task.notes = notes
    task.sha256 = [fingerprint([str(p) for p in part.paths], [str(s) for s in part.segments]) for part in (train, held)]
    return task


def words_of(clips: Segmented, frames: Frames, stride: int) -> list[np.ndarray]:
    """The label of each frame that is read, as a word; `BACKGROUND` outside of all segments."""
    found = []
    for row, (segments, length) in enumerate(zip(clips.segments, frames.lengths.tolist(), strict=True)):
        words = np.full(length, BACKGROUND, dtype=object)
        for begin, end, label in segments:
            if -(-end // stride) > length:
                raise InputError(
                    f"{clips.places.say(row)}: the segment {begin} to {end} of {label!r} goes beyond the "
                    f"{length * stride} frames of {clips.paths[row].name}: correct it"
                )
            words[-(-begin // stride) : -(-end // stride)] = label
        found.append(words)
    return found


def numbers_of(words: Sequence[np.ndarray], labels: Sequence[str], clips: Segmented) -> list[np.ndarray]:
    """The labels (T,) of each clip as numbers. Raises `InputError` at one that the training does not have."""
    known = {label: number for number, label in enumerate(labels)}
    for row, clip in enumerate(words):
        for word in dict.fromkeys(clip):
            if word not in known:
                raise InputError(
                    f"{clips.places.say(row)}: the label {word!r} does not occur in the training data: correct it, or "
                    "train with it"
                )
    return [np.array([known[word] for word in clip], dtype=np.int64) for clip in words]


def cut(frames: Frames, labels: Sequence[np.ndarray], window: int, classes: int) -> tuple[Frames, Sequences]:
    """The clips, those that are longer than the window cut into equal pieces."""
    offsets, pieces = [0], []
    for begin, clip in zip(frames.offsets[:-1].tolist(), labels, strict=True):
        edges = np.linspace(0, len(clip), -(-len(clip) // window) + 1).round().astype(int).tolist()
        pieces += [clip[a:b] for a, b in zip(edges[:-1], edges[1:], strict=True)]
        offsets += [begin + edge for edge in edges[1:]]
    rows = np.arange(len(pieces))
    return Frames(frames.array, np.array(offsets, dtype=np.int64), rows), Sequences.pack(pieces, classes)


def _read(
    paths: Sequence[PathLike], options: FrameLabelerOptions, val: Sequence[PathLike] | None
) -> tuple[Segmented, Segmented, list[str]]:
    """The clips to train on and to validate on."""
    read = read_segments([Path(p) for p in paths])
    if val is not None:
        other = read_segments([Path(p) for p in val])
        return read, other, [*read.notes, *other.notes]
    asked = options.val_groups
    splits = held_out(read.groups, asked, read.places.name) if asked else read.splits
    parts = divide(len(read), splits=splits, fraction=options.val_fraction, seed=options.seed)
    return read.take(parts.train), read.take(parts.val), [*read.notes, parts.how]
