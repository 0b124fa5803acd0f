"""The run folder: what a training leaves on disk.

RUN/run.json             task, options, data: what `resume` needs
RUN/metrics.jsonl        one line a report
RUN/model.safetensors    the best model so far
RUN/step-N/              the newest checkpoint
"""

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from unrolled.data.contents import check
from unrolled.errors import InputError, UnrolledError
from unrolled.training import checkpoint, files, model_file

OURS = re.compile(
    r"(run\.json|metrics\.jsonl|model\.safetensors|loss\.png|\..*\.tmp"
    rf"|({checkpoint.NAME.pattern}|\.step-unfinished)(/(tensors\.safetensors|training\.json|manifest\.json|\..*\.tmp))?)"
)
"""What trainings write into a run folder."""


class Config(TypedDict):
    """What run.json says."""

    task: str
    data: list[str]
    val: list[str] | str | None
    sha256: list[str]
    options: dict[str, Any]
    vocabulary: dict[str, Any]
    decoders: NotRequired[str]
    rules: NotRequired[int]
    trained_on: NotRequired[model_file.TrainedOn]


class Run:
    """A run folder that exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def model(self) -> Path:
        return self.folder / model_file.NAME

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @staticmethod
    def check(folder: Path, overwrite: bool, keep: Sequence[Path] = ()) -> None:
        """Raise `InputError` where a run cannot begin: an existing place is never overwritten by accident, and never
        if one of the files to `keep`, which the training reads, lies in it, or any that no training has written: a
        table or a backbone may name it."""
        if not folder.exists() and not folder.is_symlink():
            return
        if not overwrite:
            raise InputError(f"{folder} exists already: choose another --out, or add --overwrite to replace that run")
        if folder.is_symlink():
            raise InputError(f"{folder} is a link, and --overwrite replaces folders: name the folder that it leads to")
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / "run.json").exists()):
            raise InputError(f"{folder} is not a run folder, so --overwrite does not replace it: choose another --out")
        for path in keep:
            places = (path.resolve(), Path(os.path.abspath(path)))  # the file, and the link that leads to it
            if any(place.is_relative_to(folder.resolve()) for place in (*places, places[1].parent.resolve())):
                raise InputError(f"{path} lies in {folder}, which --overwrite would delete: choose another --out")
        for path in _of_others(folder):
            raise InputError(
                f"{path} was not written by a training, and --overwrite would delete it with {folder}: move it away, "
                "or choose another --out"
            )

    def describe(self, config: Mapping[str, Any]) -> None:
        """Write run.json."""
        text = json.dumps(signed(config), indent=1, ensure_ascii=False)
        # the bytes of a file's name need not be UTF-8: such a one becomes JSON's escape
        files.write(self.folder / "run.json", text.encode(errors="backslashreplace"))

    @classmethod
    def open(cls, folder: Path) -> tuple["Run", dict[str, Any]]:
        """An existing run and its configuration."""
        try:
            config = json.loads((folder / "run.json").read_bytes())
        except FileNotFoundError:
            if folder.is_dir() and not any(folder.iterdir()):
                raise InputError(
                    f"{folder} is empty: its training has not begun, or was killed before it did; train again"
                ) from None
            raise InputError(f"{folder} is not a run folder: it has no run.json") from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {folder / 'run.json'} ({error}): the run cannot be resumed") from error
        try:
            check(config, Config, "run.json")
            if CHECKSUM in config and config != signed(config):  # runs of version 0.1.0 have none
                raise InputError("it fails its checksum")
        except InputError as error:
            raise InputError(
                f"{folder / 'run.json'} is damaged ({error}): the run cannot be resumed, but its model can be used"
            ) from error
        return cls(folder), config

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        try:
            with self.metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UnrolledError(f"cannot write {self.metrics}: {error.strerror}") from error

    def forget_after(self, step: int) -> str | None:
        """Drop the lines of metrics.jsonl that lie after a checkpoint: they will be written again. A line that is no
        report is dropped too. Returns what to tell people; a log never stops a training."""
        if not self.metrics.exists():
            return None
        try:
            lines = self.metrics.read_bytes().split(b"\n")
            steps = [_step_of(line) for line in lines]
            kept = [line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step]
            files.write(self.metrics, b"".join(line + b"\n" for line in kept))
        except (OSError, UnrolledError) as error:
            return f"{self.metrics} cannot be read or written ({error}), so it does not go on"
        # a kill can leave half a line at the end
        bad = [n for n, (line, at) in enumerate(zip(lines[:-1], steps, strict=False), 1) if line.strip() and at is None]
        if not bad:
            return None
        listed = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        return f"{self.metrics} had lines that are no reports, which were left out: {listed}"


class Claim:
    """The folder of a run that has not begun: made at once, so that no other training takes it while this one reads
    its data. As a context it leaves nothing behind where it ends with an error before anything was trained.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        """Raises `InputError` where the folder exists, unless it is a run that `overwrite` replaces."""
        Run.check(folder, overwrite)
        self.folder = folder
        self.made: list[Path] = []
        """What did not exist before, the outermost first"""
        if not folder.exists():
            self._make()

    @classmethod
    def next_free(cls, parent: Path, name: str) -> "Claim":
        """The first of parent/name-1, parent/name-2, … that nobody has."""
        for number in itertools.count(1):
            with contextlib.suppress(InputError):
                return cls(parent / f"{name}-{number}")
        raise AssertionError("there is always another number")

    def begin(self, config: dict[str, Any], keep: Sequence[Path] = ()) -> Run:
        """The run: its folder holds this configuration and nothing else. An older run there is deleted, where
        `Run.check` still finds nothing in it to `keep`: the training has read its data meanwhile."""
        if not self.made:
            Run.check(self.folder, True, keep)
            with _refusing(self.folder):
                shutil.rmtree(self.folder)
            self._make()
        elif not self.folder.is_dir() or any(self.folder.iterdir()):
            raise InputError(f"{self.folder} was taken by another training meanwhile: choose another --out")
        run = Run(self.folder)
        run.describe(config)
        return run

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is None or not self.made or not self.folder.is_dir():
            return
        if {path.name for path in self.folder.iterdir()} <= {"run.json"}:
            (self.folder / "run.json").unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # another run has come to lie in one of them
                for path in reversed(self.made):
                    path.rmdir()

    def _make(self) -> None:
        outer = [path for path in reversed(self.folder.parents) if not path.exists()]
        with _refusing(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.folder.mkdir()
            except FileExistsError:
                raise InputError(f"{self.folder} was taken by another training: choose another --out") from None
        self.made = [*outer, self.folder]


@contextlib.contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnrolledError(
            f"cannot create the run folder {folder}: {error.strerror or error}; choose another --out"
        ) from error


CHECKSUM = "run_sha256"


def signed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with its checksum, which does not depend on how the JSON is laid out; one that it has had
    before is replaced."""
    unsigned = {name: value for name, value in config.items() if name != CHECKSUM}
    text = json.dumps(unsigned, sort_keys=True)
    return {**unsigned, CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}


def _step_of(line: bytes) -> int | None:
    """The step of a report, None for what is none."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return step if isinstance(step, int) else None


def _of_others(folder: Path) -> Iterator[Path]:
    """What lies in a run folder and was not written by trainings: their files are plain files under known names."""
    for path in sorted(folder.rglob("*")):
        known = OURS.fullmatch(path.relative_to(folder).as_posix())
        if not known or path.is_symlink() or path.is_dir() != bool(re.search(r"step-[^/]*$", path.name)):
            yield path
