"""The truth: plain autograd over the cell's `step`, one timestep after the other."""

import torch
from torch import Tensor

from unrolled.cells import Cell, Inputs, State, Weights
from unrolled.engines.engine import alive


class Loop:
    """Slow and obviously right. Runs everywhere, under autocast too, and differentiates any number of times."""

    name = "loop"

    def refuses(self, cell: Cell, w: Weights, inputs: Inputs, state: State) -> str | None:
        return None

    def unroll(
        self,
        cell: Cell,
        w: Weights,
        inputs: Inputs,
        state: State,
        lengths: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        steps = len(inputs.x)
        mask = alive(lengths, steps, state[0])
        outputs: list[Tensor] = [state[0]] * steps
        for t in reversed(range(steps)) if reverse else range(steps):
            new = cell.step(w, inputs.at(t), state)
            if mask is not None:
                outputs[t] = torch.where(mask[t], new[0], 0)
                state = tuple(torch.where(mask[t], n, s) for n, s in zip(new, state, strict=True))
            else:
                outputs[t] = new[0]
                state = new
        return torch.stack(outputs) if steps else state[0].new_empty(0, *state[0].shape), state
