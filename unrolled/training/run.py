"""The run folder: what a training leaves on disk.

RUN/run.json             task, options, data: what `resume` needs
RUN/metrics.jsonl        one line a report
RUN/model.safetensors    the best model so far
RUN/step-N/              the newest checkpoint
"""

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unrolled.data.folders import RUN_KEYS
from unrolled.errors import InputError, UnrolledError
from unrolled.training import files


class Run:
    """A run folder that exists."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @staticmethod
    def check(folder: Path, overwrite: bool, keep: Sequence[Path] = ()) -> None:
        """Raise `InputError` where a run cannot begin: an existing place is never overwritten by accident, and never
        if one of the files to `keep`, which the training reads, lies in it."""
        if not folder.exists():
            return
        if not overwrite:
            raise InputError(f"{folder} exists already: choose another --out, or add --overwrite to replace that run")
        if not folder.is_dir() or (any(folder.iterdir()) and not (folder / "run.json").exists()):
            raise InputError(f"{folder} is not a run folder, so --overwrite does not replace it: choose another --out")
        for path in keep:
            if path.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{path} lies in {folder}, which --overwrite would delete: choose another --out")

    def describe(self, config: dict[str, Any]) -> None:
        """Write run.json."""
        text = json.dumps(config, indent=1, ensure_ascii=False)
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
        if not isinstance(config, dict) or not config.keys() >= RUN_KEYS:
            raise InputError(f"{folder / 'run.json'} is damaged: the run cannot be resumed, but its model can be used")
        return cls(folder), config

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to metrics.jsonl."""
        try:
            with self.metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UnrolledError(f"cannot write {self.metrics}: {error.strerror}") from error

    def forget_after(self, step: int) -> None:
        """Drop the lines of metrics.jsonl that lie after a checkpoint: they will be written again."""
        if self.metrics.exists():
            lines = self.metrics.read_text().splitlines()
            # a kill can leave half a line at the end
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
            files.write(self.metrics, "".join(line + "\n" for line in kept).encode())


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

    def begin(self, config: dict[str, Any]) -> Run:
        """The run: its folder holds this configuration and nothing else."""
        if not self.made:
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
