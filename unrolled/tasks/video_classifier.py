"""`VideoClassifier`: what users hold of a trained classifier of clips. It labels, measures and saves itself."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from unrolled.data.batches import Examples
from unrolled.data.clips import read_clips
from unrolled.data.examples import BadFiles
from unrolled.data.frames import Frames
from unrolled.data.labelled import Classes
from unrolled.metrics import classification
from unrolled.tasks.classified import outcomes, predict
from unrolled.tasks.classify_video import Network, VideoClassifierTask, measure
from unrolled.tasks.clip_labels import ClipModel, several
from unrolled.tasks.media_options import VideoClassifierOptions
from unrolled.tasks.public_model import remarks
from unrolled.tasks.text_classifier import Prediction


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

    def evaluate(
        self,
        *paths: str | os.PathLike[str],
        split: str | None = None,
        encoding: str | None = None,
        bad_files: BadFiles = "stop",
    ) -> dict[str, Any]:
        """accuracy, f1 (macro), top-k, val_loss; `report` (a row per class), `confusion` (rows: the truth),
        `notes` and `skipped`.

        split: train or val as the training divides these clips; test where the data say so. encoding: of their table,
        default UTF-8. bad_files: "stop" at a clip that cannot be read, or "skip" it. Raises `InputError` at a label
        that the training did not have.
        """
        read = read_clips(paths, encoding=encoding, bad_files=bad_files)
        read = self.part(read, split, paths, "clip", strata=read.labels, groups=read.groups)
        kept = self.shape.read(read.paths, bad_files)
        read = read.take(kept.rows)
        targets = Classes(self.labels).numbers(read)
        _, found = outcomes(self.network, Examples(kept.frames, targets), self.device)
        details = classification.details(targets, found.predicted, self.labels)
        return {
            **measure(targets, found, len(self.labels)),
            **details,
            **remarks([*read.notes, *kept.notes, *details["notes"]], [*read.skipped, *kept.skipped]),
        }
