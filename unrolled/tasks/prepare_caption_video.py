"""From captioned clips and options to a video-captioning task: read, divide, decode, learn the words."""

import os
from collections.abc import Sequence
from typing import Any

import torch

from unrolled.data import tokenizers
from unrolled.data.captioned import read_captions
from unrolled.data.examples import skipped_of, train_and_val, trained_on
from unrolled.errors import InputError
from unrolled.tasks.caption_video import VideoCaptionTask, described, resolve
from unrolled.tasks.captioning import Words, counted, with_all_captions
from unrolled.tasks.media_options import VideoCaptionerOptions
from unrolled.tasks.video import Shape, begun_with, old_fingerprint, read_part
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
    train, held, notes, digest = train_and_val(
        lambda where: read_captions(where, encoding=options.encoding, bad_files=options.bad_files),
        paths,
        val,
        fraction=options.val_fraction,
        seed=options.seed,
        groups=lambda found: found.groups,
        again=bool(vocabulary),
    )
    options = resolve(options)
    if vocabulary:
        words, shape = described(vocabulary)
    else:
        words = Words.learn([text for several in train.captions for text in several], options)
        shape = Shape.of(train.paths, options, options.frames)
    (train, kept), (held, held_kept) = (read_part(part, shape, options, notes) for part in (train, held))
    inputs, held_inputs = kept.frames, held_kept.frames
    pairs = {
        "train": with_all_captions(inputs, train.captions, words),
        "val": with_all_captions(held_inputs, held.captions, words),
    }
    task = VideoCaptionTask(options, words, shape, pairs, held_inputs, held.captions, device)
    task.notes = [*notes, *counted(held.captions), *tokenizers.notes(words.vocabulary.tokenizer)]
    task.trained_on = trained_on(val, digest)
    task.skipped = skipped_of(train, held)
    begun_with(
        task,
        [(kept, train.captions), (held_kept, held.captions)],
        old=lambda: [old_fingerprint(inputs, train.captions), old_fingerprint(held_inputs, held.captions)],
    )
    return task
