"""Strange and damaged files in the cache of frames: left alone, computed again, or refused by name; never believed."""

import fcntl
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import assert_one_sentence
from tests.test_frame_cache import Computed, cache, result_of, write
from unrolled.data.frame_cache import cached
from unrolled.data.frame_store import Store
from unrolled.errors import InputError

__all__ = ["cache"]  # the fixture


def same(kept: object, files: list[Path]) -> bool:
    return all(np.array_equal(kept.frames[n], result_of(path)) for n, path in enumerate(files))  # type: ignore[attr-defined]


def test_files_that_are_not_ours_are_left_alone_and_not_counted(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """.DS_Store, Thumbs.db, a folder of the user's, one that looks like ours, and a file in one that is removed."""
    files = write(tmp_path / "a", 200)
    cached(files, "a", result_of)
    (ours,) = cache.iterdir()
    strange = [cache / ".DS_Store", cache / "mine" / "thesis.txt", cache / ("0" * 32) / "data", ours / ".DS_Store"]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(5_000_000))
    (cache / ("1" * 32)).write_text("a file")
    (cache / "nowhere").symlink_to(tmp_path / "gone")
    monkeypatch.setenv("UNROLLED_CACHE_GB", "5e-6")  # much less than what is not ours
    cached(files, "b", result_of)
    assert (ours / "data").exists()
    monkeypatch.setenv("UNROLLED_CACHE_GB", "1e-6")
    cached(files, "c", result_of)
    assert [path.name for path in ours.iterdir()] == [".DS_Store"] and all(path.exists() for path in strange)
    assert same(cached(files, "a", result_of), files)  # in the folder with the file that is not ours


def flip(path: Path, byte: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def test_a_flipped_bit_in_cached_frames_is_found_and_computed_again(tmp_path: Path, cache: Path) -> None:
    files = write(tmp_path / "a", 3, 0, 2)
    before = cached(files, "recipe", result_of)
    (folder,) = cache.iterdir()
    size = (folder / "data").stat().st_size
    flip(folder / "data", 6 * 4 + 5, 3)  # the second array
    compute = Computed()
    kept = cached(files, "recipe", compute)
    assert compute.names == ["0.txt"] and same(kept, files)
    assert kept.notes == [f"damaged in the cache and computed again: 1 of 3 ({files[1]})"]
    assert (folder / "data").stat().st_size == size + 6 and before.frames.lengths.tolist() == [4, 1, 3]
    again = cached(files, "recipe", compute)
    assert compute.names == ["0.txt"] and same(again, files) and again.notes == []


def test_any_flipped_bit_in_the_index_or_about_json_is_found(tmp_path: Path, cache: Path) -> None:
    files = write(tmp_path / "a", 3, 0)
    cached(files, "recipe", result_of)
    (folder,) = cache.iterdir()
    whole = shutil.copytree(folder, tmp_path / "whole")
    for name in ("about.json", "index"):
        for byte in range(0, (whole / name).stat().st_size - 1, 5):
            shutil.copytree(whole, folder, dirs_exist_ok=True)
            flip(folder / name, byte, byte % 8)
            kept = cached(files, "recipe", result_of)
            assert same(kept, files), (name, byte)
            (note,) = kept.notes or ["harmless"]
            assert str(folder) in note or note == "harmless", note
            assert same(cached(files, "recipe", Computed()), files)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe", b'{"recipe": 1}', None])
def test_an_about_json_that_makes_no_sense(tmp_path: Path, cache: Path, content: bytes | None) -> None:
    files = write(tmp_path / "a", 3, 0)
    mapped = cached(files, "recipe", result_of)
    (folder,) = cache.iterdir()
    if content is None:
        (folder / "about.json").unlink()
    else:
        (folder / "about.json").write_bytes(content)
    compute = Computed()
    kept = cached(files, "recipe", compute)
    assert compute.names == ["3.txt", "0.txt"] and same(kept, files) and "about.json" in kept.notes[0]
    assert same(mapped, files)  # what a training has mapped is not written over
    assert cached(files, "recipe", compute).notes == [] and len(compute.names) == 2


def test_damage_while_another_process_uses_the_folder_is_refused_by_name(tmp_path: Path, cache: Path) -> None:
    files = write(tmp_path / "a", 3)
    cached(files, "recipe", result_of)
    (folder,) = cache.iterdir()
    (folder / "about.json").write_text("{")
    with open(folder / "in-use") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(InputError, match=rf"{folder} is damaged \(about.json, and another .* delete this") as error:
            cached(files, "recipe", result_of)
    assert_one_sentence(str(error.value))
    with Store("recipe") as store:
        assert store.known == {} and len(store.notes) == 1
