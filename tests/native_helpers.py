"""What the tests of compiled kernels share: small sources, and programs that stand in for a compiler."""

from pathlib import Path

import pytest

from unrolled.engines.native import build

VISIBLE = 'extern "C" __attribute__((visibility("default")))'

TINY = f"""
{VISIBLE} int answer() {{ return 42; }}
{VISIBLE} int has_avx2() {{
#ifdef __AVX2__
  return 1;
#else
  return 0;
#endif
}}
"""

OPERATOR = """
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
using torch::stable::Tensor;
void increase(Tensor x) {
  float* p = static_cast<float*>(x.data_ptr());
  torch::stable::parallel_for(0, x.numel(), 1024, [p](int64_t a, int64_t b) { for (; a < b; ++a) p[a] += 1; });
}
STABLE_TORCH_LIBRARY(unrolled_test, m) { m.def("increase(Tensor(a!) x) -> ()"); }
STABLE_TORCH_LIBRARY_IMPL(unrolled_test, CPU, m) { m.impl("increase", TORCH_BOX(&increase)); }
"""

RECORDING = '#!/bin/sh\necho "$@" >> "$(dirname "$0")/log"\nexec c++ "$@"\n'
"""A compiler that notes its calls."""

SCRIBE = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/log"
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo "of $$" > "$2"; shift; done
"""
"""A compiler that notes its calls and writes what is no library."""


def program(path: Path, text: str) -> Path:
    """A file that may be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def compilations(folder: Path) -> int:
    """How many libraries a compiler that lies in a folder and notes its calls has linked."""
    return sum("-shared" in line.split() for line in (folder / "log").read_text("utf-8").splitlines())


def forget(monkeypatch: pytest.MonkeyPatch, sources: Path) -> None:
    """Let `unavailable` ask anew, for other sources, and forget that afterwards."""
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setattr(build, "_where", None)
    monkeypatch.setattr(build, "_failure", None)
