"""Image captioning: a picture in, a sentence out. One to many, with attention over the picture's regions as a setting.

`Network` is the module, `ImageCaptionTask` what the training loop sees of it, `image_captioner.py` what users hold.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.cells import CELLS
from unrolled.data.batches import ExampleBatch, Examples
from unrolled.data.examples import BadFiles
from unrolled.data.frame_cache import Kept, cached
from unrolled.data.frames import Frames
from unrolled.data.pictures import read_picture
from unrolled.engines import said
from unrolled.nn.augment import Variety, vary
from unrolled.nn.convnet import PictureEncoder, pack, precision
from unrolled.nn.dropout import dropout
from unrolled.nn.vision import BATCH, Backbone
from unrolled.tasks.captioning import CaptionNetwork, CaptionTask, Words, captions_of, with_all_captions, with_captions
from unrolled.tasks.media_options import ImageCaptionerOptions
from unrolled.tasks.video import channels_of
from unrolled.topologies import Memory

if TYPE_CHECKING:
    from unrolled.tasks.image_captioner import ImageCaptioner

Eye = Backbone | PictureEncoder
"""What looks at pictures: a network that stays as it is, or one that learns with the rest."""
EMBEDDED = 100_000_000
"""Bytes of a backbone that a model file carries along, at most; a larger one it names."""
MIN_COUNT = 3
SIDE = 64
"""Pixels of a side, where convolutions learn and no other is asked for."""
VARIETY = Variety(shift=0.1, scale=0.1, light=0.1)
"""Of the pictures that convolutions learn from. Not mirrored: captions tell left from right."""


def resolve(options: ImageCaptionerOptions) -> ImageCaptionerOptions:
    """The options with every choice made."""
    o, tokens = options, options.tokens or "word"
    hidden = o.hidden or 256
    learns = o.backbone is None
    local = o.backbone is not None and Path(o.backbone).is_dir()
    return replace(
        o,
        backbone=str(Path(o.backbone or "").resolve()) if local else o.backbone,  # a training may go on elsewhere
        image=o.image or "attention",
        tokens=tokens,
        vocabulary=o.vocabulary or {"word": 10_000, "bpe": 2000}.get(tokens),
        min_count=(o.min_count or MIN_COUNT) if tokens == "word" else None,
        cased=bool(o.cased),
        cell=o.cell or "lstm",
        hidden=hidden,
        layers=o.layers or 1,
        embedding=o.embedding or min(hidden, 256 if tokens in ("word", "bpe") else 64),
        features=o.features or 256,
        size=(o.size or SIDE) if learns else None,
        channels=(o.channels or "32,64,128,192") if learns else None,
        dropout=0.5 if o.dropout is None else o.dropout,
        image_dropout=(0.2 if learns else 0.5) if o.image_dropout is None else o.image_dropout,
        average=0.1 if o.average is None else o.average,
        batch=o.batch or (16 if learns else 64),
        bptt="full",
        lr=o.lr or 2e-3,
        seconds=180.0 if o.seconds is None and o.steps is None else o.seconds,
    )


def examples(
    pictures: Frames, texts: Sequence[Sequence[str]], words: Words, options: ImageCaptionerOptions
) -> Examples:
    """An example a caption; where convolutions learn, a picture with all its captions, since they look once for all."""
    return (with_all_captions if options.backbone is None else with_captions)(pictures, texts, words)


def encoder_of(options: ImageCaptionerOptions) -> PictureEncoder:
    """Convolutions that have learned nothing yet. Takes resolved options."""
    assert options.size
    return PictureEncoder(options.size, channels_of(options))


def features_of(eye: Eye, paths: Sequence[Path], image: str, bad_files: BadFiles = "stop") -> Kept:
    """What a backbone says of each picture, (S, F) a picture: its regions for attention, else one vector; for
    convolutions that learn, the picture (1, side, side, 3). Computed once, then from the cache."""
    grid = image == "attention"
    return cached(
        paths,
        eye.recipe(grid),
        lambda path: eye.pixels([read_picture(path)])[0].cpu().numpy(),
        versions=eye.versions(),
        finish=lambda pixels: eye.compute(torch.from_numpy(np.stack(pixels)).to(device_of(eye)), grid=grid),
        at_once=BATCH,
        bad_files=bad_files,
    )


def device_of(eye: nn.Module) -> torch.device:
    """Where its weights are."""
    return next(eye.parameters()).device


class Network(CaptionNetwork):
    """Features of a frozen backbone, made alike by their mean and deviation, or what convolutions find that learn with
    the rest, to what the decoder remembers.

    A picture, or each of its regions, becomes tanh(W v + b). The decoder begins with it (of regions: with their mean;
    Xu et al. 2015, arXiv:1502.03044, sec. 3.1.2) and looks at regions while it writes. A backbone belongs to the model
    and is not trained; a large one is kept apart (`EMBEDDED`).
    """

    def __init__(self, words: Words, eye: Eye, options: ImageCaptionerOptions) -> None:
        size, looks = options.features, options.image == "attention"
        assert size and options.image
        super().__init__(
            words,
            options,
            size,
            size if looks else 0,
            attention="additive" if looks else "none",
            use="initial" if looks else options.image,
        )
        self.project = nn.Linear(eye.features, size)
        self.learns = isinstance(eye, PictureEncoder)
        self.mean: Tensor
        self.deviation: Tensor
        if not self.learns:
            self.register_buffer("mean", torch.zeros(eye.features))
            self.register_buffer("deviation", torch.ones(eye.features))
        self.embedded = isinstance(eye, PictureEncoder) or eye.size <= EMBEDDED
        if self.embedded:
            self.add_module("eye", eye)
        else:
            self.__dict__["eye"] = eye

    eye: Eye

    def read(self, batch: ExampleBatch) -> Memory:
        o, regions = self.options, self._regions(batch)
        # of all regions the same numbers: what is hidden in one cannot be seen in its neighbour
        regions = dropout(regions, o.image_dropout, self.training, locked=True)
        regions = dropout(torch.tanh(self.project(regions)), o.image_dropout, self.training, locked=True)
        mean = regions.mean(0)
        return self.topology.remember(mean, regions) if o.image == "attention" else self.topology.remember(mean)

    def _regions(self, batch: ExampleBatch) -> Tensor:
        """(S, B, F)"""
        if not self.learns:
            return (batch.inputs.to(self.mean.dtype) - self.mean) / self.deviation
        pictures = batch.inputs
        if self.training:
            pictures = vary(pack(pictures, batch.lengths), VARIETY).frames.permute(0, 2, 3, 1)[None]
        found: Tensor = self.eye(pictures[0])
        return found


class ImageCaptionTask(CaptionTask):
    """Pictures with captions to train on, others to validate on, and the network between them."""

    name = "caption-image"
    options: ImageCaptionerOptions

    def __init__(
        self,
        options: ImageCaptionerOptions,
        words: Words,
        eye: Eye,
        pairs: dict[str, Examples],
        held: Frames,
        references: Sequence[Sequence[str]],
        device: torch.device,
    ) -> None:
        super().__init__(options, words, pairs, held, references, device)
        self.eye = eye
        self.vocabulary = description(words, eye)

    def network(self) -> Network:
        if self.options.backbone is None:
            return Network(self.words, encoder_of(self.options), self.options)
        network = Network(self.words, self.eye, self.options)
        mean, deviation = self._moments
        network.mean.copy_(torch.from_numpy(mean))
        network.deviation.copy_(torch.from_numpy(deviation))
        return network

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of what the backbone says of the training pictures."""
        pictures = self.pairs["train"].sources
        assert isinstance(pictures, Frames)
        stored = np.unique(pictures.rows)
        return moments(pictures.array, [slice(*pictures.offsets[s : s + 2]) for s in stored.tolist()])

    def public(self, model: nn.Module) -> "ImageCaptioner":
        from unrolled.tasks.image_captioner import ImageCaptioner  # the other way round at import

        assert isinstance(model, Network)
        return ImageCaptioner(model, self.words, self.options)

    def introduction(self, model: nn.Module, engine: str) -> str:
        """What is trained on what, in one line."""
        o = self.options
        runs = said(engine, o.engine, self.device.type, CELLS[o.cell or "gru"])
        learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
        seen = f"pictures of {o.size}×{o.size}, convolutions that learn in {precision(self.device)}"
        if isinstance(self.eye, Backbone):
            frozen = sum(p.numel() for p in self.eye.parameters())
            seen = f"{Path(self.eye.name).name} ({frozen:,} parameters, which stay as they are)"
        pictures = self.pairs["train"].sources
        assert isinstance(pictures, Frames)
        counts = {name: captions_of(part) for name, part in self.pairs.items()}
        return (
            f"{seen}, image {o.image}, {o.cell} {o.layers} × {o.hidden}, {learned:,} parameters that learn, "
            f"{self.words.vocabulary.size:,} tokens ({o.tokens}); "
            f"train {counts['train']:,} captions of {len(np.unique(pictures.rows)):,} different pictures, "
            f"validation {counts['val']:,} of {len(self.held):,}; "
            f"{runs}, {self.device}, {torch.get_num_threads()} threads"
        )

    def describe(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "options": asdict(self.options),
            "vocabulary": self.vocabulary,
            "trained_on": self.trained_on,
        }


def description(words: Words, eye: Eye) -> dict[str, Any]:
    """What the model file keeps beside the weights and the options."""
    if isinstance(eye, PictureEncoder):
        return {"words": words.to_json()}
    return {"words": words.to_json(), "backbone": eye.to_json(), "backbone_sha256": eye.sha256()}


def moments(array: np.ndarray, parts: Sequence[slice]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (F,) of the rows of an array (N, F) in these parts of it; where a feature is always
    the same, 1."""
    total, squares, count = np.zeros(array.shape[1]), np.zeros(array.shape[1]), 0
    for part in parts:
        values = array[part].astype(np.float64)
        total, squares, count = total + values.sum(0), squares + (values**2).sum(0), count + len(values)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.astype(np.float32), np.where(deviation > 1e-4, deviation, 1).astype(np.float32)
