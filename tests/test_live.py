"""What a training shows: plain lines where output is piped, a live display on a terminal, and neither changes it."""

import io
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pyte
import pytest
from conftest import Cli, _environment
from helpers import Listener
from rich.console import Console

from unrolled.app.braille import curve
from unrolled.app.live import LEAST_COLUMNS, LEAST_ROWS, Live
from unrolled.app.progress import Lines, display, visible
from unrolled.inspection.losses import BINS, LossCurve, draw
from unrolled.tasks.fitting import fit
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions
from unrolled.training import model_file
from unrolled.training.observer import Progress

SMALL = {"hidden": 16, "batch": 4, "bptt": 8, "lr": 1e-2}
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
"""All but the end of a line."""


def in_terminal(columns: int, rows: int, *arguments: object, cwd: Path, **env: str) -> tuple[pyte.Screen, bytes, int]:
    """What a terminal of this size shows at the end, every byte it was sent, and the exit code."""
    inside, outside = pty.openpty()
    ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**_environment({"TERM": "xterm-256color", **env})}
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        if name not in env:
            environment.pop(name, None)
    command = [sys.executable, "-m", "unrolled", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=outside, stdout=outside, stderr=outside)
    os.close(outside)
    sent = b""
    while True:
        try:
            data = os.read(inside, 1 << 16)
        except OSError:  # Linux says so when the last writer has gone
            break
        if not data:
            break
        sent += data
    os.close(inside)
    screen = pyte.Screen(columns, rows)
    pyte.ByteStream(screen).feed(sent)
    return screen, sent, process.wait()


def now(step: int, fraction: float, loss: float, unit: str = "characters") -> Progress:
    return Progress(step, fraction, 60 * fraction, 60 - 60 * fraction, loss, 0.5, 1e-3, 120_000.0, unit)


class Written:
    """A model that writes what it is told to."""

    def __init__(self, text: str) -> None:
        self.text = text

    def sample(self, prompt: str, length: int, **how: object) -> str:
        return prompt + self.text[:length]


def shown(columns: int, rows: int, text: str = "To be, or not to be\n" * 40, updates: int = 50) -> list[str]:
    """The lines of the display in the middle of a training."""
    live = Live(io.StringIO(), lambda step: False, "")
    live.watch(Written(text))
    for step in range(1, updates + 1):
        Lines.progress(live, now(step, 0.5 * step / updates, 1.5 + 2 / step))
    live.report({"step": updates, "seconds": 30.0, "val_loss": 1.75, "bits_per_character": 2.5247})
    console = Console(width=columns, file=io.StringIO())
    return ["".join(s.text for s in line) for line in console.render_lines(live.picture(columns, rows), pad=False)]


# The display


@pytest.mark.parametrize("columns", [LEAST_COLUMNS, 80, 115, 116, 200])
@pytest.mark.parametrize("rows", [LEAST_ROWS, 24, 60])
def test_the_display_fits_its_terminal_and_holds_all_figures(columns: int, rows: int) -> None:
    lines = shown(columns, rows)
    assert len(lines) < rows and max(map(len, lines)) <= columns
    everything = "\n".join(lines)
    for figure in (
        "50%",
        "30 s · 30 s left",
        "step 50",
        "2.525",
        "120,000 characters/s",
        "gradient norm 0.50",
        "To be",
    ):
        assert figure in everything, figure
    assert "●" in everything and re.search("[\u2801-\u28ff]", everything)


@pytest.mark.parametrize("columns", [LEAST_COLUMNS, 116])
def test_a_task_that_writes_nothing_shows_its_own_metrics(columns: int) -> None:
    live = Live(io.StringIO(), lambda step: False)
    live.watch(object())
    for step in range(1, 20):
        Lines.progress(live, now(step, step / 20, 0.7, unit="tokens"))
    live.report({"step": 19, "seconds": 5.0, "bleu": 33.12, "chrf": 100.0, "exact": 0.9954, "val_loss": 1.234})
    console = Console(width=columns, file=io.StringIO())
    lines = ["".join(s.text for s in line) for line in console.render_lines(live.picture(columns, 24), pad=False)]
    assert len(lines) < 24 and max(map(len, lines)) <= columns
    assert "validation bleu 33.1  chrf 100  exact 0.995" in "\n".join(lines)


@pytest.mark.slow
def test_a_classifier_trains_in_a_terminal(tmp_path: Path) -> None:
    rows = "".join(f"{'good' if n % 2 else 'bad'} {n}\t{n % 2}\n" for n in range(60))
    (tmp_path / "table.tsv").write_text("text\tlabel\n" + rows)
    options = ("--tokens", "char", "--steps", 20, "--hidden", 8, "--batch", 8, "--out", "run")
    screen, sent, code = in_terminal(80, 24, "train", "classify-text", "table.tsv", *options, cwd=tmp_path)
    assert code == 0, "\n".join(screen.display)
    assert "validation accuracy" in "\n".join(screen.display) and "unrolled predict run" in "\n".join(screen.display)


def test_the_curve_falls_from_the_top_left_and_ends_where_the_training_stands() -> None:
    lines = [line[8:] for line in shown(80, 24) if re.search("[\u2800-\u28ff]", line)]
    used = [[i for i, c in enumerate(line) if "\u2801" <= c <= "\u28ff" or c == "●"] for line in lines]
    assert used[0][0] == 0 and used[-1][0] > 5  # high at the start, low later
    width = max(map(len, lines))
    assert max(max(row) for row in used if row) == pytest.approx(width / 2, abs=1.5)  # half of the time is over


def test_what_a_model_writes_cannot_steer_the_terminal() -> None:
    assert not CONTROL.search("".join(shown(80, 24, "\x1b[2J\x07\x9b31m\rbell\x00\t" * 30)))
    assert visible("한글\tα") == "한글    α"


def test_bytes_are_not_drawn_on_the_scale_of_characters() -> None:
    live = Live(io.StringIO(), lambda step: False)
    Lines.progress(live, now(1, 0.1, 1.0, unit="bytes"))
    live.report({"step": 1, "seconds": 1.0, "val_loss": 3.0, "bits_per_character": 4.3})
    assert live.curve.validation == [] and live.metrics["val_loss"] == 3.0


def test_braille_joins_neighbours_and_keeps_to_its_edge() -> None:
    lines = curve([0.0, 10.0, math.pi, -5.0], 3, 0.0, 5.0)
    assert [len(line) for line in lines] == [2, 2, 2]
    full = [(ord(c) - 0x2800) & 0xB8 for c in (line[0] for line in lines)]
    assert full == [0xB8, 0xB8, 0x38] or all(full)  # the second column is lit from the bottom to the top
    assert curve([1.0, 1.0], 1, 1.0, 1.0) != ["\u2800"]  # a constant has a height of its own


def test_losses_are_means_joined_over_gaps_in_bounded_memory() -> None:
    losses = LossCurve()
    for step in range(10_000):
        losses.add(step / 10_000 / 2, step / 100, float(step >= 5_000))
    columns = losses.columns(8)
    assert columns == [0.0, 0.0, 1.0, 1.0, None, None, None, None]
    seconds, means = losses.points()
    assert len(seconds) == BINS // 2 and seconds == sorted(seconds) and set(means) == {0.0, 1.0}
    gaps = LossCurve()
    gaps.add(0.0, 0, 4.0)
    gaps.add(0.99, 9, 1.0)
    assert gaps.columns(4) == [4.0, 3.0, 2.0, 1.0]


def test_the_picture_of_the_loss_shows_the_levels(tmp_path: Path) -> None:
    losses = LossCurve()
    for step in range(100):
        losses.add(step / 100, step / 10, 3.0 - step / 100)
    losses.validation.append((0.5, 5.0, 2.6))
    draw(losses, tmp_path / "loss.svg", title="a title", colour="#4c72b0", levels=[("no memory", 3.61)])
    svg = (tmp_path / "loss.svg").read_text()
    assert "a title" in svg and "no memory: 3.61" in svg and "bits a character" in svg


# Who shows it


def test_a_pipe_gets_lines(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        assert type(display(stream, lambda step: False)) is Lines


@pytest.mark.parametrize(
    ("size", "terminal", "encoding", "expected"),
    [
        ((80, 24), "xterm", "utf-8", Live),
        ((80, 24), "dumb", "utf-8", Lines),
        ((80, 24), "", "utf-8", Lines),
        ((LEAST_COLUMNS - 1, 24), "xterm", "utf-8", Lines),
        ((80, LEAST_ROWS - 1), "xterm", "utf-8", Lines),
        ((80, 24), "xterm", "latin-1", Lines),
    ],
)
def test_a_terminal_gets_the_display_if_it_can_show_it(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], terminal: str, encoding: str, expected: type
) -> None:
    monkeypatch.setenv("TERM", terminal)
    inside, outside = pty.openpty()
    ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    with os.fdopen(outside, "w", encoding=encoding) as stream:
        assert type(display(stream, lambda step: False)) is expected
    os.close(inside)


@pytest.mark.slow
def test_a_training_in_a_terminal(tiny_text: Path, tmp_path: Path) -> None:
    options = ("--steps", 60, "--hidden", 16, "--batch", 4, "--bptt", 8, "--out", "run")
    screen, sent, code = in_terminal(80, 24, "train", "language-model", tiny_text, *options, cwd=tmp_path)
    everything = "\n".join(screen.display)
    assert code == 0 and b"\x1b[?25h" in sent  # the cursor is shown again
    assert b"step 60" in sent and "before the first update" in everything and "unrolled sample run" in everything
    assert re.search(rb"\x1b\[[0-9;]*3[0-9]m", sent)
    _, sent, _ = in_terminal(
        80, 24, "train", "language-model", tiny_text, *options, "--overwrite", cwd=tmp_path, NO_COLOR="1"
    )
    assert b"step 60" in sent and not re.search(rb"\x1b\[[0-9;]*[34][0-9]m", sent)


@pytest.mark.slow
def test_a_piped_demo_is_plain_text_and_leaves_model_and_picture(unrolled_cli: Cli, tmp_path: Path) -> None:
    done = unrolled_cli("demo", "--seconds", 15, cwd=tmp_path, env={"FORCE_COLOR": "1"})
    assert done.returncode == 0, done.stderr
    assert not CONTROL.search(done.stdout + done.stderr)
    figures = [float(f) for f in re.findall(r"(\d\.\d{3})  █", done.stdout)]
    assert len(figures) == 3 and figures[2] < figures[0]  # memory helps
    assert (tmp_path / "runs/demo/loss.png").read_bytes()[:4] == b"\x89PNG"
    assert "unrolled explain hello" in done.stdout
    assert unrolled_cli("sample", "runs/demo", "--length", 20, cwd=tmp_path).returncode == 0


# What the training tells


def test_an_observer_hears_every_update_and_the_time_left(tiny_text: Path) -> None:
    listener = Listener()
    fit([tiny_text], options=LanguageModelOptions(steps=12, **SMALL), observer=listener)
    assert [u.step for u in listener.updates] == list(range(1, 13))
    assert [u.fraction for u in listener.updates] == pytest.approx([i / 12 for i in range(12)])
    assert listener.updates[-1].left == 0 and listener.updates[0].left > 0
    assert all(u.unit == "characters" and u.loss > 0 and u.gradient_norm > 0 for u in listener.updates)


def test_watching_changes_no_number(tiny_text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout draws from PyTorch's generator, and samples are written between the updates."""
    monkeypatch.setattr("unrolled.training.loop.REPORT_SECONDS", 0.0)

    class Reader(Listener):
        texts: list[str] = []

        def watch(self, model: LanguageModel) -> None:
            assert not model.network.training
            self.texts.append(model.sample("a", length=20, seed=1))

    options = LanguageModelOptions(steps=8, layers=2, dropout=0.3, **SMALL)
    alone = fit([tiny_text], options=options)
    watched = fit([tiny_text], options=options, observer=Reader())
    assert len(Reader.texts) >= 8
    one, two = (model_file.sha256(f.model.network.state_dict()) for f in (alone, watched))
    assert one == two


def test_a_reader_that_leaves_stops_the_training_with_a_checkpoint(tiny_text: Path, tmp_path: Path) -> None:
    """As `unrolled train … 2>&1 | head` does."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "unrolled", "train", "language-model", str(tiny_text), "--steps", "100000"]
    command += ["--eval-every", "5", "--hidden", "16", "--batch", "4", "--bptt", "8", "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, env=_environment(None), stdout=write, stderr=write)
    os.close(write)
    with os.fdopen(read) as stream:
        while "step" not in stream.readline():
            """the first report has not come yet"""
    assert process.wait(60) == 1
    assert list((tmp_path / "run").glob("step-*")), "nothing to resume from"
