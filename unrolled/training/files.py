"""Writing files so that a crash, a kill or a full disk leaves the old content or the new, never a part of it."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
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


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tensors_to_bytes(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata)


def save_model(path: Path, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """One self-contained `.safetensors`: `description` and the tensors' SHA-256 travel as JSON in its metadata."""
    described = {"format": FORMAT, **description, "sha256": tensors_sha256(tensors)}
    text = json.dumps(described, ensure_ascii=False, sort_keys=True)
    metadata = {"unrolled": text, "unrolled_sha256": hashlib.sha256(text.encode()).hexdigest()}
    write(path, tensors_to_bytes(tensors, metadata))


def load_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU and the description. Raises `InputError` where the file is missing, damaged or not ours."""
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise InputError(f"no model at {path}: name a model file or a run folder that holds one")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged or no model file ({error}): take it from a copy or train again") from error
    if "unrolled" not in metadata:
        raise InputError(f"{path} was not written by unrolled: it has tensors, but no description of a model")
    text = metadata["unrolled"]
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get("unrolled_sha256"):
        raise InputError(f"{path} is damaged (its description fails its checksum): take it from a copy or train again")
    description: dict[str, Any] = json.loads(text)
    if description["format"] > FORMAT:
        raise InputError(f"{path} has format {description['format']}, newer than {FORMAT}: update unrolled")
    if tensors_sha256(tensors) != description["sha256"]:
        raise InputError(f"{path} is damaged (its tensors fail their checksum): take it from a copy or train again")
    return tensors, description
