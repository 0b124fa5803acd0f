"""How compiled kernels are built and kept: the cache, its key, and every way a compiler can fail."""

import ctypes
import os
import platform
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from native_helpers import RECORDING, SCRIBE, TINY, compilations, forget, program

from unrolled.engines.native import build, compiler
from unrolled.engines.native.compiler import NativeError


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of kernels that compile in no time, in an environment that knows no other cache."""
    for name in ("CXX", "UNROLLED_NATIVE", "UNROLLED_NATIVE_MARCH", "UNROLLED_NATIVE_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    forget(monkeypatch, tmp_path / "sources")
    return program(tmp_path / "sources" / "tiny.cpp", TINY).parent


@pytest.fixture
def scribe(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As `sources`, with a compiler that only notes each call and writes a few bytes."""
    monkeypatch.setenv("CXX", str(program(tmp_path / "scribe", SCRIBE)))
    return sources


def refusal(folder: Path, cache: Path, **more: float) -> str:
    """The sentence with which a build is refused."""
    with pytest.raises(NativeError) as caught:
        build.build(folder, cache, **more)
    said = str(caught.value)
    assert said[0].islower() or said.startswith(("/", "CXX")), said
    assert not said.endswith(".") and ". " not in said and "\n" not in said, said
    return said


def test_a_build_is_found_again(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(program(tmp_path / "recording", RECORDING)))
    notes: list[str] = []
    monkeypatch.setattr(build, "building_note", notes.append)
    library = build.build(sources, tmp_path / "cache")
    assert ctypes.CDLL(str(library)).answer() == 42
    before = compilations(tmp_path)
    assert build.build(sources, tmp_path / "cache") == library
    assert (compilations(tmp_path), before) == (1, 1)
    assert len(notes) == 1 and notes[0].startswith("compiling kernels for this machine (once, about")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 CPUs")
def test_it_compiles_for_the_cpu_asked_for(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for march in ("x86-64", "x86-64-v3"):
        monkeypatch.setenv("UNROLLED_NATIVE_MARCH", march)
        found[march] = bool(ctypes.CDLL(str(build.build(sources, tmp_path / "cache"))).has_avx2())
    assert found == {"x86-64": False, "x86-64-v3": True}
    monkeypatch.setenv("UNROLLED_NATIVE_MARCH", "abacus")
    assert "abacus" in refusal(sources, tmp_path / "cache")


@pytest.mark.parametrize("rejected", ["-march=native", "-m*=native"])
def test_a_compiler_that_does_not_know_its_own_cpu(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rejected: str
) -> None:
    picky = f'#!/bin/sh\nfor word; do case "$word" in {rejected}) exit 1;; esac; done\nexec c++ "$@"\n'
    monkeypatch.setenv("CXX", str(program(tmp_path / "picky", picky)))
    # GCC on x86 takes -mcpu=native as an old name for -mtune=native
    assert ctypes.CDLL(str(build.build(sources, tmp_path / "cache"))).answer() == 42


def test_what_a_build_depends_on(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = program(tmp_path / "own", '#!/bin/sh\nexec c++ "$@"\n')
    monkeypatch.setenv("CXX", str(own))
    keys = [compiler.recipe(sources).key]
    assert compiler.recipe(sources).key == keys[0]

    def note() -> None:
        keys.append(compiler.recipe(sources).key)

    with monkeypatch.context() as change:
        change.setattr(compiler, "cpu", lambda: "another CPU")
        note()
    with monkeypatch.context() as change:
        change.setattr(torch, "__version__", "9.9")
        note()
    for name, value in {"MARCH": "x86-64", "FLAGS": "-g"}.items():
        with monkeypatch.context() as change:
            change.setenv(f"UNROLLED_NATIVE_{name}", value)
            note()
    with monkeypatch.context() as change:
        change.setenv("CXX", f"{own} -m64")
        note()
    os.utime(own, (1, 1))
    note()
    (sources / "tiny.cpp").write_text(TINY + "\n")
    note()
    (sources / "new.h").write_text("")
    note()
    assert len(set(keys)) == 9
    (sources / "build.py").write_text("")
    assert compiler.recipe(sources).key == keys[-1]


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux")
def test_the_cpu_is_known_by_its_features() -> None:
    known = compiler.cpu()
    assert platform.machine() in known and known == compiler.cpu()
    assert "\nflags" in known or "\nFeatures" in known or "\nisa" in known
    assert "MHz" not in known


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_library_is_built_again(sources: Path, tmp_path: Path, damage: str) -> None:
    library = build.build(sources, tmp_path / "cache")
    content = bytearray(library.read_bytes())
    if damage == "truncate":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    library.write_bytes(content)
    again = build.build(sources, tmp_path / "cache")
    assert ctypes.CDLL(str(again)).answer() == 42
    assert list(again.parent.glob("*.so")) == [again]


def test_the_libraries_used_last_are_kept(scribe: Path, tmp_path: Path) -> None:
    library = build.build(scribe, tmp_path / "cache")
    others = [library.with_name(f"{i:032}-{'0' * 64}.so") for i in range(12)]
    for age, other in enumerate(others):
        other.write_bytes(b"")
        os.utime(other, (1e9 - age, 1e9 - age))
    os.utime(library, (1, 1))
    assert build.build(scribe, tmp_path / "cache") == library  # now it is used
    (scribe / "tiny.cpp").write_text("// changed")
    foreign = library.with_name("mine.so"), library.with_name("folder.so") / "x", library.with_name(".DS_Store")
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    newest = build.build(scribe, tmp_path / "cache")
    assert all(path.exists() for path in foreign)  # what is not ours is left alone
    assert set(library.parent.glob("*-*.so")) == {newest, library, *others[: build.KEPT - 2]}
    assert {path.name for path in library.parent.iterdir() if path.suffix != ".so"} == {"lock", ".DS_Store"}


def test_what_killed_builds_left_is_removed(scribe: Path, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "native" / ".build-dead"
    left.mkdir(parents=True)
    (left / "unroll.cpp.o").write_bytes(b"half")
    build.build(scribe, tmp_path / "cache")
    assert not left.exists()


def test_the_cache_is_private_whatever_the_umask(scribe: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        library = build.build(scribe, tmp_path / "cache")
    finally:
        os.umask(before)
    assert build.build(scribe, tmp_path / "cache") == library
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in (library, library.parent, library.parent / "lock")
    }
    assert modes == {library.name: 0o700, "native": 0o700, "lock": 0o600}


@pytest.mark.parametrize("where", ["folder", "library"])
@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_code_that_others_can_write_is_refused(scribe: Path, tmp_path: Path, where: str, mode: int) -> None:
    library = build.build(scribe, tmp_path / "cache")
    suspect = library if where == "library" else library.parent
    suspect.chmod(mode)
    assert str(suspect) in refusal(scribe, tmp_path / "cache")
    assert library.exists()
    suspect.chmod(0o700)
    assert build.build(scribe, tmp_path / "cache") == library


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("where", ["folder", "library"])
def test_code_of_another_user_is_refused(scribe: Path, tmp_path: Path, where: str) -> None:
    library = build.build(scribe, tmp_path / "cache")
    os.chown(library if where == "library" else library.parent, 12_345, -1)
    assert "another user" in refusal(scribe, tmp_path / "cache")


@pytest.mark.parametrize("place", ["a file", "no folder", "no home"])
def test_without_a_cache_the_process_builds_for_itself(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    notes: list[str] = []
    monkeypatch.setattr(build, "building_note", notes.append)
    if place == "no home":  # expanduser answers so where neither HOME nor the user database knows one
        monkeypatch.delenv("UNROLLED_CACHE")
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    else:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("UNROLLED_CACHE", "/dev/null/x" if place == "no folder" else str(tmp_path / "file"))
    assert build.unavailable() is None
    assert build.where().startswith("a build of this process alone, since there is no cache (")
    assert len(notes) == 1 and "for this process alone" in notes[0]
    assert not list(temporary.iterdir())


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNROLLED_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/ana")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # the specification says to ignore it
    assert build.cache_folder() == Path("/home/ana/.cache/unrolled")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/ana")
    assert build.cache_folder() == Path("/var/ana/unrolled")
    monkeypatch.setenv("UNROLLED_CACHE", "here")
    assert build.cache_folder() == Path("here").absolute()


def test_it_loads_once_from_many_threads(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(program(tmp_path / "recording", RECORDING)))
    answers: list[str | None] = []
    threads = [threading.Thread(target=lambda: answers.append(build.unavailable())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [None] * 8 and compilations(tmp_path) == 1
    build.load()
    assert Path(build.where()).parent == tmp_path / "cache" / "native"


def test_switched_off(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROLLED_NATIVE", "0")
    assert build.unavailable() == build.where() == "compiled kernels are switched off by UNROLLED_NATIVE=0"
    with pytest.raises(NativeError, match="switched off"):
        build.load()


def test_no_compiler_and_the_answer_is_remembered(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as change:
        change.setenv("PATH", str(tmp_path))
        assert build.unavailable() == "there is no C++ compiler (install g++ or set CXX)"
    assert build.unavailable() == "there is no C++ compiler (install g++ or set CXX)"
    monkeypatch.setenv("CXX", "no-such-compiler -x")
    assert "no-such-compiler" in refusal(sources, tmp_path / "cache")
    monkeypatch.setenv("CXX", "c++ 'half a word")
    assert "CXX" in refusal(sources, tmp_path / "cache")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "#!/bin/sh\necho Looking. >&2\necho 'k.cpp:3:1: error: no such thing.' >&2\nexit 1\n",
            "k.cpp:3:1: error: no such",
        ),
        ("#!/bin/sh\nexit 7\n", "exit status 7"),
        ("#!/bin/sh\nkill -9 $$\n", "signal 9"),
        ("\0\0garbage", "cannot be run: Exec format error"),
    ],
)
def test_a_compiler_that_fails(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setenv("CXX", str(program(tmp_path / "failing", script)))
    assert said in refusal(sources, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "native").iterdir()] == ["lock"]


def test_a_mistake_in_the_sources(sources: Path, tmp_path: Path) -> None:
    (sources / "wrong.cpp").write_text("int f() { return mistake; }\n")
    assert "wrong.cpp:1:18: error" in refusal(sources, tmp_path / "cache")


def test_a_library_that_cannot_be_loaded(scribe: Path) -> None:
    reason = build.unavailable()
    assert reason and reason.startswith("compiled kernels cannot be loaded") and "\n" not in reason


def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """A compiler that starts a process which does not end; returns what waits for that process's number."""
    script = f"#!/bin/sh\nsleep 1000 &\necho $! >> {tmp_path}/sleeping\nwait\n"
    monkeypatch.setenv("CXX", str(program(tmp_path / "hanging", script)))
    return lambda: int((tmp_path / "sleeping").read_text().split()[-1])


def test_a_compiler_that_hangs(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeping = hanging(tmp_path, monkeypatch)
    begun = time.monotonic()
    assert "unfinished after 0.5 s" in refusal(sources, tmp_path / "cache", timeout=0.5)
    assert time.monotonic() - begun < 5
    assert gone(sleeping())


def test_ctrl_c_stops_the_compiler_and_is_not_remembered(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeping = hanging(tmp_path, monkeypatch)
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), 2))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        build.unavailable()
    timer.join()
    assert gone(sleeping())
    monkeypatch.delenv("CXX")
    assert build.unavailable() is None


def gone(pid: int) -> bool:
    """Whether a process ends within two seconds, or waits only for its parent to take note of it."""
    for _ in range(40):
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").exists() and ") Z " in Path(f"/proc/{pid}/stat").read_text():
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False
