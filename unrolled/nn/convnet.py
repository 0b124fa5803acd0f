"""Small convolutional networks that learn with the rest of a model: for each frame of a clip a vector, for a picture a
grid of regions.

The frames of a batch, without the padding, are one batch of pictures: (T, B, H, W, C) becomes (N, C, H, W), N the
number of real frames, and what comes out goes back to its timesteps, (T, B, F).
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.data import decoders
from unrolled.data.pictures import scaled
from unrolled.nn.dropout import dropout

SMALLEST = 4
"""Halving a frame ends where its shorter side would fall below this."""
GRID = 8
"""Halving a picture ends at so many regions a side, or fewer."""


class Packed(NamedTuple):
    """The real frames of a batch, time first, and where each belongs."""

    frames: Tensor
    """(N, C, H, W)"""
    column: Tensor
    """(N,) int64: the clip of each"""
    before: Tensor
    """(N,) int64: which of the N is the frame before, of the same clip; the first frame itself"""
    after: Tensor
    """(N,) int64: in the same way"""
    real: Tensor
    """(T, B) bool"""

    def unpack(self, values: Tensor) -> Tensor:
        """(N, F) to (T, B, F), zero in the padding."""
        spread = values.new_zeros(*self.real.shape, values.shape[-1])
        return spread.masked_scatter(self.real[..., None], values)


def pack(inputs: Tensor, lengths: Tensor) -> Packed:
    """The real frames of inputs (T, B, H, W, C), padded on the right to lengths (B,)."""
    steps, rows = inputs.shape[:2]
    time = torch.arange(steps, device=inputs.device)[:, None]
    real = time < lengths
    number = (real.flatten().cumsum(0) - 1).view(steps, rows)
    columns = torch.arange(rows, device=inputs.device).expand(steps, -1)
    before = number.gather(0, (time - 1).clamp(min=0).expand(-1, rows))
    after = number.gather(0, torch.minimum(time + 1, (lengths - 1).clamp(min=0)))
    return Packed(inputs[real].permute(0, 3, 1, 2), columns[real], before[real], after[real], real)


def standardise(packed: Packed) -> Packed:
    """Each clip, channel by channel, with mean 0 and standard deviation 1 over all its frames: light and camera differ
    from clip to clip and say nothing of what happens in it."""
    clips = packed.real.shape[1]
    frames = packed.frames.float()
    count = packed.real.sum(0).clamp(min=1)[:, None]

    def mean(of_frames: Tensor) -> Tensor:
        """(N, C) to the mean of each clip, (B, C)."""
        return of_frames.new_zeros(clips, of_frames.shape[1]).index_add_(0, packed.column, of_frames) / count

    middle = mean(frames.mean((2, 3)))
    frames = frames - middle[packed.column][..., None, None]
    spread = mean(frames.square().mean((2, 3))).sqrt().clamp(min=1.0)
    return packed._replace(frames=frames / spread[packed.column][..., None, None])


def with_differences(packed: Packed) -> Packed:
    """Each frame with what changes towards it and after it, three times the channels: motion is a difference of two
    frames, which one frame alone does not show (Simonyan & Zisserman 2014, arXiv:1406.2199, use optical flow)."""
    frames = packed.frames
    changes = (frames - frames[packed.before], frames[packed.after] - frames)
    return packed._replace(frames=torch.cat((frames, *changes), 1))


class FrameEncoder(nn.Module):
    """Frames (N, channels, height, width) to vectors (N, features).

    Convolutions of stride 2 with batch normalisation until the shorter side is `SMALLEST` or little more, the first of
    5×5, the others of 3×3; then one linear layer of what is left at all places: where something is matters, so nothing
    is averaged over the picture. `anywhere`: half of the features come from the strongest value of each channel
    instead, wherever that is, so that what was learned at one place is known at all of them. `widths`: channels of the
    convolutions, the last one repeated where more are needed. `dropout` acts before the linear layers.
    """

    def __init__(
        self,
        height: int,
        width: int,
        channels: int,
        features: int,
        widths: tuple[int, ...],
        dropout: float = 0.0,
        *,
        anywhere: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.sees = (channels, height, width)
        stages = 1
        while min(_halved(height, stages), _halved(width, stages)) >= 2 * SMALLEST - 1:
            stages += 1
        self.convolutions, channels = _halving(channels, widths, stages)
        height, width = _halved(height, stages), _halved(width, stages)
        half = features // 2 if anywhere else 0
        self.output = _output(channels * height * width, features - half)
        self.anywhere = _output(channels, half) if anywhere else None

    def forward(self, frames: Tensor) -> Tensor:
        maps = _convolved(self.convolutions, frames, self.training)
        features: Tensor = self.output(dropout(maps.flatten(1), self.dropout, self.training))
        if self.anywhere is None:
            return features
        strongest = dropout(maps.amax((2, 3)), self.dropout, self.training)
        return torch.cat((features, self.anywhere(strongest)), 1)


class PictureEncoder(nn.Module):
    """Pictures (B, side, side, 3) uint8 to regions (S, B, F), row by row from the top left: what `nn/vision.Backbone`
    is to pretrained networks, for small pictures and no other network at hand.

    A picture of any shape is squeezed into the square. Convolutions of stride 2 as in `FrameEncoder`, until at most
    `GRID` regions a side are left, then one of stride 1.
    """

    def __init__(self, side: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.side = side
        self.sees = (3, side, side)
        stages = 1
        while _halved(side, stages) > GRID:
            stages += 1
        self.convolutions, channels = _halving(3, widths, stages)
        self.features = widths[min(stages, len(widths) - 1)]
        self.convolutions.extend(_layer(channels, self.features, 3, 1))
        self.grid = (_halved(side, stages), _halved(side, stages))
        """Rows and columns of regions"""

    def forward(self, pictures: Tensor) -> Tensor:
        frames = (pictures.permute(0, 3, 1, 2).float() - 127.5) / 64  # about -2 to 2
        return _convolved(self.convolutions, frames, self.training).flatten(2).permute(2, 0, 1)

    def pixels(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """RGB pictures, each uint8 (H, W, 3) of its own size, to what `forward` takes."""
        squares = [scaled(picture, (self.side, self.side)) for picture in pictures]
        return torch.from_numpy(np.stack(squares)).to(next(self.parameters()).device)

    def compute(self, pixels: Tensor, *, grid: bool) -> list[np.ndarray]:
        """What does not change while the network learns, of each picture: the picture, (1, side, side, 3)."""
        return list(pixels[:, None].cpu().numpy())

    def versions(self) -> str:
        """Of the libraries that `pixels` depends on."""
        return decoders.of_pictures()

    def recipe(self, grid: bool) -> str:
        """All else that it depends on."""
        return json.dumps({"squares": self.side})

    def place(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Which part of a picture the network sees, in pixels of the picture: left, top, right, bottom. All of it."""
        return 0.0, 0.0, float(width), float(height)


def numbers_a_frame(network: nn.Module) -> int:
    """How many numbers of a frame the convolutions in a network keep for their backward, in float32's size."""
    count = 0
    for module in network.modules():
        if isinstance(module, FrameEncoder | PictureEncoder):
            x = torch.empty(2, *module.sees, device="meta")
            for layer in module.convolutions:
                x = layer.to("meta")(x)
                count += x[0].numel()
    return count // 2  # half of the bytes, where they are in bfloat16


def _layer(channels: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
    """Batch normalisation: Ioffe & Szegedy 2015, arXiv:1502.03167."""
    return [nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU()]


def _output(inputs: int, features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, features), nn.LayerNorm(features), nn.ReLU())


def _halving(channels: int, widths: tuple[int, ...], stages: int) -> tuple[nn.Sequential, int]:
    """Convolutions of stride 2, the first of 5×5, the others of 3×3, and the channels that come out."""
    layers: list[nn.Module] = []
    for stage in range(stages):
        out = widths[min(stage, len(widths) - 1)]
        layers += _layer(channels, out, 3 if stage else 5, 2)
        channels = out
    return nn.Sequential(*layers), channels


def _halved(side: int, stages: int) -> int:
    """What so many strides of 2 leave of a side."""
    return -(-side // 2**stages)


def precision(device: torch.device) -> str:
    """What convolutions compute in while they learn: bfloat16 where the processor multiplies in it, which trains them
    1.7 times as fast; TF32 on GPUs that have it, unless PyTorch is told otherwise; else float32. Weights, sums and
    what is not trained are float32."""
    if device.type == "cpu":
        return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
    cudnn: Any = torch.backends.cudnn  # whose type lacks `conv`
    if device.type == "cuda" and cudnn.conv.fp32_precision == "tf32":
        return "TF32" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    return "float32"


def _convolved(convolutions: nn.Module, frames: Tensor, training: bool) -> Tensor:
    """Frames (N, C, H, W) to maps, in float32."""
    low = training and precision(frames.device) == "bfloat16"
    with torch.autocast(frames.device.type, torch.bfloat16, enabled=low):
        maps: Tensor = convolutions(frames.contiguous(memory_format=torch.channels_last))
    return maps.float()
