"""`VideoClassifier`: what users hold of a trained classifier of clips. It labels, measures and saves itself."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from unrolled.data.batches import Examples
from unrolled.data.clips import read_clips
from unrolled.data.frames import Frames
from unrolled.data.labelled import Classes
from unrolled.errors import InputError
from unrolled.metrics import classification
from unrolled.tasks.classify_video import Network, VideoClassifierTask, measure, predict
from unrolled.tasks.media_options import VideoClassifierOptions
from unrolled.tasks.public_model import PublicModel
from unrolled.tasks.text_classifier import Prediction
from unrolled.tasks.video import Shape, part_asked


class VideoClassifier(PublicModel):
    """A trained classifier of clips."""

    task = VideoClassifierTask.name
    options_class = VideoClassifierOptions
    network: Network

    def __init__(
        self,
        network: Network,
        shape: Shape,
        labels: Sequence[str],
        options: VideoClassifierOptions,
        metrics: dict[str, float] | None = None,
        step: int = 0,
    ) -> None:
        super().__init__(network, options, metrics, step)
        self.shape, self.labels = shape, list(labels)

    @classmethod
    def from_file(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> "VideoClassifier":
        """From what `model_file.load` returns."""
        options = VideoClassifierOptions(**description["options"])
        shape, labels = Shape(**description["vocabulary"]["shape"]), description["vocabulary"]["labels"]
        # the engine of the training need not exist where the model is used
        network = Network(shape, len(labels), replace(options, engine="auto"))
        network.load_state_dict(tensors)
        return cls(network, shape, labels, options, description["metrics"], description["step"])

    def vocabulary(self) -> dict[str, Any]:
        return {"labels": self.labels, "shape": self.shape.to_json()}

    def predict(self, clips: Sequence[str | os.PathLike[str]]) -> list[Prediction]:
        """The likeliest label of each clip (a file, or a folder of pictures), with its probability."""
        if isinstance(clips, str | os.PathLike):
            raise InputError("predict takes a list of clips: put the path into brackets")
        if not clips:
            return []
        frames = Frames.pack([self.shape.decode(Path(clip)) for clip in clips])
        _, found = predict(self.network, Examples(frames, np.zeros(len(clips), dtype=np.int64)), self.device)
        return [
            Prediction(self.labels[row.argmax()], float(row.max()), dict(zip(self.labels, row.tolist(), strict=True)))
            for row in found
        ]

    def evaluate(self, *paths: str | os.PathLike[str], split: str | None = None) -> dict[str, Any]:
        """accuracy, f1 (macro), top-k, val_loss; `report` (a row a class) and `confusion` (rows: the truth).

        split: train, val or test, where the data or the training's --val-groups say which clip is what. Raises
        `InputError` at a label that the training did not have.
        """
        read = read_clips(paths)
        if split is not None:
            read = read.take(part_asked(split, read, self.options))
        targets = Classes(self.labels).numbers(read)
        _, found = predict(self.network, Examples(self.shape.read(read.paths).frames, targets), self.device)
        counts = classification.confusion(targets, found.argmax(-1), len(self.labels))
        return {
            **measure(targets, found),
            "report": classification.report(counts, self.labels),
            "confusion": counts.tolist(),
        }
