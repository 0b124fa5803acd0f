"""How far back gradients reach: against PyTorch's cells, a closed form and finite differences; and in which windows."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import PUBLISHED, assert_one_sentence
from torch import Tensor, nn

from unrolled.data.corpus import Tokens
from unrolled.errors import InputError
from unrolled.inspection.gradient_flow import gradient_norms, reach, summary, windows
from unrolled.tasks.language_model import Network
from unrolled.tasks.models import LanguageModel

MakeModel = Callable[..., LanguageModel]
STEPS, ROWS, LAGS = 17, 3, 9


def some_tokens() -> Tensor:
    return torch.randint(9, (STEPS + 1, ROWS), generator=torch.Generator().manual_seed(4))


def test_a_cell_state_counts_all_its_paths(make_model: MakeModel) -> None:
    """∂L_t/∂c_t and ∂L_t/∂c_{t-1} by finite differences, where a nudge of c also moves the h of its own timestep."""
    model = make_model(cell="lstm", hidden=3)
    tokens, network = some_tokens()[:, :1], model.network.double()
    w = network.topology.recurrent.weights(0)

    def loss(back: int, unit: int, nudge: float) -> float:
        state = (torch.zeros(1, 3).double(),) * 2
        for t, x in enumerate(tokens[:-1]):
            h, c = PUBLISHED["lstm"](w, network.table[x], state)
            if t == STEPS - 1 - back:
                o, c = h / c.tanh(), c + nudge * torch.eye(3)[unit]
                h = o * c.tanh()
            state = (h, c)
        return F.cross_entropy(network.topology.output(state[0]), tokens[-1]).item()

    with torch.no_grad():
        for back in (0, 1, 5):
            slopes = [(loss(back, unit, 1e-5) - loss(back, unit, -1e-5)) / 2e-5 for unit in range(3)]
            expected = math.hypot(*slopes)
            with torch.enable_grad():
                found = gradient_norms(network, tokens, LAGS)["c"][back].item()
            assert found == pytest.approx(expected, rel=1e-6)


def test_an_rnns_gradients_are_products_of_jacobians(make_model: MakeModel) -> None:
    """∂L/∂h_{t-1} = W_hhᵀ diag(1 - h_t²) ∂L/∂h_t, from the softmax down, by hand in float64."""
    model = make_model(cell="rnn")
    tokens = some_tokens()
    network = {name: p.detach().double() for name, p in model.network.named_parameters()}
    w_hh, table = network["topology.recurrent.weight_hh_l0"], network["table"]
    bias = network["topology.recurrent.bias_ih_l0"] + network["topology.recurrent.bias_hh_l0"]
    h, states = torch.zeros(ROWS, 8, dtype=torch.float64), []
    for x in tokens[:-1]:
        h = torch.tanh(table[x] @ network["topology.recurrent.weight_ih_l0"].T + h @ w_hh.T + bias)
        states.append(h)
    scores = h @ network["topology.output.weight"].T + network["topology.output.bias"]
    error = scores.softmax(-1) - F.one_hot(tokens[-1], scores.shape[1])
    expected = [error @ network["topology.output.weight"]]
    for k in range(LAGS):
        expected.append((expected[-1] * (1 - states[-1 - k] ** 2)) @ w_hh)
    norms = gradient_norms(model.network, tokens, LAGS)
    assert set(norms) == {"h"}
    torch.testing.assert_close(norms["h"], torch.stack(expected).norm(dim=-1), rtol=1e-10, atol=0)


CELLS = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}


def pytorchs_cells(cell: str, network: Network, layers: int) -> list[nn.Module]:
    """In float64, with the network's weights."""
    stack = []
    for layer in range(layers):
        weights = {
            re.sub(r"_l\d$", "", name): p.double()
            for name, p in network.topology.recurrent.state_dict().items()
            if name.endswith(f"_l{layer}")
        }
        module = CELLS[cell](weights["weight_ih"].shape[1], weights["weight_hh"].shape[1]).double()
        module.load_state_dict(weights)
        stack.append(module)
    return stack


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_pytorchs_cells(make_model: MakeModel, cell: str, layers: int) -> None:
    """Each node of PyTorch's own graph keeps its gradient."""
    model = make_model(cell=cell, layers=layers, seed=layers)
    tokens, network = some_tokens(), model.network
    stack = pytorchs_cells(cell, network, layers)
    below_states: list[Any] = [None] * layers
    nodes: list[list[tuple[Tensor, ...]]] = []
    for x in tokens[:-1]:
        below, now = network.table.detach().double()[x], []
        for layer, module in enumerate(stack):
            new = module(below, below_states[layer])
            below_states[layer] = new
            now.append(new if isinstance(new, tuple) else (new,))
            for node in now[-1]:
                node.retain_grad()
            below = now[-1][0]
        nodes.append(now)
    output = network.topology.output
    scores = F.linear(below, output.weight.double(), output.bias.double())
    F.cross_entropy(scores, tokens[-1], reduction="sum").backward()

    norms = gradient_norms(network, tokens, LAGS)
    for k in range(LAGS + 1):
        for part, name in enumerate(norms):
            of_layers = torch.cat([state[part].grad for state in nodes[-1 - k]], -1)
            torch.testing.assert_close(norms[name][k], of_layers.norm(dim=-1), rtol=1e-9, atol=0)
    assert set(norms) == ({"h", "c"} if cell == "lstm" else {"h"})
    assert norms["h"].shape == (LAGS + 1, ROWS)


def test_each_row_has_its_own_gradient_and_the_model_is_untouched(make_model: MakeModel) -> None:
    model = make_model(cell="gru")
    tokens, before = some_tokens(), {k: v.clone() for k, v in model.network.state_dict().items()}
    together = gradient_norms(model.network, tokens, LAGS)["h"]
    alone = gradient_norms(model.network, tokens[:, 1:2], LAGS)["h"]
    torch.testing.assert_close(together[:, 1:2], alone, rtol=1e-10, atol=0)
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.network.parameters())


def test_what_has_no_gradients_over_time_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(InputError, match="no recurrent layers") as refused:
        gradient_norms(make_model(topology="one_to_one").network, torch.zeros(9, 1, dtype=torch.long), 2)
    assert_one_sentence(str(refused.value))
    with pytest.raises(InputError, match="9 tokens a row are too few for 8 steps back: give at least 10"):
        gradient_norms(make_model().network, torch.zeros(9, 1, dtype=torch.long), 8)


def test_reach_of_an_exponential_decay() -> None:
    """exp(-k/20) is below exp(-1/20)/10 from k = 1 + 20 ln 10 = 47.05 on."""
    norms = [math.exp(-k / 20) for k in range(121)]
    assert [reach(norms, fraction) for fraction in (0.1, 0.01, 0.001)] == [48, 94, None]
    assert reach([9.0, 1.0, 0.5, 0.05, 0.5], 0.1) == 3  # the first time


def test_the_summary_is_over_rows() -> None:
    norms = torch.tensor([[4.0, 1, 2, 3, 5], [20, 40, 10, 30, 50], [0, 1, 2, 3, 4]], dtype=torch.float64)
    found = summary(norms)
    assert found["median"] == [3, 30, 2]
    assert (found["lower_quartile"], found["upper_quartile"]) == ([2, 20, 1], [4, 40, 3])
    assert found["reach"] == {"0.1": 2, "0.01": None, "0.001": None}


def test_windows_lie_in_one_document_and_do_not_overlap() -> None:
    documents = np.array([0, 25, 27, 90])
    tokens = Tokens(np.arange(100, dtype=np.uint8), documents)
    found = windows(tokens, 10, 99).numpy().T
    assert [row[0] for row in found] == [0, 10, 27, 37, 47, 57, 67, 77, 90]
    assert all((row == np.arange(row[0], row[0] + 10)).all() for row in found)
    few = windows(tokens, 10, 4).numpy()
    assert few[0].tolist() == [0, 37, 57, 90]  # spread over the text
    assert windows(Tokens(np.arange(9), np.array([0])), 10, 4).shape == (10, 0)
