"""Video captioning: frames in, words out. Sequence to sequence with attention over the frames.

`Network` is the module, `VideoCaptionTask` what the training loop sees of it, `video_captioner.py` what users hold.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.cells import CELLS, Inputs, State
from unrolled.data.batches import BucketStream, ExampleBatch, Examples, Limit, Several
from unrolled.data.frames import Frames
from unrolled.data.streams import IGNORED
from unrolled.engines import said
from unrolled.nn import Recurrent
from unrolled.nn.augment import vary, warp
from unrolled.nn.convnet import FrameEncoder, Packed, pack, precision
from unrolled.nn.frequencies import begin_at_frequencies
from unrolled.tasks.captioning import CaptionNetwork, CaptionTask, Words, captions_of
from unrolled.tasks.media_options import VideoCaptionerOptions
from unrolled.tasks.video import AT_ONCE, Shape, channels_of, variety_of
from unrolled.topologies import Memory

if TYPE_CHECKING:
    from unrolled.tasks.video_captioner import VideoCaptioner

DEFAULT_SECONDS = 600.0
FRAMES = 1024
"""Frames times clips of a training batch, at most."""
SIZE = 32
"""Longest side of a frame, where no other is asked for: shapes are learned from many updates, and four times the pixels
leave a third of them in the same time."""
EACH = 2
"""Of so many frames in a row one is looked at, in training a random one: neighbours are alike, and convolutions are
what takes the time (temporal segment networks: Wang et al. 2016, arXiv:1608.00859)."""


def resolve(options: VideoCaptionerOptions) -> VideoCaptionerOptions:
    """The options with every choice made."""
    o = options
    hidden = o.hidden or 256
    return replace(
        o,
        vocabulary=o.vocabulary or {"word": 10_000, "bpe": 2000}.get(o.tokens),
        min_count=(o.min_count or 2) if o.tokens == "word" else None,
        cell=o.cell or "gru",
        hidden=hidden,
        layers=o.layers or 1,
        features=o.features or 256,
        size=o.size or SIZE,
        channels=o.channels or "24,48,96,128",
        embedding=o.embedding or min(hidden, 128),
        dropout=0.1 if o.dropout is None else o.dropout,
        average=0.1 if o.average is None else o.average,
        batch=o.batch or 16,
        bptt="full",
        lr=o.lr or 2e-3,
        seconds=DEFAULT_SECONDS if o.seconds is None and o.steps is None else o.seconds,
    )


class Network(CaptionNetwork):
    """Convolutions on each frame and its differences to its neighbours, recurrent layers over the frames in both
    directions, and a decoder that begins with their final states and looks at their outputs; beside these it has what
    the convolutions found, of each frame and on average: what a clip shows is learned before what happens in it, and
    should not have to wait for it. Takes resolved options.

    Unlike in a classifier of clips, frames keep their light and colours as they are: captions may name them.
    """

    read_at_once = Limit(64, 4096)

    def __init__(self, words: Words, shape: Shape, options: VideoCaptionerOptions) -> None:
        o = options
        assert o.cell and o.hidden and o.layers and o.features and o.dropout is not None
        with_attention = o.attention != "none"
        super().__init__(
            words,
            o,
            o.hidden * o.layers + o.features,
            o.hidden + o.features,
            attention=o.attention,
            use="initial" if with_attention else "both",
        )
        # half of the features say what there is wherever it is: of a few clips each thing is seen at a few places
        self.frames = FrameEncoder(
            shape.height, shape.width, 3 * shape.channels, o.features, channels_of(o), o.dropout, anywhere=True
        )
        self.encoder = Recurrent(
            CELLS[o.cell],
            o.features,
            o.hidden // 2,
            o.layers,
            dropout=o.dropout,
            locked=o.locked,
            weight_drop=o.weight_drop,
            bidirectional=True,
            forget_bias=1.0 if o.cell == "lstm" else None,
            orthogonal=True,
            engine=o.engine,
        )
        self.concepts = nn.Linear(o.features, words.vocabulary.size) if o.concepts else None
        self.rarity: Tensor
        self.register_buffer("rarity", torch.zeros(words.vocabulary.size), persistent=False)  # of the training alone
        self.variety = variety_of(o)

    def forward(self, batch: ExampleBatch, state: State | None) -> tuple[Tensor, State]:
        """The mean loss of the batch's tokens in nats (teacher forcing), with that of the words apart from their order
        where it is wanted; there is no state to carry on."""
        features, lengths = self._look(batch)
        scores, targets = self.written(batch, self._remember(features, lengths))
        loss = F.cross_entropy(scores, targets, label_smoothing=self.options.label_smoothing)
        if self.concepts is None:
            return loss, ()
        assert batch.owners is not None
        real, mean = batch.targets != IGNORED, features.sum(0) / lengths[:, None].clamp(min=1)
        weights = torch.zeros(len(mean), len(self.table), device=mean.device)
        said = batch.targets[real]
        weights[batch.owners.expand_as(batch.targets)[real], said] = self.rarity[said]
        nats = -(weights * self.concepts(mean).log_softmax(-1)).sum(-1) / weights.sum(-1).clamp(min=1e-6)
        return loss + self.options.concepts * nats.mean(), ()

    def knows_words(self, counts: np.ndarray, clips: int) -> None:
        """In how many of so many training clips each token is said (V,).

        The words of a clip are one choice among all words (a softmax whose target is several of them: Mahajan et al.
        2018, arXiv:1805.00932), each counted by its rarity, -log(counts / clips) (Spärck Jones 1972). Binary losses of
        all words are mostly of words that every clip has or hardly any has, and learned digits many times more slowly.
        """
        assert self.concepts is not None
        begin_at_frequencies(self.concepts.bias, counts)
        self.rarity.copy_(torch.from_numpy(-np.log(np.maximum(counts, 1) / clips)))

    def read(self, batch: ExampleBatch) -> Memory:
        """Frames (T, B, H, W, C) to what the decoder remembers: at most T values a clip."""
        return self._remember(*self._look(batch))

    def _look(self, batch: ExampleBatch) -> tuple[Tensor, Tensor]:
        """What the convolutions find in each frame that is looked at, (T', B, F), and how many these are (B,)."""
        inputs, lengths = batch.inputs, batch.lengths
        if self.training and self.variety.speed:
            at, lengths = warp(lengths, self.variety.speed)
            inputs = inputs[at, torch.arange(len(lengths), device=at.device)]
        packed = pack(inputs, lengths)
        packed = vary(packed, self.variety) if self.training else packed
        rows, lengths = sample(packed, EACH, self.training)
        # outside of a training a few at a time, so that many clips take little memory
        parts = rows.split(len(rows) if self.training else AT_ONCE)
        return spread(torch.cat([self._features(packed, part) for part in parts]), lengths), lengths

    def _remember(self, features: Tensor, lengths: Tensor) -> Memory:
        outputs, final = self.encoder.unroll(Inputs(features), None, lengths)
        mean = features.sum(0) / lengths[:, None].clamp(min=1)
        context = torch.cat([final[0].transpose(0, 1).flatten(1), mean], 1)
        return self.topology.remember(context, torch.cat([outputs, features], -1), lengths)

    def _features(self, packed: Packed, chosen: Tensor) -> Tensor:
        """These frames (n,), each with what changes towards it and after it, to (n, F)."""
        now, before, after = (
            (packed.frames[rows].float() - 127.5) / 64  # about -2 to 2
            for rows in (chosen, packed.before[chosen], packed.after[chosen])
        )
        return self.frames(torch.cat((now, now - before, after - now), 1))


def sample(packed: Packed, each: int, at_random: bool) -> tuple[Tensor, Tensor]:
    """One of every `each` frames in a row of a clip, time first: which of the packed frames (n,), and how many of each
    clip (B,). The frames know their neighbours all the same, whether those are chosen or not."""
    lengths = packed.real.sum(0)
    number = (packed.real.flatten().cumsum(0) - 1).view_as(packed.real)
    new = (lengths + each - 1) // each
    time = torch.arange(int(new.max()), device=new.device)[:, None]
    of_each = torch.randint(each, (len(time), len(new)), device=new.device) if at_random else each // 2
    chosen = (each * time + of_each).minimum(lengths - 1).clamp(min=0)
    return number.gather(0, chosen)[time < new], new


def spread(values: Tensor, lengths: Tensor) -> Tensor:
    """(n, F), time first, to (T, B, F), zero in the padding."""
    real = torch.arange(int(lengths.max()), device=lengths.device)[:, None] < lengths
    return values.new_zeros(*real.shape, values.shape[-1]).masked_scatter(real[..., None], values)


class VideoCaptionTask(CaptionTask):
    """Captioned clips to train on, others to validate on, and the network between them."""

    name = "caption-video"

    def __init__(
        self,
        options: VideoCaptionerOptions,
        words: Words,
        shape: Shape,
        pairs: dict[str, Examples],
        held: Frames,
        references: Sequence[Sequence[str]],
        device: torch.device,
    ) -> None:
        super().__init__(options, words, pairs, held, references, device)
        self.shape = shape

    def network(self) -> Network:
        network = Network(self.words, self.shape, self.options)
        if network.concepts is not None:
            train = self.pairs["train"]
            network.knows_words(said_in(train, self.words.vocabulary.size), len(train))
        return network

    def batches(self, split: str) -> BucketStream:
        return BucketStream(self.pairs[split], Limit(self.options.batch, FRAMES), self.options.seed)

    def public(self, model: nn.Module) -> "VideoCaptioner":
        from unrolled.tasks.video_captioner import VideoCaptioner  # the other way round at import

        assert isinstance(model, Network)
        return VideoCaptioner(model, self.words, self.shape, self.options)

    def introduction(self, model: nn.Module, engine: str) -> str:
        """What is trained on what, in one line."""
        o, s = self.options, self.shape
        clips = " and ".join(
            f"{name} {len(part):,} clips, {captions_of(part):,} captions" for name, part in self._parts()
        )
        return (
            f"frames {s.width}×{s.height} {'grey' if s.grey else 'colour'}, at most {s.count} a clip, "
            f"convolutions in {precision(self.device)}, "
            f"{o.cell} {o.layers} × {o.hidden}, attention {o.attention}, "
            f"{sum(p.numel() for p in model.parameters()):,} parameters, {self.words.vocabulary.size:,} tokens "
            f"({o.tokens}); {clips}; "
            f"{said(engine, o.engine, self.device.type, CELLS[o.cell or 'gru'])}, {self.device}, "
            f"{torch.get_num_threads()} threads"
        )

    def _parts(self) -> list[tuple[str, Any]]:
        return [("train", self.pairs["train"]), ("validation", self.pairs["val"])]

    def describe(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "options": asdict(self.options),
            "vocabulary": description(self.words, self.shape),
            "trained_on": self.trained_on,
        }


def said_in(examples: Examples, vocabulary: int) -> np.ndarray:
    """In captions of how many examples each token is said (V,)."""
    several = examples.targets
    assert isinstance(several, Several)
    captions = np.repeat(np.arange(len(examples)), np.diff(several.offsets))
    example = np.repeat(captions, several.sequences.lengths)
    said = np.unique(example * vocabulary + several.sequences.ids.astype(np.int64)) % vocabulary
    return np.bincount(said, minlength=vocabulary)


def description(words: Words, shape: Shape) -> dict[str, Any]:
    """What travels with the weights."""
    return {"words": words.to_json(), "shape": shape.to_json()}


def described(vocabulary: dict[str, Any]) -> tuple[Words, Shape]:
    """The other way round."""
    return Words.from_json(vocabulary["words"]), Shape.from_json(vocabulary["shape"])
