"""Our own CPU kernels: a cell unrolled over a whole sequence in compiled code, forward and backward.

The mathematics is in `native/cells.h`, the unrolling in `native/unroll.h`; here they become operators that PyTorch can
differentiate, check and trace (`torch.compile`). They are compiled for the machine at first use (`native/build.py`).
"""

from typing import Any

import torch
from torch import Tensor

from unrolled.cells import Cell, Inputs, State, Weights
from unrolled.engines.engine import only_plain
from unrolled.engines.native import build
from unrolled.engines.native.compiler import NativeError

NUMBERS = {"rnn_tanh": 0, "rnn_relu": 1, "lstm": 2, "gru": 3}
"""The cells as `native/unroll.cpp` knows them."""


class Fused:
    """Float32 on the CPU; once differentiable."""

    name = "fused"

    def refuses(self, cell: Cell, w: Weights, inputs: Inputs, state: State) -> str | None:
        if cell.name not in NUMBERS:
            return f"there is no compiled kernel for the cell {cell.name}"
        for t in (*w, *state, *inputs):
            if t is not None and t.device.type != "cpu":
                return f"the compiled kernels run on the CPU, and there is a tensor on {t.device}"
            if t is not None and t.dtype != torch.float32 and not (t is inputs.x and inputs.is_tokens):
                return f"the compiled kernels compute in float32, and there is {t.dtype}"
        if torch.is_autocast_enabled("cpu"):
            return "the compiled kernels compute in float32 and do not run under autocast"
        if reason := only_plain():
            return reason
        return register()

    def unroll(
        self,
        cell: Cell,
        w: Weights,
        inputs: Inputs,
        state: State,
        lengths: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        if reason := register():
            raise NativeError(reason)
        x, tokens, w_ih, bias_ih = _input_part(cell, w, inputs)
        if lengths is not None:
            lengths = lengths.to(device="cpu", dtype=torch.int64)
        c0 = state[1] if cell.states > 1 else None
        keep = torch.is_grad_enabled()
        outputs, h, c, _ = torch.ops.unrolled.unroll.default(
            x, tokens, w_ih, bias_ih, w.hh, w.bias_hh, state[0], c0, lengths, NUMBERS[cell.name], reverse, keep
        )
        return outputs, (h, c) if cell.states > 1 else (h,)


def _input_part(cell: Cell, w: Weights, inputs: Inputs) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """What the operator takes: x with W_ih and its bias, or rows of input parts with or without tokens to pick them.

    As in `Cell.project`, a table no larger than the number of tokens is projected; the look-up is left to the kernel.
    """
    if inputs.constant is None and inputs.pays_to_look_up:
        return cell.project_table(w, inputs.table), inputs.x.long(), None, None
    if inputs.constant is None:
        return inputs.dense(w), None, w.ih, w.bias_ih
    return cell.project(w, inputs), None, None, None


# --- the operators as PyTorch sees them ------------------------------------------------------------------------------

_registrations: torch.library.Library | None = None


def register() -> str | None:
    """Load the compiled operators and tell PyTorch their shapes and derivatives, once a process; or say why not."""
    if reason := build.unavailable():
        return reason
    if _registrations is None:
        with build.lock:
            _register()
    return None


# torch.compile calls it when it traces, and takes the answer for good: it could not trace through building, nor a lock.
# (That is all torch.compiler.assume_constant_result does, but to call it imports the compiler, which takes a second.)
register._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _register() -> None:
    global _registrations
    if _registrations is not None:  # another thread was first
        return
    torch.library.register_fake("unrolled::unroll", _unroll_shapes)
    torch.library.register_fake("unrolled::unroll_backward", _backward_shapes)
    # not by torch.library.register_autograd: its wrapper takes 50 microseconds a call, as much as a small layer
    library = torch.library.Library("unrolled", "FRAGMENT")
    library.impl("unroll", _Unroll.differentiable, "Autograd")
    library.impl("unroll_backward", _Backward.differentiable, "Autograd")
    _registrations = library


def _unroll_shapes(
    x: Tensor,
    tokens: Tensor | None,
    w_ih: Tensor | None,
    bias_ih: Tensor | None,
    w_hh: Tensor,
    bias_hh: Tensor | None,
    h0: Tensor,
    c0: Tensor | None,
    lengths: Tensor | None,
    cell: int,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _on_one_device(x, tokens, w_ih, bias_ih, w_hh, bias_hh, h0, c0, lengths)
    steps, batch = (x if tokens is None else tokens).shape[:2]
    hidden = w_hh.shape[1]
    kept = {0: 0, 1: 0, 2: 5, 3: 4}[cell] if keep else 0
    return (
        h0.new_empty(steps, batch, hidden),
        torch.empty_like(h0, memory_format=torch.contiguous_format),
        h0.new_empty(0) if c0 is None else torch.empty_like(c0, memory_format=torch.contiguous_format),
        h0.new_empty(steps, batch, kept * hidden) if kept else h0.new_empty(0),
    )


def _backward_shapes(
    d_outputs: Tensor | None,
    d_h: Tensor | None,
    d_c: Tensor | None,
    outputs: Tensor,
    kept: Tensor,
    x: Tensor,
    tokens: Tensor | None,
    w_ih: Tensor | None,
    w_hh: Tensor,
    h0: Tensor,
    c0: Tensor | None,
    lengths: Tensor | None,
    cell: int,
    reverse: bool,
    need_x: bool,
) -> tuple[Tensor, ...]:
    _on_one_device(d_outputs, d_h, d_c, outputs, kept, x, tokens, w_ih, w_hh, h0, c0, lengths)
    rows = w_hh.shape[0]
    return (
        x.new_empty(x.shape if w_ih is None or need_x else 0),
        h0.new_empty(0 if w_ih is None else w_ih.shape),
        h0.new_empty(rows),
        h0.new_empty(w_hh.shape),
        h0.new_empty(rows),
        h0.new_empty(h0.shape),
        h0.new_empty(0 if c0 is None else c0.shape),
    )


def _on_one_device(*tensors: Tensor | None) -> None:
    """A meta tensor among others leads here, and what would come out of it is no result."""
    if len(devices := {str(t.device) for t in tensors if t is not None}) > 1:
        raise RuntimeError(f"unrolled::unroll: the tensors are on several devices ({', '.join(sorted(devices))})")


class _Differentiable(torch.autograd.Function):
    """An operator under autograd: `forward` runs below it."""

    @classmethod
    def differentiable(cls, *args: Any) -> Any:
        if torch.is_grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args):
            return cls.apply(*args)
        with torch._C._AutoDispatchBelowAutograd():
            return cls.operator()(*args)

    @staticmethod
    def operator() -> Any:
        raise NotImplementedError


class _Unroll(_Differentiable):
    @staticmethod
    def operator() -> Any:
        return torch.ops.unrolled.unroll.default

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            outputs, h, c, kept = _Unroll.operator()(*args)
        x, tokens, w_ih, _, w_hh, _, h0, c0, lengths, ctx.cell, ctx.reverse, _ = args
        ctx.save_for_backward(outputs, kept, x, tokens, w_ih, w_hh, h0, c0, lengths)
        ctx.mark_non_differentiable(kept, *(() if c0 is not None else (c,)))
        ctx.set_materialize_grads(False)  # zeros for what no gradient reaches are as large as what does
        return outputs, h, c, kept

    @staticmethod
    def backward(
        ctx: Any, d_outputs: Tensor | None, d_h: Tensor | None, d_c: Tensor | None, d_kept: Tensor | None
    ) -> tuple[Any, ...]:
        outputs, kept, x, tokens, w_ih, w_hh, h0, c0, lengths = ctx.saved_tensors
        need_x, _, _, need_bias_ih, _, need_bias_hh = ctx.needs_input_grad[:6]
        d_x, d_w_ih, d_bias_ih, d_w_hh, d_bias_hh, d_h0, d_c0 = torch.ops.unrolled.unroll_backward.default(
            d_outputs, d_h, d_c, outputs, kept, x, tokens, w_ih, w_hh, h0, c0, lengths, ctx.cell, ctx.reverse, need_x
        )
        return (
            d_x if need_x else None,
            None,
            None if w_ih is None else d_w_ih,
            d_bias_ih if need_bias_ih else None,
            d_w_hh,
            d_bias_hh if need_bias_hh else None,
            d_h0,
            None if c0 is None else d_c0,
            None,
            None,
            None,
            None,
        )


class _Backward(_Differentiable):
    @staticmethod
    def operator() -> Any:
        return torch.ops.unrolled.unroll_backward.default

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return _Backward.operator()(*args)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise RuntimeError("the fused engine is once differentiable: for second derivatives use the loop engine")
