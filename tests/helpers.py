"""Numbers, formulas and calls that several test files share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import torch
from torch import Tensor

from unrolled.cells import CELLS, Cell, Inputs, State, Weights
from unrolled.training.observer import Observer, Progress


class Listener(Observer):
    """Keeps what it is told, and stops a training before its update number `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at = stop_at
        self.lines: list[dict[str, Any]] = []
        self.updates: list[Progress] = []

    def report(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    def progress(self, now: Progress) -> None:
        self.updates.append(now)

    def stop(self, step: int) -> bool:
        return step == self.stop_at


def assert_one_sentence(text: str | None) -> None:
    assert text and len(text.split()) > 3 and "\n" not in text and ". " not in text


def svg_text(path: Path) -> str:
    """The text of an SVG, one line a text; subscripts come in their place."""
    lines = []
    for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text"):
        spans = sorted((s for s in element if s.get("x")), key=lambda s: float(s.get("x", "0")))
        lines.append("".join(s.text or "" for s in spans) if spans else "".join(element.itertext()))
    return "\n".join(lines)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """A float64 leaf that wants a gradient."""
    generator = torch.Generator().manual_seed(1000 * seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def draw_weights(cell: Cell, features: int, hidden: int, bias: str = "both") -> Weights:
    """bias: both, none, or only ih or hh."""
    rows = cell.gates * hidden
    bias_ih = draw(rows, seed=3) if bias in ("both", "ih") else None
    bias_hh = draw(rows, seed=4) if bias in ("both", "hh") else None
    return Weights(draw(rows, features, seed=1), draw(rows, hidden, seed=2), bias_ih, bias_hh)


def draw_state(cell: Cell, batch: int, hidden: int) -> State:
    return tuple(draw(batch, hidden, seed=5 + i) for i in range(cell.states))


# The published formulas, one weight block and one gate at a time: (w, x, state) -> state


def affine(w: Weights, x: Tensor, h: Tensor, gate: int) -> tuple[Tensor, Tensor]:
    """The input part and the recurrent part of one gate, biases included."""
    rows = slice(gate * h.shape[1], (gate + 1) * h.shape[1])
    from_x, from_h = x @ w.ih[rows].t(), h @ w.hh[rows].t()
    return (
        from_x if w.bias_ih is None else from_x + w.bias_ih[rows],
        from_h if w.bias_hh is None else from_h + w.bias_hh[rows],
    )


def elman_tanh(w: Weights, x: Tensor, state: State) -> State:
    a = sum(affine(w, x, state[0], 0))
    return ((a.exp() - (-a).exp()) / (a.exp() + (-a).exp()),)


def elman_relu(w: Weights, x: Tensor, state: State) -> State:
    a = sum(affine(w, x, state[0], 0))
    return (a.clamp(min=0),)


def sigmoid(a: Tensor) -> Tensor:
    return 1 / (1 + (-a).exp())


def lstm(w: Weights, x: Tensor, state: State) -> State:
    h, c = state
    i, f, g, o = (sum(affine(w, x, h, gate)) for gate in range(4))
    c = sigmoid(f) * c + sigmoid(i) * g.tanh()
    return sigmoid(o) * c.tanh(), c


def gru(w: Weights, x: Tensor, state: State) -> State:
    (h,) = state
    r, z = (sigmoid(sum(affine(w, x, h, gate))) for gate in range(2))
    n_x, n_h = affine(w, x, h, 2)
    n = (n_x + r * n_h).tanh()
    return ((1 - z) * n + z * h,)


PUBLISHED = {"rnn": elman_tanh, "rnn_relu": elman_relu, "lstm": lstm, "gru": gru}


# Calls of an engine

Unroll = Callable[..., tuple[Tensor, State]]
BATCH, FEATURES, HIDDEN = 3, 4, 5


@dataclass(frozen=True)
class Case:
    """What enters the chain, how it runs and what the loss looks at."""

    x: Literal["dense", "table", "large table", "one-hot", "int32 one-hot"] = "dense"
    steps: int = 6
    batch: int = BATCH
    lengths: tuple[int, ...] | None = None
    reverse: bool = False
    bias: Literal["both", "none", "ih", "hh"] = "both"
    constant: bool = False
    loss: Literal["all", "state", "outputs"] = "all"


PADDED = (4, 0, 6)
CASES = {
    "dense": Case(),
    "table": Case("table"),  # fewer rows than tokens: the table is projected
    "large table": Case("large table"),  # more: its rows are embedded, then projected
    "one-hot": Case("one-hot"),
    "int32 one-hot": Case("int32 one-hot", lengths=PADDED),
    "constant": Case(constant=True),
    "table, constant, lengths": Case("table", constant=True, lengths=PADDED),
    "one-hot, constant, reverse": Case("one-hot", constant=True, reverse=True),
    "loss on the final state": Case(loss="state"),
    "loss on the final state, lengths": Case(loss="state", lengths=PADDED),
    "loss on the outputs": Case(loss="outputs", lengths=PADDED),
    "lengths": Case(lengths=PADDED),
    "no row is full": Case(lengths=(4, 0, 1)),
    "all lengths zero": Case(lengths=(0, 0, 0)),
    "reverse": Case(reverse=True),
    "reverse, lengths": Case(reverse=True, lengths=PADDED),
    "reverse, all lengths zero": Case(reverse=True, lengths=(0, 0, 0)),
    "reverse, large table, lengths": Case("large table", reverse=True, lengths=PADDED),
    "T=0": Case(steps=0),
    "T=0, tokens": Case("table", steps=0),
    "T=0, lengths, reverse": Case(steps=0, lengths=(0, 0, 0), reverse=True),
    "T=1": Case(steps=1),
    "T=1, lengths, reverse": Case(steps=1, lengths=(1, 0, 1), reverse=True),
    "no bias": Case(bias="none"),
    "no bias, table, lengths": Case("table", bias="none", lengths=PADDED),
    "bias_ih alone": Case(bias="ih"),
    "bias_hh alone": Case(bias="hh", constant=True),
    "one row": Case(batch=1),
    "no row": Case(batch=0),
}


@dataclass
class Problem:
    """A call, and the loss it enters."""

    cell: Cell
    w: Weights
    inputs: Inputs
    state: State
    lengths: Tensor | None
    reverse: bool
    loss: str = "all"

    @property
    def call(self) -> tuple[Cell, Weights, Inputs, State]:
        return self.cell, self.w, self.inputs, self.state

    @property
    def leaves(self) -> list[Tensor]:
        """x or table, constant, every parameter, the initial state."""
        tensors = (*self.inputs, *self.w, *self.state)
        return [t for t in tensors if t is not None and t.is_floating_point()]


def build(name: str, case: Case, dtype: torch.dtype = torch.float64) -> Problem:
    """The same numbers in every dtype."""

    def cast(t: Tensor | None) -> Tensor | None:
        return None if t is None or not t.is_floating_point() else t.detach().to(dtype).requires_grad_()

    cell, features, table, shape = CELLS[name], FEATURES, None, (case.steps, case.batch)
    x = torch.randint(7, shape, generator=torch.Generator().manual_seed(1))
    if case.x == "dense":
        x = draw(*shape, FEATURES)
    elif case.x in ("table", "large table"):
        table = draw(7 if case.x == "table" else 40, FEATURES, seed=1)
    else:
        features, x = 7, x.int() if "int32" in case.x else x
    constant = draw(case.batch, cell.gates * HIDDEN, seed=2) if case.constant else None
    inputs = Inputs(x if table is not None or features == 7 else cast(x), cast(table), cast(constant))
    drawn = draw_weights(cell, features, HIDDEN, case.bias)
    w = Weights(*(cast(None if t is None else t / 2) for t in drawn))  # about as large as weights are
    state = tuple(cast(s) for s in draw_state(cell, case.batch, HIDDEN))
    lengths = None if case.lengths is None else torch.tensor(case.lengths)
    return Problem(cell, w, inputs, state, lengths, case.reverse, case.loss)


def solve(unroll: Unroll, problem: Problem) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and final state; the gradients of the leaves."""
    outputs, final = unroll(*problem.call, problem.lengths, problem.reverse)
    results, leaves = [outputs, *final], problem.leaves
    looked_at = {"all": results, "state": results[1:], "outputs": results[:1]}[problem.loss]
    loss = sum((r * draw(*r.shape, seed=20 + i).to(r)).sum() for i, r in enumerate(looked_at))
    touched = sum(0 * leaf.sum() for leaf in leaves)  # a leaf that the loss does not reach has gradient zero
    return [r.detach() for r in results], list(torch.autograd.grad(loss + touched, leaves))
