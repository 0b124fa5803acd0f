"""The engines: how a cell is unrolled over time. Adding one takes its file and a line in the table below."""

from unrolled.cells import Cell, Inputs, State, Weights
from unrolled.engines.aten import Torch
from unrolled.engines.bptt import Bptt
from unrolled.engines.engine import Engine
from unrolled.engines.loop import Loop
from unrolled.errors import InputError, UnrolledError

ENGINES: dict[str, Engine] = {"loop": Loop(), "bptt": Bptt(), "torch": Torch()}

AUTO: dict[str, tuple[str, ...]] = {"cuda": ("torch", "bptt", "loop")}
"""The order in which `auto` asks the engines, by device; any other device uses `AUTO_ELSEWHERE`."""
AUTO_ELSEWHERE = ("bptt", "torch", "loop")


def auto_order(device: str) -> tuple[str, ...]:
    """The names of the engines in the order `auto` asks them on a device type ("cpu", "cuda", …)."""
    return AUTO.get(device, AUTO_ELSEWHERE)


def choose(name: str, cell: Cell, w: Weights, inputs: Inputs, state: State) -> Engine:
    """The engine called `name`, or with "auto" the first in order that accepts the call.

    Raises `InputError` for an unknown name and `UnrolledError` where the named engine refuses.
    """
    if name == "auto":
        for candidate in auto_order(w.hh.device.type):
            if ENGINES[candidate].refuses(cell, w, inputs, state) is None:
                return ENGINES[candidate]
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}: choose one of auto, {', '.join(ENGINES)}")
    engine = ENGINES[name]
    if reason := engine.refuses(cell, w, inputs, state):
        raise UnrolledError(f"engine {name}: {reason}; use --engine auto")
    return engine


__all__ = ["ENGINES", "Engine", "auto_order", "choose"]
