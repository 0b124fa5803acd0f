"""The table of engines, and which of them `auto` picks. Adding an engine takes its file and a line here."""

from unrolled.cells import Cell, Inputs, State, Weights
from unrolled.engines.aten import Torch
from unrolled.engines.bptt import Bptt
from unrolled.engines.engine import Engine
from unrolled.engines.fused import Fused
from unrolled.engines.loop import Loop
from unrolled.engines.onnx import Onnx, exporting
from unrolled.errors import InputError, UnrolledError

ENGINES: dict[str, Engine] = {"loop": Loop(), "bptt": Bptt(), "torch": Torch(), "fused": Fused()}

ONNX = Onnx()
"""Nobody's choice: what `choose` returns while a model is exported to ONNX."""

AUTO = ("fused", "bptt", "torch", "loop")
"""The order in which `auto` asks the engines."""
AUTO_LSTM = ("fused", "torch", "bptt", "loop")
"""The order for an LSTM on the CPU: where our kernels cannot run, oneDNN's are the next best."""
AUTO_CUDA = ("torch", "bptt", "loop")
"""The order where PyTorch has cuDNN's kernels."""


def auto_order(device: str, cell: Cell) -> tuple[str, ...]:
    """The names of the engines in the order `auto` asks them, on a device type ("cpu", "cuda", …)."""
    if device == "cuda":
        return AUTO_CUDA
    return AUTO_LSTM if device == "cpu" and cell.name == "lstm" else AUTO


def said(engine: str, asked: str, device: str, cell: Cell) -> str:
    """For people: the engine that runs, and where `auto` was asked for, whom it asks in which order."""
    return f"engine {engine}" + (f" (auto: {', '.join(auto_order(device, cell))})" if asked == "auto" else "")


def choose(name: str, cell: Cell, w: Weights, inputs: Inputs, state: State) -> Engine:
    """The engine called `name`, or with "auto" the first in order that accepts the call; for ONNX always its own nodes.

    Raises `InputError` for an unknown name and `UnrolledError` where the named engine refuses.
    """
    if exporting():
        return ONNX
    if name == "auto":
        order = (ENGINES[candidate] for candidate in auto_order(w.hh.device.type, cell))
        return next(engine for engine in order if engine.refuses(cell, w, inputs, state) is None)
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}: choose one of auto, {', '.join(ENGINES)}")
    engine = ENGINES[name]
    if reason := engine.refuses(cell, w, inputs, state):
        raise UnrolledError(f"engine {name}: {reason}; use --engine auto")
    return engine
