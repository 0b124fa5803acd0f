"""An average of the newest weights: what is measured and kept instead of the last weights, where it is asked for.

Weights go back and forth from update to update; their mean lies in the middle (Polyak & Juditsky 1992). The mean here
is exponential, over a fixed share of the training, whatever its length.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

EVERY = 4
"""Updates from one entry to the next: neighbours hardly differ, and an entry takes a fifth of AdamW's step."""


class Average:
    """The exponential mean of a network's parameters and statistics (those of batch normalisation), with a horizon that
    is a share of the training.

    Until that share is done it is the mean of all weights since the beginning, so that it never leans on the first
    ones. Time is the fraction of the training that is done: by step under --steps, by the clock under --seconds.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self.share = share
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        self.parameters: Sequence[Tensor] = [*model.parameters(), *buffers]
        self.tensors = [parameter.detach().clone() for parameter in self.parameters]
        """One a parameter, in their order"""
        self.until = 0.0
        """The fraction of the training at the newest entry"""

    @torch.no_grad()
    def add(self, fraction: float) -> None:
        """The present weights, when so much of the training is done."""
        passed = fraction - self.until
        self.until = fraction
        weight = min(1.0, passed / min(self.share, fraction)) if passed > 0 else 0.0
        torch._foreach_lerp_(self.tensors, [p.detach() for p in self.parameters], weight)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network with the average for weights; nothing is copied, and afterwards it is as it was."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def exchange(self) -> None:
        """The average becomes the network's weights, and these are kept in its place."""
        for at, parameter in enumerate(self.parameters):
            parameter.data, self.tensors[at] = self.tensors[at], parameter.data

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {str(at): tensor for at, tensor in enumerate(self.tensors)}

    def restore(self, state: dict[str, Tensor], until: float) -> None:
        if until is None or len(state) != len(self.tensors):
            raise ValueError("it lacks the average of the weights")
        for at, tensor in enumerate(self.tensors):
            tensor.copy_(state[str(at)])
        self.until = until
