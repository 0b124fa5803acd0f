"""Our layers exported to ONNX with time and batch left open, against themselves in PyTorch; prints a Markdown table.

    python benchmarks/onnx_parity.py

All layers are exported as one model: `torch.onnx.export` takes seconds for each call, whatever is in it. They run under
ONNX Runtime at other sizes than the example's, with the initial state given and the final state returned.
"""

import logging
import sys
import tempfile
import warnings
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import unrolled.nn

FEATURES, HIDDEN = 6, 8
EXAMPLE = (5, 3)
SIZES = ((5, 3), (1, 1), (37, 4))
"""Timesteps and rows of the batch: of the export, and of the comparisons."""

KINDS: dict[str, dict[str, Any]] = {
    "LSTM": {"kind": "LSTM"},
    "GRU": {"kind": "GRU"},
    "RNN tanh": {"kind": "RNN"},
    "RNN relu": {"kind": "RNN", "nonlinearity": "relu"},
}
Case = tuple[str, int, bool, bool]
CASES: list[Case] = [(name, layers, both, layers == 2) for name, layers, both in product(KINDS, (1, 2), (False, True))]
"""Kind, layers, bidirectional, batch_first: each of which is in half of the cases."""


class All(nn.Module):
    """A layer for each case, side by side; lengths only where asked for."""

    def __init__(self, cases: list[Case], with_lengths: bool) -> None:
        super().__init__()
        self.with_lengths = with_lengths
        options = [(dict(KINDS[name]), *case) for name, *case in cases]
        self.layers = nn.ModuleList(
            getattr(unrolled.nn, option.pop("kind"))(
                FEATURES, HIDDEN, layers, bidirectional=both, batch_first=batch_first, **option
            )
            for option, layers, both, batch_first in options
        )

    def forward(self, x: Tensor, states: list[Tensor], lengths: Tensor) -> list[Tensor]:
        """x: (T, B, I); a batch-first layer takes and gives the transpose. Per case: outputs, h and, of an LSTM, c."""
        results, states = [], list(states)
        for layer in self.layers:
            hx = tuple(states.pop(0) for _ in range(layer.cell.states))
            turned = x.transpose(0, 1) if layer.batch_first else x
            chosen = {"lengths": lengths} if self.with_lengths else {}
            outputs, state = layer(turned, hx if len(hx) > 1 else hx[0], **chosen)
            results += [outputs, *(state if len(hx) > 1 else (state,))]
        return results

    def inputs(self, steps: int, batch: int) -> tuple[Tensor, list[Tensor], Tensor]:
        states = [
            torch.randn(layer.num_layers * layer.directions, batch, HIDDEN)
            for layer in self.layers
            for _ in range(layer.cell.states)
        ]
        return torch.randn(steps, batch, FEATURES), states, torch.arange(batch).clamp(max=steps)


def differences(cases: list[Case], with_lengths: bool = False) -> list[float]:
    """The largest absolute difference of outputs and states from ONNX Runtime's, for each case."""
    import onnxruntime

    torch.manual_seed(0)
    model = All(cases, with_lengths).eval()
    x, states, lengths = model.inputs(*EXAMPLE)
    any_size = torch.export.Dim.DYNAMIC
    shapes = ({0: any_size, 1: any_size}, [{1: any_size}] * len(states), {0: any_size})
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision is not installed, which nobody needs here
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            for category in (DeprecationWarning, FutureWarning):  # of what the exporter itself uses
                warnings.filterwarnings("ignore", category=category)
            path = Path(folder) / "layers.onnx"
            torch.onnx.export(
                model,
                (x, states, lengths),
                path,
                dynamo=True,
                dynamic_shapes=shapes,
                external_data=False,
                verbose=False,
            )
            session = onnxruntime.InferenceSession(path)
    finally:
        logger.setLevel(level)
    worst = [0.0] * len(cases)
    for steps, batch in SIZES:
        x, states, lengths = model.inputs(steps, batch)
        tensors = [x, *states, lengths]
        names = [node.name for node in session.get_inputs()]
        theirs = session.run(None, {name: t.numpy() for name, t in zip(names, tensors, strict=True)})
        with torch.no_grad():
            ours = model(x, states, lengths)
        for index, layer in enumerate(model.layers):
            for _ in range(1 + layer.cell.states):
                mine, other = ours.pop(0), torch.from_numpy(theirs.pop(0))
                worst[index] = max(worst[index], float((mine - other).abs().max()))
    return worst


def main() -> None:
    import onnx
    import onnxruntime

    print(
        f"torch {torch.__version__}, onnx {onnx.__version__}, ONNX Runtime {onnxruntime.__version__}; largest absolute"
    )
    sizes = ", ".join(f"{steps} × {batch}" for steps, batch in SIZES)
    print(f"difference of outputs and final states at {sizes} (timesteps × rows), initial state given\n")
    print("| layer | layers | directions | batch_first | lengths absent | lengths given |")
    print("| --- | --- | --- | --- | --- | --- |")
    without, given = differences(CASES), differences(CASES, with_lengths=True)
    for (name, layers, both, batch_first), plain, padded in zip(CASES, without, given, strict=True):
        print(f"| {name} | {layers} | {1 + both} | {batch_first} | {plain:.1e} | {padded:.1e} |")
    if max(*without, *given) > 1e-5:
        sys.exit("a difference is above 1e-5")


if __name__ == "__main__":
    main()
