"""ONNX's own recurrent nodes, which take the place of every engine while `torch.onnx.export` looks on.

PyTorch's exporter cannot do this for its own layers: it writes their timesteps out one by one, so the number of
timesteps becomes fixed. A node `LSTM`, `GRU` or `RNN` leaves time and batch open, and its runtime brings a kernel.
"""

import torch
from torch import Tensor

from unrolled.cells import Cell, Inputs, State, Weights
from unrolled.errors import UnrolledError

NODES = {"rnn_tanh": "RNN", "rnn_relu": "RNN", "lstm": "LSTM", "gru": "GRU"}
GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2)}
"""Our blocks of rows in ONNX's order: i, o, f, c of an LSTM and z, r, h of a GRU; an RNN has one."""


def exporting() -> bool:
    """Whether `torch.onnx.export(dynamo=True)` is recording the model."""
    return torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()


class Onnx:
    """Records a node instead of computing; the numbers that come out have the right shapes and mean nothing."""

    name = "onnx"

    def refuses(self, cell: Cell, w: Weights, inputs: Inputs, state: State) -> str | None:
        if cell.name not in NODES:
            return f"ONNX has no node for the cell {cell.name}"
        if inputs.constant is not None:
            return "ONNX's recurrent nodes take no constant input beside the sequence"
        return None

    def unroll(
        self,
        cell: Cell,
        w: Weights,
        inputs: Inputs,
        state: State,
        lengths: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, State]:
        if reason := self.refuses(cell, w, inputs, state):
            raise UnrolledError(f"this model cannot be exported: {reason}")
        x, hidden = inputs.dense(w), w.hh.shape[1]
        steps, batch = x.shape[:2]
        biases = [w.hh.new_zeros(len(w.hh)) if b is None else b for b in (w.bias_ih, w.bias_hh)]
        bias = torch.cat([_reordered(b, cell) for b in biases])
        # a length of 0 means different things to different runtimes, so they never see one
        seen = None if lengths is None else lengths.to(torch.int32).clamp(min=1)
        weights = [t.unsqueeze(0) for t in (_reordered(w.ih, cell), _reordered(w.hh, cell), bias)]
        attributes: dict[str, int | str | list[str]] = {"hidden_size": hidden}
        if reverse:
            attributes["direction"] = "reverse"
        if cell.name == "gru":
            attributes["linear_before_reset"] = 1
        if cell.name == "rnn_relu":
            attributes["activations"] = ["Relu"]
        outputs, *final = torch.onnx.ops.symbolic_multi_out(
            NODES[cell.name],
            [x, *weights, seen, *(s.unsqueeze(0) for s in state)],
            attributes,  # type: ignore[arg-type]
            dtypes=[x.dtype] * (1 + len(state)),
            shapes=[(steps, 1, batch, hidden), *[(1, batch, hidden)] * len(state)],
        )
        outputs, last = outputs.squeeze(1), tuple(s.squeeze(0) for s in final)
        if lengths is not None:
            alive = (lengths > 0).unsqueeze(1)
            outputs = torch.where(alive, outputs, 0)
            last = tuple(torch.where(alive, new, old) for new, old in zip(last, state, strict=True))
        return outputs, last


def _reordered(rows: Tensor, cell: Cell) -> Tensor:
    if cell.name not in GATES:
        return rows
    size = len(rows) // cell.gates
    order = [i * size + row for i in GATES[cell.name] for row in range(size)]
    return rows.index_select(0, torch.tensor(order, device=rows.device))  # one node, which exporters fold away
