"""The training loop: resume bit for bit, signals, the clock, full backpropagation through time, start-from."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import Listener

import unrolled
from unrolled.errors import InputError, NonFiniteError
from unrolled.tasks import fitting
from unrolled.tasks.fitting import Fitted, resume
from unrolled.tasks.options import LanguageModelOptions
from unrolled.training import checkpoint, model_file
from unrolled.training.loop import Trainer
from unrolled.training.observer import Observer
from unrolled.training.run import Run
from unrolled.training.schedule import Clock, Schedule

SMALL = {"hidden": 16, "batch": 4, "bptt": 8, "lr": 1e-2}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real text: the start of a module of the standard library."""
    path = tmp_path_factory.mktemp("text") / "text.py"
    path.write_text(Path(subprocess.__file__).read_text()[:12_000])
    return path


def fit(text: Path, out: Path | None = None, stop_at: int | None = None, **options: object) -> Fitted:
    return fitting.fit(
        [text],
        options=LanguageModelOptions(**{**SMALL, **options}),
        out=out,
        observer=Listener(stop_at),
    )


def model_hash(run: Path) -> str:
    return model_file.sha256(model_file.load(run)[0])


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("stops", [[100], [1, 20, 133, 199]])
def test_a_resumed_training_equals_one_that_never_stopped(
    text: Path, tmp_path: Path, cell: str, stops: list[int]
) -> None:
    options = {"cell": cell, "steps": 200, "layers": 2, "dropout": 0.3}
    whole = fit(text, tmp_path / "whole", **options)
    first = fit(text, tmp_path / "parts", stop_at=stops[0], **options)
    assert not first.result.finished
    for stop_at in [*stops[1:], None]:
        torch.manual_seed(999)  # what happens to the generators in between must not matter
        last = resume(tmp_path / "parts", observer=Listener(stop_at))
    assert last.result.finished
    assert last.result.steps == whole.result.steps == 200
    assert model_hash(tmp_path / "parts") == model_hash(tmp_path / "whole")
    assert last.result.metrics == whole.result.metrics
    newest = [checkpoint.load(checkpoint.latest(tmp_path / name))[0] for name in ("whole", "parts")]
    assert model_file.sha256(newest[0]) == model_file.sha256(newest[1])  # optimiser, state and generators too


def test_the_hash_is_of_the_weights(text: Path, tmp_path: Path) -> None:
    fit(text, tmp_path / "a", steps=20)
    fit(text, tmp_path / "b", steps=20, seed=1)
    assert model_hash(tmp_path / "a") != model_hash(tmp_path / "b")


def test_writing_checkpoints_changes_no_number(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fit(text, steps=40, dropout=0.3)
    monkeypatch.setattr("unrolled.training.loop.CHECKPOINT_SECONDS", 0.0)
    kept = fit(text, tmp_path / "kept", steps=40, dropout=0.3)
    weights = [model_file.sha256(f.model.network.state_dict()) for f in (plain, kept)]
    assert weights[0] == weights[1]


def test_a_kill_between_checkpoints_goes_back_to_the_last_one(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after a better model was saved, but before the next checkpoint."""
    options = {"steps": 60, "eval_every": 10}
    fit(text, tmp_path / "whole", **options)
    fit(text, tmp_path / "killed", stop_at=25, **options)

    class Killed(Exception):
        pass

    class Die(Observer):
        def stop(self, step: int) -> bool:
            if step == 45:
                raise Killed
            return False

    with pytest.raises(Killed):
        resume(tmp_path / "killed", observer=Die())
    resume(tmp_path / "killed")
    assert model_hash(tmp_path / "killed") == model_hash(tmp_path / "whole")
    lines = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    validated = [line["step"] for line in lines if "val_loss" in line]
    assert validated == [10, 20, 30, 40, 50, 60]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_a_checkpoint_and_the_right_exit_code(
    text: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = ["train", "language-model", str(text), "--steps", "1500", "--hidden", "16", "--dropout", "0.2"]
    arguments += ["--threads", "1", "--batch", "4", "--bptt", "8"]
    whole = command(*arguments, "--out", str(tmp_path / "whole"))
    assert whole.wait() == 0
    process = command(*arguments, "--out", str(tmp_path / "stopped"))
    wait_for_a_line(tmp_path / "stopped" / "metrics.jsonl")
    process.send_signal(number)
    assert process.wait(60) == code
    newest = checkpoint.latest(tmp_path / "stopped")
    assert newest is not None
    step = checkpoint.load(newest)[1]["step"]
    assert 0 < step < 1500
    assert unrolled.load(tmp_path / "stopped").sample("def", length=5).startswith("def")
    assert command("resume", str(tmp_path / "stopped")).wait() == 0
    assert model_hash(tmp_path / "stopped") == model_hash(tmp_path / "whole")


def command(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "unrolled", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_a_line(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, "training did not begin within a minute"
        time.sleep(0.01)


def test_resume_says_what_is_wrong(text: Path, tmp_path: Path) -> None:
    fit(text, tmp_path / "done", steps=5)
    with pytest.raises(InputError, match=r"has finished at step 5.*--start-from"):
        resume(tmp_path / "done")
    copy = text.with_name("copy.py")
    copy.write_text(text.read_text())
    fit(copy, tmp_path / "stopped", steps=20, stop_at=5)
    copy.write_text(copy.read_text() + "# more\n")
    with pytest.raises(InputError, match="the data of .* have changed since"):
        resume(tmp_path / "stopped")
    with pytest.raises(InputError, match=r"no run\.json"):
        resume(tmp_path)


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_checkpoint(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unrolled.training.loop.CHECKPOINT_SECONDS", 0.0)
    update = Trainer._update

    def poisoned(trainer: Trainer, fraction: float) -> float:
        if trainer.step == 7:
            next(trainer.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
        return update(trainer, fraction)

    monkeypatch.setattr(Trainer, "_update", poisoned)
    with pytest.raises(NonFiniteError, match="gradient is not finite at step 8") as raised:
        fit(text, tmp_path / "run", steps=20)
    assert raised.value.exit_code == 3
    kept, description = checkpoint.load(checkpoint.latest(tmp_path / "run"))
    assert description["step"] == 7
    assert all(bool(t.isfinite().all()) for t in kept.values() if t.is_floating_point())


def test_the_learning_rate_rises_then_falls_to_zero_by_step() -> None:
    schedule = Schedule(1.0, 10, steps=100, seconds=None, clock=Clock())
    rates = [schedule.learning_rate(step, schedule.fraction(step)) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(0.91)
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == 0


def test_the_learning_rate_falls_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    schedule = Schedule(1.0, 0, steps=None, seconds=50, clock=Clock(started=100.0))
    schedule.reserve = 10
    now[0] = 110.0  # reading the text took ten seconds
    assert schedule.fraction(0) == 0
    now[0] = 125.0
    assert schedule.fraction(5) == pytest.approx(0.5)
    assert schedule.learning_rate(5, 0.5) == pytest.approx(0.5)
    now[0] = 140.0
    assert schedule.fraction(9) == 1


@pytest.mark.slow
def test_seconds_are_kept(text: Path, tmp_path: Path) -> None:
    """Not a timing of speed: the promise is that `--seconds N` ends with its model saved within N + 2 s."""
    begun = time.monotonic()
    fitted = fit(text, tmp_path / "run", seconds=6)
    assert time.monotonic() - begun < 8
    assert fitted.result.finished
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert fitted.result.validated == 1200  # all of the validation text


def test_the_best_model_is_kept(text: Path, tmp_path: Path) -> None:
    """A small text learnt by heart: validation gets worse, and the model from before that is the one to keep."""
    fitted = fit(text, tmp_path / "run", steps=3000, eval_every=50, hidden=64, lr=0.02, patience=3)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"]: line["val_loss"] for line in lines if "val_loss" in line}
    assert fitted.result.metrics["val_loss"] == min(losses.values())
    assert losses[fitted.result.best_step] == min(losses.values())
    assert fitted.result.steps == fitted.result.best_step + 3 * 50 < 3000  # early stopping
    loaded = unrolled.load(tmp_path / "run")
    assert loaded.evaluate(text, split="val")["val_loss"] == pytest.approx(min(losses.values()), rel=1e-6)


def test_full_backpropagation_through_time_takes_whole_documents(tmp_path: Path) -> None:
    for number, length in enumerate((40, 90, 25, 60)):
        (tmp_path / f"{number}.txt").write_text(("a rose is a rose " * 10)[:length])
    fitted = fit(tmp_path, steps=3, bptt="full", batch=2)
    assert fitted.result.finished


def test_full_backpropagation_through_time_is_refused_where_it_does_not_fit(
    text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unrolled.training.memory.free", lambda device: 10**7)
    with pytest.raises(InputError, match=r"--bptt is full: such a training needs about 0\.\d GiB .* such as 64"):
        fit(text, steps=3, bptt="full", hidden=256)


def test_start_from_goes_on_with_the_model_on_new_text(text: Path, tmp_path: Path) -> None:
    first = fit(text, tmp_path / "first", steps=150, cell="gru")
    new = tmp_path / "new.txt"
    new.write_text("# ünïcode the first model never saw\n" + text.read_text())
    options = LanguageModelOptions(steps=1, batch=4, bptt=8, lr=1e-9)
    second = fitting.fit([new], options=options, start_from=tmp_path / "first")
    assert second.model.options.cell == "gru"
    assert second.model.tokenizer.to_json() == first.model.tokenizer.to_json()
    fresh = fit(new, steps=1, cell="gru", lr=1e-9)  # it knows how frequent each character is, and no more
    assert second.result.metrics["val_loss"] < fresh.result.metrics["val_loss"] - 0.3
    with pytest.raises(InputError, match="--hidden 32 contradicts the model to start from, which has 16"):
        fitting.fit([new], options=LanguageModelOptions(hidden=32, steps=1), start_from=tmp_path / "first")


def test_overwrite_replaces_a_run_and_nothing_else(text: Path, tmp_path: Path) -> None:
    fit(text, tmp_path / "run", steps=2)
    with pytest.raises(InputError, match="exists already"):
        fit(text, tmp_path / "run", steps=2)
    Run.check(tmp_path / "run", overwrite=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a run folder"):
        Run.check(tmp_path / "precious", overwrite=True)


def test_one_to_one_reaches_the_entropy_of_counted_bigrams(text: Path) -> None:
    from unrolled.data import corpus
    from unrolled.data.sources import TextSource
    from unrolled.metrics.text import bigram_cross_entropy

    fitted = fit(text, steps=400, topology="one_to_one", hidden=64, bptt=64, weight_decay=0.0)
    source = TextSource([text])
    train, val = corpus.encode(source, fitted.model.tokenizer, 10_800)
    counted = bigram_cross_entropy(train.ids, val.ids, fitted.model.tokenizer.size)
    assert fitted.result.metrics["val_loss"] == pytest.approx(counted, abs=0.25)
