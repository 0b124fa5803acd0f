"""PyTorch's own kernels (oneDNN and ATen on the CPU, cuDNN on CUDA) behind the contract of an engine."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from unrolled.cells import Cell, Inputs, State, Weights
from unrolled.engines.engine import only_plain

KERNELS: dict[str, Any] = {
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
    "lstm": torch.lstm,
    "gru": torch.gru,
}


class Torch:
    """The kernels of `torch.nn.RNN`, `LSTM` and `GRU`."""

    name = "torch"

    def refuses(self, cell: Cell, w: Weights, inputs: Inputs, state: State) -> str | None:
        if cell.name not in KERNELS:
            return f"PyTorch has no kernel for the cell {cell.name}"
        if inputs.constant is not None:
            return "PyTorch's kernels take no constant input beside the sequence"
        if w.hh.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            return "PyTorch's LSTM crashes under autocast on the CPU"
        if (w.bias_ih is None) != (w.bias_hh is None):
            return "PyTorch's kernels take both biases or none"
        return None if torch.jit.is_tracing() else only_plain()

    def unroll(
        self,
        cell: Cell,
        w: Weights,
        inputs: Inputs,
        state: State,
        lengths: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        x = inputs.dense(w)
        if x.shape[0] == 0:
            return state[0].new_empty(0, *state[0].shape), state
        if reverse:
            x = _flip(x, lengths)
        outputs, state = self._forward(cell, w, x, state, lengths)
        return (_flip(outputs, lengths) if reverse else outputs), state

    def _forward(self, cell: Cell, w: Weights, x: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
        if lengths is None:
            return _run(cell, w, x, None, state)
        # PyTorch refuses rows of length 0, so they stay out and keep their initial state
        order = torch.argsort(lengths, descending=True, stable=True).to(x.device)
        if not torch.jit.is_tracing():  # a trace would keep the number of rows
            order = order[: int((lengths > 0).sum())]
            if len(order) == 0:
                return x.new_zeros(*x.shape[:2], state[0].shape[1]), state
        packed = pack_padded_sequence(x[:, order], lengths.to(x.device)[order].cpu())
        data, final = _run(cell, w, packed.data, packed.batch_sizes, tuple(s[order] for s in state))
        padded, _ = pad_packed_sequence(PackedSequence(data, packed.batch_sizes), total_length=x.shape[0])
        outputs = padded.new_zeros(*x.shape[:2], padded.shape[2]).index_copy(1, order, padded)
        return outputs, tuple(s.index_copy(0, order, f) for s, f in zip(state, final, strict=True))


def _run(cell: Cell, w: Weights, x: Tensor, batch_sizes: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Call the kernel on x: (T, B, I), or packed (N, I) with batch_sizes."""
    stacked = tuple(s.unsqueeze(0) for s in state)
    hx = stacked if cell.states > 1 else stacked[0]
    weights = [t for t in w if t is not None]
    has_biases, layers, dropout, train, bidirectional = w.bias_ih is not None, 1, 0.0, False, False
    # cuDNN keeps what the backward needs only in training mode; what is traced may be differentiated later
    train = torch.is_grad_enabled() or torch.jit.is_tracing()
    if batch_sizes is None:
        result = KERNELS[cell.name](x, hx, weights, has_biases, layers, dropout, train, bidirectional, False)
    else:
        result = KERNELS[cell.name](x, batch_sizes, hx, weights, has_biases, layers, dropout, train, bidirectional)
    return result[0], tuple(s.squeeze(0) for s in result[1:])


def _flip(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse each row of x (T, B, F) in time, within its length."""
    if lengths is None:
        return x.flip(0)
    t = torch.arange(x.shape[0], device=x.device)[:, None]
    n = lengths.to(x.device)[None, :]
    source = torch.where(t < n, n - 1 - t, t)
    return x.gather(0, source[..., None].expand_as(x))
