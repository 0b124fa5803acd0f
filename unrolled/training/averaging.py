"""An average of the newest weights: what is measured and kept instead of the last weights, where it is asked for.

Weights go back and forth from update to update; their mean lies in the middle (Polyak & Juditsky 1992). The mean here
is exponential, over a fixed share of the training, whatever its length.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

EVERY = 4
"""Updates from one entry to the next: neighbours hardly differ, and an entry takes a fifth of AdamW's step."""


class Average:
    """The exponential mean of what learns in a network, its parameters and statistics (those of batch normalisation),
    with a horizon that is a share of the training. Frozen parts are not averaged.

    Until that share is done it is the mean of all weights since the beginning, so that it never leans on the first
    ones. Time is the fraction of the training that is done: by step under --steps, by the clock under --seconds.
    """

    def __init__(self, model: nn.Module, share: float) -> None:
        self.share = share
        self._before = [*(name for name, _ in model.named_parameters()), *(name for name, _ in _statistics(model))]
        """The names in the order of older checkpoints, which averaged what does not learn too"""
        still = _still(model)
        learns: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        learns.update((name, buffer) for name, buffer in _statistics(model) if name not in still)
        self.names, self.parameters = list(learns), list(learns.values())
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
        return dict(zip(self.names, self.tensors, strict=True))

    def restore(self, state: dict[str, Tensor], until: float) -> None:
        if all(name.isdigit() for name in state):  # as it was written before the names were
            if len(state) != len(self._before):
                raise ValueError("it lacks the average of the weights")
            state = {name: state[str(at)] for at, name in enumerate(self._before)}
        if until is None or not state.keys() >= set(self.names):
            raise ValueError("it lacks the average of the weights")
        for name, tensor in zip(self.names, self.tensors, strict=True):
            if state[name].shape != tensor.shape:
                raise ValueError(f"the average of {name} does not fit it")
            tensor.copy_(state[name])
        self.until = until


def _statistics(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point()]


def _still(model: nn.Module) -> set[str]:
    """The buffers of parts whose parameters are frozen, all of them."""
    return {
        f"{outer}.{name}"
        for outer, part in model.named_modules()
        if outer and (parameters := list(part.parameters())) and not any(p.requires_grad for p in parameters)
        for name, _ in part.named_buffers()
    }
