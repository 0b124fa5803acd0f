"""Truncated backpropagation through time: what one update does with one chunk.

Forward and backward over a chunk of timesteps; the state goes on to the next chunk, the gradient does not (Williams &
Peng 1990; CS231n, "Truncated Backpropagation through time"). A chunk that holds a whole lane or document makes it full
backpropagation through time.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from unrolled.training.task import State


class Update(NamedTuple):
    loss: float
    """Of the chunk, before the update"""
    gradient_norm: float
    """Before clipping"""
    state: State
    """After the chunk, detached"""
    applied: bool
    """False where loss or gradient was not finite: then the weights are as they were."""


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any, state: State | None, *, rate: float, clip: float
) -> Update:
    """Forward, backward, clipping (Pascanu et al. 2013, arXiv:1211.5063; 0 for none) and a step of the optimiser."""
    loss, end = model(batch, state)
    carried = tuple(s.detach() for s in end)  # the truncation: no gradient flows into the chunk before
    optimizer.zero_grad()
    loss.backward()
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf))
    value = loss.item()
    # before the step: clipping turns one infinite gradient into weights that are not numbers
    if not (math.isfinite(norm) and math.isfinite(value)):
        return Update(value, norm, carried, applied=False)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return Update(value, norm, carried, applied=True)
