"""`unrolled explain memory`: gradients against PyTorch's cells and closed forms, constant memory in real processes,
what is drawn, printed and refused."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import ROOT, Cli
from helpers import PUBLISHED, assert_one_sentence
from torch import Tensor, nn

from unrolled.app.memory import memory as command
from unrolled.app.memory import show
from unrolled.cells import Inputs
from unrolled.data.corpus import Tokens
from unrolled.data.tokenizers import decode
from unrolled.errors import InputError, UnrolledError
from unrolled.inspection import gradient_flow, long_run, memory, memory_picture, pictures, resident
from unrolled.inspection.depth import parameters, width_with
from unrolled.inspection.gradient_flow import gradient_norms, reach, summary, windows
from unrolled.inspection.memory import Lesson, Settings, measure_memory
from unrolled.tasks.fitting import fit_language_model, tokens_of
from unrolled.tasks.language_model import Network, resolve
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions

SMALL = Settings(
    steps=3, hidden=12, lags=20, warm_up=10, windows=8, lengths=(10, 40), trained_lengths=(10, 40), depths=(1, 2)
)
linux = pytest.mark.skipif(not resident.readable(), reason=resident.NO_PROC)
MakeModel = Callable[..., LanguageModel]


# --- gradients -------------------------------------------------------------------------------------------------------

STEPS, ROWS, LAGS = 17, 3, 9


def tokens_for(model: LanguageModel) -> Tensor:
    return torch.randint(9, (STEPS + 1, ROWS), generator=torch.Generator().manual_seed(4))


def test_a_cell_state_counts_all_its_paths(make_model: MakeModel) -> None:
    """∂L_t/∂c_t and ∂L_t/∂c_{t-1} by finite differences, where a nudge of c also moves the h of its own timestep."""
    model = make_model(cell="lstm", hidden=3)
    tokens, network = tokens_for(model)[:, :1], model.network.double()
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
    tokens = tokens_for(model)
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
    tokens, network = tokens_for(model), model.network
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
    tokens, before = tokens_for(model), {k: v.clone() for k, v in model.network.state_dict().items()}
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


# --- where the windows lie -------------------------------------------------------------------------------------------


def test_windows_lie_in_one_document_and_do_not_overlap() -> None:
    documents = np.array([0, 25, 27, 90])
    tokens = Tokens(np.arange(100, dtype=np.uint8), documents)
    found = windows(tokens, 10, 99).numpy().T
    assert [row[0] for row in found] == [0, 10, 27, 37, 47, 57, 67, 77, 90]
    assert all((row == np.arange(row[0], row[0] + 10)).all() for row in found)
    few = windows(tokens, 10, 4).numpy()
    assert few[0].tolist() == [0, 37, 57, 90]  # spread over the text
    assert windows(Tokens(np.arange(9), np.array([0])), 10, 4).shape == (10, 0)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three documents in which every line is another, so that a stretch says where it comes from."""
    folder = tmp_path_factory.mktemp("lines")
    paths = []
    for name in "abc":
        paths.append(folder / f"{name}.txt")
        paths[-1].write_text("".join(f"line {number:05} of {name}.\n" for number in range(240)))
    return paths


def test_gradients_are_followed_through_validation_text_alone(
    lines: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def record(network: Network, tokens: Tensor, lags: int) -> dict[str, Tensor]:
        seen.append(tokens)
        return gradient_norms(network, tokens, lags)

    monkeypatch.setattr(gradient_flow, "gradient_norms", record)
    monkeypatch.setattr(memory, "measure_long_run", lambda *_: {})
    measure_memory(lines, SMALL)
    whole = "".join(path.read_text() for path in lines)
    train, val = whole[: int(0.9 * len(whole))], whole[int(0.9 * len(whole)) :]
    assert len(seen) == 6  # three cells, trained and not
    tokenizer = Lesson(lines, SMALL, print).prepared.tokenizer
    for tokens in seen:
        texts = [decode(tokenizer, column) for column in tokens.T]
        assert len(set(texts)) == 8
        assert all(len(text) == 32 and text in val and text not in train for text in texts)


def test_a_text_that_is_too_short_is_told_how_long_it_must_be(tmp_path: Path) -> None:
    settings = replace(SMALL, lags=200, warm_up=100)
    path = tmp_path / "text.txt"
    path.write_text("abcde fghij.\n" * 2000)
    with pytest.raises(InputError) as refused:
        path.write_text(path.read_text()[: 8 * 302 * 10 - 10])
        Lesson([path], settings, print)
    assert_one_sentence(str(refused.value))
    need = int(re.search(r"at least ([\d,]+) characters,", str(refused.value))[1].replace(",", ""))
    path.write_text(("abcde fghij.\n" * 2000)[:need])
    assert Lesson([path], settings, print).windows.shape == (302, 8)


# --- depth -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize(("layers", "embedding"), [(1, 0), (1, 5), (3, 5), (2, 0)])
def test_parameters_are_counted_exactly(cell: str, layers: int, embedding: int) -> None:
    options = resolve(LanguageModelOptions(cell=cell, hidden=7, layers=layers, embedding=embedding, steps=1))
    network = Network(11, options)
    assert parameters(cell, 7, layers, 11, embedding) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("vocabulary", [40, 97, 256])
@pytest.mark.parametrize("hidden", [64, 256, 1024])
def test_a_deeper_network_of_as_many_parameters(hidden: int, vocabulary: int) -> None:
    target = parameters("lstm", hidden, 1, vocabulary, 64)
    for layers in (1, 2, 3):
        width = width_with(target, "lstm", layers, vocabulary, 64)
        off = [abs(parameters("lstm", width + more, layers, vocabulary, 64) - target) for more in (-1, 0, 1)]
        assert off[1] <= min(off)
        assert off[1] <= 0.02 * target
        assert width == hidden if layers == 1 else width < hidden


# --- the long run ----------------------------------------------------------------------------------------------------


def test_all_at_once_is_the_same_arithmetic(make_model: MakeModel) -> None:
    model = make_model(cell="lstm", layers=2)
    inputs = Inputs(tokens_for(model)[:, :1], model.network.table)
    topology = model.network.topology
    with torch.inference_mode():
        outputs = long_run.at_once(topology, inputs, long_run.states_before(topology, inputs))
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
    assert long_run.read(model, tokens)["seconds"] > 0
    assert [length for length, _ in seen] == [10, 10, 10, 4]
    with torch.inference_mode():
        whole, _ = forward(Inputs(tokens[:, None], model.network.table), None)
    torch.testing.assert_close(torch.cat([scores for _, scores in seen]), whole, rtol=1e-5, atol=1e-5)


def test_full_backpropagation_goes_over_all_timesteps(make_model: MakeModel) -> None:
    model = make_model(cell="lstm")
    tokens = torch.randint(9, (25,), generator=torch.Generator().manual_seed(2))
    long_run.backpropagate(model, tokens)
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
    found = long_run.measure_long_run(model, tokens, (10, 100_000), (1_000, 10_000))
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
        long_run._in_a_fresh_process(what)


# --- all of it, small ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tiny_text: Path) -> Iterator[dict[str, Any]]:
    """All measurements, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_run, "_in_a_fresh_process", long_run.measure)
        threads = torch.get_num_threads()
        yield json.loads(json.dumps(measure_memory([tiny_text], SMALL)))
        torch.set_num_threads(threads)


def test_all_that_was_asked_for_is_measured(found: dict[str, Any], tiny_text: Path) -> None:
    assert list(found["models"]) == ["rnn", "gru", "lstm"]
    for cell, record in found["models"].items():
        assert (record["cell"], record["layers"], record["hidden"], record["steps"]) == (cell, 1, 12, 3)
        each = found["gradients"][cell]
        assert len(each["trained"]["h"]["median"]) == 21
        assert each["trained"]["h"]["median"] != each["untrained"]["h"]["median"]
    assert found["gradients"]["windows"] == 8
    assert [row["steps"] for row in found["long_run"]["read"]] == [10, 40]
    one, two = found["depth"]["same_parameters"]
    assert one == found["depth"]["same_width"][0] == found["models"]["lstm"]
    size = found["text"]["vocabulary"]
    assert two["parameters"] == parameters("lstm", two["hidden"], 2, size, 12)
    assert two["hidden"] == width_with(one["parameters"], "lstm", 2, size, 12)
    assert found["depth"]["same_width"][1]["hidden"] == 12


def test_bits_are_those_of_the_whole_validation_text(found: dict[str, Any], tiny_text: Path) -> None:
    """The same model again, bit for bit, measured as `unrolled evaluate` does."""
    record, lesson = found["models"]["gru"], Lesson([tiny_text], SMALL, print)
    model = fit_language_model([tiny_text], options=lesson.options("gru")).model
    assert record["bits_per_character"] == pytest.approx(model.evaluate(tiny_text, split="val")["bits_per_character"])
    assert found["gradients"]["gru"]["trained"]["h"]["median"] == pytest.approx(
        torch.quantile(gradient_norms(model.network, lesson.windows, 20)["h"], 0.5, dim=1).tolist()
    )


def test_untrained_is_what_the_training_begins_with(tiny_text: Path) -> None:
    lesson = Lesson([tiny_text], SMALL, print)
    for cell in memory.COMPARED:
        begun = fit_language_model([tiny_text], options=lesson.options(cell), stop=lambda step: True)
        ours = lesson.untrained(cell).network.state_dict()
        assert all(torch.equal(value, ours[name]) for name, value in begun.model.network.state_dict().items())


def test_the_picture_shows_what_was_measured(found: dict[str, Any], tmp_path: Path) -> None:
    figure = memory_picture.draw(found)
    gradients, sizes, times, depth = figure.axes
    drawn = [line.get_ydata() for line in gradients.lines]
    for cell in ("rnn", "gru", "lstm"):
        for line in (*found["gradients"][cell]["trained"].values(), found["gradients"][cell]["untrained"]["h"]):
            assert any(len(y) == 21 and list(y) == line["median"] for y in drawn)
    assert gradients.get_yscale() == "log"
    assert [line.get_ydata().tolist() for line in depth.lines] == [
        [row["bits_per_character"] for row in found["depth"][name]] for name in ("same_width", "same_parameters")
    ]
    assert times.lines[0].get_xdata().tolist() == [10, 40]
    if resident.readable():
        assert len(sizes.lines) == 3
    pictures.save(figure, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


def test_tables_are_plain_text_of_80_columns_when_piped(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    show(found)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", printed)
    for cell in ("rnn", "gru", "lstm"):
        assert f"{found['models'][cell]['bits_per_character']:.3f}" in printed
    assert "> 20" in printed  # where the reach is longer than what was looked at
    for record in found["depth"]["same_parameters"]:
        assert f"{record['parameters']:,}" in printed


def test_without_proc_time_is_measured_alone(
    found: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "readable", lambda: False)
    (row,) = long_run._at_lengths(lambda steps: {"seconds": 1e-4}, [10])
    assert row["bytes"] is None and row["seconds_per_step"] == pytest.approx(1e-5)
    run = {
        **found["long_run"],
        **{name: [{**row, "steps": 10}] for name in ("read", "write", "backpropagate")},
        "memory_not_measured": resident.NO_PROC,
    }
    show({**found, "long_run": run})
    assert "Memory is not measured: the peak" in " ".join(capsys.readouterr().out.split())
    assert memory_picture.draw({**found, "long_run": run}).axes[1].texts[0].get_text() == "not measured here"


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        (r"text\.txt is too short: .* give at least 24,160 characters.*\(there are 6,000\)", "text.txt --seconds 9"),
        ("--seconds is 0.5: give each training at least 1", "text.txt --seconds 0.5"),
        ("--seconds is nan", "text.txt --seconds nan"),
        ("--seconds is infinite", "text.txt --seconds inf"),
        ("--seed is -1", "text.txt --seed -1"),
        ("no such file or folder: missing.txt", "missing.txt"),
        ("done holds a measurement already.*--overwrite", "text.txt --out done"),
        ("text.txt is not a folder", "text.txt --out text.txt"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(
    quick_cli: Cli, tiny_text: Path, tmp_path: Path, message: str, arguments: str
) -> None:
    (tmp_path / "text.txt").write_bytes(tiny_text.read_bytes())
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "memory.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    result = quick_cli("explain", "memory", *arguments.split(), cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert_one_sentence(result.stderr.removesuffix("\n"))
    assert re.search(message, result.stderr), result.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_help_imports_no_torch(unrolled_cli: Cli) -> None:
    result = unrolled_cli("explain", "memory", "--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.returncode == 0
    imported = set(re.findall(r"^import time:.*\| +(\w+)", result.stderr, re.MULTILINE))
    assert "cyclopts" in imported and not {"torch", "numpy", "matplotlib"} & imported


def test_overwrite_and_json(
    found: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --json one object on standard output and nothing else; what is kept is the same."""
    asked: list[tuple[Any, Settings]] = []

    def measured(paths: Any, settings: Settings, say: Any) -> dict[str, Any]:
        asked.append((paths, settings))
        return found

    monkeypatch.setattr(memory, "measure_memory", measured)
    out = tmp_path / "new" / "out"
    text = Path("text.txt")
    assert command(text, out=out, seed=5, seconds=7) == 0
    printed = capsys.readouterr().out
    assert "How far back gradients reach" in printed and str(out / "memory.png") in printed
    with pytest.raises(InputError, match="holds a measurement already"):
        command(text, out=out)
    (out / "memory.json").write_text("{}")
    assert command(out=out, overwrite=True, json=True) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert json.loads(printed) == json.loads((out / "memory.json").read_text()) == found
    (first, settings), (second, default) = asked
    assert (first, settings) == ((text,), Settings(seconds=7, seed=5))
    assert len(second) > 50 and all(path.suffix == ".py" for path in second)
    assert default == Settings()


@pytest.mark.slow
def test_the_command_measures_draws_and_prints(unrolled_cli: Cli, tmp_path: Path, tiny_text: Path) -> None:
    (tmp_path / "text.txt").write_text(tiny_text.read_text() * 5)
    arguments = ["explain", "memory", "text.txt", "--seconds", "1", "--out", "out"]
    result = unrolled_cli(*arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "7 models are trained for 1 s each" in result.stderr and "minutes in all" in result.stderr
    assert result.stderr.count("bits a character") == 7
    assert {"How far back", "Any length", "Depth"} <= set(
        re.findall(r"^(?:How far back|Any length|Depth)", result.stdout, re.MULTILINE)
    )
    kept = json.loads((tmp_path / "out" / "memory.json").read_text())
    assert [row["steps"] for row in kept["long_run"]["read"]] == [10, 100, 1_000, 10_000, 100_000]
    assert (tmp_path / "out" / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["memory.json", "memory.png"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it(tmp_path: Path, tiny_text: Path, number: int, code: int) -> None:
    (tmp_path / "text.txt").write_text(tiny_text.read_text() * 5)
    command = [sys.executable, "-m", "unrolled", "explain", "memory", "text.txt", "--seconds", "30", "--out", "out"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr and process.stdout
        for line in process.stderr:
            if line.startswith("1 of 7"):
                break
        process.send_signal(number)
        rest, printed = process.stderr.read(), process.stdout.read()
    assert process.returncode == code
    assert rest.strip() == "interrupted: nothing was written" and printed == ""
    assert not (tmp_path / "out").exists()


def test_the_text_that_python_brings_is_long_enough() -> None:
    """The default of the command."""
    from unrolled.app.demo import library_source

    files = library_source()
    lesson = Lesson(files, Settings(steps=1), print)
    assert lesson.windows.shape == (302, 64)
    val = tokens_of(lesson.prepared.tokenizer, files, "val", 0.1)
    assert len(val.ids) == len(lesson.prepared.splits["val"].ids)
