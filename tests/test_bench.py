"""`unrolled bench` and the scripts in benchmarks/: what they compute and what they say, never how fast anything is."""

import importlib
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Cli

from unrolled.app.bench import command, generation, machine, measure, memory, peers, suites, training, writers
from unrolled.app.bench.measure import QUICK, Contender, Effort, Timing
from unrolled.app.bench.report import markdown
from unrolled.data.tokenizers import decode
from unrolled.errors import InputError, UnrolledError
from unrolled.tasks.language_model import Network
from unrolled.tasks.models import LanguageModel

CELLS = ("rnn", "gru", "lstm")


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """All suites that need no process of their own, quickly."""
    with torch.random.fork_rng():
        return suites.run(("training", "small", "generation"), quick=True)


# --- timing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """advance(seconds): a clock that only work moves."""
    now = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_contenders_take_turns_for_as_long_as_they_were_told(fake_clock: Callable[[float], None]) -> None:
    blocks: list[tuple[str, int]] = []

    def worker(name: str, seconds: float) -> Contender:
        def work(units: int) -> None:
            blocks.append((name, units))
            fake_clock(seconds * units)

        return Contender(name, work)

    workers = [worker("slow", 0.5), worker("fast", 0.01)]
    timings = measure.alternate(workers, Effort(rounds=4, seconds=0.25))
    assert blocks[-8:] == [(name, 1 if name == "slow" else 25) for name in ("slow", "fast", "fast", "slow") * 2]
    assert timings["slow"].seconds == pytest.approx(0.5)
    assert timings["fast"].rounds == pytest.approx([0.01] * 4)


def test_the_first_units_which_may_compile_do_not_count(fake_clock: Callable[[float], None]) -> None:
    calls = [0]

    def work(units: int) -> None:
        fake_clock(0.1 * units if calls[0] else 60.0)
        calls[0] += 1

    assert measure.units_in(work, 1.0) == 10


def test_geometric_mean_and_median() -> None:
    assert measure.geometric_mean([4.0, 1.0]) == pytest.approx(2)
    assert measure.geometric_mean([1.3, 1.7, 2.1]) == pytest.approx((1.3 * 1.7 * 2.1) ** (1 / 3))
    assert Timing([3.0, 1.0, 2.0]).seconds == 2


def test_the_best_peer_is_the_fastest_that_was_measured() -> None:
    timings = {"ours": Timing([1.0]), "slow": Timing([9.0]), "fast": Timing([3.0])}
    assert measure.compare(timings, "ours", ("slow", "fast", "absent")) == {"best_peer": "fast", "ratio": 3}
    assert measure.compare(timings, "ours", ("absent",)) == {"best_peer": None, "ratio": None}


# --- the machine -----------------------------------------------------------------------------------------------------


def test_the_machine_is_described(results: dict[str, Any]) -> None:
    found = results["machine"]
    assert found["matrix_gflops"] > 0 and found["bandwidth_gbs"] > 0
    assert found["cores"] >= 1 and found["threads"] == torch.get_num_threads()
    assert found["torch"] == torch.__version__
    assert {"cpu", "simd_of_torch", "simd_of_cpu", "python", "platform"} <= set(found)


@pytest.mark.parametrize(
    ("after", "warning"),
    [
        ((12.0, 0.0, 10.0), "other processes used 0.20 cores on average"),
        ((10.5, 0.0, 10.5), None),
        ((11.0, 4.0, 11.0), "other virtual machines used 0.40 cores on average"),
        ((15.0, 4.0, 11.0), "other processes used 0.40 cores on average and other virtual machines used 0.40"),
    ],
)
def test_who_else_was_busy_is_said(
    monkeypatch: pytest.MonkeyPatch, after: tuple[float, float, float], warning: str | None
) -> None:
    readings = iter([(0.0, 0.0, 0.0), after])
    monkeypatch.setattr(machine, "_busy", lambda: next(readings))
    times = iter([100.0, 110.0])
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(times))
    found = machine.Watch().stop()
    assert (found["warning"] or "").startswith(warning or "")
    assert (found["warning"] is None) == (warning is None)


def test_where_nobody_knows_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_busy", lambda: None)
    assert "not known whether the machine was idle" in machine.Watch().stop()["warning"]


# --- training --------------------------------------------------------------------------------------------------------


def test_every_suite_measures_every_cell(results: dict[str, Any]) -> None:
    for suite in ("training", "layers", "small_training", "small_layers"):
        assert [row["cell"] for row in results[suite]["rows"]] == list(CELLS)
    assert set(results["idle"]) == {"training", "small", "generation"}


@pytest.mark.parametrize("suite", ["training", "layers", "small_training", "small_layers", "generation"])
def test_ratios_follow_from_the_times(results: dict[str, Any], suite: str) -> None:
    rows = results[suite]["rows"]
    for row in rows:
        times = {name: found["seconds"] for name, found in row["contenders"].items()}
        peers_ = {name: t for name, t in times.items() if name not in ("unrolled", "torch.nn one-hot")}
        assert row["best_peer"] == min(peers_, key=lambda name: peers_[name])
        assert row["ratio"] == pytest.approx(min(peers_.values()) / times["unrolled"])
        for found in row["contenders"].values():
            assert found["seconds"] == pytest.approx(statistics.median(found["rounds"]))
            assert len(found["rounds"]) == QUICK.rounds
        if "ratio_with_one_hot" in row:
            others = min(t for name, t in times.items() if name != "unrolled")
            assert row["ratio_with_one_hot"] == pytest.approx(others / times["unrolled"])
    if "geometric_mean_ratio" in results[suite]:
        logs = [math.log(row["ratio"]) for row in rows]
        assert math.log(results[suite]["geometric_mean_ratio"]) == pytest.approx(statistics.fmean(logs))


def test_speeds_follow_from_the_times(results: dict[str, Any]) -> None:
    for row in results["training"]["rows"]:
        gates = {"rnn": 1, "gru": 3, "lstm": 4}[row["cell"]]
        hidden, characters = row["hidden"], row["batch"] * row["steps"]
        flop = (row["layers"] * 2 * gates * hidden * 2 * hidden + 2 * hidden * 65) * 3 * characters
        for found in row["contenders"].values():
            assert found["characters_per_second"] == pytest.approx(characters / found["seconds"])
            assert found["gflops"] == pytest.approx(flop / found["seconds"] / 1e9)
        assert row["of_peak"] == pytest.approx(row["contenders"]["unrolled"]["gflops"] / row["peak_gflops"])
        assert row["not_measured"]["torch.compile"].startswith("--quick")


@pytest.fixture
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    with torch.random.fork_rng():
        model = training.trainer(request.param, "loop", training.random_chunks(2, 3), layers=2, hidden=6).model
    assert isinstance(model, Network)
    yield model


@pytest.mark.parametrize("network", CELLS, indirect=True)
@pytest.mark.parametrize("one_hot", [False, True])
def test_the_peer_computes_the_same(network: Network, one_hot: bool) -> None:
    cell = {"rnn_tanh": "rnn"}.get(network.topology.recurrent.cell.name, network.topology.recurrent.cell.name)
    peer = peers.with_weights_of(network, cell, 65, one_hot)
    batch, state = training.random_chunks(2, 3)[0], training.zero_state(cell, 2, 2, 6)
    mine, after = network.scores(batch, None)
    theirs, their_state = peer.scores(batch.inputs, state)
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(after, tuple(their_state))


def test_contenders_that_compute_something_else_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = peers.with_weights_of

    def wrong(*arguments: Any, **how: Any) -> peers.TorchModel:
        model = honest(*arguments, **how)
        with torch.no_grad():
            model.output.bias.add_(torch.arange(65) / 65)
        return model

    monkeypatch.setattr(training, "with_weights_of", wrong)
    with torch.random.fork_rng(), pytest.raises(UnrolledError, match="our loss is .* where that of torch.nn is"):
        training.training_row("rnn", QUICK, "auto", full=False, layers=1, hidden=8, batch=2, steps=3)


def test_the_training_of_the_peer_learns() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        chunks = training.random_chunks(2, 5)[:1]
        model = peers.TorchModel("gru", 65, 16, 1)
        work = peers.TorchTraining(model, list(model.parameters()), chunks, training.zero_state("gru", 1, 2, 16))
        before = model(chunks[0].inputs, chunks[0].targets, work.state)[0].item()
        work(30)
        assert model(chunks[0].inputs, chunks[0].targets, work.state)[0].item() < before - 0.1


# --- generation ------------------------------------------------------------------------------------------------------


def test_generation_names_the_variant_and_what_is_missing(results: dict[str, Any]) -> None:
    for row in results["generation"]["rows"]:
        found = row["contenders"]["PyTorch"]
        assert found["variant"] in found["variants"]
        assert {name.split(",")[0] for name in found["variants"]} == {"layers", "cells"}
        assert set(row["contenders"]) | set(row["not_measured"]) == {
            "unrolled", "PyTorch", "torch.compile", "ONNX Runtime",
        }  # fmt: skip
        for found in row["contenders"].values():
            assert found["characters_per_second"] == pytest.approx(1 / found["seconds"])


def test_an_absent_onnxruntime_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", ModuleType("onnx"))
    monkeypatch.setattr(generation, "sizes", lambda effort: [("rnn", 1, 4, 1)])
    with torch.random.fork_rng():
        found = generation.generation_suite(QUICK, "auto", lambda line: None)
    (row,) = found["generation"]["rows"]
    assert row["not_measured"]["ONNX Runtime"] == "onnxruntime is not there: install unrolled[bench]"
    shown = markdown({**_frame(), **found})
    assert "- ONNX Runtime not measured: onnxruntime is not there: install unrolled[bench]" in shown


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("batch", [1, 3])
def test_all_writers_write_what_our_model_writes(cell: str, batch: int) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    with torch.random.fork_rng():
        model = generation.untrained(cell, 2, 8, "auto")
    peer = peers.with_weights_of(model.network, cell, 65).eval()
    state = training.zero_state(cell, 2, batch, 8)
    expected = model.sample("", 12, temperature=0)
    everybody = writers.eager_writers(peer, state, 0) | writers.onnx_writers(peer, state, 0)
    assert len(everybody) >= 6
    for name, writer in everybody.items():
        for _ in range(2):  # the second begins anew
            written = np.stack(writer.write(12, writers.greedy))
            assert [decode(model.tokenizer, row) for row in written.T] == [expected] * batch, name
        assert np.stack(writer(5)).shape == (5, batch)


def test_a_peer_that_writes_something_else_is_not_compared() -> None:
    with torch.random.fork_rng():
        model, other = (generation.untrained("gru", layers, 8, "auto") for layers in (1, 2))
    peer = peers.with_weights_of(other.network, "gru", 65)
    wrong = writers.TorchWriter(writers.Step(peer), training.zero_state("gru", 2, 1, 8), 0, 1)
    with pytest.raises(UnrolledError, match="stranger writes .* where our model of the same weights writes"):
        generation._agree(model, {"stranger": wrong})


@pytest.mark.parametrize("rows", [1, 2000])
def test_the_sampler_of_the_peers_draws_from_the_softmax(rows: int) -> None:
    probabilities = np.array([0.5, 0.0, 0.3, 0.2])
    with np.errstate(divide="ignore"):
        scores = np.tile(np.log(probabilities).astype(np.float32) + 7, (rows, 1))
    sampler = writers.Sampler()
    drawn = np.concatenate([sampler(scores) for _ in range(2000 // rows)])
    assert np.bincount(drawn, minlength=4) / 2000 == pytest.approx(probabilities, abs=0.04)


# --- memory ----------------------------------------------------------------------------------------------------------

linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="it reads /proc, which only Linux has")


@linux
def test_memory_covers_gradients_and_moments() -> None:
    said: list[str] = []
    found = memory.memory_suite(QUICK, "auto", said.append)["memory"]
    (row,) = found["rows"]
    weights = sum(p.numel() for p in peers.TorchModel("lstm", 65, row["hidden"], row["layers"]).parameters())
    for contender in row["contenders"].values():
        assert 0.8 * 3 * 4 * weights < contender["bytes"] < 2**28
    ours, theirs = (row["contenders"][name]["bytes"] for name in ("unrolled", "torch.nn"))
    assert row["ratio"] == pytest.approx(theirs / ours)
    assert len(said) == 1


def test_without_proc_memory_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.resident, "readable", lambda: False)
    found = memory.memory_suite(QUICK, "auto", lambda line: None)
    assert "Not measured: the peak of resident memory" in markdown({**_frame(), **found})


@linux
def test_a_process_that_fails_says_why() -> None:
    what = {"who": "unrolled", "cell": "lstm", "engine": "warp", "layers": 1, "hidden": 8, "batch": 2, "steps": 2}
    with pytest.raises(UnrolledError, match="memory of unrolled failed: .*unknown engine 'warp'"):
        memory._in_a_fresh_process(what)


# --- what is printed and kept ----------------------------------------------------------------------------------------


def _frame() -> dict[str, Any]:
    """What every result holds beside its suites."""
    described = {
        "cpu": "abacus", "cores": 2, "threads": 2, "simd_of_torch": "AVX2", "simd_of_cpu": [], "memory_gib": 1.0,
        "platform": "wood", "python": "3.11", "torch": "2.13", "unrolled": "0", "matrix_gflops": 100.0,
        "bandwidth_gbs": 20.0,
    }  # fmt: skip
    return {"quick": True, "engine": "auto", "idle": {}, "machine": described}


def test_the_report_shows_every_row(results: dict[str, Any]) -> None:
    shown = markdown(results)
    assert shown.count("\n## ") == 5
    for suite in ("training", "layers", "small_training", "small_layers", "generation"):
        for row in results[suite]["rows"]:
            assert f"**{row['ratio']:.2f}**" in shown
    assert "--quick: tiny sizes" in shown
    assert "- torch.compile not measured: --quick leaves it out" in shown
    for table in re.findall(r"(?m)(?:^\|.*\n)+", shown):
        assert len({line.count("|") for line in table.splitlines()}) == 1  # as many cells in every line


def test_the_picture_is_drawn(results: dict[str, Any], tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    assert command._picture(tmp_path, results) == "roofline.png"
    pixels = image.imread(tmp_path / "roofline.png")
    assert pixels.shape[0] > 500 and pixels.shape[1] > 1000
    assert (pixels[..., :3].min(-1) > 0.99).mean() > 0.8  # white, with something on it
    assert pixels[..., :3].max(-1).min() < 0.3


def test_labels_of_the_picture_do_not_overlap() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    from unrolled.app.bench import roofline

    places = [(1.0 + 0.05 * i, 20.0 + 3 * (i % 4)) for i in range(10)]
    found = [roofline.Point(x, y, ("unrolled", "torch.nn")[i % 2], f"LSTM {i}×512") for i, (x, y) in enumerate(places)]
    figure, axis = pyplot.subplots(figsize=(7.5, 7))
    try:
        roofline._panel(axis, "here", found, _frame()["machine"])
        roofline._label(figure, axis, found, _frame()["machine"])
        labels = [text for text in axis.texts if text.get_text().startswith("LSTM")]
        boxes = [sys.modules["matplotlib.text"].Text.get_window_extent(text) for text in labels]
        assert len(boxes) == 10
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    finally:
        pyplot.close(figure)


def test_without_points_there_is_no_picture(tmp_path: Path) -> None:
    assert command._picture(tmp_path, {"memory": {}}).startswith("not drawn: it shows training and generation")


def test_the_command_prints_tables_then_json_and_keeps_both(unrolled_cli: Cli, tmp_path: Path) -> None:
    """In a process from beginning to end, as a shell would start it."""
    result = unrolled_cli("bench", "training", "--quick", "--json", "--out", tmp_path / "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    tables, _, last = result.stdout.rstrip("\n").rpartition("\n")
    found = json.loads(last)
    assert found["suites"] == ["training"] and found["quick"] is True
    assert {"machine", "idle", "training", "layers", "roofline"} <= set(found)
    assert "| RNN 2×16 |" in tables
    assert json.loads((tmp_path / "out" / "bench.json").read_text()) == found
    assert (tmp_path / "out" / "bench.md").read_text().strip() == tables.strip()
    assert (tmp_path / "out" / "roofline.png").exists() == (found["roofline"] == "roofline.png")
    assert "measuring the machine" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("unknown suite 'trainin': choose one of training, small, generation, memory, all", "bench trainin"),
        ("unknown engine 'warp': choose one of auto", "bench --engine warp"),
        ("full holds a measurement already: name another folder", "bench --out full"),
        ("file is not a folder", "bench --out file"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_measured(
    quick_cli: Cli, tmp_path: Path, message: str, line: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "bench.json").write_text("{}")
    (tmp_path / "file").write_text("")
    result = quick_cli(*line.split(), cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"unrolled: [^\n]+\n", result.stderr)
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["bench.json", "file", "full"]


def test_help_imports_no_torch(unrolled_cli: Cli, tmp_path: Path) -> None:
    result = unrolled_cli("bench", "--help", cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.returncode == 0
    imported = set(re.findall(r"^import time:.*\| +(\w+)", result.stderr, re.MULTILINE))
    assert not {"torch", "numpy", "matplotlib", "onnxruntime"} & imported
    assert "--quick" in result.stdout


def test_chosen() -> None:
    assert suites.chosen("all") == suites.SUITES
    assert suites.chosen("small") == ("small",)
    with pytest.raises(InputError, match="unknown suite"):
        suites.chosen("")


# --- benchmarks/ -----------------------------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a file of benchmarks/, which the source distribution does not carry."""
    if not (ROOT / "benchmarks").is_dir():
        pytest.skip("benchmarks/ is in the checkout alone")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize("unseen", [False, True])
def test_windows_of_nanogpt_are_read_from_zero(
    script: Callable[[str], ModuleType], make_model: Callable[..., LanguageModel], tmp_path: Path, unseen: bool
) -> None:
    """Against one window after the other, read by hand; a character that was never seen counts once."""
    model, text = make_model(), "abc fed\nhag bad cab " * 40
    held_out = text[int(len(text) * 0.9) :] if not unseen else "é" + text[int(len(text) * 0.9) + 1 :]
    (tmp_path / "text.txt").write_text(text[: int(len(text) * 0.9)] + held_out, encoding="utf-8")
    ids = torch.from_numpy(model.tokenizer.encode(held_out))
    nats = 0.0
    for at in range(0, len(ids) - 1, 7):
        state = model.network.topology.initial_state(1)
        for x, y in zip(ids[at : at + 7], ids[at + 1 : at + 8], strict=False):
            with torch.no_grad():
                scores, state = model.network.step(x[None], state)
            nats -= scores.log_softmax(-1)[0, y].item()
    found = script("nanogpt_protocol").windowed_loss(model, tmp_path / "text.txt", window=7)
    assert found == pytest.approx(nats / (len(held_out) - 1), rel=1e-5)


def test_the_recipe_of_nanogpt_is_run_in_a_copy(script: Callable[[str], ModuleType], tmp_path: Path) -> None:
    checkout = tmp_path / "nanoGPT"
    (checkout / "data" / "shakespeare_char").mkdir(parents=True)
    (checkout / "train.py").write_text(
        "import sys, numpy, pickle\n"
        "meta = pickle.load(open('data/shakespeare_char/meta.pkl', 'rb'))\n"
        "ids = numpy.fromfile('data/shakespeare_char/val.bin', numpy.uint16)\n"
        "assert ''.join(meta['itos'][i] for i in ids) == 'né', ids\n"
        "assert '--max_iters=2000' in sys.argv and '--block_size=64' in sys.argv\n"
        "print('step 0: train loss 4.2, val loss 4.1\\niter 1: loss 3.9')\n"
        "print('step 2000: train loss 1.7, val loss 1.8857')\n"
    )
    (tmp_path / "text.txt").write_text("banana né " + "banana né", encoding="utf-8")
    recipe = script("nanogpt_recipe")
    found = recipe.run(checkout, tmp_path / "text.txt")
    assert (found["val_loss"], found["steps"]) == (1.8857, 2000)
    assert found["seconds"] > 0
    assert sorted(path.name for path in checkout.rglob("*")) == ["data", "shakespeare_char", "train.py"]
    (checkout / "train.py").write_text("raise SystemExit('no luck')")
    with pytest.raises(SystemExit, match="nanoGPT failed with exit code 1: no luck"):
        recipe.run(checkout, tmp_path / "text.txt")


def test_targets_run_the_command_as_it_is(
    script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    module, losses, commands = script("time_to_quality"), iter([1.9, 1.88, 1.87, 1.62, 1.61, 1.5]), []

    def fake(*arguments: str) -> dict[str, Any]:
        if arguments[0] == "doctor":
            return {"matrix_gflops": 123.0}
        commands.append(arguments)
        return {"val_loss": next(losses), "cell": "lstm", "parameters": 1000, "tokens_per_second": 5000.0}

    monkeypatch.setattr(module, "unrolled", fake)
    monkeypatch.setattr(module, "both", lambda model, text: {"windows_of_256_from_zero": 2.0})
    kept = tmp_path / "rows.json"
    arguments = ["text.txt", "--targets", "--seconds", "12", "45", "--json", str(kept)]
    monkeypatch.setattr(sys, "argv", ["time_to_quality.py", *arguments])
    module.main()
    assert len(commands) == 6
    assert {flag for words in commands for flag in words if flag.startswith("--")} == {"--seconds", "--seed", "--out"}
    table = capsys.readouterr().out
    assert "| 12 | 1.8857 | 1.8800 | 1.9000, 1.8800, 1.8700 | 2.0000 |" in table
    assert re.search(r"(?m)^\| 12 .*\| yes \|$", table) and re.search(r"(?m)^\| 45 .*\| no \|$", table)
    assert [row["val_loss"] for row in json.loads(kept.read_text())] == [1.9, 1.88, 1.87, 1.62, 1.61, 1.5]
