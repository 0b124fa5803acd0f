"""The fused engine built for other CPUs, and under sanitizers: the same tests, in processes of their own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import unrolled
from unrolled.engines.native import build
from unrolled.engines.native.compiler import find_compiler

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(build.unavailable() is not None, reason=f"no compiled kernels: {build.unavailable()}"),
]
HERE = Path(__file__).parent
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 CPUs")


def run_tests(cache: Path, chosen: str, **environment: str) -> None:
    """The tests of the fused engine whose names match, with a build of its own."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("UNROLLED_NATIVE", "PYTEST"))}
    path = os.pathsep.join([str(Path(unrolled.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-qsx", "-p", "no:cacheprovider", "-m", "not slow", "-k", chosen]
        + [str(HERE / name) for name in ("test_fused.py", "test_fused_operators.py")],
        env=inherited | {"PYTHONPATH": path.rstrip(os.pathsep), "UNROLLED_CACHE": str(cache)} | environment,
        cwd=HERE.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout, done.stdout
    assert len(list((cache / "native").glob("*.so"))) == 1


def supports(level: str) -> bool:
    """Whether this machine can run what is built for a level of x86-64."""
    flags = set(Path("/proc/cpuinfo").read_text().split()) if Path("/proc/cpuinfo").exists() else set()
    needed = {
        "x86-64": {"sse2"},
        "x86-64-v3": {"avx2", "fma", "bmi2"},
        "x86-64-v4": {"avx512f", "avx512vl", "avx512dq"},
    }
    return needed[level] <= flags


@x86
@pytest.mark.parametrize("level", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_portable_builds(tmp_path: Path, level: str) -> None:
    """Vectors of 4, 8 and 16 floats."""
    if not supports(level):
        pytest.skip(f"this machine cannot run {level}")
    run_tests(tmp_path, "test_fused.py", UNROLLED_NATIVE_MARCH=level)


def library(name: str) -> str:
    """Where the compiler has a library; skips where it has none."""
    asked = [*find_compiler(), f"-print-file-name={name}"]
    path = subprocess.run(asked, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    if not os.path.isabs(path):
        pytest.skip(f"the compiler has no {name}")
    return os.path.realpath(path)


SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1"
OUT_OF_BOUNDS = 'extern "C" __attribute__((visibility("default"))) float reach(float* p, long i) { return p[i]; }'


def sanitized() -> dict[str, str]:
    preload = (
        f"{library('libasan.so')} {library('libstdc++.so')}"  # the second so that exceptions pass through the first
    )
    return {"UNROLLED_NATIVE_FLAGS": SANITIZERS, "LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0"}


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    run_tests(tmp_path, "test_fused.py or wrong or threads or twice or kept", **sanitized())


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD")
@pytest.mark.parametrize(("index", "code"), [(15, 0), (16, 1)])
def test_sanitizers_find_something(tmp_path: Path, index: int, code: int) -> None:
    """Where there is something: reading behind a tensor's end ends the process."""
    (tmp_path / "reach.cpp").write_text(OUT_OF_BOUNDS)
    command = [*find_compiler(), *SANITIZERS.split(), "-shared", "-fPIC", "reach.cpp", "-o", "reach.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    script = (
        "import ctypes, torch; reach = ctypes.CDLL('./reach.so').reach; x = torch.zeros(16);"
        f"reach(ctypes.c_void_p(x.data_ptr()), ctypes.c_long({index}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | sanitized(),
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == code and ("heap-buffer-overflow" in done.stderr) == bool(code), done.stderr
