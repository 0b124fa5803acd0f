"""The competitors in generation: the same model in PyTorch, eager and compiled, and in ONNX Runtime.

Each writes tokens from a state of zeros, a step after the other, with the cheapest sampling we could find for it. A
family has several variants (layers or cells, one thread or all); the caller keeps the fastest.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.app.bench.measure import Contender, Effort, alternate
from unrolled.app.bench.peers import LAYERS, TorchModel, fresh_compiler

INSTALL = "install unrolled[bench]"
CELLS: dict[str, Any] = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
Draw = Callable[[np.ndarray], np.ndarray]
"""Scores (B, V) to tokens (B,)."""


class Sampler:
    """Draws from softmax(scores), temperature 1: the inverse of the cumulated distribution, in NumPy."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        if len(scores) == 1:  # one row has cheaper calls
            row = scores[0]
            cumulated = np.exp(row - row.max()).cumsum()
            return np.asarray([cumulated.searchsorted(self.random.random() * cumulated[-1])])
        cumulated = np.exp(scores - scores.max(-1, keepdims=True)).cumsum(-1)
        return (cumulated < self.random.random((len(scores), 1)) * cumulated[:, -1:]).sum(-1)


def greedy(scores: np.ndarray) -> np.ndarray:
    return scores.argmax(-1)


class Writer:
    """Writes tokens. Subclasses say how one step is made; all rows begin with `first`."""

    def __init__(self, batch: int, first: int, threads: int) -> None:
        self.batch, self.first, self.threads, self.sampler = batch, first, threads, Sampler()

    def __call__(self, units: int) -> list[np.ndarray]:
        return self.write(units, self.sampler)

    def write(self, count: int, draw: Draw) -> list[np.ndarray]:
        """`count` times the tokens (B,) of all rows."""
        raise NotImplementedError


class TorchWriter(Writer):
    """A module that takes tokens (1, B) and state to scores (1, B, V) and state, under inference_mode."""

    def __init__(self, step: Callable[..., Any], state: tuple[Tensor, ...], first: int, threads: int) -> None:
        super().__init__(state[0].shape[1], first, threads)
        self.step, self.state = step, state

    @torch.inference_mode()
    def write(self, count: int, draw: Draw) -> list[np.ndarray]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            x, state, written = self._start()
            for _ in range(count):
                scores, state = self.step(x, state)
                written.append(draw(scores[0].numpy()))
                x = torch.from_numpy(written[-1].reshape(1, -1))
            return written
        finally:
            torch.set_num_threads(before)

    def _start(self) -> tuple[Tensor, tuple[Tensor, ...], list[Any]]:
        """What is read first, made under inference_mode as all that follows is: else torch.compile compiles twice."""
        return torch.full((1, self.batch), self.first), tuple(s.clone() for s in self.state), []


class MultinomialWriter(TorchWriter):
    """The same with PyTorch's own sampling, whose tokens never leave PyTorch."""

    @torch.inference_mode()
    def __call__(self, units: int) -> list[np.ndarray]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            x, state, written = self._start()
            for _ in range(units):
                scores, state = self.step(x, state)
                x = torch.multinomial(torch.softmax(scores[0], -1), 1).t()
                written.append(x)
            return list(torch.cat(written).numpy())
        finally:
            torch.set_num_threads(before)


class Step(nn.Module):
    """One timestep with `torch.nn`'s layers."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return self.model.scores(x, state)


class CellStep(nn.Module):
    """One timestep with `torch.nn`'s cells and the same weights, which spares the layers' work around each call."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        assert model.embedding is not None
        kind = next(name for name, layer in LAYERS.items() if isinstance(model.layers, layer))
        size, count = model.layers.hidden_size, model.layers.num_layers
        self.embedding, self.output = model.embedding, model.output
        self.cells = nn.ModuleList(CELLS[kind](size, size) for _ in range(count))
        for index, cell in enumerate(self.cells):
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            cell.load_state_dict({name: getattr(model.layers, f"{name}_l{index}") for name in names})

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        below, after = self.embedding(x[0]), []
        for index, cell in enumerate(self.cells):
            before = tuple(s[index] for s in state)
            new = cell(below, before if len(before) > 1 else before[0])
            after.append(new if isinstance(new, tuple) else (new,))
            below = after[-1][0]
        return self.output(below)[None], tuple(torch.stack(parts) for parts in zip(*after, strict=True))


def threads_to_try() -> list[int]:
    return sorted({1, torch.get_num_threads()})


def eager_writers(model: TorchModel, state: tuple[Tensor, ...], first: int) -> dict[str, Writer]:
    """Layers and cells, on one thread and on all."""
    writers: dict[str, Writer] = {}
    for threads in threads_to_try():
        for what, step in (("layers", Step(model)), ("cells", CellStep(model))):
            writers[f"{what}, {threads} threads"] = TorchWriter(step, state, first, threads)
            writers[f"{what}, {threads} threads, multinomial"] = MultinomialWriter(step, state, first, threads)
    return writers


def compiled_writers(model: TorchModel, state: tuple[Tensor, ...], first: int, threads: int) -> dict[str, Writer]:
    """Under torch.compile: layers (allowed in, which they are not by default) and cells on as many threads as suited
    eager code, and cells with weights frozen into the compiled code, on one thread and on all. Compiled when called."""
    fresh_compiler(allow_rnn=True)
    writers: dict[str, Writer] = {}
    for what, step in (("layers", Step(model)), ("cells", CellStep(model))):
        writers[f"{what}, {threads} threads"] = TorchWriter(torch.compile(step), state, first, threads)
    for threads in threads_to_try():
        frozen = torch.compile(CellStep(model), options={"freezing": True})
        writers[f"frozen cells, {threads} threads"] = TorchWriter(frozen, state, first, threads)
    return writers


# --- ONNX Runtime ----------------------------------------------------------------------------------------------------


class _Flat(nn.Module):
    """Without tuples, so that the exported inputs and outputs have names."""

    def __init__(self, model: TorchModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        scores, after = self.model.scores(x, state)
        return scores, *after


def export(model: TorchModel, state: tuple[Tensor, ...], path: Path) -> None:
    """Write the step as ONNX: inputs x, s0, …; outputs y, n0, …"""
    names = [str(i) for i in range(len(state))]
    x = torch.zeros(1, state[0].shape[1], dtype=torch.long)
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision is not installed, which nobody needs here
    with warnings.catch_warnings():
        # the layers flatten their weights while they are traced, and the exporter uses what PyTorch has deprecated
        warnings.filterwarnings("ignore", message="The tensor attributes? .*_flat_weights", category=UserWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        torch.onnx.export(
            _Flat(model).eval(),
            (x, *state),
            path,
            dynamo=True,
            verbose=False,
            input_names=["x", *(f"s{i}" for i in names)],
            output_names=["y", *(f"n{i}" for i in names)],
        )
    logger.setLevel(level)


class OnnxWriter(Writer):
    """ONNX Runtime, plain: arrays in, arrays out."""

    def __init__(self, session: Any, state: tuple[Tensor, ...], first: int, threads: int) -> None:
        super().__init__(state[0].shape[1], first, threads)
        self.session, self.zeros = session, [s.numpy() for s in state]
        self.inputs = [i.name for i in session.get_inputs()]

    def write(self, count: int, draw: Draw) -> list[np.ndarray]:
        x, state, written = np.full((1, self.batch), self.first), self.zeros, []
        for _ in range(count):
            scores, *state = self.session.run(None, dict(zip(self.inputs, (x, *state), strict=True)))
            written.append(draw(scores[0]))
            x = written[-1][None]
        return written


class BoundOnnxWriter(OnnxWriter):
    """ONNX Runtime on memory bound beforehand: the state goes to and fro between two places and is never copied."""

    def __init__(self, session: Any, state: tuple[Tensor, ...], first: int, threads: int) -> None:
        super().__init__(session, state, first, threads)
        from onnxruntime import OrtValue

        outputs = [output.name for output in session.get_outputs()]
        self.x = np.zeros((1, self.batch), dtype=np.int64)
        self.scores = np.zeros(session.get_outputs()[0].shape, dtype=np.float32)
        self.places = [[zero.copy() for zero in self.zeros] for _ in range(2)]
        self.bindings = []
        for before, after in (self.places, self.places[::-1]):
            binding = session.io_binding()
            for name, array in zip(self.inputs, (self.x, *before), strict=True):
                binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array))
            for name, array in zip(outputs, (self.scores, *after), strict=True):
                binding.bind_ortvalue_output(name, OrtValue.ortvalue_from_numpy(array))
            self.bindings.append(binding)

    def write(self, count: int, draw: Draw) -> list[np.ndarray]:
        written = []
        self.x[:] = self.first
        for place in self.places[0]:
            place[:] = 0
        for number in range(count):
            self.session.run_with_iobinding(self.bindings[number % 2])
            written.append(draw(self.scores[0]))
            self.x[0] = written[-1]
        return written


def onnx_writers(model: TorchModel, state: tuple[Tensor, ...], first: int) -> dict[str, Writer]:
    """Plain and bound, on one thread and on all. Raises ImportError where a package is missing."""
    import onnx  # noqa: F401 (what the exporter needs, named here so that its absence is said)
    import onnxruntime
    import onnxscript  # noqa: F401

    writers: dict[str, Writer] = {}
    with tempfile.TemporaryDirectory() as folder:
        export(model, state, Path(folder) / "step.onnx")
        for threads in threads_to_try():
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(Path(folder) / "step.onnx", options)
            writers[f"plain, {threads} threads"] = OnnxWriter(session, state, first, threads)
            writers[f"bound, {threads} threads"] = BoundOnnxWriter(session, state, first, threads)
    return writers


def fastest(writers: dict[str, Writer], effort: Effort) -> tuple[str, dict[str, float]]:
    """The name of the fastest, and tokens a second of one row of each."""
    heat = Effort(rounds=min(5, effort.rounds), seconds=effort.seconds / 3)
    timings = alternate((Contender(name, writer) for name, writer in writers.items()), heat)
    speeds = {name: 1 / timing.seconds for name, timing in timings.items()}
    return max(speeds, key=lambda name: speeds[name]), speeds
