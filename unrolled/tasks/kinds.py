"""The tasks there are. Adding one takes its file and a line here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unrolled.data.examples import Skipped
from unrolled.tasks.media_options import (
    FrameLabelerOptions,
    ImageCaptionerOptions,
    VideoCaptionerOptions,
    VideoClassifierOptions,
)
from unrolled.tasks.options import LanguageModelOptions, TextClassifierOptions, TranslateOptions
from unrolled.tasks.prepare_caption_image import prepare_image_captioner
from unrolled.tasks.prepare_caption_video import prepare_video_captioner
from unrolled.tasks.prepare_classify_text import prepare_text_classifier
from unrolled.tasks.prepare_classify_video import prepare_video_classifier
from unrolled.tasks.prepare_label_frames import prepare_frame_labeler
from unrolled.tasks.prepare_language_model import prepare_language_model
from unrolled.tasks.prepare_translate import prepare_translate
from unrolled.training.options import TrainingOptions
from unrolled.training.task import Task


class PreparedTask(Task, Protocol):
    """A task with its data read and what the options leave open chosen."""

    options: Any
    device: torch.device
    notes: list[str]
    """What to tell people before the training"""
    sha256: list[str]
    """Of the data"""
    old_sha256: Callable[[], list[str]] | None
    """The same as runs begun by commit 5096622 and before have it, where that was made in another way"""
    decoders: str
    """The versions of what decoded pictures and clips; "" where there are none"""
    start: dict[str, Tensor] | None
    """Weights to begin with"""
    trained_on: dict[str, Any] | None
    """What the model file says of the data; see `examples.trained_on`"""
    skipped: list[Skipped]
    """Files that could not be read and were left out"""

    def introduction(self, model: nn.Module, engine: str) -> str: ...


@dataclass(frozen=True)
class Kind:
    """What tells a task from the others."""

    options: type[TrainingOptions]
    prepare: Callable[..., PreparedTask]
    """(paths, options, val=, device=, clock=, start=, vocabulary=)
    val: paths; start: a model to go on from; vocabulary: that of a training to resume"""
    goes_on: bool = False
    """Whether a training can start from a model of its own task"""


KINDS = {
    "language-model": Kind(LanguageModelOptions, prepare_language_model, goes_on=True),
    "classify-text": Kind(TextClassifierOptions, prepare_text_classifier),
    "translate": Kind(TranslateOptions, prepare_translate, goes_on=True),
    "caption-image": Kind(ImageCaptionerOptions, prepare_image_captioner, goes_on=True),
    "caption-video": Kind(VideoCaptionerOptions, prepare_video_captioner),
    "classify-video": Kind(VideoClassifierOptions, prepare_video_classifier),
    "label-frames": Kind(FrameLabelerOptions, prepare_frame_labeler),
}
