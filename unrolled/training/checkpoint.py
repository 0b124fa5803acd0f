"""Checkpoints: everything a training needs to go on as if it had never stopped.

A checkpoint is a folder `step-N` with the tensors (model, optimiser, carried state, random-number states), a JSON file
(step, clock, data cursor) and a manifest of SHA-256 sums. It is written under another name, flushed, and renamed;
only then is its predecessor removed, so a kill at any instant leaves the old one or the new one.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import safetensors.torch
import torch
from torch import Tensor

from unrolled.data.contents import check
from unrolled.errors import InputError, UnrolledError
from unrolled.training import files
from unrolled.training.options import MOST

NAME = re.compile(r"step-(\d+)(?:\.(\d+))?")


class Progress(TypedDict):
    """Since when nothing has become better: see `Validation.progress`."""

    step: int
    monitor: float | None
    val_loss: float | None


class Description(TypedDict):
    """What training.json says, written by `training/loop.py`."""

    format: int
    step: int
    done: bool
    tokens: int
    seconds: float
    training_seconds: float
    begin: float | None
    validated_at: list[int]
    progress: NotRequired[Progress]
    has_state: bool
    cursor: dict[str, Any]
    averaged_until: NotRequired[float | None]
    engine: str
    threads: int
    device: str


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> Path:
    """Write `folder/step-N` and remove older ones. A second of the same step is `step-N.1`, then `step-N.2`, …"""
    newest = latest(folder)
    again = newest is not None and _order(newest)[0] == step
    target = folder / (f"step-{step}.{_order(newest)[1] + 1}" if newest and again else f"step-{step}")
    unfinished = folder / ".step-unfinished"
    contents = {
        "tensors.safetensors": files.tensors_to_bytes(tensors),
        "training.json": json.dumps({"format": files.FORMAT, **description}).encode(),
    }
    manifest = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        for name, data in contents.items():
            files.write(unfinished / name, data)
        files.write(unfinished / "manifest.json", json.dumps(manifest).encode())
        unfinished.rename(target)
        files.sync_folder(folder)
        for old in _all(folder):
            if old != target:
                shutil.rmtree(old)
    except OSError as error:
        raise UnrolledError(
            f"cannot write the checkpoint {target}: {error.strerror or error}; the one before it is kept"
        ) from error
    return target


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run folder."""
    return max(_all(folder), key=_order, default=None)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU and the description; raises `InputError` where a byte differs from the manifest."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        sums = {name: manifest[name] for name in ("training.json", "tensors.safetensors")}
        contents = {name: (path / name).read_bytes() for name in sums}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"the checkpoint {path} is damaged ({error}): train again from its model with --start-from"
        ) from error
    for name, data in contents.items():
        if hashlib.sha256(data).hexdigest() != sums[name]:
            raise InputError(
                f"the checkpoint {path} is damaged ({name} fails its checksum): "
                "train again from its model with --start-from"
            )
    description = files.described(contents["training.json"], path)
    try:
        return safetensors.torch.load(contents["tensors.safetensors"]), description
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"the checkpoint {path} is damaged ({error}): train again from its model with --start-from"
        ) from error


def check_description(path: Path, description: dict[str, Any]) -> None:
    """Raise `InputError` where it lacks what a training needs to go on."""
    try:
        check(description, Description, "training.json")
        if description["step"] != _order(path)[0]:
            raise InputError(f"step of training.json is {description['step']}")
        if not 1 <= description["threads"] <= MOST["threads"]:
            raise InputError(f"threads of training.json is {description['threads']}")
    except InputError as error:
        raise senseless(path, error) from error


def senseless(path: Path, error: Exception) -> InputError:
    """A checkpoint whose sums are right, but not what they are sums of."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(f"the checkpoint {path} makes no sense ({reason}): train again from its model with --start-from")


def random_states() -> dict[str, Tensor]:
    """The states of PyTorch's generators."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    """To be called last, when nothing that draws random numbers is left to be set up."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors `index.name`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": value for index, each in state.items() for name, value in each.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, kept in state.items():
        moments = {name: value.shape for name, value in kept.items() if name != "step"}
        if moments != dict.fromkeys(("exp_avg", "exp_avg_sq"), parameters[number].shape) or "step" not in kept:
            raise ValueError(f"the optimiser's state of parameter {number} does not fit it")
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `with_prefix`."""
    start = prefix + "/"
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}


def _all(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if NAME.fullmatch(path.name)]


def _order(path: Path) -> tuple[int, int]:
    """Step and generation."""
    match = NAME.fullmatch(path.name)
    assert match
    return int(match[1]), int(match[2] or 0)
