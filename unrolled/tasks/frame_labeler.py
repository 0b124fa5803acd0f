"""`FrameLabeler`: what users hold of a trained labeler of frames. It labels, measures and saves itself."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.cells import Inputs
from unrolled.data.batches import Examples, Sequences
from unrolled.data.clips import read_segments
from unrolled.data.examples import BadFiles
from unrolled.data.labelled import Classes
from unrolled.errors import InputError
from unrolled.metrics import classification, segments
from unrolled.tasks.clip_labels import ClipModel, several
from unrolled.tasks.label_frames import FrameLabelerTask, Network, measure, outcomes
from unrolled.tasks.media_options import FrameLabelerOptions
from unrolled.tasks.prepare_label_frames import numbers_of
from unrolled.tasks.public_model import remarks
from unrolled.tasks.video import AT_ONCE


class LabelledSegment(NamedTuple):
    begin: int
    """The first frame of the clip"""
    end: int
    """The frame after the last"""
    label: str
    probability: float
    """Mean of its frames"""


@dataclass(frozen=True)
class Labelling:
    """The labels of a clip."""

    labels: list[str]
    """A label for each frame that was read (all of them, unless the model was trained with a stride)"""
    probabilities: np.ndarray
    """(T, classes)"""
    segments: list[LabelledSegment]


class FrameLabel(NamedTuple):
    """The label of a frame that has just come."""

    frame: int
    label: str
    probability: float
    seconds: float
    """From the frame to its label"""


class FrameLabeler(ClipModel):
    """A trained labeler of frames."""

    task = FrameLabelerTask.name
    options_class = FrameLabelerOptions
    network: Network
    network_class = Network

    def predict(self, clips: Sequence[str | os.PathLike[str]]) -> list[Labelling]:
        """The labels of the frames of each clip (a file, or a folder of pictures). A clip is read as it is decoded: its
        frames are not kept, its features are."""
        return [self._labelling(self._read(path)) for path in several(clips)]

    @torch.inference_mode()
    def _read(self, clip: Path) -> np.ndarray:
        """The probabilities (T, classes) of its frames."""
        frames = self.shape.stream(clip)
        found, last = [], None
        while chunk := list(islice(frames, AT_ONCE)):
            features, last = self._features(np.stack(chunk), last)
            found.append(features)
        scores, _ = self.network.topology(Inputs(torch.cat(found)[:, None]))
        return torch.softmax(scores[:, 0].double(), -1).cpu().numpy()

    def _features(self, frames: np.ndarray, last: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of frames (N, H, W, C) that follow `last` (1, C, H, W): (N, F), and the last one of these."""
        pictures = torch.from_numpy(frames).to(self.device).permute(0, 3, 1, 2)
        before = torch.cat((pictures[:1] if last is None else last, pictures[:-1]))
        return self.network.features(pictures, before), pictures[-1:]

    def _labelling(self, probabilities: np.ndarray) -> Labelling:
        best, stride = probabilities.argmax(-1), self.shape.stride
        runs = [
            LabelledSegment(
                s.begin * stride,
                s.end * stride,
                self.labels[s.label],
                float(probabilities[s.begin : s.end, s.label].mean()),
            )
            for s in segments.segments(best)
        ]
        return Labelling([self.labels[n] for n in best], probabilities, runs)

    @torch.inference_mode()
    def stream(self, frames: Iterable[np.ndarray]) -> Iterator[FrameLabel]:
        """The label of each frame (H, W, C) uint8 as it comes, from it and those before it; nothing is kept but the
        state of the recurrent layers and the last frame. Only a model that was trained with `online` can.

        The frames have the height, width and colours of the training's: `shape.stream` gives them so.
        """
        if not self.options.online:
            raise InputError(
                "this model reads clips in both directions, so it needs their end: train one with --online for frames "
                "as they come"
            )
        topology, last = self.network.topology, None
        state = topology.initial_state(1)
        for number, frame in enumerate(frames):
            begun = time.perf_counter()
            features, last = self._features(frame[None], last)
            scores, state = topology.step(Inputs(features), state)
            chances = torch.softmax(scores[0], -1)
            best = int(chances.argmax())
            took = time.perf_counter() - begun
            yield FrameLabel(number * self.shape.stride, self.labels[best], float(chances[best]), took)

    def evaluate(
        self,
        *paths: str | os.PathLike[str],
        split: str | None = None,
        encoding: str | None = None,
        bad_files: BadFiles = "stop",
    ) -> dict[str, Any]:
        """accuracy a frame, f1_10, f1_25, f1_50 and edit of the segments, val_loss; `report` (a row a class, in frames)
        `confusion` (rows: the truth), `notes` and `skipped`.

        split: train or val as the training divides these clips; test where the data say so. encoding: of their table,
        default UTF-8. bad_files: "stop" at a clip that cannot be read, or "skip" it. Raises `InputError` at a label
        that the training did not have.
        """
        read = read_segments(paths, encoding=encoding, bad_files=bad_files)
        read = self.part(read, split, paths, "clip", groups=read.groups)
        kept = self.shape.read(read.paths, bad_files)
        read, frames = read.take(kept.rows), kept.frames
        true = numbers_of(read, frames, Classes(self.labels), self.shape.stride)
        _, found = outcomes(self.network, Examples(frames, Sequences.pack(true, len(self.labels))), self.device)
        best = np.concatenate([clip.predicted for clip in found])
        details = classification.details(np.concatenate(true), best, self.labels)
        return {
            **measure(true, found, self.labels),
            **details,
            **remarks([*read.notes, *kept.notes, *details["notes"]], [*read.skipped, *kept.skipped]),
        }
