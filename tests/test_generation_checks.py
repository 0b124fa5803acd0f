"""What the compiled writer is given is checked before memory is touched, and a worker's exception ends no process."""

import math
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_generation import a_stack, both

from unrolled.engines.native import build


@pytest.fixture(autouse=True)
def compiled() -> None:
    if reason := build.unavailable():
        pytest.skip(reason)


def half(t: torch.Tensor) -> torch.Tensor:
    return t.half()


def narrower(t: torch.Tensor) -> torch.Tensor:
    return t[..., :-1].contiguous()


def shorter(t: torch.Tensor) -> torch.Tensor:
    return t[:-1].contiguous()


def strided(t: torch.Tensor) -> torch.Tensor:
    """The same numbers, each second place of a larger memory."""
    return torch.stack([t, t], -1)[..., 0]


def flat(t: torch.Tensor) -> torch.Tensor:
    return t.flatten()


def differs(changed: torch.Tensor, given: torch.Tensor) -> bool:
    same = (changed.dtype, changed.shape) == (given.dtype, given.shape)
    return not same or not changed.is_contiguous()


CHANGES = [half, torch.Tensor.double, torch.Tensor.long, narrower, shorter, strided, flat]
"""What every tensor is given as, one after the other, where that changes it."""
NAMES = ("packed", "table", "h", "c", "scores", "u")


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_of_another_kind_never_reaches_memory(name: str, cell: str) -> None:
    kernel, _, _ = both(*a_stack(cell, 2, 9, 3))
    right = [kernel.packed, kernel.parts, kernel.h, kernel.c, kernel.scores, torch.rand(4, 3).double()]
    how = (kernel.cell, 1.0, 0, 1.0, 0.0, 0)
    at = NAMES.index(name)
    given = right[at]
    if given is None:
        wrong = [torch.zeros(2, 3, 9)]
    else:
        changes = [c for c in CHANGES if not (name == "u" and c is shorter)]  # fewer numbers write fewer tokens
        wrong = [changed for c in changes if differs(changed := c(given), given)]
        with pytest.raises((RuntimeError, NotImplementedError)):
            torch.ops.unrolled.generate(*right[:at], given.to("meta"), *right[at + 1 :], *how)
    for t in wrong:
        with pytest.raises(RuntimeError, match="unrolled::generate: "):
            torch.ops.unrolled.generate(*right[:at], t, *right[at + 1 :], *how)
    assert torch.ops.unrolled.generate(*right, *how).shape == (4, 3)  # the right one is taken


@pytest.mark.parametrize("change", CHANGES)
def test_weights_of_another_kind_are_not_packed(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    _, _, stack = both(*a_stack("gru", 2, 9, 3))
    tensors = [t for w in stack.weights for t in (w.ih, w.bias_ih, w.hh, w.bias_hh)][2:] + [stack.output, stack.bias]
    torch.ops.unrolled.generate_pack(tensors, 3)
    for at, t in enumerate(tensors):
        if differs(changed := change(t), t):
            with pytest.raises(RuntimeError, match="unrolled::generate: "):
                torch.ops.unrolled.generate_pack([*tensors[:at], changed, *tensors[at + 1 :]], 3)


@pytest.mark.parametrize("wrong", [
    {"temperature": -1.0}, {"temperature": math.nan}, {"top_k": -5}, {"top_p": math.nan}, {"top_p": 0.0},
    {"min_p": 1.5}, {"threads": -1}, {"threads": 1 << 40}, {"cell": 9}, {"u": 1.0}, {"u": -0.1}, {"u": math.nan},
], ids=str)  # fmt: skip
def test_numbers_that_would_pick_a_token_outside_of_the_table_are_refused(wrong: dict[str, float]) -> None:
    kernel, _, _ = both(*a_stack("gru", 1, 9, 3))
    how = {"cell": kernel.cell, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "threads": 0} | wrong
    u = torch.full((4, 3), how.pop("u", 0.5), dtype=torch.float64)
    with pytest.raises(RuntimeError, match="unrolled::generate: "):
        torch.ops.unrolled.generate(kernel.packed, kernel.parts, kernel.h, None, kernel.scores, u, *how.values())


THROWING = r"""
#include <cstdio>
#include <stdexcept>
#include "workers.h"

// Each of four workers in turn throws in a step in which the others wait for it.
int main() {
  int caught = 0;
  for (int bad = 0; bad < 4; ++bad)
    for (int step_of = 0; step_of < 50; step_of += 7) try {
        unrolled::Team::run(4, [&](unrolled::Team::Worker worker) {
          for (int step = 0; step < 100 && worker.goes_on(); ++step) {
            worker.meet();
            if (worker.share(4).first == bad && step == step_of) throw std::runtime_error("from a worker");
            worker.meet();
          }
        });
      } catch (const std::runtime_error& error) {
        ++caught;
      }
  std::printf("%d", caught);
}
"""


def test_an_exception_in_a_worker_reaches_the_caller(tmp_path: Path) -> None:
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "c++", "g++"))), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    (tmp_path / "throwing.cpp").write_text(THROWING)
    built = tmp_path / "throwing"
    flags = ["-std=c++20", "-O1", "-pthread", f"-I{build.SOURCES}"]
    subprocess.run([compiler, *flags, tmp_path / "throwing.cpp", "-o", built], check=True, timeout=100)
    done = subprocess.run([built], capture_output=True, text=True, timeout=60)
    # a team that other programs keep from its cores goes on with its first worker, who may not be the bad one
    assert done.returncode == 0 and 8 <= int(done.stdout) <= 32, done


def test_scores_of_fewer_tokens_than_the_model_has_are_refused() -> None:
    kernel, _, _ = both(*a_stack("gru", 1, 9, 3))
    fewer = narrower(kernel.scores)  # the same number of panels, so that the packed weights have the same size
    arguments = (kernel.h, None, fewer, torch.rand(4, 3).double(), kernel.cell, 1.0, 0, 1.0, 0.0, 0)
    with pytest.raises(RuntimeError, match="more tokens"):
        torch.ops.unrolled.generate(kernel.packed, shorter(kernel.parts), *arguments)
