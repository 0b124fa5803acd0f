"""Every engine with every cell against the truth, the `loop` engine; and `loop` against autograd written out here."""

import gc
import re
import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from helpers import (
    CASES,
    HIDDEN,
    PADDED,
    PUBLISHED,
    Case,
    Problem,
    Unroll,
    assert_one_sentence,
    build,
    draw,
    solve,
)
from torch import Tensor

from unrolled.cells import CELLS, Inputs
from unrolled.engines import ENGINES, Engine, auto_order, choose
from unrolled.errors import InputError, UnrolledError

engines = pytest.mark.parametrize("engine", ENGINES)
cells = pytest.mark.parametrize("name", CELLS)


def assert_same(ours: list[Tensor], truth: list[Tensor], tolerance: float = 1e-10) -> None:
    for one, other in zip(ours, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, check_dtype=False)


def engine_for(name: str, problem: Problem) -> Engine:
    """The engine, or what `auto` puts in its place: a refusal has a reason and is never silent."""
    reason = ENGINES[name].refuses(*problem.call)
    if reason is None:
        return choose(name, *problem.call)
    assert_one_sentence(reason)
    with pytest.raises(UnrolledError, match=re.escape(f"engine {name}: {reason}")):
        choose(name, *problem.call)
    chosen = choose("auto", *problem.call)
    assert chosen is not ENGINES[name]
    return chosen


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", CASES)
@cells
@engines
def test_equals_loop(engine: str, name: str, case: str, dtype: torch.dtype) -> None:
    problem = build(name, CASES[case], dtype)
    ours, our_gradients = solve(engine_for(engine, problem).unroll, problem)
    truth, gradients = solve(ENGINES["loop"].unroll, build(name, CASES[case]))
    assert ours[0].shape == (CASES[case].steps, CASES[case].batch, HIDDEN)
    assert all(t.dtype == dtype for t in ours + our_gradients)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert_same(ours, truth, tolerance)
    assert_same(our_gradients, gradients, tolerance)


def test_what_each_engine_refuses() -> None:
    """So that a new reason to refuse is seen here, and no comparison above quietly becomes another engine's."""
    kernels_refuse = {case for case, c in CASES.items() if c.constant or c.bias in ("ih", "hh")}
    for dtype in (torch.float64, torch.float32):
        fused_refuses = set(CASES) if dtype == torch.float64 else set()
        expected = {"loop": set(), "bptt": set(), "torch": kernels_refuse, "fused": fused_refuses}
        for name in ("rnn", "rnn_relu", "lstm", "gru"):
            for engine, refused in expected.items():
                calls = {case: build(name, CASES[case], dtype).call for case in CASES}
                assert {case for case in CASES if ENGINES[engine].refuses(*calls[case]) is not None} == refused
    for engine in ENGINES.values():  # and no engine is here for nothing
        assert any(engine.refuses(*build(name, CASES["dense"], torch.float32).call) is None for name in CELLS)


# The truth itself


def by_hand(name: str) -> Unroll:
    """Each row alone, for as many steps as it has, by the published formula."""

    def unroll(_, w, inputs, state, lengths, reverse):  # type: ignore[no-untyped-def]
        dense, steps, rows = inputs.dense(w), len(inputs.x), []
        for row in range(len(state[0])):
            length = steps if lengths is None else int(lengths[row])
            h, outputs = tuple(s[row : row + 1] for s in state), [torch.zeros(1, HIDDEN).double()] * steps
            own = w
            if inputs.constant is not None:  # for one row, a constant is a bias
                own = w._replace(bias_ih=inputs.constant[row] + (0 if w.bias_ih is None else w.bias_ih))
            for t in reversed(range(length)) if reverse else range(length):
                h = PUBLISHED[name](own, dense[t, row : row + 1], h)
                outputs[t] = h[0]
            rows.append((torch.stack(outputs), *h))
        outputs, *final = zip(*rows, strict=True)
        return torch.cat(outputs, 1), tuple(torch.cat(part) for part in final)

    return unroll


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c].steps and CASES[c].batch])
@cells
def test_loop_equals_rows_by_hand(name: str, case: str) -> None:
    problem = build(name, CASES[case])
    for ours, truth in zip(solve(ENGINES["loop"].unroll, problem), solve(by_hand(name), problem), strict=True):
        assert_same(ours, truth)


@pytest.mark.parametrize("case", ["dense", "table", "one-hot", "constant", "no bias"])
@cells
@engines
def test_unroll_is_repeated_step(engine: str, name: str, case: str) -> None:
    problem = build(name, CASES[case])
    outputs, final = engine_for(engine, problem).unroll(*problem.call)
    state = problem.state
    for t in range(len(problem.inputs.x)):
        state = problem.cell.step(problem.w, problem.inputs.at(t), state)
        assert_same([outputs[t]], [state[0]])
    assert_same([*final], [*state])


# Chunks


@pytest.mark.parametrize("case", ["dense", "table", "constant", "lengths", "reverse", "reverse, lengths"])
@cells
@engines
def test_a_sequence_is_two_chunks_with_carried_state(engine: str, name: str, case: str) -> None:
    problem, cut = build(name, CASES[case]), 2
    unroll = engine_for(engine, problem).unroll

    def two_chunks(cell, w, inputs, state, lengths, reverse):  # type: ignore[no-untyped-def]
        outputs: dict[int, Tensor] = {}
        for i in (1, 0) if reverse else (0, 1):
            chunk = inputs._replace(x=(inputs.x[:cut], inputs.x[cut:])[i])
            in_chunk = None if lengths is None else (lengths.clamp(max=cut), (lengths - cut).clamp(min=0))[i]
            outputs[i], state = unroll(cell, w, chunk, state, in_chunk, reverse)
        return torch.cat([outputs[0], outputs[1]]), state

    for chunks, whole in zip(solve(two_chunks, problem), solve(unroll, problem), strict=True):
        assert_same(chunks, whole)


def nonlinear_loss(outputs: Tensor) -> Tensor:
    return (outputs * draw(*outputs.shape, seed=30).detach()).sin().sum()


@pytest.mark.parametrize("size", [1, 2, 4, 6])
@cells
@engines
def test_truncated_bptt_is_autograd_with_detached_state(engine: str, name: str, size: int) -> None:
    """Chunks of `size` steps, the state carried detached, gradients of all chunks added up; 6 is the full sequence."""
    problem = build(name, CASES["dense"])
    runs, x, w = engine_for(engine, problem), problem.inputs.x, problem.w
    leaves = [x, *w]
    ours, truth = ([torch.zeros_like(leaf) for leaf in leaves] for _ in range(2))
    state, by_formula = problem.state, problem.state
    for start in range(0, len(x), size):
        chunk = x[start : start + size]
        state = tuple(s.detach() for s in state)
        outputs, state = runs.unroll(problem.cell, w, Inputs(chunk), state)
        for total, g in zip(ours, torch.autograd.grad(nonlinear_loss(outputs), leaves), strict=True):
            total += g
        by_formula, expected = tuple(s.detach() for s in by_formula), []
        for x_t in chunk:
            by_formula = PUBLISHED[name](w, x_t, by_formula)
            expected.append(by_formula[0])
        loss = nonlinear_loss(torch.stack(expected))
        for total, g in zip(truth, torch.autograd.grad(loss, leaves), strict=True):
            total += g
        assert_same([outputs, *state], [torch.stack(expected), *by_formula])
    assert_same(ours, truth)


# Derivatives


@pytest.mark.parametrize("case", ["dense", "lengths", "reverse, lengths", "constant", "table"])
@cells
@engines
def test_gradcheck(engine: str, name: str, case: str) -> None:
    short = replace(CASES[case], steps=3, batch=2, lengths=CASES[case].lengths and (3, 1))
    problem = build(name, short)
    runs, lengths = engine_for(engine, problem), problem.lengths

    def function(*_: Tensor) -> tuple[Tensor, ...]:  # gradcheck changes the leaves in place
        outputs, final = runs.unroll(*problem.call, lengths, short.reverse)
        return outputs, *final

    assert torch.autograd.gradcheck(function, problem.leaves, atol=1e-6, rtol=1e-5, fast_mode=case != "dense")


@cells
def test_loop_differentiates_twice(name: str) -> None:
    problem = build(name, Case(steps=3, batch=2, lengths=(3, 2)))

    def function(*_: Tensor) -> tuple[Tensor, ...]:
        outputs, final = ENGINES["loop"].unroll(*problem.call, problem.lengths)
        return outputs, *final

    assert torch.autograd.gradgradcheck(function, problem.leaves, fast_mode=True)


@pytest.mark.parametrize("loss", ["nonlinear", "linear"])
@cells
def test_bptt_differentiates_once_and_says_so(name: str, loss: str) -> None:
    problem = build(name, CASES["dense"])
    outputs, _ = ENGINES["bptt"].unroll(*problem.call)
    total = nonlinear_loss(outputs) if loss == "nonlinear" else outputs.sum()
    gradients = torch.autograd.grad(total, problem.leaves, create_graph=True, materialize_grads=True)
    penalty = sum(g.square().sum() for g in gradients)
    with pytest.raises(RuntimeError, match="once_differentiable|once differentiable|differentiate twice"):
        penalty.backward()


@pytest.mark.parametrize("case", ["table, constant, lengths", "reverse, lengths"])
@cells
@engines
def test_each_leaf_alone_and_a_kept_graph(engine: str, name: str, case: str) -> None:
    """Whatever is frozen, the gradient of the rest is the same; so it is the second time through the same graph."""
    truth = solve(ENGINES["loop"].unroll, build(name, CASES[case]))[1]
    for alone, expected in enumerate(truth):
        problem = build(name, CASES[case])
        for i, leaf in enumerate(problem.leaves):
            leaf.requires_grad_(i == alone)
        leaf, runs = problem.leaves[alone], engine_for(engine, problem)
        outputs, final = runs.unroll(*problem.call, problem.lengths, problem.reverse)
        loss = sum((r * draw(*r.shape, seed=20 + i).detach()).sum() for i, r in enumerate((outputs, *final)))
        for keep in (True, False):
            assert_same([*torch.autograd.grad(loss, leaf, retain_graph=keep)], [expected])


@pytest.mark.parametrize("case", ["dense", "lengths", "reverse, lengths", "all lengths zero", "T=0"])
@cells
@engines
def test_no_grad_gives_the_same_numbers(engine: str, name: str, case: str) -> None:
    problem = build(name, CASES[case])
    runs = engine_for(engine, problem)
    outputs, final = runs.unroll(*problem.call, problem.lengths, problem.reverse)
    with torch.no_grad():
        free, free_final = runs.unroll(*problem.call, problem.lengths, problem.reverse)
    assert free.grad_fn is None and all(s.grad_fn is None for s in free_final)
    assert_same([free, *free_final], [outputs, *final], 1e-14)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@cells
@engines
def test_what_stands_in_the_padding_does_not_matter(engine: str, name: str, reverse: bool) -> None:
    one, other = (build(name, Case(lengths=PADDED, reverse=reverse)) for _ in range(2))
    runs = engine_for(engine, one)
    padding = (torch.arange(6)[:, None] >= torch.tensor(PADDED))[..., None]
    with torch.no_grad():
        other.inputs.x.copy_(torch.where(padding, 1e3, other.inputs.x))
    results, gradients = solve(runs.unroll, one)
    for ours, theirs in zip((results, gradients), solve(runs.unroll, other), strict=True):
        assert_same(theirs, ours, 1e-12)
    assert not torch.where(padding, results[0], 0).any() and not torch.where(padding, gradients[0], 0).any()


# Memory, autocast, choice


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("backward", [False, True], ids=["dropped", "differentiated"])
@pytest.mark.parametrize("case", ["dense", "lengths", "reverse"])
@cells
@engines
def test_leaves_no_reference_cycle(engine: str, name: str, case: str, backward: bool, no_collector: None) -> None:
    problem = build(name, CASES[case])
    outputs, final = engine_for(engine, problem).unroll(*problem.call, problem.lengths, problem.reverse)
    if backward:
        (outputs.sum() + sum(s.sum() for s in final)).backward()
    watched = [weakref.ref(t) for t in (outputs, *final)]
    del outputs, final
    assert [ref() for ref in watched] == [None] * len(watched)


@pytest.mark.parametrize("case", ["dense", "lengths", "reverse, lengths", "one-hot", "constant"])
@cells
@engines
def test_under_autocast_an_engine_runs_or_says_why_not(engine: str, name: str, case: str) -> None:
    problem = build(name, CASES[case], torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        runs = engine_for(engine, problem)
        outputs, final = runs.unroll(*problem.call, problem.lengths, problem.reverse)
        refuses = {engine: ENGINES[engine].refuses(*problem.call) for engine in ENGINES}
    assert refuses["loop"] is None and "autocast" in refuses["bptt"] and refuses["torch"]
    truth, state = ENGINES["loop"].unroll(*problem.call, problem.lengths, problem.reverse)
    for ours, exact in zip((outputs, *final), (truth, *state), strict=True):
        assert (ours - exact).abs().max() <= 0.05 * exact.abs().max()  # bfloat16 has 8 bits, through six steps
    torch.autograd.grad(outputs.float().sum(), problem.leaves, allow_unused=True)


def test_the_choice_of_an_engine() -> None:
    problem = build("lstm", CASES["dense"])
    for name, engine in ENGINES.items():
        assert engine.name == name
        assert engine_for(name, problem) is engine or engine.refuses(*problem.call)
    for device in ("cpu", "cuda", "mps"):
        order = auto_order(device, problem.call[0])
        assert set(order) <= set(ENGINES) and order[-1] == "loop"
    willing = [name for name in auto_order("cpu", problem.call[0]) if ENGINES[name].refuses(*problem.call) is None]
    assert choose("auto", *problem.call) is ENGINES[willing[0]]
    with pytest.raises(InputError, match="'warp'.*" + ".*".join(ENGINES)) as raised:
        choose("warp", *problem.call)
    assert_one_sentence(str(raised.value))
