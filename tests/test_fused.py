"""The fused engine at ragged sizes, with numbers at the edge of float32, and with rubbish in the padding.

What every engine must do is in test_engines.py; the operators as PyTorch sees them are in test_fused_operators.py.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from helpers import Problem, draw
from torch import Tensor

from unrolled.cells import CELLS, Inputs, Weights
from unrolled.engines import ENGINES
from unrolled.engines.fused import NUMBERS, register
from unrolled.engines.native import build

pytestmark = pytest.mark.skipif(build.unavailable() is not None, reason=f"no compiled kernels: {build.unavailable()}")
cells = pytest.mark.parametrize("name", CELLS)
TOLERANCE = 2e-5  # of the largest entry of a tensor; a weight of one unit alone is a sum that nearly cancels


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    register()
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# Ragged sizes

EXAMPLES = 50
"""For each cell. Every value below occurs in many of them, and nearly every pair of values in some."""
AXES: dict[str, tuple[Any, ...]] = {
    "hidden": (1, 7, 15, 16, 17, 31, 32, 33, 48, 100),
    "batch": (0, 1, 2, 3, 5, 13, 40),
    "steps": (0, 1, 2, 30, 30),
    "features": (1, 7, 40),
    "x": ("dense", "dense", "table", "int32 table", "large table", "one-hot"),
    "lengths": (None, None, "sorted", "unsorted", "int32"),
    "reverse": (False, True),
    "bias": ("both", "both", "none", "ih", "hh"),
    "constant": (False, False, False, True),
    "loss": ("all", "state", "outputs", "expanded", "transposed"),
    "strided": (False, True),
}


@dataclass(frozen=True)
class Ragged:
    hidden: int
    batch: int
    steps: int
    features: int
    x: str
    lengths: str | None
    reverse: bool
    bias: str
    constant: bool
    loss: str
    strided: bool


def examples(name: str) -> list[Ragged]:
    """Each axis goes through its values equally often, in an order of its own."""
    order, columns = random.Random(name), {}
    for axis, values in AXES.items():
        columns[axis] = [values[i % len(values)] for i in range(EXAMPLES)]
        order.shuffle(columns[axis])
    return [Ragged(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def with_gaps(t: Tensor) -> Tensor:
    """The same numbers, each followed in memory by a NaN that nobody may read."""
    return torch.stack([t, torch.full_like(t, torch.nan)], -1)[..., 0]


def problem_of(name: str, case: Ragged, seed: int, dtype: torch.dtype) -> Problem:
    """The same numbers in every dtype: float32 holds them exactly."""
    cell, generator = CELLS[name], torch.Generator().manual_seed(seed)

    def leaf(*shape: int, scale: float = 1.0) -> Tensor:
        t = (torch.randn(shape, generator=generator) * scale).to(dtype)
        return (with_gaps(t) if case.strided else t).requires_grad_()

    def tokens(vocabulary: int) -> Tensor:
        return torch.randint(vocabulary, (case.steps, case.batch), generator=generator)

    rows, scale = cell.gates * case.hidden, case.hidden**-0.5
    vocabulary = 5 if "large" not in case.x else case.steps * case.batch + 3  # few rows are projected, many embedded
    if case.x == "dense":
        inputs = Inputs(leaf(case.steps, case.batch, case.features))
    elif case.x == "one-hot":
        inputs = Inputs(tokens(case.features))
    else:
        inputs = Inputs(tokens(vocabulary), leaf(vocabulary, case.features))
    if "int32" in case.x:
        inputs = inputs._replace(x=inputs.x.int())
    if case.constant:
        inputs = inputs._replace(constant=leaf(case.batch, rows))
    bias_ih = leaf(rows, scale=scale) if case.bias in ("both", "ih") else None
    bias_hh = leaf(rows, scale=scale) if case.bias in ("both", "hh") else None
    w = Weights(leaf(rows, case.features, scale=scale), leaf(rows, case.hidden, scale=scale), bias_ih, bias_hh)
    state = tuple(leaf(case.batch, case.hidden) for _ in range(cell.states))
    lengths = None
    if case.lengths:
        lengths = torch.randint(case.steps + 1, (case.batch,), generator=generator)
        lengths[case.batch // 2 :: 4] = 0
        lengths = lengths.sort(descending=True).values if case.lengths == "sorted" else lengths
        lengths = lengths.int() if case.lengths == "int32" else lengths
    return Problem(cell, w, inputs, state, lengths, case.reverse, case.loss)


def loss_of(kind: str, outputs: Tensor, final: tuple[Tensor, ...]) -> Tensor:
    """A sum of a random share of each result; or one whose gradients are expanded or transposed in memory."""
    if kind == "expanded":
        return sum((s.sum() for s in final), outputs.sum())
    if kind == "transposed":
        return (outputs.permute(2, 1, 0) * draw(*outputs.shape[::-1]).detach().to(outputs)).sum()
    looked_at = {"all": (outputs, *final), "state": final, "outputs": (outputs,)}[kind]
    return sum((r * draw(*r.shape, seed=20 + i).detach().to(r)).sum() for i, r in enumerate(looked_at))


def solve(engine: str, problem: Problem, leaves: list[Tensor] | None = None) -> list[Tensor]:
    """Outputs, final state, and the gradients of some leaves; zero where the loss does not reach one."""
    leaves = problem.leaves if leaves is None else leaves
    outputs, final = ENGINES[engine].unroll(*problem.call, problem.lengths, problem.reverse)
    loss = loss_of(problem.loss, outputs, final) + sum(0 * leaf.sum() for leaf in leaves)
    gradients = torch.autograd.grad(loss, leaves)
    return [t.detach() for t in (outputs, *final, *gradients)]


def assert_near(ours: list[Tensor], truth: list[Tensor]) -> None:
    for one, other in zip(ours, truth, strict=True):
        assert one.shape == other.shape
        largest = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one.to(other), other, rtol=0, atol=TOLERANCE * largest)


@pytest.mark.parametrize("number", range(EXAMPLES))
@cells
def test_ragged(name: str, number: int) -> None:
    case = examples(name)[number]
    truth = solve("loop", problem_of(name, case, number, torch.float64))
    problem = problem_of(name, case, number, torch.float32)
    assert ENGINES["fused"].refuses(*problem.call) is None
    for threads in (1, 2):
        torch.set_num_threads(threads)
        once, again = solve("fused", problem), solve("fused", problem)
        assert_near(once, truth)
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True)), "the same bits, run after run"
    results, leaves = 1 + len(problem.state), problem.leaves
    alone = number % len(leaves)  # all others frozen
    for i, leaf in enumerate(leaves):
        leaf.requires_grad_(i == alone)
    assert_near(solve("fused", problem, [leaves[alone]]), [*truth[:results], truth[results + alone]])


def test_examples_are_as_promised() -> None:
    drawn = [case for name in CELLS for case in examples(name)]
    for axis, values in AXES.items():
        assert {getattr(case, axis) for case in drawn} == set(values)
    assert drawn == [case for name in CELLS for case in examples(name)]


# Numbers at the edge


def unroll(name: str, input_part: Tensor, h0: Tensor, w_hh: Tensor, c0: Tensor | None = None) -> tuple[Tensor, ...]:
    return torch.ops.unrolled.unroll(
        input_part, None, None, None, w_hh, None, h0, c0, None, NUMBERS[CELLS[name].name], False, True
    )


def tanh(x: Tensor) -> Tensor:
    """The kernels' tanh, by way of a network without recurrence."""
    columns = x.view(-1, 1, 16)
    return unroll("rnn", columns, torch.zeros(1, 16), torch.zeros(16, 16))[0].view(-1)


def sigmoid(x: Tensor) -> Tensor:
    """The kernels' sigmoid: a GRU whose candidate is 0 goes from the state 1 to its update gate."""
    z = x.view(1, -1, 16)
    zeros, ones = torch.zeros_like(z), torch.ones(z.shape[1:])
    return unroll("gru", torch.cat([zeros, z, zeros], -1), ones, torch.zeros(48, 16))[0].view(-1)


def test_tanh_and_sigmoid_are_as_exact_as_float32() -> None:
    grid = torch.linspace(-20, 20, 400_000)
    small = torch.logspace(-30, 0, 100_000)
    for ours, truth in ((tanh, torch.tanh), (sigmoid, torch.sigmoid)):
        for x in (grid, small, -small):
            error = (ours(x).double() - truth(x.double())).abs()
            assert error.max() < 4e-7  # five units in the last place, before tanh saturates
    relative = (tanh(small).double() / torch.tanh(small.double()) - 1).abs()
    assert relative.max() < 4e-7
    low = torch.linspace(-87, -10, 100_000)
    assert (sigmoid(low).double() / torch.sigmoid(low.double()) - 1).abs().max() < 1e-5


def test_tanh_and_sigmoid_reach_their_limits() -> None:
    for far in (20.0, 88.5, 100.0, 1e4, 3e38, torch.inf):
        x = torch.full((16,), far)
        assert tanh(x).eq(1).all() and tanh(-x).eq(-1).all()
        assert sigmoid(x).eq(1).all()
        assert (sigmoid(-x) <= 2.1e-9).all() and (far < 100 or sigmoid(-x).eq(0).all())
    everywhere = torch.cat([torch.linspace(-100, 100, 160_000), torch.linspace(-9, 9, 160_000)])
    assert tanh(everywhere).abs().max() <= 1 and sigmoid(everywhere).max() <= 1 and sigmoid(everywhere).min() >= 0
    nan = torch.full((16,), torch.nan)
    assert tanh(nan).isnan().all() and sigmoid(nan).isnan().all()


def small(name: str, lengths: tuple[int, ...] | None = None, reverse: bool = False) -> Problem:
    case = Ragged(33, 5, 4, 7, "dense", None, reverse, "both", False, "all", False)
    problem = problem_of(name, case, 1, torch.float32)
    problem.lengths = None if lengths is None else torch.tensor(lengths)
    return problem


@pytest.mark.parametrize("size", [1e4, torch.inf, -torch.inf])
@cells
def test_extreme_inputs_saturate_as_in_pytorch(name: str, size: float) -> None:
    problem = small(name)
    with torch.no_grad():
        problem.inputs.x[1, 2, 3] = size
        problem.inputs.x[2, 4, 0] = -size
    for ours, truth in zip(solve("fused", problem), solve("loop", problem), strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("leaf", ["x", "h0", "c0"])
@cells
def test_nan_stays_in_its_row(name: str, leaf: str) -> None:
    problem, spoilt = small(name), small(name)
    if leaf == "c0" and len(problem.state) == 1:
        return
    with torch.no_grad():
        target = {"x": spoilt.inputs.x[1], "h0": spoilt.state[0], "c0": spoilt.state[-1]}[leaf]
        target[2, 5] = torch.nan
    torch.set_num_threads(1)  # so that the other rows' sums are taken in the same order
    ours, before, truth = solve("fused", spoilt), solve("fused", problem), solve("loop", spoilt)
    for one, other in zip(ours, truth, strict=True):
        assert torch.equal(one.isnan(), other.isnan()), "where loop has NaN"
    results = 2 + len(problem.state)  # outputs, final state and the gradient of x; the state's is last
    assert ours[0][1:, 2].isnan().any() and ours[1][2].isnan().any()
    per_row = [*zip(ours[:results], before, strict=False), *list(zip(ours, before, strict=True))[-len(problem.state) :]]
    others = [0, 1, 3, 4]
    for one, other in per_row:
        assert torch.equal(one[..., others, :], other[..., others, :])


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@cells
def test_padding_may_even_be_nan(name: str, reverse: bool) -> None:
    """Not so in the engines that multiply by zero: there NaN in the padding reaches the gradients of the weights.

    Here neither where a `constant` enters, since then PyTorch computes the input part.
    """
    lengths = (4, 0, 3, 1, 0)
    problem, spoilt = small(name, lengths, reverse), small(name, lengths, reverse)
    padding = (torch.arange(4)[:, None] >= torch.tensor(lengths))[..., None]
    with torch.no_grad():
        spoilt.inputs.x.masked_fill_(padding, torch.nan)
    expected = solve("fused", problem)
    for ours, theirs in zip(solve("fused", spoilt), expected, strict=True):
        assert torch.equal(ours, theirs)
    with torch.no_grad():  # the state before a row without a timestep is its final state, and goes no further
        for s in spoilt.state:
            s[4] = torch.nan
    for i, (ours, theirs) in enumerate(zip(solve("fused", spoilt), expected, strict=True)):
        final = 0 < i <= len(problem.state)
        assert torch.equal(ours.isnan().any(-1).nonzero().flatten(), torch.tensor([4] if final else []).long())
        assert torch.equal(ours.nan_to_num() if not final else ours[:4], theirs if not final else theirs[:4])
