"""The run folder: what a training leaves on disk.

RUN/run.json             task, options, data: what `resume` needs
RUN/metrics.jsonl        one line a report
RUN/model.safetensors    the best model so far
RUN/step-N/              the newest checkpoint
"""

import json
import shutil
from collections.abc import Sequence
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
        """Raise `InputError` where `create` would refuse: an existing place is never overwritten by accident, and never
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

    @classmethod
    def create(cls, folder: Path, config: dict[str, Any], overwrite: bool = False) -> "Run":
        cls.check(folder, overwrite)
        try:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
        except OSError as error:
            raise UnrolledError(
                f"cannot create the run folder {folder}: {error.strerror or error}; choose another --out"
            ) from error
        run = cls(folder)
        text = json.dumps(config, indent=1, ensure_ascii=False)
        # the bytes of a file's name need not be UTF-8: such a one becomes JSON's escape
        files.write(folder / "run.json", text.encode(errors="backslashreplace"))
        return run

    @classmethod
    def open(cls, folder: Path) -> tuple["Run", dict[str, Any]]:
        """An existing run and its configuration."""
        try:
            config = json.loads((folder / "run.json").read_bytes())
        except FileNotFoundError:
            raise InputError(f"{folder} is not a run folder: it has no run.json") from None
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {folder / 'run.json'} ({error}): the run cannot be resumed") from error
        if not isinstance(config, dict) or not config.keys() >= RUN_KEYS:
            raise InputError(f"{folder / 'run.json'} is damaged: the run cannot be resumed, but its model can be used")
        return cls(folder), config

    @staticmethod
    def next_free(parent: Path, name: str) -> Path:
        """The first of parent/name-1, parent/name-2, … that does not exist."""
        number = 1
        while (parent / f"{name}-{number}").exists():
            number += 1
        return parent / f"{name}-{number}"

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
