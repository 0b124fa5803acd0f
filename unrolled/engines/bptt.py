"""Backpropagation through time written by hand, once, for any cell's pointwise pair, in plain PyTorch.

Against autograd over `step` it saves the graph of every timestep: the input part and the weight gradients are single
products over all timesteps; only W_hh h, its transpose in the backward, and the pointwise parts run T times.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from unrolled.cells import Cell, Inputs, Saved, State, Weights
from unrolled.engines.engine import alive, only_plain


class Bptt:
    """Hand-written backpropagation through time; once differentiable."""

    name = "bptt"

    def refuses(self, cell: Cell, w: Weights, inputs: Inputs, state: State) -> str | None:
        device = w.hh.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            return "the bptt engine computes in the dtype of its weights and does not run under autocast"
        return only_plain()

    def unroll(
        self,
        cell: Cell,
        w: Weights,
        inputs: Inputs,
        state: State,
        lengths: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        xg = cell.project(w, inputs)
        if len(xg) == 0:
            return state[0].new_empty(0, *state[0].shape), state
        if not torch.is_grad_enabled():
            outputs, final, _, _ = _forward(cell, reverse, lengths, w.hh, w.bias_hh, xg, state, keep=False)
            return outputs, final
        outputs, *last = _Unroll.apply(cell, reverse, lengths, w.hh, w.bias_hh, xg, *state)
        return outputs, tuple(last)


def _forward(
    cell: Cell,
    reverse: bool,
    lengths: Tensor | None,
    w_hh: Tensor,
    bias_hh: Tensor | None,
    xg: Tensor,
    state: State,
    keep: bool,
) -> tuple[Tensor, State, list[State], list[Saved]]:
    """Outputs, final state and, where kept, the state before each timestep and what its pointwise part saved."""
    mask = alive(lengths, len(xg), xg)
    states: list[State] = [()] * len(xg)
    saved: list[Saved] = [()] * len(xg)
    outputs: list[Tensor] = [xg] * len(xg)
    for t in _order(len(xg), reverse):
        new, kept = cell.pointwise(xg[t], F.linear(state[0], w_hh, bias_hh), state)
        outputs[t] = new[0]
        if mask is not None:
            outputs[t] = torch.where(mask[t], new[0], 0)
            new = tuple(torch.where(mask[t], n, s) for n, s in zip(new, state, strict=True))
        if keep:
            saved[t], states[t] = kept, state
        state = new
    return torch.stack(outputs), state, states, saved


def _order(steps: int, reverse: bool) -> range:
    return range(steps)[::-1] if reverse else range(steps)


class _Unroll(torch.autograd.Function):
    """Forward and backward over time, given the input part of every timestep."""

    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        reverse: bool,
        lengths: Tensor | None,
        w_hh: Tensor,
        bias_hh: Tensor | None,
        xg: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        outputs, final, states, saved = _forward(cell, reverse, lengths, w_hh, bias_hh, xg, state, keep=True)
        order = _order(len(xg), reverse)
        states[order[0]] = ()  # the initial state is an input: autograd watches over it for us
        ctx.save_for_backward(w_hh, *state)
        ctx.cell, ctx.order, ctx.mask = cell, order, alive(lengths, len(xg), xg)
        ctx.states, ctx.saved, ctx.has_bias = states, saved, bias_hh is not None
        # clones, since an output that the context also holds would be a reference cycle
        return outputs, *(s.clone() for s in final)

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor, *d_final: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            gradients = _Unroll._backward(ctx, d_outputs, *d_final)
        if not torch.is_grad_enabled():  # without create_graph
            return gradients
        # PyTorch's once_differentiable says so only where the loss is not linear in the outputs; this does always
        return tuple(None if g is None else _Once.apply(g.requires_grad_()) for g in gradients)

    @staticmethod
    def _backward(ctx: Any, d_outputs: Tensor, *d_final: Tensor) -> tuple[Tensor | None, ...]:
        cell, order, mask = ctx.cell, ctx.order, ctx.mask
        w_hh, *initial = ctx.saved_tensors
        states, saved = list(ctx.states), ctx.saved
        states[order[0]] = tuple(initial)
        steps, (batch, hidden) = len(order), initial[0].shape
        d_xg = d_outputs.new_empty(steps, batch, cell.gates * hidden)
        d_hg = d_xg
        dstate: State = d_final
        for t in reversed(order):
            arriving = (dstate[0] + d_outputs[t], *dstate[1:])
            if mask is not None:  # a padded timestep passes the state on: its gradient goes straight through
                arriving = tuple(torch.where(mask[t], d, 0) for d in arriving)
            d_xg_t, d_hg_t, direct = cell.pointwise_backward(arriving, saved[t], states[t])
            d_xg[t] = d_xg_t
            if d_hg_t is not d_xg_t:
                d_hg = torch.empty_like(d_xg) if d_hg is d_xg else d_hg
                d_hg[t] = d_hg_t
            through = d_hg_t @ w_hh if direct[0] is None else torch.addmm(direct[0], d_hg_t, w_hh)
            before = (through, *(torch.zeros_like(through) if d is None else d for d in direct[1:]))
            if mask is not None:
                before = tuple(torch.where(mask[t], b, d) for b, d in zip(before, dstate, strict=True))
            dstate = before
        flat = d_hg.view(steps * batch, d_hg.shape[2])
        before_h = torch.stack([s[0] for s in states]).view(steps * batch, hidden)
        d_w_hh = flat.t() @ before_h if ctx.needs_input_grad[3] else None
        d_bias = flat.sum(0) if ctx.has_bias else None
        return None, None, None, d_w_hh, d_bias, d_xg, *dstate


class _Once(torch.autograd.Function):
    """The identity; its derivative is an error."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Tensor:
        raise RuntimeError("the bptt engine is once differentiable: for second derivatives use the loop engine")
