"""What is computed of files is computed once, survives a kill, and is shared by processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import assert_one_sentence
from unrolled.data import frame_cache
from unrolled.data.frame_cache import cached, content_hash
from unrolled.data.frame_store import Store
from unrolled.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "frames"


def write(folder: Path, *numbers: int) -> list[Path]:
    """Files that hold a number each."""
    folder.mkdir(exist_ok=True)
    for n in numbers:
        (folder / f"{n}.txt").write_text(str(n))
    return [folder / f"{n}.txt" for n in numbers]


def result_of(path: Path) -> np.ndarray:
    """n + 1 timesteps of 2×3 numbers."""
    n = int(path.read_text())
    return (np.arange((n + 1) * 6).reshape(n + 1, 2, 3) + n).astype(np.uint8)


class Computed:
    """`result_of`, and what it was asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, path: Path) -> np.ndarray:
        self.names.append(path.name)
        return result_of(path)


def test_results_come_back_and_are_computed_once(tmp_path: Path) -> None:
    files, compute, told = write(tmp_path / "a", 3, 0, 2), Computed(), []
    for _ in range(2):
        kept = cached(files, "recipe", compute, lambda done, of: told.append((done, of)))
        assert kept.rows.tolist() == [0, 1, 2] and kept.notes == []
        assert kept.frames.lengths.tolist() == [4, 1, 3] and isinstance(kept.frames.array, np.memmap)
        for n, path in enumerate(files):
            assert np.array_equal(kept.frames[n], result_of(path))
    assert compute.names == ["3.txt", "0.txt", "2.txt"]
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3), (3, 3)]


def test_the_contents_and_the_recipe_decide(tmp_path: Path) -> None:
    files, compute = write(tmp_path / "a", 1, 2), Computed()
    cached(files, "recipe", compute)
    copies = write(tmp_path / "b", 2, 1, 4)
    kept = cached([*copies, copies[0]], "recipe", compute)
    assert compute.names == ["1.txt", "2.txt", "4.txt"]
    assert [len(kept.frames[n]) for n in range(4)] == [3, 2, 5, 3]
    files[0].write_text("5")
    assert len(cached(files, "recipe", compute).frames[0]) == 6
    cached(files, "another recipe", compute)
    assert compute.names[3:] == ["1.txt", "1.txt", "2.txt"]


def test_a_folder_is_its_pictures(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 2)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for n, name in enumerate(("f1.png", "f2.png", "f10.png")):
            (tmp_path / folder / name).write_text(str(n))
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")  # a text beside them is no picture
    (tmp_path / "b" / "f10.png").rename(tmp_path / "b" / "f0.png")
    assert content_hash(tmp_path / "a") != content_hash(tmp_path / "b")


def test_results_are_finished_in_batches(tmp_path: Path) -> None:
    files, sizes = write(tmp_path / "a", *range(5)), []

    def finish(arrays: list[np.ndarray]) -> list[np.ndarray]:
        sizes.append(len(arrays))
        return [array.mean((1, 2), dtype=np.float32)[:, None] for array in arrays]

    kept = cached(files, "recipe", result_of, finish=finish, at_once=2)
    assert sizes == [2, 2, 1] and kept.frames.shape == (1,) and kept.frames.array.dtype == np.float32
    assert np.allclose(kept.frames[3][:, 0], result_of(files[3]).mean((1, 2)))


def bad_or_good(path: Path) -> np.ndarray:
    if int(path.read_text()) % 2:
        raise InputError(f"{path} is odd: make it even")
    return result_of(path)


def test_bad_files_stop_or_are_left_out_and_told(tmp_path: Path) -> None:
    files = write(tmp_path / "a", 0, 1, 2, 3)
    (tmp_path / "a" / "none.txt").touch()
    files.insert(1, tmp_path / "a" / "none.txt")
    with pytest.raises(InputError, match=r"none.txt is empty"):
        cached(files, "recipe", bad_or_good)
    with pytest.raises(InputError, match=r"1.txt is odd"):
        cached(files[2:], "recipe", bad_or_good)
    for _ in range(2):
        kept = cached(files, "recipe", bad_or_good, bad_files="skip")
        assert kept.rows.tolist() == [0, 3] and kept.frames.lengths.tolist() == [1, 3]
        (note,) = kept.notes
        assert note.startswith("bad files left out: 3 of 5") and "1.txt is odd" in note and "none.txt is empty" in note
    with pytest.raises(InputError, match="none of 2 files can be read; the first: .*1.txt is odd"):
        cached([files[2], files[4]], "recipe", bad_or_good, bad_files="skip")


def test_what_was_computed_before_an_error_is_kept(tmp_path: Path) -> None:
    files, compute = write(tmp_path / "a", 0, 2, 4, 1), Computed()
    with pytest.raises(InputError):
        cached(files, "recipe", bad_or_good)
    cached(files, "recipe", compute)
    assert compute.names == ["1.txt"]


def test_all_must_be_of_one_size(tmp_path: Path) -> None:
    files = write(tmp_path / "a", 0, 1)
    with pytest.raises(InputError, match=r"1.txt gives 2×4 uint8 a timestep and other files 2×3 uint8") as caught:
        cached(files, "recipe", lambda path: np.zeros((1, 2, 3 + int(path.read_text())), np.uint8))
    assert_one_sentence(str(caught.value))
    with pytest.raises(InputError, match=r"1.txt gives 2×3 float32"):
        cached([files[1]], "recipe", lambda _: np.zeros((1, 2, 3), np.float32))


def test_a_cut_off_index_or_lost_data_are_computed_again(tmp_path: Path, cache: Path) -> None:
    """Every state that a kill or a power failure can leave."""
    files = write(tmp_path / "a", 3, 0, 2)
    cached(files, "recipe", result_of)
    (folder,) = cache.iterdir()
    index, data = (folder / "index").read_bytes(), (folder / "data").read_bytes()
    states = [(cut, len(data)) for cut in range(0, len(index), 7)] + [
        (len(index), cut) for cut in range(0, len(data), 5)
    ]
    for cut_index, cut_data in states:
        (folder / "index").write_bytes(index[:cut_index])
        (folder / "data").write_bytes(data[:cut_data])
        kept = cached(files, "recipe", result_of)
        for n, path in enumerate(files):
            assert np.array_equal(kept.frames[n], result_of(path))
        assert (folder / "index").read_bytes() == index and (folder / "data").read_bytes() == data
    (folder / "index").write_bytes(index[:80] + bytes(40))  # blocks of zeros are what some file systems leave
    assert np.array_equal(cached(files, "recipe", result_of).frames[2], result_of(files[2]))


SLOW = """
import sys, time
from pathlib import Path
from tests.test_frame_cache import result_of
from unrolled.data import frame_cache
frame_cache.WAITING_SECONDS = 0.0
def slow(path):
    time.sleep(0.05)
    print(path.name, flush=True)
    return result_of(path)
frame_cache.cached(sorted(Path(sys.argv[1]).iterdir()), "recipe", slow)
"""


def test_a_killed_process_leaves_what_it_had_computed(tmp_path: Path) -> None:
    files = sorted(write(tmp_path / "a", *range(40)))
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(tmp_path / "a")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        names = [process.stdout.readline().strip() for _ in range(8)]
        process.send_signal(signal.SIGKILL)
        names += process.stdout.read().split()
    compute = Computed()
    kept = cached(files, "recipe", compute)
    assert 40 - len(names) <= len(compute.names) <= 40 - 7
    assert not set(compute.names) & set(names[:7])
    for n, path in enumerate(files):
        assert np.array_equal(kept.frames[n], result_of(path))


def fill(folder: Path, order: int) -> list[int]:
    frame_cache.WAITING_SECONDS = 0.0
    files = sorted(folder.iterdir())[::order]

    def slow(path: Path) -> np.ndarray:
        time.sleep(0.002)
        return result_of(path)

    kept = cached(files, "recipe", slow)
    assert all(np.array_equal(kept.frames[n], result_of(path)) for n, path in enumerate(files))
    return kept.frames.lengths.tolist()


def test_processes_share_the_work_and_no_result_is_stored_twice(tmp_path: Path, cache: Path) -> None:
    files = sorted(write(tmp_path / "a", *range(30)))
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        results = pool.starmap(fill, [(tmp_path / "a", order) for order in (1, -1, 1)])
    assert results[0] == results[1][::-1] == results[2]
    (folder,) = cache.iterdir()
    assert (folder / "data").stat().st_size == sum(len(result_of(path)) for path in files) * 6
    assert len((folder / "index").read_text().splitlines()) == 30


def test_room_is_made_by_removing_what_was_used_longest_ago(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path / "a", 200)
    made: dict[str, Path] = {}
    for recipe in "abc":
        cached(files, recipe, result_of)
        made[recipe] = next(p for p in cache.iterdir() if p not in made.values())
    mapped = cached(files, "b", result_of)
    for n, recipe in enumerate("abc"):
        os.utime(made[recipe], (n, n))
    monkeypatch.setenv("UNROLLED_CACHE_GB", "3e-6")  # two of them
    with Store("a"):
        os.utime(made["a"], (0, 0))
        kept = cached(files, "d", result_of)
    assert made["a"].exists() and not made["b"].exists() and made["c"].exists()
    assert np.array_equal(kept.frames[0], mapped.frames[0])  # what is mapped stays
    monkeypatch.setenv("UNROLLED_CACHE_GB", "much")
    with pytest.raises(InputError, match="UNROLLED_CACHE_GB is 'much'"):
        cached(files, "d", result_of)


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be kept .* set UNROLLED_CACHE") as caught:
        cached(write(tmp_path / "a", 1), "recipe", result_of)
    assert_one_sentence(str(caught.value))


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unrolled.data.frame_store._sync", full)
    with pytest.raises(InputError, match="No space left on device"):
        cached(write(tmp_path / "a", 1), "recipe", result_of)
