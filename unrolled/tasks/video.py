"""What the tasks on clips share: reading the frames, and the network from frames to features."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import nn

from unrolled.cells import CELLS, Inputs
from unrolled.data import decoders, video
from unrolled.data.batches import ExampleBatch
from unrolled.data.contents import check
from unrolled.data.examples import CONTENT, BadFiles, Skipped, fingerprint
from unrolled.data.frame_cache import Kept, cached
from unrolled.data.frames import Frames
from unrolled.data.streams import IGNORED
from unrolled.errors import InputError
from unrolled.nn import Recurrent
from unrolled.nn.augment import Variety, vary, warp
from unrolled.nn.convnet import FrameEncoder, Packed, pack
from unrolled.tasks.media_options import VideoOptions

T = TypeVar("T")


class Part(Protocol):
    """Clips with what is said of them."""

    @property
    def paths(self) -> Sequence[Path]: ...
    @property
    def skipped(self) -> list[Skipped]: ...

    def take(self, rows: np.ndarray) -> Self: ...


P = TypeVar("P", bound=Part)
DEFAULT_SECONDS = 300.0
LONGEST_SIDE = 64
"""Of a frame, where no size is asked for."""
LOOKED_AT = 20
"""Clips whose first frame says whether all are grey."""
ALMOST_GREY = 3.0
"""How far the colours of a grey frame may lie apart, on average: a codec's rounding."""
MIXED = 3.0
"""Clips of different length share a batch: their padding costs the convolutions nothing, and batches of one length,
which are batches of few classes, have another mean and variance than all clips have (batch normalisation)."""
AT_ONCE = 512
"""Frames that are encoded at a time where nothing is trained."""


def resolved(options: Any, *, dropout: float, batch: int, features: int, channels: str) -> Any:
    """The options of a task that gives labels, with every choice made."""
    return replace(
        options,
        cell=options.cell or "gru",
        hidden=options.hidden or 128,
        layers=options.layers or 1,
        features=options.features or features,
        channels=options.channels or channels,
        dropout=dropout if options.dropout is None else options.dropout,
        batch=options.batch or batch,
        bptt="full",
        lr=options.lr or 2e-3,
        seconds=DEFAULT_SECONDS if options.seconds is None and options.steps is None else options.seconds,
    )


@dataclass(frozen=True)
class Shape:
    """What frames are made to be."""

    height: int
    width: int
    grey: bool
    stride: int = 1
    count: int | None = None
    """Frames of a clip, at most"""

    @property
    def channels(self) -> int:
        return 1 if self.grey else 3

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.stride, self.count or 1) < 1:
            raise InputError(f"frames of {self.height}×{self.width}, stride {self.stride}, cannot be read")

    @classmethod
    def from_json(cls, kept: Any) -> "Shape":
        """From what a file keeps."""
        check(kept, cls, "the shape of its frames")
        return cls(**kept)

    @classmethod
    def of(cls, paths: Sequence[Path], options: VideoOptions, count: int | None = None) -> "Shape":
        """That of the first clip, made smaller; grey where the clips are."""
        first = next(_of_those_that_can_be_read(paths, video.probe, options.bad_files))
        longest = max(first.width, first.height)
        size = min(longest, options.size or LONGEST_SIDE)
        height, width = (max(1, round(side * size / longest)) for side in (first.height, first.width))
        grey = _are_grey(paths, options.bad_files) if options.grey is None else options.grey
        return cls(height, width, grey, options.stride, count)

    def read(self, paths: Sequence[Path], bad_files: BadFiles = "stop") -> Kept:
        """The frames of all these clips; they are decoded once and kept on disk. bad_files: whether a clip that cannot
        be read ends it all, or is left out and noted."""
        recipe = "frames, version 1: " + ", ".join(f"{name}={value}" for name, value in self.to_json().items())
        return cached(paths, recipe, self.decode, versions=decoders.of_clips(), bad_files=bad_files)

    def decode(self, path: Path) -> np.ndarray:
        """(T, H, W, C)"""
        return np.stack(list(self.stream(path)))

    def stream(self, path: Path) -> Any:
        """The frames (H, W, C) of a clip, one after the other."""
        return video.frames(path, size=(self.width, self.height), grey=self.grey, stride=self.stride, count=self.count)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _are_grey(paths: Sequence[Path], bad_files: BadFiles) -> bool:
    """Whether the first frames of some clips have no colour."""
    some = paths[:: max(1, len(paths) // LOOKED_AT)]
    firsts = _of_those_that_can_be_read(some, lambda path: next(iter(video.frames(path))), bad_files)
    frames = (frame.astype(np.float32) for frame in firsts)
    return all(np.abs(frame - frame.mean(-1, keepdims=True)).mean() <= ALMOST_GREY for frame in frames)


def _of_those_that_can_be_read(paths: Sequence[Path], look: Callable[[Path], T], bad_files: BadFiles) -> Iterator[T]:
    """What is found in each clip. Raises `InputError` at one that cannot be read, or where none can."""
    found = 0
    for number, path in enumerate(paths, 1):
        try:
            seen = look(path)
        except InputError:
            if bad_files == "stop" or (number == len(paths) and not found):
                raise
            continue
        found += 1
        yield seen


class VideoNetwork(nn.Module):
    """Clips to features a frame; the tasks' networks go on from there with their topology. Takes resolved options.

    seen: how many pictures the encoder sees of a frame: the frame itself, and what changes.
    """

    topology: Any

    def __init__(self, shape: Shape, options: Any, seen: int) -> None:
        super().__init__()
        assert options.features and options.channels and options.dropout is not None
        self.options = options
        self.encoder = FrameEncoder(
            shape.height, shape.width, seen * shape.channels, options.features, channels_of(options), options.dropout
        )
        self.variety = variety_of(options)

    def warped(self, batch: ExampleBatch) -> ExampleBatch:
        """In training, the clips at other speeds, with their targets where each frame has one."""
        if not (self.training and self.variety.speed):
            return batch
        at, lengths = warp(batch.lengths, self.variety.speed)
        columns = torch.arange(len(lengths), device=at.device)
        inputs, targets = batch.inputs[at, columns], batch.targets
        if targets.dim() == 2:
            real = torch.arange(len(at), device=at.device)[:, None] < lengths
            targets = torch.where(real, targets[at, columns], IGNORED)
        return batch._replace(inputs=inputs, lengths=lengths, targets=targets)

    def packed(self, batch: ExampleBatch) -> Packed:
        """The real frames, in training each clip a little changed."""
        packed = pack(batch.inputs, batch.lengths)
        return vary(packed, self.variety) if self.training else packed

    def engine_name(self) -> str:
        """The engine that runs the recurrent layers."""
        recurrent: Recurrent = self.topology.recurrent
        x = next(self.parameters()).new_zeros(1, 1, recurrent.input_size)
        return recurrent.chosen_engine(Inputs(x), recurrent.initial_state(1)).name


def channels_of(options: Any) -> tuple[int, ...]:
    """Of the convolutions."""
    return tuple(int(channels) for channels in options.channels.split(","))


def variety_of(options: VideoOptions) -> Variety:
    """How much its training clips change."""
    return Variety(**{field.name: getattr(options, field.name) for field in fields(Variety)})


def layers(options: Any, bidirectional: bool) -> Recurrent:
    """The recurrent layers over the features of frames."""
    return Recurrent(
        CELLS[options.cell],
        options.features,
        options.hidden,
        options.layers,
        dropout=options.dropout,
        bidirectional=bidirectional,
        forget_bias=1.0 if options.cell == "lstm" else None,
        orthogonal=True,
        engine=options.engine,
    )


def groups_of(options: Any) -> list[str] | None:
    """The groups to validate on, where some are asked for."""
    if options.val_groups is None:
        return None
    return [name.strip() for name in options.val_groups.split(",") if name.strip()]


def read_part(part: P, shape: Shape, options: VideoOptions, notes: list[str]) -> tuple[P, Kept]:
    """The clips that can be read, and their frames; the others are noted, where they are left out."""
    kept = shape.read(part.paths, options.bad_files)
    notes += kept.notes
    part.skipped.extend(kept.skipped)
    return part.take(kept.rows), kept


def begun_with(task: Any, parts: Sequence[tuple[Kept, Sequence[Any]]], old: Callable[[], list[str]]) -> None:
    """Lets the task say by what a resumed training knows its data: the contents of the files, and what is said of each.
    old: how commit 5096622 and those before it did that."""
    task.sha256 = [CONTENT + fingerprint(kept.keys, [repr(one) for one in said]) for kept, said in parts]
    task.decoders = parts[0][0].decoders
    task.old_sha256 = old


def old_fingerprint(frames: Frames, said: Sequence[Any]) -> str:
    """For runs begun by commit 5096622 and before: SHA-256 of clips, as the network sees them, and what is said of
    each."""
    pictures = [hashlib.sha256(frames[row].tobytes()).hexdigest() for row in range(len(frames))]
    return fingerprint(pictures, [str(one) for one in said])
