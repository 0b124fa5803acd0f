"""Writing files so that a crash, a kill or a full disk leaves the old content or the new, never a part of it."""

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from unrolled.errors import InputError, UnrolledError

FORMAT = 1
"""Version of the model file and of the checkpoint."""


def write(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: written beside it, flushed to the disk, then renamed over it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # the error to report is the first one
            temporary.unlink(missing_ok=True)
        raise UnrolledError(
            f"cannot write {path}: {error.strerror}; what was there before is kept. Free some space or choose "
            "another place"
        ) from error


def check_apart(out: Path, reads: Iterable[str | os.PathLike[str]]) -> None:
    """Raise `InputError` where a file to write is one of those that are read, by whatever name."""
    for path in reads:
        try:
            same = out.samefile(path)
        except (OSError, ValueError):  # what is not there is not overwritten
            continue
        if same:
            raise InputError(f"{out} is read by this command, and would be overwritten: name another file")


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def described(text: str | bytes, path: Path) -> dict[str, Any]:
    """The JSON object in a file of ours; raises `InputError` where it is none, or of another format."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged (its description is no JSON): take it from a copy or train again"
        ) from error
    number = found.get("format") if isinstance(found, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InputError(f"{path} says nothing of its format: it was not written by unrolled, or is damaged")
    if number > FORMAT:
        raise InputError(f"{path} has format {number}, newer than {FORMAT}: update unrolled")
    return dict(found)


def tensors_to_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata)
