"""Calling the C++ compiler: which one, with which flags, and under which key the result is kept.

torch.utils.cpp_extension would do, but takes seconds to import and leaves a lock behind when it is killed.
"""

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from unrolled.errors import UnrolledError

FLAGS = (
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-DTORCH_TARGET_VERSION=0x020a000000000000",  # the stable ABI of PyTorch 2.10
)
"""Flags of every compilation, beside the one for the machine's own CPU."""

FLUSHING = frozenset({"-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-mdaz-ftz"})
"""Flags kept from the linker: it would add code that makes the whole process flush denormals to zero."""

NATIVE = ("-march=native", "-mcpu=native")
"""How compilers call this machine's own CPU; the first that the compiler accepts is taken."""

TIMEOUT = 300.0
"""Seconds after which a compiler is taken to hang."""

TORCH = Path(torch.__file__).parent


class NativeError(UnrolledError):
    """There are no compiled kernels; the message says why."""


@dataclass(frozen=True)
class Recipe:
    """All that decides what a build yields."""

    compiler: tuple[str, ...]
    """The command: an absolute path, then what CXX had behind it."""
    march: str | None
    """What UNROLLED_NATIVE_MARCH asks for; None for this machine's CPU."""
    extra: tuple[str, ...]
    sources: dict[str, bytes]

    @property
    def key(self) -> str:
        """The same for two builds only where one can stand for the other."""
        digest = hashlib.sha256()
        for part in (
            repr((FLAGS, _link_flags(), self.march, self.extra)),
            repr([(word, _stamp(word)) for word in self.compiler]),
            torch.__version__,
            cpu(),
        ):
            digest.update(hashlib.sha256(part.encode(errors="surrogateescape")).digest())
        for name, content in sorted(self.sources.items()):
            digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
        return digest.hexdigest()[:32]


def recipe(sources: Path) -> Recipe:
    """What building the C++ files of a folder takes, as this process's environment says."""
    files = {file.name: file.read_bytes() for file in sources.iterdir() if file.suffix in (".h", ".cpp")}
    extra = _words("UNROLLED_NATIVE_FLAGS")
    return Recipe(find_compiler(), os.environ.get("UNROLLED_NATIVE_MARCH") or None, tuple(extra), files)


def find_compiler() -> tuple[str, ...]:
    """The compiler's command: CXX, else c++, g++ or clang++ of the search path."""
    if named := _words("CXX"):
        if path := shutil.which(named[0]):
            return os.path.abspath(path), *named[1:]
        raise NativeError(f"CXX names {named[0]}, which is no program here (install it, or unset CXX)")
    for name in ("c++", "g++", "clang++"):
        if path := shutil.which(name):
            return (os.path.abspath(path),)
    raise NativeError("there is no C++ compiler (install g++ or set CXX)")


def _words(variable: str) -> list[str]:
    try:
        return shlex.split(os.environ.get(variable, ""))
    except ValueError as error:
        raise NativeError(f"{variable} cannot be read as words of a shell ({error})") from None


def compile_library(wanted: Recipe, folder: Path, timeout: float = TIMEOUT) -> Path:
    """The library, built in `folder`, an empty one. The compilers' temporary files stay inside it as well."""
    for name, content in wanted.sources.items():  # copies, so that what is built is what the key was made of
        (folder / name).write_bytes(content)
    units = sorted(name for name in wanted.sources if name.endswith(".cpp"))
    deadline = time.monotonic() + timeout
    flags = [*FLAGS, *_march(wanted, folder, deadline), *wanted.extra, "-isystem", str(TORCH / "include")]
    with _said_in_one_sentence(wanted, timeout):
        _run([[*wanted.compiler, *flags, "-c", unit, "-o", f"{unit}.o"] for unit in units], folder, deadline)
        extra = [flag for flag in wanted.extra if flag not in FLUSHING]
        objects = [f"{unit}.o" for unit in units]
        _run([[*wanted.compiler, "-shared", *extra, *objects, *_link_flags(), "-o", "kernels.so"]], folder, deadline)
    return folder / "kernels.so"


def cpu() -> str:
    """What `-march=native` depends on: system, architecture, and the CPU's model and features."""
    system = os.uname()
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]
        features = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    else:
        features = "\n".join(_first_processor())
    return f"{system.sysname} {system.machine}\n{features}"


def _first_processor() -> Iterator[str]:
    """The lasting lines of the first block of /proc/cpuinfo; the cores of a machine have the same features."""
    x86 = {"vendor_id", "cpu family", "model", "model name", "flags"}
    others = {"Features", "CPU implementer", "CPU part", "isa"}
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                return
            if line.partition(":")[0].strip() in x86 | others:
                yield line.strip()


def _stamp(word: str) -> tuple[str, int, int] | None:
    """What changes when a program is replaced. To ask it for its version would cost a process at every start."""
    path = shutil.which(word)
    if path is None:
        return None
    status = os.stat(path)
    return os.path.realpath(path), status.st_size, status.st_mtime_ns


def _link_flags() -> list[str]:
    lib = str(TORCH / "lib")
    # on Linux the library finds the PyTorch that is loaded already; on macOS it must name it
    return [f"-L{lib}", "-ltorch_cpu", *([f"-Wl,-rpath,{lib}"] if sys.platform == "darwin" else [])]


def _march(wanted: Recipe, folder: Path, deadline: float) -> list[str]:
    if wanted.march:
        return [f"-march={wanted.march}"]
    for flag in NATIVE:
        # a compiler that hangs or cannot be run says so when it compiles
        with contextlib.suppress(_Failed, OSError, subprocess.TimeoutExpired):
            _run([[*wanted.compiler, flag, "-x", "c++", "-fsyntax-only", "-"]], folder, deadline)
            return [flag]
    return []


class _Failed(Exception):
    """A compiler ended with an error; the message is its first one."""


@contextlib.contextmanager
def _said_in_one_sentence(wanted: Recipe, timeout: float) -> Iterator[None]:
    name, other = wanted.compiler[0], "set CXX to another compiler, or UNROLLED_NATIVE=0 to do without compiled kernels"
    try:
        yield
    except _Failed as error:
        raise NativeError(f"the compiler {name} failed with {str(error)!r} ({other})") from None
    except subprocess.TimeoutExpired:
        raise NativeError(f"the compiler {name} was stopped, unfinished after {timeout:g} s ({other})") from None
    except OSError as error:
        raise NativeError(f"the compiler {name} cannot be run: {error.strerror} ({other})") from error


def _run(commands: Sequence[list[str]], folder: Path, deadline: float) -> None:
    """Run commands side by side in `folder`, each in a process group of its own, so that stopping it leaves nothing."""
    # plain messages; temporary files where they are cleaned up; no preloaded sanitizer, which finds leaks in compilers
    environment = {**os.environ, "LC_ALL": "C", "TMPDIR": str(folder)}
    environment.pop("LD_PRELOAD", None)
    running: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            running.append(
                subprocess.Popen(
                    command,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,
                )
            )
        for process in running:
            _, said = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
            if process.returncode:
                raise _Failed(_first_error(said, process.returncode))
    finally:
        for process in running:
            _stop(process)


def _stop(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended just now
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stderr:
        process.stderr.close()


def _first_error(said: str, code: int) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = (line for line in lines if "error" in line.lower() or "undefined" in line)
    found = next(errors, lines[0] if lines else f"signal {-code}" if code < 0 else f"exit status {code}")
    return found[:200].rstrip(".")
