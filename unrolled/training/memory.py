"""Whether a training fits into memory, known before any is taken: from the shapes of its network and of its batches.

A network on the device "meta" has shapes and no numbers, so it can be of any size. What is counted is the least that a
training needs; what comes on top (the data, workspaces of kernels) is not.
"""

import copy
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from unrolled.errors import InputError
from unrolled.nn import Recurrent
from unrolled.nn.convnet import numbers_a_frame
from unrolled.topologies import Decoder, ManyToMany, ManyToOne, OneToOne

SMALL: dict[str, Any] = {
    "batch": 1,
    "bptt": 1,
    "layers": 1,
    "embedding": 1,
    "hidden": 2,
    "features": 2,
    "channels": "1",
    "size": 8,
}
"""The options that decide how much memory a training takes, each with a value that takes hardly any."""
CGROUP = Path("/sys/fs/cgroup")


class Need(NamedTuple):
    """Bytes"""

    weights: int
    """With their gradient, AdamW's two moments, the best model so far and, where it is kept, the average"""
    batch: int
    """What forward leaves for backward, of the largest batch"""


def free(device: torch.device) -> int:
    """Bytes that can be had: of a GPU; else without swapping, and within what a container may take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024
    except OSError:  # not Linux: half of the whole is a cautious guess
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    try:
        most, taken = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
    except OSError:
        return available
    return available if most == "max" else max(0, min(available, int(most) - int(taken)))


def check(task: Any) -> None:
    """Raise `InputError` where the training cannot fit, with the option that takes most of what is too much.

    task: with its data read, as `Trainer` takes it.
    """
    available, need = free(task.device), _need(task)
    if sum(need) <= available:
        return
    without = {
        name: sum(_need(_changed(task, **{name: small})))
        for name, small in SMALL.items()
        if (has := getattr(task.options, name, None)) not in (None, small, 0)
        and not (name == "bptt" and not hasattr(task.batches("train"), "lanes"))
        and (isinstance(has, str) or has > small)
    }
    # where the weights alone would fit, it is the batch that does not
    of_batch = {name: least for name, least in without.items() if name in ("batch", "bptt")}
    chosen = (of_batch if need.weights <= available else without) or without
    name = min(chosen, key=lambda option: chosen[option])
    value = getattr(task.options, name)
    shown = f"{value:,}" if isinstance(value, int) else str(value)
    instead = "give it a number such as 64" if value == "full" else "lower it"
    raise InputError(
        f"--{name} is {shown}: such a training needs about {_gib(sum(need))} of memory ({_gib(need.weights)} for "
        f"weights with gradient and moments, {_gib(need.batch)} for a batch), and {_gib(available)} are free on "
        f"{task.device}: {instead}"
    )


def refuse_above(need: int, device: torch.device, what: str, instead: str) -> None:
    """Raise `InputError` where so many bytes are not there; what: takes them, the sentence's subject."""
    if need > (available := free(device)):
        raise InputError(f"{what} needs about {_gib(need)} of memory, and {_gib(available)} are free: {instead}")


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"


def _changed(task: Any, **options: Any) -> Any:
    changed = copy.copy(task)
    changed.options = replace(task.options, **options)
    return changed


def _need(task: Any) -> Need:
    with torch.device("meta"):
        model: nn.Module = task.model()
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    others = sum(t.numel() for t in model.state_dict().values()) - learnt
    weights = 4 * (learnt * (5 + (task.options.average > 0)) + others * 2)
    inputs, *targets = task.batches("train").largest()
    numbers = numbers_a_frame(model) * inputs
    for name, module in model.named_modules():
        written = targets[-1] if targets and "decoder" in name.split(".") else inputs
        if isinstance(module, Recurrent):
            # of each timestep and row: input part, its gradient and what the cell saved (3 gates), states, output
            one = module.hidden_size * (3 * module.cell.gates + 2 * module.cell.states + 4)
            numbers += written * one * module.num_layers * module.directions
        elif isinstance(module, ManyToMany | OneToOne):  # scores, their gradient and the softmax
            numbers += 3 * inputs * module.output.out_features
        elif isinstance(module, ManyToOne):
            numbers += 3 * min(inputs, task.options.batch) * module.output.out_features
        elif isinstance(module, Decoder) and module.bias is not None:
            numbers += 3 * (targets[-1] if targets else inputs) * module.bias.numel()
    return Need(weights, 4 * numbers)
