"""Compiled kernels: built for this machine at first use, kept in a cache, loaded into `torch.ops.unrolled`.

The cache is the folder `native` in `cache_folder()`, such as ~/.cache/unrolled (see `data/caches.py`). It holds code
that is loaded, so it must belong to the user (or root) alone. Where it cannot be written, each process builds for
itself.

The environment may say otherwise:

- UNROLLED_NATIVE=0 switches compiled kernels off;
- UNROLLED_NATIVE_MARCH is the CPU to compile for (x86-64-v3, …) instead of this machine's;
- UNROLLED_NATIVE_FLAGS are more flags, for compiling and linking (such as -fsanitize=address).
"""

import contextlib
import hashlib
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from unrolled.data.caches import cache_folder
from unrolled.engines.native.compiler import TIMEOUT, NativeError, Recipe, compile_library, recipe

SOURCES = Path(__file__).parent

LIBRARY = re.compile(r"[0-9a-f]{32}-[0-9a-f]{64}\.so")
"""The name of a library of ours; other files in the cache are left alone."""
KEPT = 8
"""Builds that stay in the cache: one a CPU, compiler, version of PyTorch and of the sources."""

ABOUT_SECONDS = 10

building_note: Callable[[str], None] | None = None
"""Told once, before a wait of seconds, what is being waited for."""

lock = threading.Lock()
"""Held while the operators are being built, loaded or registered."""
_where: str | None = None
_failure: str | None = None


def load() -> None:
    """Build if need be and load the operators into torch.ops.unrolled, once a process; `NativeError` says why not."""
    if reason := unavailable():
        raise NativeError(reason)


def unavailable() -> str | None:
    """Why there are no compiled kernels, in one sentence; None where they are loaded. The first call builds them."""
    global _where, _failure
    with lock:
        if _where is None and _failure is None:
            try:
                _where = _build_and_load(SOURCES)
            except NativeError as error:
                _failure = str(error)
        return _failure


def where() -> str:
    """Where the loaded kernels come from, or why there are none."""
    return unavailable() or str(_where)


def build(sources: Path, cache: Path, timeout: float = TIMEOUT) -> Path:
    """The library of a folder of sources: the one in the cache, else built into it.

    Of two processes one builds, and the other waits for it. `OSError` where the cache cannot be used, `NativeError`
    where it must not be, or where the compiler fails.
    """
    wanted = recipe(sources)
    folder, key = cache / "native", wanted.key
    if library := _find(folder, key):
        return library
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder, timeout):
        if library := _find(folder, key):  # another process has built it meanwhile
            return library
        _note(f"compiling kernels for this machine (once, about {ABOUT_SECONDS} s)")
        _clean(folder, key)
        return _build_into(folder, wanted, timeout)


def _build_and_load(sources: Path) -> str:
    """Where the loaded library is, in words."""
    if os.environ.get("UNROLLED_NATIVE") == "0":
        raise NativeError("compiled kernels are switched off by UNROLLED_NATIVE=0")
    if sys.platform == "win32":
        raise NativeError("compiled kernels are not made for Windows (the other engines serve there)")
    try:
        library = build(sources, cache_folder())
    except OSError as error:
        return _build_for_this_process(sources, _reason(error))
    _load_library(library)
    return str(library)


def _build_for_this_process(sources: Path, reason: str) -> str:
    """A build that is gone from the disk once it is loaded, for want of a cache."""
    _note(f"compiling kernels for this process alone (about {ABOUT_SECONDS} s), since there is no cache ({reason})")
    try:
        with tempfile.TemporaryDirectory(prefix="unrolled-") as folder:
            _load_library(compile_library(recipe(sources), Path(folder)))
    except OSError as error:
        raise NativeError(
            f"kernels cannot be compiled for want of a folder (set UNROLLED_CACHE): {_reason(error)}"
        ) from error
    return f"a build of this process alone, since there is no cache ({reason})"


def _load_library(path: Path) -> None:
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        said = str(error.__cause__ or error).splitlines()[0]
        raise NativeError(
            f"compiled kernels cannot be loaded (set UNROLLED_CACHE to another folder): {said}"
        ) from error


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _find(folder: Path, key: str) -> Path | None:
    """The whole library of this key, if there is one.

    Its name carries its SHA-256. Loading one that has lost its end would kill the process by a bus error.
    """
    try:
        _check_owner(folder)
        for path in (folder / name for name in os.listdir(folder) if name.startswith(f"{key}-")):
            _check_owner(path)
            if hashlib.sha256(path.read_bytes()).hexdigest() == path.stem.removeprefix(f"{key}-"):
                with contextlib.suppress(OSError):  # a cache that is only read knows no latest use
                    os.utime(path)
                return path
    except FileNotFoundError:  # there is no cache yet, or a builder has just removed a damaged library
        return None
    return None


def _check_owner(path: Path) -> None:
    """Whoever can write the cache can run code as its user."""
    status = os.stat(path)
    if status.st_uid not in (0, os.geteuid()):
        raise NativeError(f"{path} holds code and belongs to another user (remove it, or set UNROLLED_CACHE)")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NativeError(f"{path} holds code and others can write to it (do chmod go-w, or set UNROLLED_CACHE)")


@contextlib.contextmanager
def _locked(folder: Path, timeout: float) -> Iterator[None]:
    """Alone in building. The lock goes when its process dies, however it dies; forked processes do not inherit it."""
    import fcntl  # not on Windows

    deadline = time.monotonic() + timeout
    waiting = False
    with open(os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "w") as file:
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):  # which of them depends on the system
                if time.monotonic() > deadline:
                    raise NativeError(
                        f"another process has been compiling kernels in {folder} for {timeout:g} s (stop it, or set "
                        "UNROLLED_CACHE to another folder)"
                    ) from None
            if not waiting:
                _note("waiting for another process that is compiling kernels for this machine")
            waiting = True
            time.sleep(0.05)
        yield


def _clean(folder: Path, key: str) -> None:
    """Under the lock: remove what killed builds left, what is damaged, and all but the libraries used last."""
    ours = [path for path in folder.iterdir() if LIBRARY.fullmatch(path.name) and path.is_file()]
    libraries = [path for path in ours if not path.name.startswith(f"{key}-")]
    libraries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    kept = libraries[: KEPT - 1]
    for path in folder.glob(".build-*"):
        shutil.rmtree(path, ignore_errors=True)  # a compiler that outlived its killed parent may still write there
    for path in ours:
        if path not in kept:
            path.unlink()


def _build_into(folder: Path, wanted: Recipe, timeout: float) -> Path:
    work = Path(tempfile.mkdtemp(prefix=".build-", dir=folder))
    try:
        built = compile_library(wanted, work, timeout)
        built.chmod(0o700)  # whatever the umask
        library = folder / f"{wanted.key}-{hashlib.sha256(built.read_bytes()).hexdigest()}.so"
        _sync(built)
        os.replace(built, library)
        _sync(folder)
        return library
    finally:
        shutil.rmtree(work, ignore_errors=True)  # the next build removes what is left


def _sync(path: Path) -> None:
    """To the disk, so that a power failure leaves no half library behind a whole name."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _note(text: str) -> None:
    if building_note:
        building_note(text)


def _fresh_lock() -> None:
    """A process forked while a thread of its parent was building must not wait for that thread, which it has not."""
    global lock
    lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_fresh_lock)
