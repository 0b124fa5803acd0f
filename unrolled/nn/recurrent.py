"""Recurrent layers: a stack, in one or both directions, with dropout between layers.

`Recurrent.unroll` takes `Inputs` (floats or tokens) and returns outputs and state as they are inside, time first; the
layers with the interface of `torch.nn` are in `drop_in.py`.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import Cell, Inputs, State, Weights
from unrolled.engines import Engine, choose
from unrolled.errors import InputError
from unrolled.nn.dropout import dropout


class Recurrent(nn.Module):
    """A stack of recurrent layers over any cell.

    Parameters are `weight_ih_l{k}` (G*H, I), `weight_hh_l{k}` (G*H, H), `bias_ih_l{k}` and `bias_hh_l{k}` (G*H), with
    `_reverse` for the second direction. `forget_bias`: start value of an LSTM's forget-gate bias (Gers et al. 2000;
    1 after Jozefowicz et al. 2015); None keeps PyTorch's initialisation, uniform in ±1/sqrt(H). `orthogonal`: the block
    of W_hh of each gate begins as a random orthogonal matrix (Saxe et al. 2014, arXiv:1312.6120), so that no direction
    of the state fades or grows in the first steps.

    In training, `dropout` acts on what goes from a layer to the next, with `locked` on the same units at every timestep
    of the sequence (see `nn/dropout.py`). `weight_drop`: so much of each W_hh is zero for the whole sequence, the rest
    grows (DropConnect on the recurrent weights: Merity et al. 2017, arXiv:1708.02182).
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        locked: bool = False,
        weight_drop: float = 0.0,
        bidirectional: bool = False,
        forget_bias: float | None = None,
        orthogonal: bool = False,
        engine: str = "auto",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        for what, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{what} is {value!r}: it must be a whole number of at least 1")
        for what, share in (("dropout", dropout), ("weight_drop", weight_drop)):
            if isinstance(share, bool) or not 0 <= share <= 1:
                raise InputError(f"{what} is {share}: it must be a number between 0 and 1")
        if forget_bias is not None and cell.name != "lstm":
            raise InputError(f"forget_bias is set, but the cell {cell.name} has no forget gate")
        if forget_bias is not None and not bias:
            raise InputError("forget_bias is set, but bias is False: there is no bias to set")
        self.cell = cell
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.dropout, self.bidirectional = bias, float(dropout), bidirectional
        self.locked, self.weight_drop = locked, float(weight_drop)
        self.forget_bias, self.orthogonal, self.engine = forget_bias, orthogonal, engine
        self._suffixes = [
            f"_l{layer}{direction}"
            for layer in range(num_layers)
            for direction in (("", "_reverse") if bidirectional else ("",))
        ]
        rows = cell.gates * hidden_size
        for index, suffix in enumerate(self._suffixes):
            below = input_size if index < self.directions else hidden_size * self.directions
            shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, below), "weight_hh": (rows, hidden_size)}
            if bias:
                shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
            for name, shape in shapes.items():
                empty = torch.empty(shape, device=device, dtype=dtype)
                self.register_parameter(name + suffix, nn.Parameter(empty))
        self.reset_parameters()

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Features of an output: H times the directions."""
        return self.hidden_size * self.directions

    def reset_parameters(self) -> None:
        """Uniform in ±1/sqrt(H), as `torch.nn`; then the forget gate's bias, where one is asked for."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        if self.orthogonal:
            for suffix in self._suffixes:
                for block in getattr(self, "weight_hh" + suffix).detach().chunk(self.cell.gates):
                    nn.init.orthogonal_(block)
        if self.forget_bias is not None and self.bias:
            forget = slice(self.hidden_size, 2 * self.hidden_size)
            with torch.no_grad():
                for suffix in self._suffixes:  # the two biases add up
                    getattr(self, "bias_ih" + suffix)[forget] = self.forget_bias
                    getattr(self, "bias_hh" + suffix)[forget] = 0

    def weights(self, index: int) -> Weights:
        """The weights of one layer and direction; index = layer * directions + direction."""
        suffix = self._suffixes[index]
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return Weights(*(getattr(self, name + suffix, None) for name in names))  # type: ignore[arg-type]

    def initial_state(self, batch: int) -> State:
        """Zeros: each tensor (layers * directions, B, H)."""
        like = self.weights(0).hh
        return tuple(like.new_zeros(len(self._suffixes), batch, self.hidden_size) for _ in range(self.cell.states))

    def chosen_engine(self, inputs: Inputs, state: State) -> Engine:
        """The engine that runs the first layer on these inputs."""
        return choose(self.engine, self.cell, self.weights(0), inputs, tuple(s[0] for s in state))

    def unroll(self, inputs: Inputs, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """All timesteps: outputs (T, B, H * directions) of the top layer and the final state of every layer.

        inputs: (T, B, ...); state: each (layers * directions, B, H), None for zeros; lengths: (B,), rows padded on the
        right. Padded outputs are zero and the final state is the one at length - 1.
        """
        if state is None:
            zeros = self.weights(0).hh.new_zeros(inputs.x.shape[1], self.hidden_size)
            starts = [(zeros,) * self.cell.states] * len(self._suffixes)
        else:
            starts = list(zip(*(s.unbind(0) for s in state), strict=True))
        final: list[State] = []
        outputs = inputs.x
        for layer in range(self.num_layers):
            sides = []
            for direction in range(self.directions):
                index = layer * self.directions + direction
                w, start = self._thinned(self.weights(index)), starts[index]
                engine = choose(self.engine, self.cell, w, inputs, start)
                side, end = engine.unroll(self.cell, w, inputs, start, lengths, reverse=direction == 1)
                sides.append(side)
                final.append(end)
            outputs = torch.cat(sides, -1) if self.bidirectional else sides[0]
            if self.dropout and layer < self.num_layers - 1:
                outputs = self._drop(outputs)
            inputs = Inputs(outputs)
        return outputs, _stack(final)

    def _drop(self, x: Tensor) -> Tensor:
        """Dropout between layers."""
        return dropout(x, self.dropout, self.training, self.locked)

    def _thinned(self, w: Weights) -> Weights:
        """The weights of a layer for one sequence."""
        if not self.weight_drop or not self.training:
            return w
        return w._replace(hh=dropout(w.hh, self.weight_drop, self.training))

    def step(self, x_t: Inputs, state: State) -> tuple[Tensor, State]:
        """One timestep of a one-directional stack in evaluation: output (B, H) and state (layers, B, H)."""
        if self.bidirectional:
            raise InputError("a bidirectional layer cannot be stepped: its second direction starts at the end")
        final = []
        for layer in range(self.num_layers):
            final.append(self.cell.step(self.weights(layer), x_t, tuple(s[layer] for s in state)))
            x_t = Inputs(final[-1][0])
        return x_t.x, _stack(final)

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, bias={self.bias}, "
            f"dropout={self.dropout}, bidirectional={self.bidirectional}, engine={self.engine!r}"
        )


def _stack(states: list[State]) -> State:
    if len(states) == 1:
        return tuple(s.unsqueeze(0) for s in states[0])
    return tuple(torch.stack(parts) for parts in zip(*states, strict=True))
