"""Compiled kernels among processes: several at once, killed ones, forked ones, and what loading does to a process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from native_helpers import OPERATOR, SCRIBE, TINY, compilations, program

import unrolled
from unrolled.engines.native import build
from unrolled.engines.native.compiler import NativeError

BEGIN = """
import os, signal, sys, threading, time
from pathlib import Path
import torch
from torch.utils.data import DataLoader, Dataset
from unrolled.engines.native import build

HERE = Path(sys.argv[1])
build.SOURCES = HERE / "sources"
build.building_note = lambda text: print(text, flush=True)

def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)

def forked(act):
    # the number of a child that calls `act`; its exit status is 0 where that raises nothing
    child = os.fork()
    if child:
        return child
    signal.alarm(200)  # nobody is left to end it if the parent is killed
    code = 1
    try:
        act()
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stdout.flush()
    os._exit(code)

def status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def works():
    build.load()
    x = torch.zeros(3)
    torch.ops.unrolled_test.increase(x)
    assert x.tolist() == [1, 1, 1]
"""

SLOW_COMPILER = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/log"
sleep 0.5
[ -e "$here/hang" ] && echo $$ > "$here/hanging" && exec sleep 1000
exec c++ "$@"
"""


def run(folder: Path, script: str, sources: str = OPERATOR, **environment: str) -> str:
    """Runs a script in a process of its own, with a compiler that notes its calls; returns what it printed."""
    program(folder / "sources" / "kernels.cpp", sources)
    program(folder / "compiler", SLOW_COMPILER)
    program(folder / "script.py", BEGIN + script)
    names = ("UNROLLED_NATIVE", "UNROLLED_NATIVE_MARCH", "UNROLLED_NATIVE_FLAGS")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    own = {
        "CXX": str(folder / "compiler"),
        "UNROLLED_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(Path(unrolled.__file__).parents[1]),
        "OMP_NUM_THREADS": "2",
    }
    done = subprocess.run(
        [sys.executable, str(folder / "script.py"), str(folder)],
        env=inherited | own | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_of_processes_at_once_one_builds(tmp_path: Path) -> None:
    said = run(tmp_path, "assert [status(c) for c in [forked(works) for _ in range(3)]] == [0, 0, 0]")
    assert compilations(tmp_path) == 1
    assert (said.count("compiling kernels for this machine (once"), said.count("waiting for another")) == (1, 2)


@pytest.mark.slow
def test_kill_9_while_compiling_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    script = """
child = forked(works)
wait_for(HERE / "hanging")
waiting = forked(works)  # a second process is waiting for the first one's lock
time.sleep(0.3)
(HERE / "hang").unlink()
os.kill(child, signal.SIGKILL)
assert (status(child), status(waiting)) == (-signal.SIGKILL, 0)
works()
"""
    try:
        run(tmp_path, script)
    finally:
        os.kill(int((tmp_path / "hanging").read_text()), signal.SIGKILL)  # its parent had no time to
    assert compilations(tmp_path) == 1
    left = sorted(path.suffix for path in (tmp_path / "cache" / "native").iterdir())
    assert left == ["", ".so"], "the lock and one library"


@pytest.mark.slow
def test_forks_and_workers_have_the_kernels(tmp_path: Path) -> None:
    script = """
class Items(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        works()
        return i

if __name__ == "__main__":
    thread = threading.Thread(target=works)
    thread.start()
    wait_for(HERE / "log")
    assert status(forked(works)) == 0  # forked in the middle of a build
    thread.join()
    assert status(forked(works)) == 0  # and after it
    for method in ("fork", "spawn"):
        loader = DataLoader(Items(), num_workers=1, multiprocessing_context=method)
        assert [int(i) for i in loader] == [0, 1, 2, 3]
"""
    run(tmp_path, script)
    assert compilations(tmp_path) == 1


@pytest.mark.slow
def test_denormals_survive_whatever_the_flags(tmp_path: Path) -> None:
    script = """
def product():
    tiny = torch.full((100_000,), 1e-310, dtype=torch.float64)
    return 1e-310 * float(sys.argv[2] if sys.argv[2:] else 0.5), int((tiny * 0.5).count_nonzero())
before = product()
build.load()
results = []
thread = threading.Thread(target=lambda: results.append(product()))
thread.start()
thread.join()
assert before == product() == results[0] and before[0] > 0 and before[1] == 100_000, (before, product(), results)
"""
    run(tmp_path, script, TINY, UNROLLED_NATIVE_FLAGS="-ffast-math -Ofast -funsafe-math-optimizations")
    linked = [line.split() for line in (tmp_path / "log").read_text().splitlines() if "-shared" in line.split()]
    assert len(linked) == 1 and not {"-ffast-math", "-Ofast", "-funsafe-math-optimizations"} & set(linked[0])


@pytest.mark.slow
def test_our_own_sources(tmp_path: Path) -> None:
    if not list(build.SOURCES.glob("*.cpp")):
        pytest.skip("there are no kernels yet")
    script = f"""
build.SOURCES = Path({str(build.SOURCES)!r})
build.load()
print(*(name for name in torch._C._dispatch_get_all_op_names() if name.startswith("unrolled::")), sep="\\n")
"""
    assert "unrolled::" in run(tmp_path, script)


def test_a_lock_that_another_process_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "sources" / "tiny.cpp", TINY)
    monkeypatch.setenv("CXX", str(program(tmp_path / "scribe", SCRIBE)))
    notes: list[str] = []
    monkeypatch.setattr(build, "building_note", notes.append)
    (tmp_path / "cache" / "native").mkdir(mode=0o700, parents=True)
    keep = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", keep, str(tmp_path / "cache" / "native" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout and keeper.stdout.readline()
        with pytest.raises(NativeError, match="another process has been compiling kernels in .* for 0.2 s"):
            build.build(tmp_path / "sources", tmp_path / "cache", timeout=0.2)
        keeper.kill()
    assert notes == ["waiting for another process that is compiling kernels for this machine"]
    assert build.build(tmp_path / "sources", tmp_path / "cache").exists()
