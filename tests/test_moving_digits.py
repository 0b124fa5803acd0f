"""Clips of moving digits: real MP4 files whose frames do what captions and labels say."""

import csv
from pathlib import Path

import numpy as np
import pytest

from unrolled.app.cli import app
from unrolled.data import moving_digits
from unrolled.data.moving_digits import MOTIONS, NAMES, compose, write
from unrolled.errors import InputError

av = pytest.importorskip("av")
pytest.importorskip("sklearn")

DIRECTIONS = {motion.label: (motion.x, motion.y) for motion in MOTIONS if motion.label != "bounce"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])


def centre(frame: np.ndarray) -> np.ndarray:
    """(x, y) of the middle of what is brighter than the ground."""
    ink = np.clip(frame.astype(float) - np.median(frame) - 20, 0, None)
    places = np.arange(len(frame))
    return np.array([ink.sum(0) @ places, ink.sum(1) @ places]) / ink.sum()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "set"
    write(path, train=24, val=8, test=4, seed=3)
    return path


def test_frames_do_what_their_labels_say(folder: Path) -> None:
    """Where the digits' middle goes, in the decoded files: with two digits half as far, in the same direction."""
    seen = set()
    for row in rows_of(folder / "segments.csv"):
        frames = decoded(folder / row["path"])[int(row["start_frame"]) : int(row["end_frame"])]
        path = np.array([centre(frame) for frame in frames])
        seen.add(row["label"])
        if row["label"] == "bounce":
            assert np.ptp(path[:, 1]) > 4 and abs(path[-1, 1] - path[0, 1]) < np.ptp(path[:, 1])
            continue
        went = path[-1] - path[0]
        for axis, direction in zip(went, DIRECTIONS[row["label"]], strict=True):
            assert axis * direction > 3 if direction else abs(axis) < 1
    assert len(seen) >= 7


def test_segments_cover_each_clip(folder: Path) -> None:
    lengths = {}
    for row in rows_of(folder / "segments.csv"):
        assert int(row["start_frame"]) == lengths.get(row["path"], 0)
        lengths[row["path"]] = int(row["end_frame"])
    assert len(lengths) == 36
    for path, length in lengths.items():
        assert decoded(folder / path).shape == (length, 64, 64)


def test_captions_say_the_motions_in_order(folder: Path) -> None:
    moves = {motion.label: motion.moves for motion in MOTIONS}
    said: dict[str, list[str]] = {}
    for row in rows_of(folder / "segments.csv"):
        said.setdefault(row["path"], []).append(moves[row["label"]])
    captions: dict[str, list[str]] = {}
    for row in rows_of(folder / "captions.csv"):
        captions.setdefault(row["path"], []).append(row["caption"])
    assert set(captions) == set(said)
    for path, (long, _) in captions.items():
        parts = long.split(" and then ")
        assert len(parts) == len(said[path])
        for part, motion in zip(parts, said[path], strict=True):
            assert part.endswith(motion)
        assert parts[0].split()[1] in NAMES


def test_training_validation_and_test_share_no_digit_and_no_group(folder: Path) -> None:
    sheets = moving_digits._divide(1797, np.random.Generator(np.random.PCG64(3)))
    assert sorted(np.concatenate(list(sheets.values()))) == list(range(1797))
    rows = rows_of(folder / "clips.csv")
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    for row in rows:
        assert row["group"] in sheets and row["group"].startswith(row["split"])


def test_the_digit_of_the_caption_is_the_digit_in_the_picture() -> None:
    """With ink in the image of the seven alone, there is some to see where and only where a seven is named."""
    images = np.zeros((10, 8, 8))
    images[7] = 1
    found = []
    for seed in range(60):
        clip = compose(images, np.arange(10), np.arange(10), np.random.Generator(np.random.PCG64(seed)))
        visible = np.ptp(clip.frames.reshape(len(clip.frames), -1), axis=1) > 0
        assert visible.all() == visible.any()
        found.append(bool(visible.all()))
        assert all(("seven" in caption.split()) == found[-1] for caption in clip.captions)
    assert 0 < sum(found) < 60


def test_the_same_seed_writes_the_same_and_more_clips_change_none(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "more", train=25, val=8, test=4, seed=3)
    write(tmp_path / "other", train=2, val=1, test=0, seed=4)
    for name in ("train_0000", "train_0023", "val_0007", "test_0003"):
        one, two = (decoded(path / "clips" / f"{name}.mp4") for path in (folder, tmp_path / "more"))
        np.testing.assert_array_equal(one, two)
    assert rows_of(folder / "captions.csv")[:48] == rows_of(tmp_path / "more" / "captions.csv")[:48]
    assert rows_of(folder / "captions.csv")[:4] != rows_of(tmp_path / "other" / "captions.csv")[:4]


def test_what_is_there_is_not_overwritten_and_nothing_half_written_stays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="is there already"):
        write(folder)
    for part, least in (("train", 1), ("val", 1), ("test", 0)):
        with pytest.raises(InputError, match=f"--{part} is {least - 1}: it must be at least {least}"):
            write(tmp_path / "none", **{part: least - 1})

    def interrupted(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "half", train=3, val=1, progress=interrupted)
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"unrolled\[video\]"):
        write(tmp_path / "missing", train=1, val=1)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["moving-digits", str(tmp_path / "d"), "--train", "3", "--val", "2", "--test", "1"]
    code = app(arguments, exit_on_error=False, result_action="return_value")
    assert code == 0 and "unrolled train caption-video" in capsys.readouterr().out
    assert len(list((tmp_path / "d" / "clips").iterdir())) == 6
