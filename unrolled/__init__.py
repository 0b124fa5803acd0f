"""unrolled: recurrent sequence models on PyTorch, from a file to a trained model.

    import unrolled
    model = unrolled.LanguageModel.fit("input.txt", cell="lstm", hidden=512, seconds=420)
    print(model.sample("ROMEO:", length=500, temperature=0.8, seed=1))
    model.save("shakespeare.safetensors")
    model = unrolled.load("shakespeare.safetensors")

Names are imported when first used, so that `unrolled --help` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unrolled import cells as cells
    from unrolled import data as data
    from unrolled import decoding as decoding
    from unrolled import engines as engines
    from unrolled import errors as errors
    from unrolled import nn as nn
    from unrolled import topologies as topologies
    from unrolled.errors import InputError as InputError
    from unrolled.errors import NonFiniteError as NonFiniteError
    from unrolled.errors import UnrolledError as UnrolledError
    from unrolled.tasks.frame_labeler import FrameLabeler as FrameLabeler
    from unrolled.tasks.image_captioner import ImageCaptioner as ImageCaptioner
    from unrolled.tasks.models import LanguageModel as LanguageModel
    from unrolled.tasks.models import load as load
    from unrolled.tasks.text_classifier import TextClassifier as TextClassifier
    from unrolled.tasks.translator import Translator as Translator
    from unrolled.tasks.video_captioner import VideoCaptioner as VideoCaptioner
    from unrolled.tasks.video_classifier import VideoClassifier as VideoClassifier

__version__ = "0.1.0"

_LAZY = {
    "FrameLabeler": "unrolled.tasks.frame_labeler",
    "ImageCaptioner": "unrolled.tasks.image_captioner",
    "InputError": "unrolled.errors",
    "LanguageModel": "unrolled.tasks.models",
    "NonFiniteError": "unrolled.errors",
    "TextClassifier": "unrolled.tasks.text_classifier",
    "Translator": "unrolled.tasks.translator",
    "UnrolledError": "unrolled.errors",
    "VideoCaptioner": "unrolled.tasks.video_captioner",
    "VideoClassifier": "unrolled.tasks.video_classifier",
    "load": "unrolled.tasks.models",
}
_PACKAGES = ("cells", "data", "decoding", "engines", "errors", "nn", "topologies")

__all__ = [*_LAZY, *_PACKAGES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    if name in _PACKAGES:
        return import_module(f"unrolled.{name}")
    raise AttributeError(f"module 'unrolled' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
