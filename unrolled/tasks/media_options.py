"""The options of the tasks with pictures and video. No torch here."""

from dataclasses import dataclass
from typing import Literal

from unrolled.errors import InputError
from unrolled.tasks.options import CELLS, POOLINGS, check_fraction
from unrolled.training.options import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class VideoOptions(TrainingOptions):
    """Options of a training on clips.

    Attributes
    ----------
    size
        Longest side of a frame as the network sees it, in pixels. Default: that of the clips, at most 64.
    grey
        Frames without colour. Default: where the clips have none.
    stride
        Every so many frames of a clip.
    bad_files
        stop at a clip that is missing or cannot be read, or skip it and say so.
    val_fraction
        Part of the clips that is kept for validation, where no split is given; drawn by --seed. Clips of one group
        stay together.
    cell
        rnn, rnn_relu, lstm or gru.
    hidden
        Hidden units of a layer and direction.
    layers
        Recurrent layers.
    features
        Numbers that a frame becomes.
    dropout
        On the frames' features and before the output.
    label_smoothing
        Part of the probability that the targets give to all classes alike.
    shift
        Training clips move by up to this part of the frame's width and height.
    scale
        They grow or shrink by up to this factor, less 1.
    turn
        They turn by up to so many degrees.
    light
        Their contrast changes by up to this factor, less 1, and their brightness by up to this part of its range.
    speed
        They play faster or slower by up to this factor, less 1, and as unevenly.
    cover
        A rectangle of up to this part of the width and height is hidden.
    flip
        Every other training clip is mirrored, left to right: where the mirror image means the same.
    """

    size: int | None = None
    grey: bool | None = None
    stride: int = 1
    bad_files: Literal["stop", "skip"] = "stop"
    val_fraction: float = 0.1
    cell: str | None = None
    hidden: int | None = None
    layers: int | None = None
    features: int | None = None
    dropout: float | None = None
    label_smoothing: float = 0.1
    shift: float = 0.1
    scale: float = 0.1
    turn: float = 0.0
    light: float = 0.2
    speed: float = 0.3
    cover: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("cell", CELLS)
        self._one_of("bad_files", ("stop", "skip"))
        for name in ("hidden", "layers", "features", "stride"):
            self._at_least(name, above=0)
        self._at_least("size", low=8)
        for name in ("scale", "turn", "light", "speed"):
            self._at_least(name, low=0)
        for name in ("dropout", "label_smoothing", "shift", "cover"):
            self._below_one(name)
        check_fraction(self.val_fraction)


@dataclass(frozen=True, kw_only=True)
class VideoClassifierOptions(VideoOptions):
    """Options of a classifier of clips.

    Attributes
    ----------
    frames
        Of a clip at most so many frames, from all of it evenly. Default: 64.
    val_groups
        Groups that are kept for validation, such as F01,M04: the values of a column `group`.
    pooling
        What of the states becomes the clip's vector: final, mean, max (over time) or attention.
    one_directional
        Read forwards only. Default: both ways.
    """

    frames: int = 64
    val_groups: str | None = None
    pooling: Literal["final", "mean", "max", "attention"] = "attention"
    one_directional: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("pooling", POOLINGS)
        self._at_least("frames", above=0)
        if self.val_groups is not None and not self.val_groups.replace(",", "").strip():
            raise InputError("--val-groups names no group: give some, such as A,B")


@dataclass(frozen=True, kw_only=True)
class FrameLabelerOptions(VideoOptions):
    """Options of a labeler of frames.

    Attributes
    ----------
    val_groups
        Groups that are kept for validation, such as A,B: the values of a column `group`.
    online
        Label each frame from it and those before it, so that a live picture can be labelled. Default: from the whole
        clip, in both directions.
    window
        Frames of a training clip at most: longer ones are cut.
    """

    val_groups: str | None = None
    online: bool = False
    window: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("window", above=0)
        if self.val_groups is not None and not self.val_groups.replace(",", "").strip():
            raise InputError("--val-groups names no group: give some, such as A,B")
