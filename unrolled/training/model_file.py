"""The model file: one self-contained `.safetensors`, no pickle, and damage is noticed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import safetensors
import torch
from torch import Tensor

from unrolled.data.contents import check
from unrolled.errors import InputError
from unrolled.training import files
from unrolled.training.files import FORMAT

NAME = "model.safetensors"
"""In a run folder"""


class TrainedOn(TypedDict):
    """What is said of the data of a training: see `examples.trained_on`."""

    val: list[str] | None
    digest: str | None


class Description(TypedDict):
    """What every model file says of itself, beside what its task adds."""

    format: int
    task: str
    options: dict[str, Any]
    vocabulary: dict[str, Any]
    metrics: dict[str, float]
    step: int
    sha256: str
    validated: NotRequired[int]
    generated: NotRequired[int | None]
    trained_on: NotRequired[TrainedOn | None]


def sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or an infinity; None where there is none."""
    return next((name for name, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()), None)


def save(path: Path, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """One self-contained `.safetensors`: `description` and the tensors' SHA-256 travel as JSON in its metadata."""
    described = {"format": FORMAT, **description, "sha256": sha256(tensors)}
    text = json.dumps(described, ensure_ascii=False, sort_keys=True)
    metadata = {"unrolled": text, "unrolled_sha256": hashlib.sha256(text.encode()).hexdigest()}
    files.write(path, files.tensors_to_bytes(tensors, metadata))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU and the description. Raises `InputError` where the file is missing, damaged or not ours, and
    where its weights are not finite."""
    folder = path
    if path.is_dir():
        path = path / NAME
    if not path.is_file():
        begun = folder.is_dir() and ((folder / "run.json").exists() or not any(folder.iterdir()))
        why = "its training has kept none yet, or ended before it did" if begun else "there is no such file"
        raise InputError(f"no model at {path}: {why}; name a model file or a run folder that holds one")
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
    description = files.described(text, path)
    try:
        check(description, Description, "its description")
    except InputError as error:
        raise InputError(
            f"{path} is no model that unrolled wrote ({error}): take it from a copy or train again"
        ) from error
    if sha256(tensors) != description["sha256"]:
        raise InputError(f"{path} is damaged (its tensors fail their checksum): take it from a copy or train again")
    if name := not_finite(tensors):
        raise InputError(
            f"{path} has weights that are not finite numbers ({name}), since its training diverged: train again with a "
            "lower --lr"
        )
    return tensors, description
