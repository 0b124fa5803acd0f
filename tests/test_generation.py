"""Generation in compiled code: the text of the Python path, whatever the cell, filters, batch and threads."""

import itertools
import math
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.cells import CELLS, Inputs
from unrolled.decoding import sampling
from unrolled.decoding.sampling import Sampling, draw, generate, probabilities
from unrolled.decoding.writers import CompiledWriter, Stack, TorchWriter, writer_for
from unrolled.engines.native import build
from unrolled.errors import UnrolledError
from unrolled.nn import Recurrent
from unrolled.tasks.models import LanguageModel
from unrolled.topologies import ManyToMany

Make = Callable[..., LanguageModel]
ALPHABET = "abcdefghijklmnopqrstuvwxyz ,.\n"
HOWS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.5},
    {"temperature": 0.0},
    {"top_k": 4},
    {"top_p": 0.7},
    {"min_p": 0.1},
    {"temperature": 1.5, "top_k": 9, "top_p": 0.9, "min_p": 0.02},
]


@pytest.fixture(autouse=True)
def compiled() -> None:
    if reason := build.unavailable():
        pytest.skip(reason)


@pytest.fixture
def make_calm(make_model: Make) -> Make:
    """Builds models whose state does not multiply small differences, as one with large recurrent weights does."""

    def make(*arguments: Any, **options: Any) -> LanguageModel:
        model = make_model(*arguments, **options)
        with torch.no_grad():
            for weight in model.network.topology.recurrent.parameters():
                weight.div_(3)
        return model

    return make


def same(ours: str, theirs: str) -> bool:
    """Equal; pytest would take minutes to show how two long texts differ."""
    return ours == theirs


def in_python(model: LanguageModel) -> LanguageModel:
    """The same model, written by PyTorch."""
    topology = model.network.topology
    assert isinstance(topology, ManyToMany)
    topology.recurrent.engine = "loop"
    return model


def writer_of(model: LanguageModel) -> sampling.Writer:
    scores, state = model._read(model.tokenizer.encode("a"), 1)
    return writer_for(model.network.topology, model.network.table, model.tokenizer.trained, scores, state)


def a_stack(
    cell: str, layers: int, hidden: int, rows: int, *, tokens: int = 30, bias: bool = True
) -> tuple[ManyToMany, torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    """A topology with random weights, its table, and scores and state to go on from."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        topology = ManyToMany(Recurrent(CELLS[cell], 6, hidden, layers, bias=bias), tokens + 3)
        table = torch.randn(tokens + 3, 6)
        with torch.no_grad():
            topology.output.weight.mul_(3)
        state = tuple(torch.randn(layers, rows, hidden) for _ in range(topology.recurrent.cell.states))
        return topology, table, torch.randn(rows, tokens), state


def both(
    topology: ManyToMany,
    table: torch.Tensor | None,
    scores: torch.Tensor,
    state: tuple[torch.Tensor, ...],
    threads: int = 0,
) -> tuple[CompiledWriter, TorchWriter, Stack]:
    with torch.inference_mode():
        stack = Stack(topology, table, scores.shape[1], state)
        assert stack.compiles()
        return CompiledWriter(stack, scores, state, threads), TorchWriter(stack.step, scores), stack


def uniforms(count: int, rows: int) -> np.ndarray:
    return np.random.default_rng(3).random((count, rows))


# The same text as the Python path


def assert_same_tokens(ours: LanguageModel, python: LanguageModel, count: int, how: Sampling) -> None:
    """`count` tokens, and the first difference excused where noise as small as rounding makes it in Python too."""
    u = uniforms(count, 1)
    kernel, stepper = writer_of(ours), writer_of(python)
    assert isinstance(kernel, CompiledWriter)
    assert isinstance(stepper, TorchWriter)
    for number, token in zip(u, kernel.write(u, how), strict=True):
        scores = stepper.scores.numpy()
        if stepper.write(number[None], how) != token:
            noise = np.random.default_rng(0).normal(scale=2e-6, size=(300, scores.shape[1]))
            assert token in draw(probabilities(scores + noise, how), number.repeat(300))
            return


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["rnn", "rnn_relu", "lstm", "gru"])
def test_tokens_are_those_of_the_python_path(make_calm: Make, cell: str, layers: int) -> None:
    options = {"cell": cell, "layers": layers, "hidden": 20}
    ours, python = make_calm(ALPHABET, **options), in_python(make_calm(ALPHABET, **options))
    for how in HOWS:
        assert_same_tokens(ours, python, 500, Sampling(**how))


@pytest.mark.parametrize("options", [{"embedding": 0}, {"hidden": 1}, {"hidden": 100, "layers": 2}], ids=str)
@pytest.mark.parametrize("characters", [ALPHABET, "가나다라마바사\n", None], ids=["char", "korean", "byte"])
def test_one_hot_tokens_bytes_and_ragged_sizes(make_calm: Make, characters: str, options: dict[str, int]) -> None:
    ours, python = make_calm(characters, **options), in_python(make_calm(characters, **options))
    for how in (Sampling(), Sampling(temperature=0.6, top_k=30)):
        assert_same_tokens(ours, python, 300, how)


@pytest.mark.parametrize("characters", [ALPHABET, "가나다라마바사\n", None], ids=["char", "korean", "byte"])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_text_is_that_of_the_python_path(make_calm: Make, cell: str, characters: str | None) -> None:
    ours, python = make_calm(characters, cell=cell), in_python(make_calm(characters, cell=cell))
    for prompt in ("", "나 é, \n"):
        assert same(ours.sample(prompt, 120, seed=1), python.sample(prompt, 120, seed=1))


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_rows_are_those_of_the_python_path_and_of_a_row_alone(make_calm: Make, cell: str) -> None:
    ours = make_calm(ALPHABET, cell=cell, hidden=17, layers=2)
    many = ours.sample_many(5, "", 200, seed=8, temperature=0.9)
    assert all(map(same, many, [ours.sample("", 200, seed=seed, temperature=0.9) for seed in range(8, 13)]))
    assert all(map(same, many, in_python(ours).sample_many(5, "", 200, seed=8, temperature=0.9)))


@pytest.mark.parametrize("characters", [ALPHABET, None], ids=["char", "byte"])
def test_stop_strings_end_blocks_where_they_end_tokens(make_calm: Make, characters: str | None) -> None:
    ours = make_calm(characters, hidden=16)
    whole = ours.sample("", 400, seed=3)
    python = in_python(make_calm(characters, hidden=16))
    for at in (0, 5, 9, 130, 395):
        stop = whole[at : at + 3]
        expected = whole.split(stop)[0]
        assert same(ours.sample("", 400, seed=3, stop=stop), expected)
        assert same(python.sample("", 400, seed=3, stop=stop), expected)
    many = ours.sample_many(3, "", 400, seed=3, stop=whole[130:133])
    assert many[0] == whole.split(whole[130:133])[0]


# The kernel against Stack.step and sampling.py


@pytest.mark.parametrize(("rows", "threads"), [(1, 1), (1, 2), (3, 1), (3, 3), (13, 2)])
@pytest.mark.parametrize("cell", ["rnn", "rnn_relu", "lstm", "gru"])
def test_tokens_scores_and_state_whatever_threads_and_blocks(cell: str, rows: int, threads: int) -> None:
    for hidden, layers in ((7, 1), (90, 2), (130, 3)):
        kernel, python, stack = both(*a_stack(cell, layers, hidden, rows), threads)
        u, how = uniforms(60, rows), Sampling(temperature=0.8)
        blocks = [kernel.write(u[begin:end], how) for begin, end in itertools.pairwise([0, 1, 8, 9, 37, 60])]
        assert np.concatenate(blocks).tolist() == python.write(u, how).tolist()
        torch.testing.assert_close(kernel.scores, python.scores, rtol=1e-4, atol=1e-5)
        states = [kernel.h, *([] if kernel.c is None else [kernel.c])]
        for ours, theirs in zip(states, zip(*stack.states, strict=True), strict=True):
            torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-4, atol=1e-5)


def test_layers_without_biases() -> None:
    kernel, python, _ = both(*a_stack("gru", 2, 12, 2, bias=False))
    assert kernel.write(uniforms(50, 2), Sampling()).tolist() == python.write(uniforms(50, 2), Sampling()).tolist()


def drawn(scores: np.ndarray, u: np.ndarray, how: Sampling) -> list[int]:
    """The kernel's tokens for scores (B, V) and u (B,)."""
    topology, table, _, state = a_stack("rnn", 1, 4, len(scores), tokens=scores.shape[1])
    kernel, _, _ = both(topology, table, torch.from_numpy(scores.astype(np.float32)), state)
    return kernel.write(u[None], how)[0].tolist()


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 65, 300])
def test_draws_are_those_of_sampling(size: int) -> None:
    random = np.random.default_rng(size)
    u = random.random(100)
    u[:2] = 0.0, math.nextafter(1, 0)
    plain = random.normal(size=(100, size)).astype(np.float32) * 3
    tied = np.round(plain)
    masked = np.where(random.random(plain.shape) < 0.5, -np.inf, plain).astype(np.float32)
    masked[:, 0] = 0
    for t, k, p, m in itertools.product((0.0, 0.4, 1.0), (0, 1, 7), (0.3, 0.95, 1.0), (0.0, 0.05, 1.0)):
        how = Sampling(temperature=t, top_k=k, top_p=p, min_p=m)
        for scores in (plain, tied, masked):
            assert drawn(scores, u, how) == draw(probabilities(scores, how), u).tolist()


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 5e-324, 1e300])
def test_draws_at_extreme_temperatures_and_scores(temperature: float) -> None:
    scores = np.array([[-1e30, 1e30, 5e29, 1e30], [-700, 0, 20, 44], [0, 0, 0, 0]], dtype=np.float32).repeat(50, 0)
    u = np.linspace(0, 1, 150, endpoint=False)
    how = Sampling(temperature=temperature)
    assert drawn(scores, u, how) == draw(probabilities(scores, how), u).tolist()


def test_the_kernel_says_what_it_changes() -> None:
    kernel, _, _ = both(*a_stack("lstm", 2, 9, 2))
    how = (1.0, 0, 1.0, 0.0, 0)
    arguments = (kernel.packed, kernel.parts, kernel.h, kernel.c, kernel.scores, torch.rand(3, 2).double(), kernel.cell)
    torch.library.opcheck(torch.ops.unrolled.generate.default, (*arguments, *how), test_utils="test_schema")


# What cannot be drawn


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("path", [lambda model: model, in_python], ids=["compiled", "python"])
def test_scores_that_are_no_numbers_end_in_a_sentence(
    make_model: Make, path: Any, temperature: float, bad: float
) -> None:
    model = path(make_model(ALPHABET))
    with torch.no_grad():
        model.network.topology.output.bias[3] = bad
    with pytest.raises(UnrolledError, match="scores are not finite numbers"):
        model.sample("a", 20, temperature=temperature)


def test_what_was_written_before_the_numbers_ended_is_shown(make_model: Make) -> None:
    model = make_model(ALPHABET)
    fatal = model.sample("", 60, seed=1)[-1]  # a step on this character yields no numbers
    expected = model.sample("", 60, seed=1, stop=fatal) + fatal
    with torch.no_grad():
        model.network.table[model.tokenizer.encode(fatal)[0]] = math.nan
    for path in (model, in_python(model)):
        shown = ""
        with pytest.raises(UnrolledError, match="not finite"):
            for piece in path.stream("", 60, seed=1):
                shown += piece
        assert shown == expected


# Who writes


def test_the_compiled_writer_is_taken_where_it_can_be(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(writer_of(make_model()), CompiledWriter)
    assert isinstance(writer_of(make_model(engine="fused")), CompiledWriter)
    for engine in ("loop", "bptt", "torch"):
        assert isinstance(writer_of(make_model(engine=engine)), TorchWriter)
    assert isinstance(writer_of(make_model(topology="one_to_one")), TorchWriter)
    double = make_model()
    double.network.double()
    assert isinstance(writer_of(double), TorchWriter)
    with torch.autocast("cpu", torch.bfloat16):
        assert isinstance(writer_of(make_model()), TorchWriter)
    monkeypatch.setattr(build, "unavailable", lambda: "there is no compiler")
    assert isinstance(writer_of(make_model()), TorchWriter)


def test_sampling_leaves_the_model_and_the_state_it_began_with(make_model: Make) -> None:
    model = make_model(ALPHABET, layers=2)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    scores, state = model._read(model.tokenizer.encode("a"), 2)
    kept = [s.clone() for s in (scores, *state)]
    writer_for(model.network.topology, model.network.table, 30, scores, state).write(uniforms(9, 2), Sampling())
    for now, then in zip((scores, *state), kept, strict=True):
        assert torch.equal(now, then)
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name])
    tokens = Inputs(torch.tensor([[1, 2]]), model.network.table)
    model.network.topology(tokens)[0].sum().backward()  # it can still be trained


# Blocks


class Slow:
    """A writer whose tokens take so many seconds each, on a clock of its own."""

    def __init__(self, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.now, self.sizes = seconds, 0.0, list[int]()
        monkeypatch.setattr(sampling.time, "perf_counter", lambda: self.now)

    def write(self, u: np.ndarray, how: Sampling) -> np.ndarray:
        self.now += self.seconds * len(u)
        self.sizes.append(len(u))
        return np.zeros(u.shape, dtype=np.int64)


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 1e-4, 0.02, 1.0])
def test_blocks_start_small_and_stay_short(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, wanted = Slow(seconds, monkeypatch), 20_000 if seconds < 0.01 else 50
    for _ in generate(writer, Sampling(), [0], lambda: wanted - sum(writer.sizes)):
        pass
    assert sum(writer.sizes) == wanted
    assert writer.sizes[0] == sampling.FIRST_BLOCK
    for before, after in itertools.pairwise(writer.sizes):
        assert after <= sampling.GROWTH * before
        assert after == 1 or after * seconds <= sampling.BLOCK_SECONDS * 1.001


def test_ctrl_c_is_answered_between_blocks(make_model: Make) -> None:
    model = make_model(ALPHABET)
    expected = model.sample("", 50, seed=1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            model.sample("", 10**9)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert model.sample("", 50, seed=1) == expected


def test_texts_can_be_written_in_turns(make_model: Make) -> None:
    model = make_model(ALPHABET)
    streams: list[Iterator[str]] = [model.stream("", 300, seed=seed) for seed in (1, 2)]
    texts = ["", ""]
    for pieces in itertools.zip_longest(*streams, fillvalue=""):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
    assert texts == [model.sample("", 300, seed=seed) for seed in (1, 2)]
