"""What an engine is: something that unrolls a cell over time."""

from typing import Protocol

import torch
from torch import Tensor

from unrolled.cells import Cell, Inputs, State, Weights


class Engine(Protocol):
    """Unrolls any cell over time, or says in one sentence why it cannot."""

    name: str

    def refuses(self, cell: Cell, w: Weights, inputs: Inputs, state: State) -> str | None:
        """Why this engine cannot run the call, in one sentence; None where it can."""
        ...

    def unroll(
        self,
        cell: Cell,
        w: Weights,
        inputs: Inputs,
        state: State,
        lengths: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        """Run the cell over T timesteps.

        inputs: (T, B, ...); state: tensors (B, H); lengths: (B,) integers from 0 to T, rows are padded on the right.
        Returns the outputs (T, B, H), zero where padded, and the final state: the one at length - 1, which for length 0
        is the initial state. With `reverse`, time runs from length - 1 down to 0, the output of timestep t stays at
        t, and the final state is the one at 0.
        """
        ...


def alive(lengths: Tensor | None, steps: int, like: Tensor) -> Tensor | None:
    """(T, B, 1) booleans: which timesteps belong to a row; None where all do."""
    if lengths is None:
        return None
    return (torch.arange(steps, device=like.device)[:, None] < lengths.to(like.device)[None, :])[..., None]
