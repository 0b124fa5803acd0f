"""`unrolled explain memory`: from validation text to tables and a picture; constant memory in real processes."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Cli
from helpers import Listener, assert_one_sentence
from torch import Tensor

from unrolled.app.memory import memory as command
from unrolled.app.memory import show
from unrolled.data import corpus
from unrolled.data.sources import TextSource
from unrolled.data.tokenizers import decode
from unrolled.errors import InputError
from unrolled.inspection import gradient_flow, long_run, memory, memory_picture, pictures, resident
from unrolled.inspection.depth import parameters, width_with
from unrolled.inspection.gradient_flow import gradient_norms
from unrolled.inspection.memory import Lesson, Settings, measure_memory
from unrolled.tasks.fitting import fit
from unrolled.tasks.language_model import Network, resolve
from unrolled.tasks.options import LanguageModelOptions

SMALL = Settings(
    steps=3, hidden=12, lags=20, warm_up=10, windows=8, lengths=(10, 40), trained_lengths=(10, 40), depths=(1, 2)
)


# --- where the windows lie -------------------------------------------------------------------------------------------


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
    model = fit([tiny_text], options=lesson.options("gru")).model
    assert record["bits_per_character"] == pytest.approx(model.evaluate(tiny_text, split="val")["bits_per_character"])
    assert found["gradients"]["gru"]["trained"]["h"]["median"] == pytest.approx(
        torch.quantile(gradient_norms(model.network, lesson.windows, 20)["h"], 0.5, dim=1).tolist()
    )


def test_untrained_is_what_the_training_begins_with(tiny_text: Path) -> None:
    lesson = Lesson([tiny_text], SMALL, print)
    for cell in memory.COMPARED:
        begun = fit([tiny_text], options=lesson.options(cell), observer=Listener(0))
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
    source = TextSource(files)
    cut = int(corpus.scan(source).characters * 0.9)
    _, val = corpus.encode(source, lesson.prepared.tokenizer, cut)
    assert val is not None and len(val.ids) == len(lesson.prepared.splits["val"].ids)
