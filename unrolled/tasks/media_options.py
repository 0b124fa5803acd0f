"""The options of the tasks with pictures and video. No torch here."""

import re
from dataclasses import dataclass
from typing import Literal

from unrolled.errors import InputError
from unrolled.tasks.options import (
    ATTENTIONS,
    BAD_FILES,
    CELLS,
    LEAST_TOKENS,
    POOLINGS,
    TOKENS,
    RecurrentOptions,
    check_fraction,
)
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
        stay together. Default: 0.1.
    cell
        rnn, rnn_relu, lstm or gru.
    hidden
        Hidden units of a layer and direction.
    layers
        Recurrent layers.
    features
        Numbers that a frame becomes.
    channels
        Of the convolutions, such as 32,64,128: each halves width and height, the last is repeated as often as there is
        something to halve. Default: chosen for the task.
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
    blur
        They lose sharpness: a Gaussian's standard deviation of up to this part of the longer side.
    cover
        A rectangle of up to this part of the width and height is hidden.
    flip
        Every other training clip is mirrored, left to right: where the mirror image means the same. A classifier then
        labels a clip by what it says of it and of its mirror image.
    """

    size: int | None = None
    grey: bool | None = None
    stride: int = 1
    bad_files: Literal["stop", "skip"] = "stop"
    val_fraction: float | None = None
    cell: str | None = None
    hidden: int | None = None
    layers: int | None = None
    features: int | None = None
    channels: str | None = None
    dropout: float | None = None
    label_smoothing: float = 0.1
    shift: float = 0.1
    scale: float = 0.1
    turn: float = 0.0
    light: float = 0.2
    speed: float = 0.3
    blur: float = 0.0
    cover: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("cell", CELLS)
        self._one_of("bad_files", BAD_FILES)
        for name in ("hidden", "layers", "features", "stride"):
            self._at_least(name, above=0)
        self._at_least("size", low=8)
        _check_channels(self.channels)
        for name in ("scale", "turn", "light", "speed"):
            self._at_least(name, low=0)
        for name in ("dropout", "label_smoothing", "shift", "blur", "cover"):
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
    mix
        Training clips are laid over others; the share of each is drawn from Beta(mix, mix) (mixup). 0: they are not.
    """

    mix: float = 0.0
    shift: float = 0.12
    scale: float = 0.2
    turn: float = 8.0
    light: float = 0.3
    speed: float = 0.5
    blur: float = 0.04
    cover: float = 0.4
    frames: int = 64
    val_groups: str | None = None
    pooling: Literal["final", "mean", "max", "attention"] = "attention"
    one_directional: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._one_of("pooling", POOLINGS)
        self._at_least("frames", above=0)
        self._at_least("mix", low=0)
        _check_groups(self.val_groups)


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

    scale: float = 0.15
    turn: float = 8.0
    val_groups: str | None = None
    online: bool = False
    window: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least("window", above=0)
        _check_groups(self.val_groups)


IMAGES = ("initial", "every-step", "both", "attention")


@dataclass(frozen=True, kw_only=True)
class ImageCaptionerOptions(RecurrentOptions):
    """Options of a captioner of pictures. Rows of a batch are captions; without a backbone pictures, with all theirs.

    Attributes
    ----------
    backbone
        Pretrained image network that says what a picture is: a folder that transformers' save_pretrained wrote, or a
        name on the Hugging Face hub, such as microsoft/resnet-50. It stays as it is. Default: none; small convolutions
        learn from the pictures.
    size
        Side in pixels of the square that those convolutions see a picture as. Default: 64.
    channels
        Of those convolutions, such as 32,64,128,192: each halves width and height, until at most 8 regions a side are
        left.
    image
        How the picture enters the chain that writes: as its initial state, at every-step (added to what each timestep
        reads), both, or as the initial state with attention over the regions of the picture. Default: attention.
    encoding
        Of the table of captions, such as latin-1. Default: utf-8.
    bad_files
        What a picture means that is missing or damaged: stop, or skip (it is left out and listed).
    val_fraction
        Part of the pictures that is kept for validation, where no split is given; drawn by --seed. Default: 0.1.
    tokens
        word, bpe, char or byte. Default: word.
    vocabulary
        How many tokens at most, for word and bpe. Default: 10,000 words; 2,000 for bpe.
    min_count
        Words that occur less often in the training captions are unknown. Default: 3.
    cased
        Tell capital letters from small ones. Default: captions in small letters, for word.
    cell
        rnn, rnn_relu, lstm or gru.
    hidden
        Hidden units of a layer.
    layers
        Recurrent layers. Default: 1.
    embedding
        Size of the vectors that tokens become.
    features
        Numbers that the picture becomes, or each of its regions.
    dropout
        On embeddings (the same units at every timestep), between layers and before the output.
    image_dropout
        On what is seen in the picture and on the numbers that it becomes. Default: 0.5; 0.2 for convolutions that
        learn.
    label_smoothing
        Part of the probability that the targets give to all tokens alike.
    """

    backbone: str | None = None
    size: int | None = None
    channels: str | None = None
    image: Literal["initial", "every-step", "both", "attention"] | None = None
    encoding: str | None = None
    bad_files: Literal["stop", "skip"] = "stop"
    val_fraction: float | None = None
    tokens: Literal["word", "bpe", "char", "byte"] | None = None
    vocabulary: int | None = None
    min_count: int | None = None
    cased: bool | None = None
    cell: str | None = None
    hidden: int | None = None
    layers: int | None = None
    embedding: int | None = None
    features: int | None = None
    dropout: float | None = None
    image_dropout: float | None = None
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.backbone is not None:
            object.__setattr__(self, "backbone", str(self.backbone))
            for name in ("size", "channels"):
                if getattr(self, name) is not None:
                    raise InputError(
                        f"--{name} is for convolutions that learn, and --backbone has been trained already: leave one "
                        "of them out"
                    )
        for name, allowed in (("cell", CELLS), ("image", IMAGES), ("tokens", TOKENS), ("bad_files", BAD_FILES)):
            self._one_of(name, allowed)
        for name in ("hidden", "layers", "embedding", "features", "min_count"):
            self._at_least(name, above=0)
        self._at_least("size", low=8)
        _check_channels(self.channels)
        _check_words(self)
        for name in ("dropout", "image_dropout", "label_smoothing"):
            self._below_one(name)
        check_fraction(self.val_fraction)


@dataclass(frozen=True, kw_only=True)
class VideoCaptionerOptions(VideoOptions, RecurrentOptions):
    """Options of a captioner of clips.

    Attributes
    ----------
    size
        Longest side of a frame as the network sees it, in pixels. Default: that of the clips, at most 32.
    frames
        Of a clip at most so many frames, from all of it evenly.
    encoding
        Of the table of captions, such as latin-1. Default: utf-8.
    tokens
        word, bpe, char or byte. Default: word.
    vocabulary
        How many tokens at most, for word and bpe. Default: 10,000 words; 2,000 for bpe.
    min_count
        Words that occur less often in the training captions are unknown. Default: 2.
    cased
        Tell capital letters from small ones. Default: captions in small letters, for word.
    attention
        How the words look at the frames: none, dot or additive. Default: additive.
    embedding
        Size of the vectors that tokens become.
    concepts
        How much it counts in the loss that the convolutions alone tell which words a clip's captions have, whatever
        their order, rare words more than frequent ones; 0 for nothing.
    """

    frames: int = 64
    encoding: str | None = None
    tokens: Literal["word", "bpe", "char", "byte"] = "word"
    vocabulary: int | None = None
    min_count: int | None = None
    cased: bool = False
    attention: Literal["none", "dot", "additive"] = "additive"
    embedding: int | None = None
    size: int | None = None
    concepts: float = 1.0
    label_smoothing: float = 0.0
    shift: float = 0.05
    scale: float = 0.0
    light: float = 0.0
    speed: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("tokens", TOKENS), ("attention", ATTENTIONS)):
            self._one_of(name, allowed)
        for name in ("frames", "embedding", "min_count"):
            self._at_least(name, above=0)
        self._at_least("concepts", low=0)
        if self.hidden is not None and self.hidden % 2:
            raise InputError(f"--hidden is {self.hidden}: it must be even, since each direction has half of the units")
        _check_words(self)


def _check_channels(channels: str | None) -> None:
    if channels is not None and not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3})*", channels):
        raise InputError(f"--channels is {channels!r}: give whole numbers from 1, such as 32,64,128")


def _check_groups(named: str | None) -> None:
    if named is not None and not named.replace(",", "").strip():
        raise InputError("--val-groups names no group: give some, such as A,B")


def _check_words(options: ImageCaptionerOptions | VideoCaptionerOptions) -> None:
    """How captions become tokens."""
    if options.vocabulary is not None:
        if options.tokens in ("char", "byte"):
            raise InputError(f"--vocabulary has no meaning for --tokens {options.tokens}: it is for word and bpe")
        options._at_least("vocabulary", low=LEAST_TOKENS[options.tokens or "word"])
    if options.tokens not in ("word", None) and (options.min_count is not None or options.cased):
        raise InputError(f"--min-count and --cased are for --tokens word, not for {options.tokens}: leave them out")
