"""The command line when something is wrong: one sentence on standard error, the right exit code, nothing touched."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import Listener

import unrolled
from unrolled.tasks.fitting import fit
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions
from unrolled.training import checkpoint, model_file

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
TRAIN = "train language-model"
GOOD = f"{TRAIN} good.txt --steps 2"
SMALL = "--steps 2 --hidden 8 --batch 2 --bptt 8 --out out"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_text: Path, make_model: Callable[..., LanguageModel]) -> Path:
    """A folder with everything the commands below name; see `here`."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copy(tiny_text, folder / "good.txt")
    for name, data in {
        "empty.txt": b"",
        "one.txt": b"a",
        "two.txt": b"ab",
        "binary.bin": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "latin.txt": "ein Café\n".encode("latin-1") * 9,
        "pictures/a.png": b"\x89PNG\0",
        "precious/thesis.txt": b"years of work",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    model = make_model()
    model.save(folder / "model.safetensors")
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-9] ^= 4
    (folder / "damaged.safetensors").write_bytes(data)
    tensors, description = model_file.load(folder / "model.safetensors")
    model_file.save(folder / "captions.safetensors", tensors, {**description, "task": "caption-image"})
    options = LanguageModelOptions(steps=9, hidden=8, batch=2, bptt=8)
    for name in ("run", "stopped", "scratched", "emptied"):
        fit([folder / "good.txt"], options=options, out=folder / name, observer=Listener(3))
    scratched = checkpoint.latest(folder / "scratched")
    assert scratched
    (scratched / "tensors.safetensors").write_bytes(b"scratched")
    (folder / "emptied" / "run.json").write_text("{}")
    (folder / "link").symlink_to("run")
    return folder


@pytest.fixture
def here(place: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return shutil.copytree(place, tmp_path / "here", symlinks=True)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def assert_one_sentence(stderr: str, message: str) -> None:
    assert "Traceback" not in stderr
    assert re.fullmatch(r"unrolled: [^\n]+\n", stderr), stderr
    assert re.search(message, stderr), stderr
    assert len(stderr.split()) > 4  # what is wrong and what to do, not a word or a number alone


CASES = {
    # the text
    "missing file": (2, "no such file.*missing.txt", f"{TRAIN} missing.txt {SMALL}"),
    "no file": (2, "no text is given", f"{TRAIN} {SMALL}"),
    "empty file": (2, "empty.txt is empty", f"{TRAIN} empty.txt {SMALL}"),
    "one character": (2, "one.txt is too short: 1 character", f"{TRAIN} one.txt {SMALL}"),
    "two characters": (2, "two.txt is too short: 2 characters", f"{TRAIN} two.txt {SMALL}"),
    "binary": (2, r"binary.bin (looks binary|is not UTF-8).*byte", f"{TRAIN} binary.bin {SMALL}"),
    "bad UTF-8": (2, r"latin.txt is not UTF-8 .* byte 7 .*\(0xe9\): convert it", f"{TRAIN} latin.txt {SMALL}"),
    "folder without text": (2, "no UTF-8 text files in the folder pictures", f"{TRAIN} pictures {SMALL}"),
    "missing validation text": (2, "no such file.*missing.txt", f"{TRAIN} good.txt --val missing.txt {SMALL}"),
    "validation text too short": (2, "too short", f"{TRAIN} good.txt --val one.txt {SMALL}"),
    # the options
    "unknown command": (2, "nonsense", "nonsense"),
    "unknown flag": (2, "--hiden", f"{TRAIN} good.txt --hiden 9 {SMALL}"),
    "no number": (2, "--layers.*two", f"{TRAIN} good.txt --layers two {SMALL}"),
    "unknown cell": (2, "unknown cell 'lstn': choose one of .*lstm", f"{TRAIN} good.txt --cell lstn {SMALL}"),
    "hidden 0": (2, "--hidden is 0: it must be greater than 0", f"{GOOD} --hidden 0 --out out"),
    "bptt 0": (2, "--bptt is '?0'?: give a number", f"{GOOD} --bptt 0 --out out"),
    "lr nan": (2, "--lr is nan", f"{TRAIN} good.txt --lr nan {SMALL}"),
    "dropout 1": (2, "--dropout is 1", f"{TRAIN} good.txt --dropout 1 {SMALL}"),
    "seconds and steps": (2, "--seconds and --steps are both given", f"{TRAIN} good.txt --seconds 9 {SMALL}"),
    "unknown tokens": (2, "words.*char.*byte", f"{TRAIN} good.txt --tokens words {SMALL}"),
    "unknown engine": (2, "unknown engine 'warp': choose one of auto", f"{TRAIN} good.txt --engine warp {SMALL}"),
    "unknown device": (2, "the device abacus cannot be used", f"{TRAIN} good.txt --device abacus {SMALL}"),
    "device without numbers": (2, "the device meta cannot be used", f"{TRAIN} good.txt --device meta {SMALL}"),
    "seed beyond 64 bits": (2, "--seed", f"{TRAIN} good.txt --seed {10**30} {SMALL}"),
    "more than any memory": ((1, 2), "memory", f"{GOOD} --hidden {10**12} --out out"),
    # where it goes
    "no folder can be made": (1, "cannot create the run folder /proc/x/run", f"{GOOD} --out /proc/x/run"),
    "under a file": (1, "cannot create the run folder good.txt/run", f"{GOOD} --out good.txt/run"),
    "out exists": (2, "run exists already.*--overwrite", f"{GOOD} --out run"),
    "out is a file": (2, "good.txt exists already", f"{GOOD} --out good.txt"),
    "overwrite what is no run": (2, "precious is not a run folder", f"{GOOD} --out precious --overwrite"),
    "overwrite a file": (2, "good.txt is not a run folder", f"{GOOD} --out good.txt --overwrite"),
    "overwrite, then a bad option": (2, "unknown engine", f"{GOOD} --engine warp --out run --overwrite"),
    "overwrite through a link": ((1, 2), r"link(?!.*None)", f"{GOOD} --out link --overwrite"),
    # models and runs
    "missing model": (2, "no model at missing", "sample missing"),
    "text as a model": (2, "good.txt is damaged or no model file", "sample good.txt"),
    "damaged model, sample": (2, "damaged.safetensors is damaged", "sample damaged.safetensors --length 5"),
    "damaged model, evaluate": (2, "damaged.safetensors is damaged", "evaluate damaged.safetensors good.txt"),
    "damaged model, start": (2, "is damaged", f"{GOOD} --start-from damaged.safetensors --out out"),
    "another task": (2, "is a model for caption-image", "sample captions.safetensors"),
    "contradiction": (2, "--hidden 9 contradicts.* 8", f"{GOOD} --hidden 9 --start-from model.safetensors --out out"),
    "resume a folder that is no run": (2, "precious is not a run folder", "resume precious"),
    "resume nothing": (2, "missing is not a run folder", "resume missing"),
    "resume a damaged checkpoint": (2, "is damaged.*--start-from", "resume scratched"),
    "resume a damaged configuration": (2, "run.json", "resume emptied"),
    "evaluate on nothing": (2, "no text is given", "evaluate model.safetensors"),
    "evaluate on too little": (2, "one.txt is too short", "evaluate model.safetensors one.txt"),
    "evaluate an unknown split": (2, "unknown split 'tset'", "evaluate model.safetensors good.txt --split tset"),
    # sampling
    "temperature": (2, "--temperature is -1", "sample model.safetensors --temperature -1"),
    "length": (2, "--length is -1", "sample model.safetensors --prompt a --length -1"),
    "no samples": (2, "--samples", "sample model.safetensors --samples 0"),
    "a prompt that is not text": (2, "not valid Unicode", "sample model.safetensors --length 3 --prompt a\udcff"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "message", "line"), CASES.values(), ids=CASES)
def test_what_is_wrong_is_said_and_nothing_is_touched(
    quick_cli: Cli, here: Path, code: int | tuple[int, int], message: str, line: str
) -> None:
    before = snapshot(here)
    result = quick_cli(*line.split(), cwd=here)
    assert_one_sentence(result.stderr, message)
    assert result.returncode in (code if isinstance(code, tuple) else (code,))
    assert result.stdout == ""
    after = snapshot(here)
    assert sorted(after) == sorted(before)
    assert after == before


def test_a_loss_that_is_not_finite_ends_with_3(quick_cli: Cli, here: Path, tmp_path: Path) -> None:
    """Also where only the last update, after which no other follows, has spoilt the weights."""
    for steps in (1, 40):
        out = tmp_path / str(steps)
        arguments = f"{TRAIN} good.txt --hidden 8 --lr 1e300".split()
        result = quick_cli(*arguments, "--steps", steps, "--out", out, cwd=here)
        assert "Traceback" not in result.stderr
        assert result.returncode == 3, result.stderr
        assert re.search(r"unrolled: .* not finite .*--lr[^\n]*\n$", result.stderr)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount command here, so no small file system can be made")
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("hidden", [40, 96], ids=["the checkpoint does not fit", "the model does not fit"])
def test_a_full_disk_is_said(quick_cli: Cli, here: Path, small_disk: Path, hidden: int) -> None:
    out = small_disk / "run"
    result = quick_cli(*f"{GOOD} --hidden {hidden} --out {out}".split(), cwd=here)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert re.search(r"(?m)^unrolled: cannot write .*: No space left on device[^\n]*\n$", result.stderr), result.stderr
    assert result.stderr.count("unrolled: ") == 1
    assert list(out.rglob("*.tmp")) == []
    if hidden == 40:
        assert len(unrolled.load(out).sample("a", 5)) == 6
    else:
        assert not (out / "model.safetensors").exists()


# What is printed where


@pytest.mark.parametrize("line", ["--help", "--version", "train --help", f"{TRAIN} --help", "sample --help"])
def test_help_imports_no_torch(unrolled_cli: Cli, tmp_path: Path, line: str) -> None:
    result = unrolled_cli(*line.split(), cwd=tmp_path, env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.returncode == 0
    imported = set(re.findall(r"^import time:.*\| +(\w+)", result.stderr, re.MULTILINE))
    assert {"unrolled", "cyclopts"} <= imported
    assert not {"torch", "numpy", "safetensors"} & imported
    assert ("Usage: unrolled" in result.stdout) == (line != "--version")
    assert list(tmp_path.iterdir()) == []


def test_version(unrolled_cli: Cli) -> None:
    result = unrolled_cli("--version")
    assert (result.returncode, result.stdout, result.stderr) == (0, unrolled.__version__ + "\n", "")


def test_json_is_one_object_and_progress_goes_to_standard_error(unrolled_cli: Cli, here: Path, tmp_path: Path) -> None:
    """In a process from beginning to end, as a shell would start it."""
    arguments = f"{TRAIN} good.txt --steps 4 --eval-every 2 --hidden 8 --json --out".split()
    result = unrolled_cli(*arguments, tmp_path / "run", cwd=here)
    assert result.returncode == 0
    summary = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    promised = (
        "task cell engine parameters seconds steps tokens_per_second train_loss val_loss model bits_per_character"
    )
    assert set(promised.split()) <= set(summary)
    assert (summary["task"], summary["cell"], summary["steps"]) == ("language-model", "lstm", 4)
    assert summary["bits_per_character"] == pytest.approx(summary["val_loss"] / 0.6931471805599453)
    assert unrolled.load(summary["model"]).metrics["val_loss"] == summary["val_loss"]
    assert result.stderr.count("val_loss") == 2  # in the middle and at the end
    assert "{" not in result.stderr


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("sample run --json --length 9 --samples 2 --seed 4", {"prompt", "seed", "texts"}),
        ("evaluate model.safetensors good.txt --json", {"val_loss", "bits_per_character"}),
        ("resume stopped --json", {"task", "steps", "val_loss", "model"}),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_every_verb_speaks_json(quick_cli: Cli, here: Path, line: str, keys: set[str]) -> None:
    result = quick_cli(*line.split(), cwd=here)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert keys <= set(json.loads(result.stdout))


def test_a_terminal_that_cannot_show_every_character(
    unrolled_cli: Cli, make_model: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    make_model("한글文字").save(tmp_path / "model.safetensors")
    arguments = ["sample", tmp_path / "model.safetensors", "--prompt", "한", "--length", "20", "--seed", "1"]
    result = unrolled_cli(*arguments, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert "Traceback" not in result.stderr
    assert result.returncode == 0
    assert len(result.stdout) >= 21


def test_debug_shows_the_traceback(quick_cli: Cli, here: Path) -> None:
    result = quick_cli("sample", "missing", "--debug", cwd=here)
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "InputError: no model at missing" in result.stderr
