"""How far back gradients reach: the loss of one timestep, differentiated by the states of the timesteps before it.

L_t is the cross-entropy of the token after timestep t. The nodes are those of the unrolled graph as the cells build it:

    ∂L_t/∂h_{t-k}   The total derivative by the output h of timestep t-k, over all paths from it to the loss. An RNN and
                    a GRU have no other state, so whatever the loss owes to timestep t-k and before passes here.
    ∂L_t/∂c_{t-k}   LSTM: the total derivative by the cell state, over c_{t-k} → c_{t-k+1} → … and c_{t-k} → h_{t-k} → …
                    ∂L_t/∂h_{t-k} has none of the former: h_{t-k} comes after c_{t-k}, which stays as it is.

The direct path c_{t-k} → c_{t-k+1} multiplies by the forget gate alone, which is why gradients survive there
(Hochreiter & Schmidhuber 1997; Gers et al. 2000). In an RNN every timestep multiplies by W_hhᵀ and by slopes of at most
1 (Bengio et al. 1994; Pascanu et al. 2013, arXiv:1211.5063).
"""

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unrolled.cells import Inputs, State
from unrolled.data.corpus import Tokens
from unrolled.errors import InputError
from unrolled.tasks.language_model import Network
from unrolled.topologies import ManyToMany

NODES = ("h", "c")
"""The parts of a state, in its order."""
FRACTIONS = (0.1, 0.01, 0.001)
"""Of its value at k = 1: where the reach is read off."""


def windows(tokens: Tokens, length: int, most: int) -> Tensor:
    """Up to `most` stretches of `length` tokens, as columns (length, rows), int64.

    Each lies in one document, none overlaps another, and they are spread evenly over the text.
    """
    ends = np.append(tokens.documents[1:], len(tokens.ids))
    starts = np.concatenate(
        [np.arange(first, end - length + 1, length) for first, end in zip(tokens.documents, ends, strict=True)]
    )
    chosen = starts[np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(np.int64)]
    where = chosen[None, :] + np.arange(length)[:, None]
    return torch.from_numpy(tokens.ids[where].astype(np.int64))


def gradient_norms(network: Network, tokens: Tensor, lags: int) -> dict[str, Tensor]:
    """‖∂L_t/∂h_{t-k}‖ for k = 0 … lags, and for an LSTM ‖∂L_t/∂c_{t-k}‖: each (lags + 1, rows), float64.

    tokens: (N, rows) with N ≥ lags + 2. The last row is what the loss asks for; of the others the last lags + 1 are the
    timesteps that are looked at, and those before them warm up the state. With several layers a norm is that of all
    layers' gradients together. Computed in float64 on a copy, since a gradient can fade below what float32 holds.
    Raises `InputError` where there are too few tokens, or the network has no recurrent layers.
    """
    if not isinstance(network.topology, ManyToMany):
        raise InputError("this model has no recurrent layers, so no gradient flows over time: train a many_to_many one")
    inputs, target = tokens[:-1], tokens[-1]
    warm_up = len(inputs) - lags - 1
    if warm_up < 0:
        raise InputError(f"{len(tokens)} tokens a row are too few for {lags} steps back: give at least {lags + 2}")
    network = copy.deepcopy(network).double().eval()
    topology, table = network.topology, network.table
    assert isinstance(topology, ManyToMany)
    with torch.no_grad():
        _, state = topology(Inputs(inputs[:warm_up], table))
    nodes = _unroll(topology, Inputs(inputs[warm_up:], table), state)
    # rows do not meet, so the gradient of the sum is every row's own
    loss = F.cross_entropy(topology.output(nodes[-1][-1][0]), target, reduction="sum")
    gradients = iter(torch.autograd.grad(loss, [node for layers in nodes for state in layers for node in state]))
    squares = torch.zeros(len(nodes), topology.recurrent.cell.states, tokens.shape[1], dtype=torch.float64)
    for t, layers in enumerate(nodes):
        for state in layers:
            for part in range(len(state)):
                squares[t, part] += next(gradients).square().sum(-1).cpu()
    norms = squares.sqrt().flip(0)  # from timesteps to steps back
    return {NODES[part]: norms[:, part] for part in range(norms.shape[1])}


def _unroll(topology: ManyToMany, inputs: Inputs, state: State) -> list[list[State]]:
    """The nodes of the unrolled graph: [timestep][layer], each a state of tensors (B, H).

    inputs: (T, B) tokens; state: each (layers, B, H), before the first timestep.
    """
    recurrent = topology.recurrent
    before = [tuple(part[layer] for part in state) for layer in range(recurrent.num_layers)]
    nodes: list[list[State]] = []
    for t in range(len(inputs.x)):
        below, layers = inputs.at(t), []
        for layer in range(recurrent.num_layers):
            layers.append(recurrent.cell.step(recurrent.weights(layer), below, before[layer]))
            below = Inputs(layers[-1][0])
        nodes.append(layers)
        before = layers
    return nodes


def summary(norms: Tensor) -> dict[str, Any]:
    """Median and quartiles over the rows for each k, and the reach of the median. norms: (lags + 1, rows)."""
    lower, median, upper = torch.quantile(norms, torch.tensor([0.25, 0.5, 0.75], dtype=norms.dtype), dim=1).tolist()
    return {
        "median": median,
        "lower_quartile": lower,
        "upper_quartile": upper,
        "reach": {f"{fraction:g}": reach(median, fraction) for fraction in FRACTIONS},
    }


def reach(norms: list[float], fraction: float) -> int | None:
    """The first k at which norms[k] has fallen to `fraction` of norms[1]; None where it never does.

    >>> reach([9.0, 8.0, 4.0, 2.0, 1.0], 0.25), reach([9.0, 8.0, 4.0], 0.25)
    (3, None)
    """
    return next((k for k in range(1, len(norms)) if norms[k] <= fraction * norms[1]), None)
