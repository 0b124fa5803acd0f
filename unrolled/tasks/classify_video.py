"""Classification of clips: frames in, a label out. Many to one.

`Network` is the module, `VideoClassifierTask` what the training loop sees of it, `video_classifier.py` what users hold.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.cells import Inputs, State
from unrolled.data.batches import BucketStream, ExampleBatch, Examples, Limit
from unrolled.metrics import classification
from unrolled.nn.augment import warp
from unrolled.nn.convnet import Packed, standardise, with_differences
from unrolled.tasks.classified import outcomes
from unrolled.tasks.clip_labels import ClipTask
from unrolled.tasks.media_options import VideoClassifierOptions
from unrolled.tasks.video import MIXED, Shape, VideoNetwork, layers, resolved
from unrolled.topologies import ManyToOne
from unrolled.training.task import Evaluation

if TYPE_CHECKING:
    from unrolled.tasks.video_classifier import VideoClassifier

FRAMES = 2048
"""Timesteps times rows of a batch, at most."""


def resolve(options: VideoClassifierOptions) -> VideoClassifierOptions:
    """The options with every choice made."""
    return resolved(options, dropout=0.5, batch=32, features=192, channels="32,64,128,192")


class Network(VideoNetwork):
    """Frames of a clip to the scores of its classes. Takes resolved options."""

    read_at_once = Limit(64, FRAMES)

    def __init__(self, shape: Shape, classes: int, options: VideoClassifierOptions) -> None:
        super().__init__(shape, options, seen=3)
        assert options.dropout is not None
        self.topology = ManyToOne(
            layers(options, not options.one_directional), classes, options.pooling, options.dropout
        )

    def forward(self, batch: ExampleBatch, state: State | None) -> tuple[Tensor, State]:
        """The mean loss of the batch's clips in nats; there is no state to carry on."""
        shown = self.warped(batch)
        packed = standardise(self.packed(shown))
        targets = F.one_hot(batch.targets, self.topology.output.out_features).to(packed.frames.dtype)
        if self.training and self.options.mix:
            packed, targets = self._mixed(packed, shown.lengths, batch, targets)
        scores = self._scores(packed, shown.lengths)
        return F.cross_entropy(scores, targets, label_smoothing=self.options.label_smoothing), ()

    def scores(self, batch: ExampleBatch) -> Tensor:
        """(B, classes)"""
        return self._scores(standardise(self.packed(batch)), batch.lengths)

    def _scores(self, packed: Packed, lengths: Tensor) -> Tensor:
        features = self.encoder(with_differences(packed).frames)
        return self.topology(Inputs(packed.unpack(features)), lengths)

    def _mixed(self, packed: Packed, lengths: Tensor, batch: ExampleBatch, targets: Tensor) -> tuple[Packed, Tensor]:
        """Each clip laid over another one, which is played so that it lasts as long, and what each counts (mixup: Zhang
        et al. 2018, arXiv:1710.09412)."""
        other = torch.randperm(len(lengths)).to(lengths.device)
        at, _ = warp(batch.lengths[other], self.options.speed, lengths)
        below = standardise(self.packed(batch._replace(inputs=batch.inputs[at, other], lengths=lengths)))
        share = torch.distributions.Beta(self.options.mix, self.options.mix).sample((len(lengths),)).to(lengths.device)
        of_frame = share[packed.column][:, None, None, None]
        frames = of_frame * packed.frames + (1 - of_frame) * below.frames
        return packed._replace(frames=frames), share[:, None] * targets + (1 - share[:, None]) * targets[other]

    def probabilities(self, batch: ExampleBatch) -> Tensor:
        """(B, classes) float64. A network that learnt that a mirror image means the same is asked twice."""
        chances = torch.softmax(self.scores(batch).double(), -1)
        if not self.options.flip:
            return chances
        mirrored = batch._replace(inputs=batch.inputs.flip(3))
        return (chances + torch.softmax(self.scores(mirrored).double(), -1)) / 2


class VideoClassifierTask(ClipTask):
    """Clips with a label each."""

    name, unit, network = "classify-video", "clips", Network

    def frequencies(self) -> np.ndarray:
        return np.bincount(numbers(self.splits["train"]), minlength=len(self.labels))

    def batches(self, split: str) -> BucketStream:
        return BucketStream(self.splits[split], Limit(self.options.batch, FRAMES), self.options.seed, MIXED)

    def size(self, split: str) -> int:
        return int(self.splits[split].sources.lengths.sum())

    def evaluate(
        self, model: nn.Module, split: str, limit: int | None = None, *, write: int | None = None
    ) -> Evaluation:
        assert isinstance(model, Network)
        examples = self.splits[split]
        rows, found = outcomes(model, examples, self.device, self.most(split, limit))
        measured = int(examples.sources.lengths[rows].sum())
        return Evaluation(measure(numbers(examples)[rows], found, len(self.labels)), measured)

    def public(self, model: nn.Module) -> "VideoClassifier":
        from unrolled.tasks.video_classifier import VideoClassifier  # the other way round at import

        return VideoClassifier(model, self.shape, self.labels, self.options)

    def reads(self) -> str:
        return f"{'forwards' if self.options.one_directional else 'both directions'}, {self.options.pooling} pooling"


def numbers(examples: Examples) -> np.ndarray:
    """(N,) the classes."""
    assert isinstance(examples.targets, np.ndarray)
    return examples.targets


def measure(true: np.ndarray, found: classification.Outcomes, classes: int) -> dict[str, float]:
    """accuracy, macro-F1, top-k accuracy where there are classes enough, and the loss in nats."""
    counts = classification.Tally.of(true, found.predicted, classes)
    return {**classification.scores(counts), **found.top_k(classes), "val_loss": found.loss()}
