"""The real commands show how many files have been read: on standard error, and only where files are read."""

import io
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from video_helpers import write_ways
from vision_helpers import captioned

from unrolled.app import cli, output
from unrolled.data import frame_cache, frame_store

SMALL = ("--hidden", "8", "--features", "8", "--channels", "4", "--batch", "4", "--steps", "2")


@pytest.fixture(autouse=True)
def at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is read is told, and nothing is in the cache yet; what the commands set is put back."""
    monkeypatch.setattr(output, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(output, "BAR_SECONDS", 0.0)
    monkeypatch.setattr(frame_store, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(frame_cache, "watcher", None)


def run(*arguments: object) -> None:
    assert cli.app([str(a) for a in arguments], exit_on_error=False, result_action="return_value") == 0


def told(text: str) -> list[tuple[int, int]]:
    return [(int(done), int(of)) for done, of in re.findall(r"read (\d+) of (\d+) files, \d+ s left", text)]


def test_a_training_and_an_evaluation_tell_of_clips_as_they_are_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ways = write_ways(tmp_path / "ways", 8)
    run("train", "classify-video", ways, *SMALL, "--val-groups", "A", "--out", tmp_path / "run", "--json")
    said = capsys.readouterr()
    assert told(said.err) == [*((n, 6) for n in range(1, 6)), (1, 2)] and not told(said.out)
    run("evaluate", tmp_path / "run", ways)
    assert told(capsys.readouterr().err) == []  # all of it is in the cache
    shutil.rmtree(tmp_path / "cache")
    run("evaluate", tmp_path / "run", ways)
    assert told(capsys.readouterr().err) == [(n, 8) for n in range(1, 8)]
    clips = sorted(ways.glob("*/*.mkv"))[:4]
    run("predict", tmp_path / "run", *clips, "--json")
    said = capsys.readouterr()
    assert told(said.err) == [(1, 4), (2, 4), (3, 4)] and said.out.count("probability") == 4


def test_a_folder_of_pictures_that_is_captioned_tells_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = captioned(tmp_path / "data", 3)
    run("train", "caption-image", data, *SMALL, "--size", 16, "--out", tmp_path / "run")
    assert told(capsys.readouterr().err)[-1] == (7, 8)
    run("predict", tmp_path / "run", data / "images")
    assert told(capsys.readouterr().err) == [(16, 24)]


def test_a_bar_goes_where_a_damaged_file_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the sentence has a line of its own."""
    ways = write_ways(tmp_path / "ways", 8)
    Image.new("RGB", (8, 8)).save(ways / "right" / "07.mkv", "PNG")
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(frame_cache, "watcher", output.FilesRead(stream))
    from unrolled.tasks.video import Shape

    with pytest.raises(Exception, match="07.mkv"):
        Shape(8, 8, False).read(sorted(ways.glob("*/*.mkv")))
    assert "read 7 of 8 files" in stream.getvalue() and stream.getvalue().endswith(" \r")
