"""What is never overwritten: whatever a training, or another command, reads."""

import random
import shutil
from pathlib import Path

import pytest
from conftest import Cli
from helpers import assert_one_sentence
from PIL import Image
from video_helpers import moving, write_ways
from vision_helpers import captioned, transformer

from unrolled.errors import InputError
from unrolled.tasks.fitting import fit
from unrolled.tasks.media_options import ImageCaptionerOptions, VideoClassifierOptions
from unrolled.tasks.options import LanguageModelOptions


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unrolled.data.frame_store.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def run(tmp_path: Path, tiny_text: Path) -> Path:
    """A finished run."""
    fit([tiny_text], options=SMALL, out=tmp_path / "run")
    return tmp_path / "run"


SMALL = LanguageModelOptions(steps=1, hidden=4, batch=2, bptt=4, engine="loop")


def kept(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("way", ["inside", "link", "checkpoint"])
def test_overwrite_never_deletes_clips_that_a_table_names(run: Path, tmp_path: Path, way: str) -> None:
    data = write_ways(tmp_path / "data", count=8)
    inside = run / "clips"
    if way == "checkpoint":
        (inside,) = run.glob("step-*")
    inside.mkdir(exist_ok=True)
    shutil.move(data / "left" / "00.mkv", inside / "00.mkv")
    if way == "link":
        (data / "left" / "00.mkv").symlink_to(inside / "00.mkv")
    else:
        table = data / "clips.csv"
        table.write_text(table.read_text().replace("left/00.mkv", str(inside / "00.mkv")))
    before = kept(run)
    options = VideoClassifierOptions(steps=1, hidden=4, features=4, channels="2")
    with pytest.raises(InputError, match="00.mkv|clips") as raised:
        fit([data], options=options, out=run, overwrite=True)
    assert_one_sentence(str(raised.value))
    assert kept(run) == before


def test_overwrite_never_deletes_a_backbone(run: Path, tmp_path: Path) -> None:
    captioned(tmp_path / "data", 2)
    transformer(run / "eye")
    before = kept(run)
    options = ImageCaptionerOptions(backbone=str(run / "eye"), steps=1, hidden=4)
    with pytest.raises(InputError, match="eye was not written by a training"):
        fit([tmp_path / "data"], options=options, out=run, overwrite=True)
    assert kept(run) == before


def test_overwrite_never_deletes_what_is_named_through_links(run: Path, tmp_path: Path, tiny_text: Path) -> None:
    elsewhere = tmp_path / "elsewhere.txt"
    (tmp_path / "to-run").symlink_to(run)
    elsewhere.symlink_to(run / "metrics.jsonl")
    before = kept(run)
    for how in (
        {"paths": [elsewhere]},
        {"paths": [tiny_text], "val": tmp_path / "to-run" / "run.json"},
        {"paths": [tiny_text], "start_from": tmp_path / "to-run"},
        {"paths": [tiny_text], "start_from": tmp_path / "to-run" / "model.safetensors"},
        {"paths": [tiny_text], "out": tmp_path / "to-run"},
    ):
        paths = how.pop("paths")
        with pytest.raises(InputError, match="would delete|is a link"):
            fit(paths, options=SMALL, **{"out": run, **how}, overwrite=True)
    assert kept(run) == before
    fit([tiny_text], options=SMALL, out=run, overwrite=True)


def test_what_comes_into_a_run_folder_while_the_data_are_read_is_kept(
    run: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unrolled.tasks import fitting

    made = fitting._trainer

    def slowly(*how: object) -> object:
        (run / "thesis.txt").write_text("years of work")
        return made(*how)  # type: ignore[arg-type]

    monkeypatch.setattr(fitting, "_trainer", slowly)
    with pytest.raises(InputError, match=r"thesis\.txt was not written by a training"):
        fit([tiny_text], options=SMALL, out=run, overwrite=True)
    assert (run / "thesis.txt").exists()


def test_pictures_that_are_read_are_not_drawn_over(tmp_path: Path, quick_cli: Cli) -> None:
    data = captioned(tmp_path / "data", 2)
    options = ImageCaptionerOptions(steps=1, hidden=4, size=8, channels="2", min_count=1)
    fit([data], options=options, out=tmp_path / "run")
    picture = min(data.rglob("*.png"))
    (tmp_path / "same.png").hardlink_to(picture)
    before = kept(data)
    for arguments in (
        ("predict", tmp_path / "run", picture, "--picture", picture),
        ("predict", tmp_path / "run", picture, "--picture", tmp_path / "same.png"),
        ("report", tmp_path / "run", data, "--out", picture, "--overwrite"),
    ):
        done = quick_cli(*arguments)
        assert done.returncode == 2 and "is read by this command, and would be overwritten" in done.stderr, done.stderr
    assert kept(data) == before


def test_a_frame_that_is_read_is_not_drawn_over(tmp_path: Path, quick_cli: Cli) -> None:
    data = write_ways(tmp_path / "data", count=8)
    fit([data], options=VideoClassifierOptions(steps=1, hidden=4, features=4, channels="2"), out=tmp_path / "run")
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(moving(random.Random(0), 1, 4)):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{number}.png")
    before = kept(tmp_path / "frames")
    done = quick_cli("predict", tmp_path / "run", tmp_path / "frames", "--picture", tmp_path / "frames" / "2.png")
    assert done.returncode == 2 and "would be overwritten" in done.stderr
    assert kept(tmp_path / "frames") == before
