"""A small convolutional network that turns each frame of a clip into a vector; it learns with the rest of a model.

The frames of a batch, without the padding, are one batch of pictures: (T, B, H, W, C) becomes (N, C, H, W), N the
number of real frames, and what comes out goes back to its timesteps, (T, B, F).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unrolled.nn.dropout import dropout

SMALLEST = 4
"""Halving the picture ends where its shorter side would fall below this."""


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

    Convolutions of stride 2 with batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167) until the shorter side is
    `SMALLEST` or little more, the first of 5×5, the others of 3×3; then one linear layer of what is left at all places:
    where something is matters, so nothing is averaged over the picture. `widths`: channels of the convolutions, the
    last one repeated where more are needed. `dropout` acts before the linear layer.
    """

    def __init__(
        self, height: int, width: int, channels: int, features: int, widths: tuple[int, ...], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        layers: list[nn.Module] = []
        stage = 0
        while stage == 0 or min(height, width) >= 2 * SMALLEST - 1:
            out, kernel = widths[min(stage, len(widths) - 1)], 3 if stage else 5
            layers += [nn.Conv2d(channels, out, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
            channels, height, width, stage = out, (height + 1) // 2, (width + 1) // 2, stage + 1
        self.convolutions = nn.Sequential(*layers)
        self.output = nn.Sequential(nn.Linear(channels * height * width, features), nn.LayerNorm(features), nn.ReLU())

    def forward(self, frames: Tensor) -> Tensor:
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.training and _has_bfloat16(frames)):
            maps = self.convolutions(frames.contiguous(memory_format=torch.channels_last))
        return self.output(dropout(maps.float().flatten(1), self.dropout, self.training))


def _has_bfloat16(frames: Tensor) -> bool:
    """Whether the processor multiplies in bfloat16, which trains the convolutions 1.7 times as fast."""
    return frames.device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
