"""Any length in constant memory: what is run, and what it takes in processes of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unrolled.cells import Inputs
from unrolled.errors import UnrolledError
from unrolled.inspection import resident
from unrolled.inspection.long_run import (
    _in_a_fresh_process,
    at_once,
    backpropagate,
    measure_long_run,
    read,
    states_before,
)
from unrolled.tasks.models import LanguageModel

MakeModel = Callable[..., LanguageModel]
linux = pytest.mark.skipif(not resident.readable(), reason=resident.NO_PROC)


def test_all_at_once_is_the_same_arithmetic(make_model: MakeModel) -> None:
    model = make_model(cell="lstm", layers=2)
    inputs = Inputs(torch.randint(9, (17, 1), generator=torch.Generator().manual_seed(4)), model.network.table)
    topology = model.network.topology
    with torch.inference_mode():
        outputs = at_once(topology, inputs, states_before(topology, inputs))
        expected, _ = topology.recurrent.unroll(inputs)
    torch.testing.assert_close(outputs, expected[:, 0], rtol=1e-5, atol=1e-6)


def test_reading_carries_the_state_over_chunks(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(cell="gru")
    tokens, seen = torch.randint(9, (34,), generator=torch.Generator().manual_seed(2)), []
    forward = model.network.topology.forward

    def record(inputs: Inputs, state: Any) -> Any:
        result = forward(inputs, state)
        seen.append((len(inputs.x), result[0].clone()))
        return result

    monkeypatch.setattr(model.network.topology, "forward", record)
    assert read(model, tokens)["seconds"] > 0
    assert [length for length, _ in seen] == [10, 10, 10, 4]
    with torch.inference_mode():
        whole, _ = forward(Inputs(tokens[:, None], model.network.table), None)
    torch.testing.assert_close(torch.cat([scores for _, scores in seen]), whole, rtol=1e-5, atol=1e-5)


def test_full_backpropagation_goes_over_all_timesteps(make_model: MakeModel) -> None:
    model = make_model(cell="lstm")
    tokens = torch.randint(9, (25,), generator=torch.Generator().manual_seed(2))
    backpropagate(model, tokens)
    found = [p.grad.clone() for p in model.network.parameters()]
    model.network.zero_grad()
    scores, _ = model.network.topology(Inputs(tokens[:-1, None], model.network.table), None)
    F.cross_entropy(scores[:, 0], tokens[1:]).backward()
    for gradient, p in zip(found, model.network.parameters(), strict=True):
        torch.testing.assert_close(gradient, p.grad, rtol=1e-5, atol=1e-7)


@linux
@pytest.mark.slow
def test_memory_is_constant_in_reading_and_writing_and_grows_in_training(make_model: MakeModel) -> None:
    """In real processes: 100,000 timesteps beside 10."""
    model = make_model(cell="lstm", hidden=64)
    tokens = np.random.default_rng(1).integers(0, 9, 5_000)  # read round and round
    found = measure_long_run(model, tokens, (10, 100_000), (1_000, 10_000))
    for kind in ("read", "write"):
        short, long = found[kind]
        assert (short["steps"], long["steps"]) == (10, 100_000)
        assert abs(long["bytes"] - short["bytes"]) < 4 * 2**20
        assert 0 < long["seconds_per_step"] < 1e-2
    short, long = found["backpropagate"]
    saved = 4 * 64 * (4 + 2)  # at least the gates and the state, in float32, of every timestep
    assert saved * 10_000 < long["bytes"] < 2**28
    assert long["bytes"] > 4 * short["bytes"]
    assert found["wait"]["seconds_per_step_at_once"] > 0


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    what = {"kind": "read", "folder": str(tmp_path), "lengths": [10]}
    with pytest.raises(UnrolledError, match=r"how a long text is handled \(read\) failed: .*no model at"):
        _in_a_fresh_process(what)
