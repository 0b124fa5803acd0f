"""What a chain that writes tokens begins with and may look at while it writes."""

from typing import NamedTuple

from torch import Tensor

from unrolled.cells import Inputs, State


class Memory(NamedTuple):
    """One row a sentence (a picture, a prompt), the same at every timestep. B: sentences, S: source timesteps.

    A step may run several hypotheses of each sentence: N = B * n rows, those of sentence b at b * n to b * n + n - 1.
    They share the sentence's row, so that nothing of the source is copied for them.
    """

    start: State
    """each (layers, B, H): the state before the first token"""
    constant: Tensor | None = None
    """(B, G*H), added to the first layer's input part at every timestep"""
    keys: Tensor | None = None
    """(S, B, A), the source as the attention compares it"""
    values: Tensor | None = None
    """(S, B, K), the source as the attention averages it"""
    lengths: Tensor | None = None
    """(B,), real source timesteps; None where all are"""

    def select(self, rows: Tensor) -> "Memory":
        """The memory of these sentences: rows (n,) of integers, in any order, any of them more than once."""
        return Memory(
            tuple(s.index_select(1, rows) for s in self.start),
            None if self.constant is None else self.constant.index_select(0, rows),
            None if self.keys is None else self.keys.index_select(1, rows),
            None if self.values is None else self.values.index_select(1, rows),
            None if self.lengths is None else self.lengths.index_select(0, rows.to(self.lengths.device)),
        )

    def enter(self, x_t: Inputs) -> Inputs:
        """The inputs of one timestep of N hypotheses, with the constant of each one's sentence."""
        if self.constant is None:
            return x_t
        return x_t._replace(constant=self.constant.repeat_interleave(len(x_t.x) // len(self.constant), 0))
