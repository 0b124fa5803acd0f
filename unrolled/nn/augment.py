"""Variety for the clips of a training: moved, turned, scaled, brighter or darker, played faster, slower and unevenly.

A clip is changed as a whole: the same move for all its frames, since a jump between two frames would be a motion.
All random numbers come from PyTorch's generator, so a training repeats.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unrolled.nn.convnet import Packed


@dataclass(frozen=True)
class Variety:
    """How much a training clip may change; all 0 for none."""

    shift: float = 0.0
    """Moves by up to this part of the width and of the height"""
    scale: float = 0.0
    """Grows or shrinks by up to this factor, less 1, in width and in height"""
    turn: float = 0.0
    """Degrees, either way"""
    light: float = 0.0
    """Contrast changes by up to this factor, less 1, and brightness by up to this part of the range of 255"""
    speed: float = 0.0
    """Plays faster or slower by up to this factor, less 1, and within the clip as unevenly"""
    blur: float = 0.0
    """Loses sharpness, as if out of focus: a Gaussian's standard deviation of up to this part of the longer side"""
    flip: bool = False
    """Mirrors every other clip, left to right"""
    cover: float = 0.0
    """Hides a rectangle of up to this part of the width and of the height, throughout the clip"""


def warp(lengths: Tensor, speed: float, new: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Which frame to show at each timestep: (T', B) int64 and the new lengths (B,), those that are given if they are.

    A clip becomes up to 1 + speed times as long or as short; inside, its speed varies by as much. The order of the
    frames stays, some are left out and some stand still.
    """
    rows = len(lengths)
    if new is None:
        factor = (1 + speed) ** (2 * torch.rand(rows, device=lengths.device) - 1)
        new = (lengths * factor).round().long().clamp(min=1)
    steps = int(new.max())
    time = torch.arange(steps, device=lengths.device)[:, None]
    knots = (1 + speed) ** (2 * torch.rand(1, 1, 4, rows, device=lengths.device) - 1)  # speeds along the clip
    pace = F.interpolate(knots.permute(0, 3, 1, 2).flatten(1, 2), size=steps, mode="linear", align_corners=True)
    pace = pace[0].t().masked_fill(time >= new, 0)
    passed = (pace.cumsum(0) - pace / 2) / pace.sum(0)  # 0 to 1, in the middle of each timestep
    return (passed * lengths).long().clamp(min=0).minimum((lengths - 1).clamp(min=0)), new


def vary(packed: Packed, variety: Variety) -> Packed:
    """The frames as floats, moved, lit and covered."""
    frames, clips = packed.frames.float(), packed.real.shape[1]
    if variety.shift or variety.scale or variety.turn or variety.flip:
        frames = _moved(frames, packed.column, _moves(clips, frames, variety))
    if variety.blur:
        most = variety.blur * max(frames.shape[2:])
        frames = _blurred(frames, packed.column, most * torch.rand(clips, device=frames.device))
    if variety.light:
        contrast = (1 + variety.light) ** _around_zero(clips, frames)
        brightness = 255 * variety.light * _around_zero(clips, frames)
        frames = frames * _each(contrast, packed) + _each(brightness, packed)
    if variety.cover:
        frames = _covered(frames, packed, variety.cover)
    return packed._replace(frames=frames)


def _around_zero(clips: int, like: Tensor) -> Tensor:
    """(B,) uniform in -1 to 1."""
    return 2 * torch.rand(clips, device=like.device) - 1


def _each(values: Tensor, packed: Packed) -> Tensor:
    """The value of its clip for each frame: (N, 1, 1, 1)."""
    return values[packed.column][:, None, None, None]


def _moves(clips: int, like: Tensor, variety: Variety) -> Tensor:
    """(B, 2, 3): where in the picture each place of the new one comes from, in coordinates of -1 to 1."""
    height, width = like.shape[2:]
    angle = math.radians(variety.turn) * _around_zero(clips, like)
    wide, high = ((1 + variety.scale) ** _around_zero(clips, like) for _ in range(2))
    mirror = torch.where(torch.rand(clips, device=like.device) < 0.5, -1.0, 1.0) if variety.flip else 1.0
    cosine, sine = angle.cos(), angle.sin()
    x, y = (2 * variety.shift * _around_zero(clips, like) for _ in range(2))
    rows = (
        cosine * mirror / wide,
        -sine * height / width / high,
        x,
        sine * width / height * mirror / wide,
        cosine / high,
        y,
    )
    return torch.stack(rows, 1).view(clips, 2, 3)


def _moved(frames: Tensor, column: Tensor, moves: Tensor) -> Tensor:
    height, width = frames.shape[2:]
    grid = F.affine_grid(moves, [len(moves), 1, height, width], align_corners=False)
    return F.grid_sample(frames, grid[column], mode="bilinear", padding_mode="border", align_corners=False)


def _blurred(frames: Tensor, column: Tensor, deviations: Tensor) -> Tensor:
    """deviations (B,): of each clip's Gaussian, in pixels; beyond three of the largest it is cut off."""
    reach = max(1, math.ceil(3 * float(deviations.max())))
    away = torch.arange(-reach, reach + 1, device=frames.device)
    kernels = torch.exp(-0.5 * (away / deviations.clamp(min=1e-3)[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True))[column]
    # a group of the convolution for each frame: they have kernels of their own
    spread = F.pad(frames.transpose(0, 1), (reach,) * 4, mode="replicate")
    across = F.conv2d(spread, kernels[:, None, None, :], groups=len(frames))
    return F.conv2d(across, kernels[:, None, :, None], groups=len(frames)).transpose(0, 1)


def _covered(frames: Tensor, packed: Packed, most: float) -> Tensor:
    """DeVries & Taylor 2017, arXiv:1708.04552: what is hidden becomes the mean of the clips' light."""
    clips = packed.real.shape[1]
    hidden = None
    for at, size in ((2, frames.shape[2]), (3, frames.shape[3])):
        middle = size * torch.rand(clips, device=frames.device)[packed.column, None]
        reach = size * most / 2 * torch.rand(clips, device=frames.device)[packed.column, None]
        inside = (torch.arange(size, device=frames.device) - middle).abs() < reach
        inside = inside[:, None, :, None] if at == 2 else inside[:, None, None, :]
        hidden = inside if hidden is None else hidden & inside
    assert hidden is not None
    return torch.where(hidden, frames.mean(), frames)
