"""A label for every frame of a clip. Many to many.

`Network` is the module, `FrameLabelerTask` what the training loop sees of it, `frame_labeler.py` what users hold.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.cells import Inputs, State
from unrolled.data.batches import BucketStream, ExampleBatch, Examples, Limit, Sequences, in_order_of_length
from unrolled.data.clips import NONE
from unrolled.data.streams import IGNORED
from unrolled.metrics import segments
from unrolled.metrics.classification import Outcomes
from unrolled.tasks.clip_labels import ClipTask
from unrolled.tasks.media_options import FrameLabelerOptions
from unrolled.tasks.video import AT_ONCE, MIXED, Shape, VideoNetwork, layers, resolved
from unrolled.topologies import ManyToMany
from unrolled.training.task import Evaluation

if TYPE_CHECKING:
    from unrolled.tasks.frame_labeler import FrameLabeler

TRAINED = 512
"""Timesteps times rows of a training batch, at most, whatever the number of clips."""
EVALUATED = Limit(32, 4096)


def resolve(options: FrameLabelerOptions) -> FrameLabelerOptions:
    """The options with every choice made."""
    return resolved(options, dropout=0.3, batch=8, features=128, channels="24,48,96,128")


class Network(VideoNetwork):
    """Frames of a clip to the scores of each frame's classes. Takes resolved options."""

    def __init__(self, shape: Shape, classes: int, options: FrameLabelerOptions) -> None:
        super().__init__(shape, options, seen=2)
        assert options.dropout is not None
        self.topology = ManyToMany(layers(options, not options.online), classes, options.dropout)

    def forward(self, batch: ExampleBatch, state: State | None) -> tuple[Tensor, State]:
        """The mean loss of the batch's frames in nats; there is no state to carry on."""
        batch = self.warped(batch)
        real = batch.targets != IGNORED
        scores = self.scores(batch)[real]
        return F.cross_entropy(scores, batch.targets[real], label_smoothing=self.options.label_smoothing), ()

    def scores(self, batch: ExampleBatch) -> Tensor:
        """(T, B, classes)"""
        packed = self.packed(batch)
        frames, before = packed.frames, packed.before
        if self.training:
            features = self.features(frames, frames[before])
        else:  # a few at a time, so that a long clip takes little memory
            parts = zip(frames.split(AT_ONCE), before.split(AT_ONCE), strict=True)
            features = torch.cat([self.features(part, frames[at]) for part, at in parts])
        return self.topology(Inputs(packed.unpack(features)), None, batch.lengths)[0]

    def features(self, frames: Tensor, before: Tensor) -> Tensor:
        """Frames (N, C, H, W), and the frame before each, to (N, F): what there is, and what has changed."""
        x = (frames.float() - 127.5) / 64
        return self.encoder(torch.cat((x, (frames.float() - before) / 64), 1))


class FrameLabelerTask(ClipTask):
    """Clips with a label a frame."""

    name, unit, network = "label-frames", "frames", Network

    def frequencies(self) -> np.ndarray:
        return np.bincount(frame_labels(self.splits["train"]).ids, minlength=len(self.labels))

    def batches(self, split: str) -> BucketStream:
        limit = Limit(self.options.batch, max(TRAINED, self.options.window))
        return BucketStream(self.splits[split], limit, self.options.seed, MIXED)

    def size(self, split: str) -> int:
        return len(frame_labels(self.splits[split]).ids)

    def evaluate(
        self, model: nn.Module, split: str, limit: int | None = None, *, write: int | None = None
    ) -> Evaluation:
        assert isinstance(model, Network)
        examples = self.splits[split]
        rows, found = outcomes(model, examples, self.device, self.most(split, limit))
        true = [frame_labels(examples)[row].astype(np.int64) for row in rows]
        return Evaluation(measure(true, found, self.labels), sum(map(len, true)))

    def public(self, model: nn.Module) -> "FrameLabeler":
        from unrolled.tasks.frame_labeler import FrameLabeler  # the other way round at import

        return FrameLabeler(model, self.shape, self.labels, self.options)

    def reads(self) -> str:
        return "online" if self.options.online else "both directions"


def frame_labels(examples: Examples) -> Sequences:
    """The classes of all frames."""
    assert isinstance(examples.targets, Sequences)
    return examples.targets


@torch.no_grad()
def outcomes(
    network: Network, examples: Examples, device: torch.device, most: int | None = None
) -> tuple[np.ndarray, list[Outcomes]]:
    """Which examples (N,), ascending, and what is predicted of the frames of each; `most`: of so many at most."""
    was_training = network.training
    network.eval()
    found: dict[int, Outcomes] = {}
    for batch in in_order_of_length(examples, EVALUATED, most):
        probabilities = torch.softmax(network.scores(batch.to(device)).double(), -1).cpu().numpy()
        for column, (row, length) in enumerate(zip(batch.rows.tolist(), batch.lengths.tolist(), strict=True)):
            true = frame_labels(examples)[row].astype(np.int64)
            found[row] = Outcomes.of(true, probabilities[:length, column])
    network.train(was_training)
    rows = sorted(found)
    return np.array(rows, dtype=np.int64), [found[row] for row in rows]


def measure(true: Sequence[np.ndarray], found: Sequence[Outcomes], labels: Sequence[str]) -> dict[str, float]:
    """accuracy a frame, F1 and edit score of the segments, and the loss in nats a frame."""
    background = labels.index(NONE) if NONE in labels else None
    figures = segments.scores(true, [clip.predicted for clip in found], background)
    return {**figures, "val_loss": Outcomes.join(found, np.arange(sum(map(len, true)))).loss()}
