"""The folder of a run from its first moment, signals before the first update, and the time before it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import Cli, _environment
from helpers import Listener, assert_one_sentence

from unrolled.engines.native import build
from unrolled.errors import InputError
from unrolled.tasks.fitting import fit
from unrolled.tasks.options import LanguageModelOptions
from unrolled.training.run import Claim, Run
from unrolled.training.schedule import Clock

SMALL = LanguageModelOptions(hidden=8, batch=4, bptt=8, steps=2)


def test_no_two_trainings_get_the_same_folder(tmp_path: Path) -> None:
    first, second = (Claim.next_free(tmp_path / "runs", "translate") for _ in range(2))
    assert [first.folder.name, second.folder.name] == ["translate-1", "translate-2"]
    with pytest.raises(InputError, match="exists already"):
        Claim(first.folder)
    first.begin({"task": "translate"})
    with pytest.raises(InputError, match="taken by another training"):
        first.begin({"task": "translate"})


def test_a_training_that_fails_before_it_has_trained_leaves_no_folder(tiny_text: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "runs" / "one"

    class Stopped(Listener):
        """Fails when everything is ready, before the first update."""

        def watch(self, model: object) -> None:
            assert (out / "run.json").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit([tiny_text], options=SMALL, out=out, observer=Stopped())
    with pytest.raises(InputError):
        fit([tmp_path / "missing.txt"], options=SMALL, out=out)
    assert list(tmp_path.iterdir()) == []
    fit([tiny_text], options=SMALL, out=out)
    assert (out / "model.safetensors").exists()


def test_a_failed_replacement_keeps_the_run_until_there_is_a_new_one(tiny_text: Path, tmp_path: Path) -> None:
    fit([tiny_text], options=SMALL, out=tmp_path / "run")
    with pytest.raises(InputError):
        fit([tmp_path / "missing.txt"], options=SMALL, out=tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_folder_that_is_only_claimed_is_not_taken_for_a_run(tmp_path: Path, quick_cli: Cli) -> None:
    Claim(tmp_path / "claimed")
    for command in ("sample", "resume"):
        done = quick_cli(command, "claimed", cwd=tmp_path)
        assert done.returncode == 2 and "its training has" in done.stderr
        assert_one_sentence(done.stderr.strip().removeprefix("unrolled: ").replace("; ", " "))
    with pytest.raises(InputError, match="is empty: its training has not begun"):
        Run.open(tmp_path / "claimed")


def test_mistakes_in_options_leave_no_folder(tmp_path: Path, quick_cli: Cli) -> None:
    (tmp_path / "text.txt").write_text("a b c\n" * 50)
    for wrong in (["--hidden", "0"], ["--tokens", "bpe", "--vocabulary", "3"], ["--val", "missing"], ["--device", "x"]):
        assert quick_cli("train", "language-model", "text.txt", *wrong, cwd=tmp_path).returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


# Signals


WAITING = """
import sys
from unrolled.app import cli
import unrolled.tasks.{module} as module
def wait(*_, **__):
    print("waiting", flush=True)
    import time
    while True:
        time.sleep(0.01)
module.{name} = wait
sys.argv = ["unrolled", "train", "language-model", "text.txt", "--steps", "50", "--hidden", "8"]
cli.main()
"""


@pytest.mark.parametrize(
    ("module", "name", "number", "code"),
    [
        ("fitting", "pick_device", signal.SIGTERM, 143),
        ("prepare_language_model", "prepare", signal.SIGINT, 130),
        ("fitting", "_fitted", signal.SIGTERM, 143),
    ],
)
def test_a_signal_before_the_first_update_has_its_exit_code_and_leaves_no_folder(
    tiny_text: Path, tmp_path: Path, module: str, name: str, number: int, code: int
) -> None:
    """While options are looked at, while data are read, and when the run folder has been begun."""
    (tmp_path / "text.txt").write_text(tiny_text.read_text())
    with subprocess.Popen(
        [sys.executable, "-c", WAITING.format(module=module, name=name)],
        cwd=tmp_path,
        env=_environment(None),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout and process.stderr
            assert process.stdout.readline() == "waiting\n"
            assert (tmp_path / "runs" / "language-model-1").is_dir()  # taken at once
            process.send_signal(number)
            said = process.stderr.read()
        except BaseException:
            process.kill()
            raise
    assert process.returncode == code and "Traceback" not in said
    assert not (tmp_path / "runs").exists()


# The time before the first update


def test_kernels_are_compiled_before_the_clock_counts(tiny_text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes 100 s here, once, and left nothing of 8 s. Time goes on only when somebody looks at the clock."""
    now, compiles, unavailable = [0.0], [100.0], build.unavailable

    def looked_at() -> float:
        now[0] += 0.01
        return now[0]

    def compiling() -> str | None:
        now[0] += compiles.pop() if compiles else 0.0
        return unavailable()

    monkeypatch.setattr(time, "monotonic", looked_at)
    monkeypatch.setattr(build, "unavailable", compiling)
    monkeypatch.setattr("unrolled.tasks.recipe.measure_flops", lambda *_: compiling() or 1e9)
    options = LanguageModelOptions(hidden=8, batch=4, bptt=8, seconds=8.0, cell="gru")
    fitted = fit([tiny_text], options=options, clock=Clock(started=0.0))
    assert not compiles and fitted.result.steps > 50 and fitted.result.seconds < 10


def test_a_timed_training_without_time_for_an_update_is_refused(tiny_text: Path, tmp_path: Path) -> None:
    options = LanguageModelOptions(hidden=8, batch=4, bptt=8, seconds=8.0, cell="gru")
    clock = Clock(before=7.9)  # reading the data took so long
    with pytest.raises(InputError, match="--seconds 8 leaves no time for a single update") as raised:
        fit([tiny_text], options=options, out=tmp_path / "run", clock=clock)
    assert_one_sentence(str(raised.value).replace("; ", " "))
    assert list(tmp_path.iterdir()) == []
