"""`VideoClassifier`: what users hold of a trained classifier of clips. It labels, measures and saves itself."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from unrolled.data.batches import Examples
from unrolled.data.clips import read_clips
from unrolled.data.frames import Frames
from unrolled.data.labelled import Classes
from unrolled.metrics import classification
from unrolled.tasks.classified import outcomes, predict
from unrolled.tasks.classify_video import Network, VideoClassifierTask, measure
from unrolled.tasks.clip_labels import ClipModel, several
from unrolled.tasks.media_options import VideoClassifierOptions
from unrolled.tasks.text_classifier import Prediction
from unrolled.tasks.video import part_asked


class VideoClassifier(ClipModel):
    """A trained classifier of clips."""

    task = VideoClassifierTask.name
    options_class = VideoClassifierOptions
    network: Network
    network_class = Network

    def predict(self, clips: Sequence[str | os.PathLike[str]]) -> list[Prediction]:
        """The likeliest label of each clip (a file, or a folder of pictures), with its probability."""
        paths = several(clips)
        if not paths:
            return []
        frames = Frames.pack([self.shape.decode(path) for path in paths])
        found = predict(self.network, Examples(frames, np.zeros(len(paths), dtype=np.int64)), self.device)
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
        _, found = outcomes(self.network, Examples(self.shape.read(read.paths).frames, targets), self.device)
        return {
            **measure(targets, found, len(self.labels)),
            **classification.details(targets, found.predicted, self.labels),
        }
