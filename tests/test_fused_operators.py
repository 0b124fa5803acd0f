"""The fused engine's operators: as PyTorch checks and traces them, wrongly called, from many threads; their memory."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CASES, PADDED, Case, assert_one_sentence, build, draw
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

import unrolled.nn
from unrolled.cells import CELLS, Inputs
from unrolled.engines import ENGINES
from unrolled.engines.fused import NUMBERS, register
from unrolled.engines.native import build as native
from unrolled.nn import Recurrent

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=f"no compiled kernels: {native.unavailable()}")
cells = pytest.mark.parametrize("name", CELLS)
HOW = ("w_ih", "w_ih, lengths", "tokens, lengths", "input part, reverse")
STEPS, BATCH, FEATURES, HIDDEN, VOCABULARY = 4, 3, 5, 7, 6


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register()
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def arguments(name: str, how: str, wants_gradients: bool = False) -> dict[str, Any]:
    """What the operator `unroll` is called with, by name and in order."""
    cell, seeds = CELLS[name], iter(range(20))

    def leaf(*shape: int) -> Tensor:
        return draw(*shape, seed=next(seeds)).detach().float().requires_grad_(wants_gradients)

    rows = cell.gates * HIDDEN
    tokens, w_ih, bias_ih = None, None, None
    if "w_ih" in how:
        x, w_ih, bias_ih = leaf(STEPS, BATCH, FEATURES), leaf(rows, FEATURES), leaf(rows)
    elif "tokens" in how:
        x, tokens = leaf(VOCABULARY, rows), torch.arange(STEPS * BATCH).view(STEPS, BATCH) % VOCABULARY
    else:
        x = leaf(STEPS, BATCH, rows)
    return {
        "x": x, "tokens": tokens, "w_ih": w_ih, "bias_ih": bias_ih, "w_hh": leaf(rows, HIDDEN), "bias_hh": leaf(rows),
        "h0": leaf(BATCH, HIDDEN), "c0": leaf(BATCH, HIDDEN) if cell.states > 1 else None,
        "lengths": torch.tensor([4, 0, 2]) if "lengths" in how else None,
        "cell": NUMBERS[cell.name], "reverse": "reverse" in how, "keep": True,
    }  # fmt: skip


def backward_arguments(name: str, how: str) -> dict[str, Any]:
    """What the operator `unroll_backward` is called with after that."""
    given = arguments(name, how)
    outputs, h, c, kept = torch.ops.unrolled.unroll(*given.values())
    for key in ("bias_ih", "bias_hh", "keep"):
        del given[key]
    gradients = {"d_outputs": outputs + 1, "d_h": h - 1, "d_c": c + 2 if given["c0"] is not None else None}
    return {**gradients, "outputs": outputs, "kept": kept, **given, "need_x": True}


# As PyTorch sees them


@pytest.mark.parametrize("how", HOW)
@cells
def test_opcheck(name: str, how: str) -> None:
    """Schema, shapes without numbers, autograd, and tracing with sizes left open."""
    forward = tuple(arguments(name, how, wants_gradients=True).values())
    torch.library.opcheck(torch.ops.unrolled.unroll.default, forward)
    torch.library.opcheck(torch.ops.unrolled.unroll_backward.default, tuple(backward_arguments(name, how).values()))


LAYERS = {"lstm": unrolled.nn.LSTM, "gru": unrolled.nn.GRU, "rnn": unrolled.nn.RNN}


def results_and_gradients(layer: torch.nn.Module, call: Callable[..., Any], x: Tensor) -> list[Tensor]:
    leaves = [x, *layer.parameters()]
    outputs, state = call(x)
    loss = outputs.sin().sum() + sum(s.square().sum() for s in (state if isinstance(state, tuple) else (state,)))
    return [outputs.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("engine", ["fused", "auto"])
@pytest.mark.parametrize("name", LAYERS)
def test_torch_compile_sees_one_graph(name: str, engine: str) -> None:
    """Forward and backward, traced once for all sizes; what inductor makes of the graph: the slow test below."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer = LAYERS[name](5, 7, 2, bidirectional=True, engine=engine)
    traced = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend=traced)
    frames = set()
    for steps, batch in ((4, 3), (6, 2), (9, 5)):
        x = torch.randn(steps, batch, 5, requires_grad=True)
        for ours, truth in zip(
            results_and_gradients(layer, compiled, x), results_and_gradients(layer, layer, x), strict=True
        ):
            torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-6)
        frames.add(traced.frame_count)
    assert len(frames) == 1, "one trace for all sizes"
    with torch.no_grad():
        assert torch.equal(compiled(x)[0], layer(x)[0])


def test_torch_compile_with_tokens_and_lengths() -> None:
    torch._dynamo.reset()
    layer = Recurrent(CELLS["gru"], FEATURES, HIDDEN, engine="fused")
    table, tokens = torch.randn(6, FEATURES, requires_grad=True), torch.arange(12).view(4, 3) % 6
    lengths = torch.tensor([4, 0, 2])

    def call(x: Tensor) -> Any:
        return layer.unroll(Inputs(tokens, x), None, lengths)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for ours, truth in zip(
        results_and_gradients(layer, compiled, table), results_and_gradients(layer, call, table), strict=True
    ):
        torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-6)


INDUCTOR = """
import torch
from unrolled.nn import GRU, LSTM, RNN
for layer in (LSTM(5, 7, 2), GRU(5, 7), RNN(5, 7, nonlinearity="relu")):  # the first builds and registers while tracing
    compiled = torch.compile(layer, fullgraph=True)
    for steps in (4, 6, 9):
        x = torch.randn(steps, 3, 5, requires_grad=True)
        made, expected = [], []
        for call, into in ((compiled, made), (layer, expected)):
            outputs = call(x)[0]
            into += [outputs, *torch.autograd.grad(outputs.sin().sum(), [x, *layer.parameters()])]
        for ours, truth in zip(made, expected, strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-6, atol=1e-6)
"""


@pytest.mark.slow
def test_inductor_in_a_fresh_process(tmp_path: Path) -> None:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", INDUCTOR], env=environment, check=True, timeout=300)


@pytest.mark.parametrize("loss", ["nonlinear", "linear"])
@cells
def test_differentiates_once_and_says_so(name: str, loss: str) -> None:
    problem = build(name, CASES["dense"], torch.float32)
    outputs, _ = ENGINES["fused"].unroll(*problem.call)
    total = outputs.sin().sum() if loss == "nonlinear" else outputs.sum()
    gradients = torch.autograd.grad(total, problem.leaves, create_graph=True, materialize_grads=True)
    with pytest.raises(RuntimeError, match="the fused engine is once differentiable"):
        sum(g.square().sum() for g in gradients).backward()


# Called wrongly


def transposed(t: Tensor) -> Tensor:
    return t.transpose(-1, -2)


WRONG: dict[str, tuple[str, str, Callable[[Tensor], Any], str]] = {
    # what is wrong: (how it is called, the argument, what becomes of it, what is said)
    "x short": ("w_ih", "x", lambda t: t[..., :-1], "x has sizes (4, 3, 4), not (any, any, 5)"),
    "x flat": ("w_ih", "x", lambda t: t[0], "x has sizes (3, 5), not (any, any, 5)"),
    "x double": ("w_ih", "x", lambda t: t.double(), "x does not hold float32"),
    "x half": ("w_ih", "x", lambda t: t.bfloat16(), "x does not hold float32"),
    "input part short": ("input part", "x", lambda t: t[..., :-1], "x has sizes"),
    "table short": ("tokens", "x", lambda t: t[..., :-1], "x has sizes"),
    "table of one token": ("tokens", "x", lambda t: t[0], "x has sizes"),
    "table empty": ("tokens", "x", lambda t: t[:0], "token 0 at position 0 is not in the table of 0 rows"),
    "token too large": ("tokens", "tokens", lambda t: t + 1, "token 6 at position 5 is not in the table of 6 rows"),
    "token negative": ("tokens", "tokens", lambda t: t - 1, "token -1 at position 0 is not in the table"),
    "token far away": ("tokens", "tokens", lambda t: t - 2**62, "is not in the table of 6 rows"),
    "tokens int32": ("tokens", "tokens", lambda t: t.int(), "tokens does not hold int64"),
    "tokens flat": ("tokens", "tokens", lambda t: t[0], "tokens has sizes (3), not (any, any)"),
    "tokens beside w_ih": ("w_ih", "tokens", lambda _: torch.zeros(4, 3).long(), "w_ih is left out"),
    "w_ih rows": ("w_ih", "w_ih", lambda t: t[1:], "w_ih has sizes"),
    "w_ih turned": ("w_ih", "w_ih", transposed, "w_ih has sizes"),
    "w_ih without columns": ("w_ih", "w_ih", lambda t: t[:, :0], "a weight has no columns"),
    "w_hh rows": ("w_ih", "w_hh", lambda t: t[1:], "w_hh has sizes"),
    "w_hh flat": ("w_ih", "w_hh", lambda t: t[0], "w_hh has sizes (7), not (any, any)"),
    "w_hh without columns": ("w_ih", "w_hh", lambda t: t[:0, :0], "a weight has no columns"),
    "h0 short": ("w_ih", "h0", lambda t: t[1:], "h0 has sizes (2, 7), not (3, 7)"),
    "h0 turned": ("w_ih", "h0", transposed, "h0 has sizes (7, 3), not (3, 7)"),
    "lengths short": ("w_ih", "lengths", lambda _: torch.tensor([1, 2]), "lengths has sizes (2), not (3)"),
    "lengths int32": ("w_ih", "lengths", lambda _: torch.tensor([1, 2, 3]).int(), "lengths does not hold int64"),
    "length too large": ("w_ih", "lengths", lambda _: torch.tensor([1, 5, 3]), "length 5 of row 1 is not between"),
    "length negative": ("w_ih", "lengths", lambda _: torch.tensor([1, 2, -1]), "length -1 of row 2 is not between"),
    "cell": ("w_ih", "cell", lambda _: 4, "there is no cell 4"),
}  # fmt: skip
WRONG_FORWARD = {
    "bias_ih": ("w_ih", "bias_ih", lambda t: t[1:], "bias_ih has sizes"),
    "bias_ih alone": ("tokens", "bias_ih", lambda _: torch.zeros(28), "bias_ih is added with w_ih"),
    "bias_hh": ("w_ih", "bias_hh", lambda t: t[1:], "bias_hh has sizes"),
    "c0 missing": ("w_ih", "c0", lambda _: None, "c0 is for the LSTM"),
}
WRONG_BACKWARD = {
    "outputs": ("w_ih", "outputs", lambda t: t[1:], "outputs has sizes"),
    "nothing kept": ("w_ih", "kept", lambda t: t.new_empty(0), "kept has sizes (0), not (4, 3, 35)"),
    "d_outputs": ("w_ih", "d_outputs", lambda t: t[..., 1:], "d_outputs has sizes"),
    "d_outputs double": ("w_ih", "d_outputs", lambda t: t.double(), "d_outputs does not hold float32"),
    "d_h": ("w_ih", "d_h", lambda t: t[1:], "d_h has sizes"),
    "d_c": ("w_ih", "d_c", lambda t: t[1:], "d_c has sizes"),
}


def assert_refused(operator: Any, given: dict[str, Any], wrong: tuple[str, str, Callable[..., Any], str]) -> None:
    _, argument, change, said = wrong
    operator(*given.values())  # right as it is
    given[argument] = change(given[argument])
    with pytest.raises(RuntimeError, match=re.escape(said)):
        operator(*given.values())


@pytest.mark.parametrize("wrong", WRONG | WRONG_FORWARD)
def test_a_wrong_call_is_refused(wrong: str) -> None:
    case = (WRONG | WRONG_FORWARD)[wrong]
    assert_refused(torch.ops.unrolled.unroll, arguments("lstm", case[0]), case)


@pytest.mark.parametrize("wrong", WRONG | WRONG_BACKWARD)
def test_a_wrong_backward_call_is_refused(wrong: str) -> None:
    case = (WRONG | WRONG_BACKWARD)[wrong]
    assert_refused(torch.ops.unrolled.unroll_backward, backward_arguments("lstm", case[0]), case)


def test_a_state_too_many_is_refused() -> None:
    given = arguments("gru", "w_ih")
    with pytest.raises(RuntimeError, match="c0 is for the LSTM"):
        torch.ops.unrolled.unroll(*{**given, "c0": given["h0"]}.values())


@pytest.mark.parametrize("argument", ["x", "w_ih", "bias_hh", "h0", "lengths"])
def test_a_tensor_on_another_device_never_reaches_the_kernel(argument: str) -> None:
    given = arguments("gru", "w_ih, lengths")
    with pytest.raises(RuntimeError, match="the tensors are on several devices"):
        torch.ops.unrolled.unroll(*{**given, argument: given[argument].to("meta")}.values())


def test_what_the_engine_refuses_it_says_in_a_sentence() -> None:
    problem = build("lstm", CASES["dense"], torch.float32)
    refuses, (cell, w, inputs, state) = ENGINES["fused"].refuses, problem.call
    for other, said in ((torch.float64, "float64"), (torch.bfloat16, "bfloat16"), (torch.complex64, "complex64")):
        for call in (
            (cell, w._replace(ih=w.ih.to(other)), inputs, state),
            (cell, w, inputs, (state[0], state[1].to(other))),
            (cell, w, Inputs(inputs.x.long()[..., 0], w.ih.to(other)), state),
        ):
            assert said in str(reason := refuses(*call))
            assert_one_sentence(reason)
    for call in (
        (cell, w._replace(hh=w.hh.to("meta")), inputs, state),
        (cell, w, Inputs(inputs.x.to("meta")), state),
        (cell, w, inputs, (state[0], state[1].to("meta"))),
    ):
        assert "on meta" in str(reason := refuses(*call))
        assert_one_sentence(reason)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert "autocast" in str(reason := refuses(*problem.call))
        assert_one_sentence(reason)
    assert refuses(*problem.call) is None


# Threads and memory


def test_many_threads_at_once() -> None:
    """Each has scratch memory of its own."""
    torch.set_num_threads(2)
    sizes = [(64, 33), (3, 5), (1, 100), (20, 17)]
    layers = [unrolled.nn.LSTM(9, hidden, engine="fused") for _, hidden in sizes]
    inputs = [torch.randn(12, batch, 9) for batch, _ in sizes]

    def run(i: int) -> list[Tensor]:
        outputs, _ = layers[i](inputs[i])
        return [outputs.detach(), *torch.autograd.grad(outputs.sin().sum(), list(layers[i].parameters()))]

    expected, wrong = [run(i) for i in range(4)], []

    def work(first: int) -> None:
        for n in range(40):
            i = (first + n) % 4
            if not all(torch.equal(a, b) for a, b in zip(run(i), expected[i], strict=True)):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


class Kept(TorchDispatchMode):
    """Notes how many numbers each forward call keeps for a backward one."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.unrolled.unroll.default:
            self.sizes.append(result[3].numel())
        return result


@cells
def test_without_gradients_nothing_is_kept(name: str) -> None:
    problem = build(name, Case(lengths=PADDED), torch.float32)
    with Kept() as kept:
        for grad in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            with grad():
                ENGINES["fused"].unroll(*problem.call, problem.lengths)
    numbers = {"lstm": 5, "gru": 4}.get(name, 0) * problem.inputs.x.shape[:2].numel() * problem.state[0].shape[1]
    assert kept.sizes == [0, 0, numbers]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux")
def test_nothing_leaks() -> None:
    layer = unrolled.nn.GRU(32, 64, engine="fused")
    x = torch.randn(50, 16, 32, requires_grad=True)

    def megabytes() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def run() -> None:
        for _ in range(200):  # what a call keeps and returns is 3 MB
            outputs, _ = layer(x)
            outputs.sum().backward()
            layer.zero_grad()
            x.grad = None

    run()
    before = megabytes()
    run()
    assert megabytes() - before < 30
