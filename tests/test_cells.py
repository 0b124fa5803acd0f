"""The cells: each backward against autograd and finite differences, each timestep against its published formula."""

import pytest
import torch
import torch.nn.functional as F
from helpers import PUBLISHED, draw, draw_state, draw_weights
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from unrolled.cells import CELLS, Cell, Inputs, State, Weights

BATCH, HIDDEN, FEATURES = 3, 4, 5
cells = pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())


def test_every_cell_has_its_published_formula_here() -> None:
    assert set(PUBLISHED) == set(CELLS)


@pytest.mark.parametrize("bias", ["both", "none", "ih", "hh"])
@pytest.mark.parametrize("name", CELLS)
def test_step_is_the_published_formula(name: str, bias: str) -> None:
    cell, w = CELLS[name], draw_weights(CELLS[name], FEATURES, HIDDEN, bias)
    x, state = draw(BATCH, FEATURES), draw_state(cell, BATCH, HIDDEN)
    new, expected = cell.step(w, Inputs(x), state), PUBLISHED[name](w, x, state)
    assert len(new) == cell.states
    for ours, formula in zip(new, expected, strict=True):
        torch.testing.assert_close(ours, formula, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
def test_a_constant_is_an_input_that_stands_beside_each_x(name: str) -> None:
    cell, w = CELLS[name], draw_weights(CELLS[name], FEATURES, HIDDEN)
    state, v, w_v = draw_state(cell, BATCH, HIDDEN), draw(BATCH, 2), draw(cell.gates * HIDDEN, 2)
    beside = w._replace(ih=torch.cat([w.ih, w_v], 1))
    expected = state
    for t in range(3):
        x = draw(BATCH, FEATURES, seed=t)
        state = cell.step(w, Inputs(x, constant=v @ w_v.t()), state)
        expected = PUBLISHED[name](beside, torch.cat([x, v], 1), expected)
    for ours, formula in zip(state, expected, strict=True):
        torch.testing.assert_close(ours, formula, rtol=1e-12, atol=1e-12)


# The backward


def pointwise_problem(cell: Cell, scale: float = 1.0) -> tuple[Tensor, Tensor, State, State]:
    """xg, hg, the state, and a gradient of the new state."""
    rows = cell.gates * HIDDEN
    xg, hg = (draw(BATCH, rows, seed=s).detach().mul(scale).requires_grad_() for s in (1, 2))
    state = draw_state(cell, BATCH, HIDDEN)
    return xg, hg, state, tuple(draw(BATCH, HIDDEN, seed=8 + i).detach() for i in range(cell.states))


def assert_backward_is_autograds(cell: Cell, xg: Tensor, hg: Tensor, state: State, dstate: State) -> None:
    new, saved = cell.pointwise(xg, hg, state)
    expected = torch.autograd.grad(new, (xg, hg, *state), dstate, allow_unused=True)
    with torch.no_grad():
        d_xg, d_hg, d_state = cell.pointwise_backward(dstate, saved, state)
    assert len(d_state) == cell.states
    for ours, autograd in zip((d_xg, d_hg, *d_state), expected, strict=True):
        if ours is None or autograd is None:  # None stands for zero, on either side
            assert (ours is None or not ours.any()) and (autograd is None or not autograd.any())
        else:
            assert ours.isfinite().all()
            torch.testing.assert_close(ours, autograd, rtol=1e-12, atol=1e-14)


@cells
@pytest.mark.parametrize("scale", [1.0, 100.0], ids=["ordinary", "saturated"])
def test_pointwise_backward_is_autograds(cell: Cell, scale: float) -> None:
    assert_backward_is_autograds(cell, *pointwise_problem(cell, scale))


@cells
def test_pointwise_backward_of_one_part_of_the_state_alone(cell: Cell) -> None:
    xg, hg, state, dstate = pointwise_problem(cell)
    for part in range(cell.states):
        alone = tuple(d if i == part else torch.zeros_like(d) for i, d in enumerate(dstate))
        assert_backward_is_autograds(cell, xg, hg, state, alone)


def test_relu_has_slope_zero_at_zero_as_in_pytorch() -> None:
    cell = CELLS["rnn_relu"]
    xg = torch.tensor([[-1.0, 0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    hg, state, dstate = torch.zeros_like(xg).requires_grad_(), (draw(1, 3),), (torch.ones_like(xg),)
    assert_backward_is_autograds(cell, xg, hg, state, dstate)
    _, saved = cell.pointwise(xg, hg, state)
    assert cell.pointwise_backward(dstate, saved, state)[0].tolist() == [[0, 0, 1]]


@cells
def test_pointwise_backward_by_finite_differences(cell: Cell) -> None:
    class Pointwise(torch.autograd.Function):
        @staticmethod
        def forward(ctx, xg, hg, *state):  # type: ignore[no-untyped-def]
            new, ctx.pointwise = cell.pointwise(xg, hg, state)
            ctx.save_for_backward(*state)
            return new

        @staticmethod
        def backward(ctx, *dstate):  # type: ignore[no-untyped-def]
            d_xg, d_hg, d_state = cell.pointwise_backward(dstate, ctx.pointwise, ctx.saved_tensors)
            return d_xg, d_hg, *d_state

    xg, hg, state, _ = pointwise_problem(cell)
    assert torch.autograd.gradcheck(Pointwise.apply, (xg, hg, *state), eps=1e-6, atol=1e-7, rtol=1e-6)


@cells
def test_the_pair_is_pure(cell: Cell) -> None:
    """Nothing is written into an argument, nothing is kept in the cell."""
    xg, hg, state, dstate = pointwise_problem(cell)
    arguments, held = (xg, hg, *state, *dstate), dict(vars(cell))
    before = [a.detach().clone() for a in arguments]
    with torch.no_grad():
        _, saved = cell.pointwise(xg, hg, state)
        kept = [s.clone() for s in saved]
        cell.pointwise_backward(dstate, saved, state)
    assert all(torch.equal(a, b) for a, b in zip((*arguments, *saved), (*before, *kept), strict=True))
    assert vars(cell) == held and not any(isinstance(value, Tensor) for value in held.values())


# The input part

STEPS = 4
TOKENS = {  # tokens in the call: 12 for the sequence, 3 for the timestep
    "sequence": torch.tensor([[0, 2, 1], [1, 1, 0], [2, 2, 2], [0, 1, 2]]),
    "timestep": torch.tensor([2, 0, 2]),
    "int32": torch.tensor([[0, 2, 1], [1, 1, 0]], dtype=torch.int32),
    "no timestep": torch.zeros(0, 3, dtype=torch.long),
}


def dense_product(w: Weights, tokens: Tensor, table: Tensor | None, constant: Tensor | None) -> Tensor:
    """One-hot rows times the table times W_ih, as matrix products."""
    vocabulary = w.ih.shape[1] if table is None else len(table)
    rows = (tokens[..., None] == torch.arange(vocabulary)).double()
    xg = (rows if table is None else rows @ table) @ w.ih.t()
    for addend in (w.bias_ih, constant):
        xg = xg if addend is None else xg + addend
    return xg


@cells
@pytest.mark.parametrize("tokens", TOKENS.values(), ids=TOKENS.keys())
@pytest.mark.parametrize("vocabulary", [3, 6, 12, 13, 40])
@pytest.mark.parametrize("bias", ["both", "none"])
@pytest.mark.parametrize("one_hot", [False, True], ids=["table", "one-hot"])
@pytest.mark.parametrize("with_constant", [False, True], ids=["", "constant"])
def test_projected_tokens_are_a_dense_product(
    cell: Cell, tokens: Tensor, vocabulary: int, bias: str, one_hot: bool, with_constant: bool
) -> None:
    w = draw_weights(cell, vocabulary if one_hot else FEATURES, HIDDEN, bias)
    table = None if one_hot else draw(vocabulary, FEATURES, seed=7)
    constant = draw(BATCH, cell.gates * HIDDEN, seed=8) if with_constant else None
    leaves = [t for t in (w.ih, w.bias_ih, table, constant) if t is not None]
    ours = cell.project(w, Inputs(tokens, table, constant))
    expected = dense_product(w, tokens, table, constant)
    assert ours.shape == (*tokens.shape, cell.gates * HIDDEN)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    arriving = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    gradients = (torch.autograd.grad(xg, leaves, arriving) for xg in (ours, expected))
    for our, product in zip(*gradients, strict=True):
        torch.testing.assert_close(our, product, rtol=1e-12, atol=1e-12)


@cells
def test_projected_floats_are_a_product(cell: Cell) -> None:
    w, x = draw_weights(cell, FEATURES, HIDDEN), draw(STEPS, BATCH, FEATURES)
    constant = draw(BATCH, cell.gates * HIDDEN)
    ours = cell.project(w, Inputs(x, constant=constant))
    for t in range(STEPS):  # the constant is added at each step
        expected = x[t] @ w.ih.t() + w.bias_ih + constant
        torch.testing.assert_close(ours[t], expected, rtol=1e-12, atol=1e-12)


@cells
@pytest.mark.parametrize(
    ("vocabulary", "multiplied_rows"), [(11, 11), (12, 12), (13, 12), (40, 12)], ids=lambda n: str(n)
)
def test_the_smaller_of_table_and_sequence_is_multiplied(cell: Cell, vocabulary: int, multiplied_rows: int) -> None:
    w, table = draw_weights(cell, FEATURES, HIDDEN), draw(vocabulary, FEATURES)
    with FlopCounterMode(display=False) as counter:
        cell.project(w, Inputs(TOKENS["sequence"], table))
    assert counter.get_total_flops() == 2 * multiplied_rows * FEATURES * cell.gates * HIDDEN
    with FlopCounterMode(display=False) as counter:
        cell.project(draw_weights(cell, 3, HIDDEN), Inputs(TOKENS["sequence"]))
    assert counter.get_total_flops() == 0  # one-hot: rows of W_ih are looked up, nothing is multiplied


@cells
def test_inputs_and_zero_state(cell: Cell) -> None:
    w, tokens, table = draw_weights(cell, 3, HIDDEN), TOKENS["sequence"], draw(3, 7)
    assert Inputs(tokens).is_tokens and not Inputs(table).is_tokens
    at = Inputs(tokens, table, table).at(1)
    assert torch.equal(at.x, tokens[1]) and at.table is table and at.constant is table
    assert torch.equal(Inputs(tokens).dense(w), F.one_hot(tokens, 3).double())
    assert torch.equal(Inputs(tokens, table).dense(w), table[tokens])
    state = cell.zero_state(BATCH, HIDDEN, w.hh)
    assert [s.shape for s in state] == [(BATCH, HIDDEN)] * cell.states
    assert all(s.dtype == torch.float64 and not s.any() for s in state)
