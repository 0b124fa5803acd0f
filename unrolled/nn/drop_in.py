"""`RNN`, `LSTM` and `GRU`: drop-in for `torch.nn`'s, and a keyword `lengths=` beside PackedSequence.

The same constructor, call, parameter names and `state_dict` keys.
"""

import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from unrolled.cells import CELLS, Cell, Inputs, State
from unrolled.errors import InputError
from unrolled.nn.recurrent import Recurrent


class _DropIn(Recurrent):
    """The call of `torch.nn.RNNBase` around `Recurrent`."""

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        batch_first: bool,
        dropout: float,
        proj_size: int = 0,
        **options: Any,
    ) -> None:
        if proj_size:
            raise InputError(f"proj_size is {proj_size}: projections are not offered; leave it 0")
        if dropout and num_layers == 1:
            warnings.warn(
                f"dropout={dropout} acts between layers, and there is one layer, so it does nothing", stacklevel=3
            )
        super().__init__(cell, input_size, hidden_size, num_layers, dropout=dropout, **options)
        self.batch_first, self.proj_size = batch_first, proj_size
        self.mode = cell.name.upper()  # RNN_TANH, RNN_RELU, LSTM or GRU, as code written for torch.nn reads it

    def forward(
        self,
        input: Tensor | PackedSequence,  # noqa: A002
        hx: Any = None,
        *,
        lengths: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """As `torch.nn`: input (T, B, I), (B, T, I) with batch_first, (T, I) unbatched, or a PackedSequence.

        hx: h, or (h, c) for an LSTM, each (layers * directions, B, H), without B where unbatched; None for zeros.
        lengths: (B,) integers from 0 to T; the input is padded on the right. Returns (outputs, hx).
        """
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise InputError("lengths is given beside a PackedSequence, which carries its own: leave it out")
            x, own = pad_packed_sequence(input)
            outputs, state = self._run(x, hx, own)
            if input.sorted_indices is not None:
                outputs, own = outputs[:, input.sorted_indices], own[input.sorted_indices.cpu()]
            data = pack_padded_sequence(outputs, own).data
            packed = PackedSequence(data, input.batch_sizes, input.sorted_indices, input.unsorted_indices)
            return packed, self._public(state)
        if input.dim() not in (2, 3):
            raise InputError(f"input has {input.dim()} dimensions: give (time, batch, features), or 2 without batch")
        batched = input.dim() == 3
        time_first = input.transpose(0, 1) if batched and self.batch_first else input
        if not batched:
            time_first = input.unsqueeze(1)
            if hx is not None:
                hx = tuple(h.unsqueeze(1) for h in hx) if isinstance(hx, tuple | list) else hx.unsqueeze(1)
        outputs, state = self._run(time_first, hx, lengths)
        if not batched:
            return outputs.squeeze(1), self._public(tuple(s.squeeze(1) for s in state))
        return outputs.transpose(0, 1) if self.batch_first else outputs, self._public(state)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)  # from the same seed PyTorch's layers drop the same

    def _run(self, x: Tensor, hx: Any, lengths: Tensor | None) -> tuple[Tensor, State]:
        """x: (T, B, I); hx as the user gave it, batched."""
        steps, batch, features = x.shape
        if features != self.input_size:
            raise InputError(f"input has {features} features: this layer takes {self.input_size}")
        if not x.is_floating_point():
            raise InputError(f"input holds {x.dtype}: convert it to floats; tokens enter through Recurrent.unroll")
        self._check_dtype("input holds", x)
        if lengths is not None:
            lengths = torch.as_tensor(lengths)
            if lengths.is_floating_point() or lengths.is_complex():
                raise InputError(f"lengths holds {lengths.dtype}: give integers")
            if lengths.shape != (batch,):
                raise InputError(f"lengths has shape {tuple(lengths.shape)}: give one for each of the {batch} rows")
            recorded = torch.compiler.is_exporting() or torch.jit.is_tracing()  # then there are no numbers to look at
            if batch and not recorded and (int(lengths.min()) < 0 or int(lengths.max()) > steps):
                raise InputError(f"lengths must lie between 0 and {steps}, the padded length")
        if hx is None:
            return self.unroll(Inputs(x), None, lengths)
        if self.cell.states == 1 and not isinstance(hx, Tensor):
            raise InputError(f"initial state is a {type(hx).__name__}: give one tensor")
        state: State = tuple(hx) if self.cell.states > 1 else (hx,)
        expected = (len(self._suffixes), batch, self.hidden_size)
        if len(state) != self.cell.states or any(tuple(s.shape) != expected for s in state):
            shapes = ", ".join(str(tuple(s.shape)) for s in state)
            raise InputError(f"initial state has shape {shapes}: expected {self.cell.states} of {expected}")
        self._check_dtype("initial state holds", *state)
        return self.unroll(Inputs(x), state, lengths)

    def _check_dtype(self, what: str, *tensors: Tensor) -> None:
        own = self.weights(0).hh
        device = own.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            return  # which converts what goes in
        for t in tensors:
            if t.dtype != own.dtype:
                raise InputError(f"{what} {t.dtype} and the weights {own.dtype}: convert one to the other with .to()")

    def _public(self, state: State) -> Any:
        return state if self.cell.states > 1 else state[0]

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """As in `torch.nn`: the weights, a list for each layer and direction; parameters unless parametrized."""
        weights = (self.weights(index) for index in range(len(self._suffixes)))
        return [[w for w in each if w is not None] for each in weights]

    def extra_repr(self) -> str:
        """As `torch.nn` writes its layers, and what is not from there."""
        options = {
            "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0, "bidirectional": False,
            "forget_bias": None, "engine": "auto",
        }  # fmt: skip
        given = [f", {name}={getattr(self, name)!r}" for name, usual in options.items() if getattr(self, name) != usual]
        return f"{self.input_size}, {self.hidden_size}" + "".join(given)

    def flatten_parameters(self) -> None:
        """Here so that code written for `torch.nn` runs: these layers keep no flat copy of their weights."""


class RNN(_DropIn):
    """Drop-in for `torch.nn.RNN`; the mathematics is in `unrolled.cells.rnn`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        engine: str = "auto",
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise InputError(f"unknown nonlinearity {nonlinearity!r}: choose tanh or relu")
        cell = CELLS["rnn" if nonlinearity == "tanh" else "rnn_relu"]
        super().__init__(
            cell, input_size, hidden_size, num_layers, batch_first, dropout,
            bias=bias, bidirectional=bidirectional, device=device, dtype=dtype, engine=engine,
        )  # fmt: skip
        self.nonlinearity = nonlinearity


class LSTM(_DropIn):
    """Drop-in for `torch.nn.LSTM`; the mathematics is in `unrolled.cells.lstm`. `proj_size` is not offered."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        forget_bias: float | None = None,
        engine: str = "auto",
    ) -> None:
        super().__init__(
            CELLS["lstm"], input_size, hidden_size, num_layers, batch_first, dropout, proj_size, bias=bias,
            bidirectional=bidirectional, device=device, dtype=dtype, forget_bias=forget_bias, engine=engine,
        )  # fmt: skip


class GRU(_DropIn):
    """Drop-in for `torch.nn.GRU`; the mathematics is in `unrolled.cells.gru`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        engine: str = "auto",
    ) -> None:
        super().__init__(
            CELLS["gru"], input_size, hidden_size, num_layers, batch_first, dropout,
            bias=bias, bidirectional=bidirectional, device=device, dtype=dtype, engine=engine,
        )  # fmt: skip
