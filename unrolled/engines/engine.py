"""What an engine is: something that unrolls a cell over time."""

from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

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


def only_plain() -> str | None:
    """Why nothing but plain PyTorch operators may run now, in one sentence; None where anything may.

    Our operators and hand-written gradients have no rule for these, and some would lose a derivative without a word.
    """
    if torch.compiler.is_compiling():
        return None
    if torch.jit.is_tracing():
        return "torch.jit.trace records PyTorch's own operators alone"
    if torch._C._are_functorch_transforms_active():
        return "the transforms of torch.func need plain PyTorch"
    if forward_ad._current_level >= 0:
        return "forward-mode derivatives need plain PyTorch"
    return None


def alive(lengths: Tensor | None, steps: int, like: Tensor) -> Tensor | None:
    """(T, B, 1) booleans: which timesteps belong to a row; None where all do."""
    if lengths is None:
        return None
    return (torch.arange(steps, device=like.device)[:, None] < lengths.to(like.device)[None, :])[..., None]
