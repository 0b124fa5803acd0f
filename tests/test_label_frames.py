"""label-frames: what it learns, frames as they come, segments, what it says of bad data, resume and model file."""

import json
import os
import random
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Cli
from helpers import Listener, assert_one_sentence
from video_helpers import moving, write_clip, write_turns

import unrolled
from unrolled.data.batches import Examples, Sequences
from unrolled.data.frames import Frames
from unrolled.data.streams import IGNORED
from unrolled.errors import InputError
from unrolled.tasks import frame_labeler
from unrolled.tasks.fitting import Fitted, fit, resume
from unrolled.tasks.frame_labeler import FrameLabeler
from unrolled.tasks.media_options import FrameLabelerOptions
from unrolled.tasks.prepare_label_frames import cut
from unrolled.training import model_file

SMALL: dict[str, Any] = {"hidden": 16, "features": 16, "batch": 8, "lr": 1e-2, "dropout": 0.0, "shift": 0.0}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded frames go to a folder of the test's; the compiled kernels stay where they are."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unrolled.data.frame_store.cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="module")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_turns(tmp_path_factory.mktemp("turns"))


def train(folder: Path, out: Path | None = None, stop_at: int | None = None, **options: Any) -> Fitted:
    chosen = FrameLabelerOptions(**{**SMALL, "steps": 8, **options})
    return fit([folder], options=chosen, out=out, observer=Listener(stop_at))


@pytest.fixture(scope="module")
def model(turns: Path) -> FrameLabeler:
    found = train(turns, steps=400, speed=0.2, light=0.1).model
    assert isinstance(found, FrameLabeler)
    return found


@pytest.fixture(scope="module")
def online(turns: Path) -> FrameLabeler:
    found = train(turns, steps=20, online=True, layers=2, cell="lstm").model
    assert isinstance(found, FrameLabeler)
    return found


# What it learns


def test_it_learns_what_only_the_frames_around_a_frame_tell(model: FrameLabeler) -> None:
    assert model.labels == ["left", "none", "right"]
    assert model.metrics["accuracy"] > 0.8 and model.metrics["f1_50"] > 0.7
    assert set(model.metrics) == {"accuracy", "f1_10", "f1_25", "f1_50", "edit", "val_loss"}


def test_a_prediction_is_a_label_a_frame_and_its_segments(model: FrameLabeler, turns: Path) -> None:
    clip = turns / "clips" / "00.mkv"
    (found,) = model.predict([clip])
    length = len(list(model.shape.stream(clip)))
    assert len(found.labels) == length and found.probabilities.shape == (length, 3)
    assert found.probabilities.sum(1) == pytest.approx(np.ones(length))
    assert [model.labels[n] for n in found.probabilities.argmax(1)] == found.labels
    spread = [s.label for s in found.segments for _ in range(s.begin, s.end)]
    assert spread == found.labels and found.segments[0].begin == 0
    first = found.segments[0]
    chances = found.probabilities[: first.end, model.labels.index(first.label)]
    assert first.probability == pytest.approx(chances.mean())


def test_a_long_clip_is_read_in_parts_with_the_same_result(
    model: FrameLabeler, turns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = turns / "clips" / "01.mkv"
    (whole,) = model.predict([clip])
    monkeypatch.setattr(frame_labeler, "AT_ONCE", 3)
    (parts,) = model.predict([clip])
    assert parts.probabilities == pytest.approx(whole.probabilities, abs=1e-6)


def test_figures_of_evaluate_are_those_of_predict(model: FrameLabeler, turns: Path) -> None:
    found = model.evaluate(turns, split="val")
    assert {name: found[name] for name in model.metrics} == pytest.approx(model.metrics, abs=1e-6)
    clips = [turns / "clips" / f"{n:02}.mkv" for n in range(0, 24, 4)]
    assert np.array(found["confusion"]).sum() == sum(len(p.labels) for p in model.predict(clips))


def test_the_loss_is_pytorchs_over_the_real_frames(turns: Path) -> None:
    model = train(turns, steps=1, speed=0.0, light=0.0, scale=0.0, label_smoothing=0.1).model
    frames = model.shape.read([turns / "clips" / f"0{n}.mkv" for n in range(3)]).frames
    labels = [np.arange(length) % 3 for length in frames.lengths]
    batch = Examples(frames, Sequences.pack(labels, 3)).batch(np.arange(3))
    assert (batch.targets == IGNORED).any()
    loss, state = model.network(batch, None)
    expected = F.cross_entropy(
        model.network.scores(batch).flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, label_smoothing=0.1
    )
    assert state == () and loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_at_another_speed_each_frame_keeps_its_label(turns: Path) -> None:
    """The light of frame n is n, and so is its label."""
    network = train(turns, steps=1, speed=0.8).model.network.train()
    clips = [np.full((length, 16, 16, 1), 0, np.uint8) + np.arange(length, dtype=np.uint8)[:, None, None, None]
             for length in (30, 7, 19)]  # fmt: skip
    labels = Sequences.pack([np.arange(len(clip)) for clip in clips], 30)
    batch = Examples(Frames.pack(clips), labels).batch(np.arange(3))
    warped = network.warped(batch)
    real = torch.arange(len(warped.inputs))[:, None] < warped.lengths
    assert not torch.equal(warped.lengths, batch.lengths)
    assert torch.equal(warped.inputs[:, :, 0, 0, 0][real].long(), warped.targets[real])
    assert (warped.targets[~real] == IGNORED).all() and warped.inputs.shape[:2] == warped.targets.shape


def test_long_clips_are_cut_into_equal_pieces_for_training() -> None:
    clips = [np.arange(n, dtype=np.uint8)[:, None] for n in (10, 3, 4)]
    frames, labels = cut(Frames.pack(clips), [clip[:, 0].astype(np.int64) for clip in clips], 4, 256)
    assert frames.lengths.tolist() == [3, 4, 3, 3, 4] and labels.lengths.tolist() == [3, 4, 3, 3, 4]
    for n in range(5):
        assert frames[n][:, 0].tolist() == labels[n].tolist()
    stored = Frames.pack(clips).take(np.array([2, 0]))  # as a cache may have them
    frames, labels = cut(stored, [clip[:, 0].astype(np.int64) for clip in (clips[2], clips[0])], 4, 256)
    assert [frames[n][:, 0].tolist() for n in range(4)] == [labels[n].tolist() for n in range(4)]
    assert frames.lengths.tolist() == [4, 3, 4, 3]


# Frames as they come


def test_frames_one_by_one_get_the_labels_of_the_whole_clip(online: FrameLabeler, turns: Path) -> None:
    clip = turns / "clips" / "02.mkv"
    (whole,) = online.predict([clip])
    found = list(online.stream(online.shape.stream(clip)))
    assert [f.label for f in found] == whole.labels
    assert [f.frame for f in found] == list(range(len(whole.labels)))
    assert [f.probability for f in found] == pytest.approx(whole.probabilities.max(1).tolist(), abs=1e-5)
    assert all(f.seconds > 0 for f in found)


def test_a_frame_is_labelled_before_the_next_is_asked_for_and_then_let_go(online: FrameLabeler) -> None:
    """So memory does not grow with the clip, and no label waits."""
    given: list[Any] = []

    def camera() -> Iterator[np.ndarray]:
        for n in range(40):
            frame = np.full((16, 16, 1), n, dtype=np.uint8)
            given.append(weakref.ref(frame))
            yield frame
            del frame

    most = 0
    for number, found in enumerate(online.stream(camera())):
        assert found.frame == number and len(given) == number + 1
        most = max(most, sum(ref() is not None for ref in given))
    assert len(given) == 40 and most <= 2  # the frame before shows what has changed


def test_only_an_online_model_labels_frames_as_they_come(model: FrameLabeler) -> None:
    with pytest.raises(InputError, match="--online"):
        next(model.stream(iter([])))


def test_with_a_stride_segments_are_counted_in_frames_of_the_clip(turns: Path) -> None:
    model = train(turns, steps=1, stride=2).model
    clip = turns / "clips" / "00.mkv"
    (found,) = model.predict([clip])
    assert len(found.labels) == len(list(model.shape.stream(clip)))
    assert found.segments[-1].end == 2 * len(found.labels)
    assert model.labels == ["left", "none", "right"]


# Resume and model file


def test_a_resumed_training_equals_one_that_never_stopped(turns: Path, tmp_path: Path) -> None:
    everything = {"dropout": 0.3, "shift": 0.1, "window": 6, "online": True}
    whole = train(turns, tmp_path / "whole", **everything)
    assert not train(turns, tmp_path / "parts", stop_at=5, **everything).result.finished
    assert resume(tmp_path / "parts").result.metrics == whole.result.metrics
    hashes = [model_file.sha256(model_file.load(tmp_path / name)[0]) for name in ("whole", "parts")]
    assert hashes[0] == hashes[1]


def test_the_model_file_holds_everything(model: FrameLabeler, turns: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    again = unrolled.load(tmp_path / "m.safetensors")
    assert isinstance(again, unrolled.FrameLabeler) and again.labels == model.labels
    clips = [turns / "clips" / "00.mkv"]
    assert again.predict(clips)[0].segments == model.predict(clips)[0].segments
    assert again.metrics == model.metrics and again.shape == model.shape


# The command


@pytest.mark.slow
def test_the_command_from_training_to_frames_as_they_come(unrolled_cli: Cli, turns: Path, tmp_path: Path) -> None:
    small = [str(x) for name, value in SMALL.items() for x in (f"--{name}", value)]
    done = unrolled_cli(
        "train", "label-frames", turns, *small, "--online", "--steps", 40, "--out", "run", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["task"] == "label-frames" and summary["topology"] == "many_to_many" and "f1_50" in summary
    clip = str(turns / "clips" / "00.mkv")
    rows = [line.split("\t") for line in unrolled_cli("predict", "run", clip, cwd=tmp_path).stdout.splitlines()]
    assert rows[0][:2] == [clip, "0"] and all(a[2] == b[1] for a, b in zip(rows, rows[1:], strict=False))
    done = unrolled_cli("predict", "run", clip, "--picture", "clip.png", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "clip.png").read_bytes().startswith(b"\x89PNG")
    shown = unrolled_cli("evaluate", "run", turns, "--split", "val", cwd=tmp_path).stdout
    assert "f1_50" in shown and "confusion" in shown


@pytest.mark.slow
def test_labels_come_while_the_stream_goes_on(online: FrameLabeler, tmp_path: Path) -> None:
    """Half of a stream is sent, and labelled before the other half follows."""
    online.save(tmp_path / "m.safetensors")
    stream = write_clip(tmp_path / "s.ts", moving(random.Random(1), 1, 60), "mpeg4").read_bytes()
    with subprocess.Popen(
        [sys.executable, "-m", "unrolled", "predict", "m.safetensors", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env={**os.environ},
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(stream[: len(stream) // 2])
        process.stdin.flush()
        rows = [process.stdout.readline().decode().rstrip("\n").split("\t") for _ in range(10)]
        process.stdin.write(stream[len(stream) // 2 :])
        process.stdin.close()
        rows += [line.decode().rstrip("\n").split("\t") for line in process.stdout]
        assert b"60 frames; from arrival to label" in process.stderr.read()
    assert [int(row[0]) for row in rows] == list(range(60))
    assert {row[1] for row in rows} <= set(online.labels) and all(row[3].endswith(" ms") for row in rows)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("clips/00.mkv,0,99,left,train\nclips/01.mkv,0,2,right,train\nclips/02.mkv,0,2,right,val", "segment"),
        ("clips/00.mkv,0,2,left,train\nclips/02.mkv,0,2,up,val", "'up'"),
        ("clips/00.mkv,0,3,left,train\nclips/00.mkv,2,5,right,train\nclips/02.mkv,0,2,left,val", "line 3"),
        ("clips/00.mkv,0,x,left,train", "'x'"),
    ],
)
def test_unusable_segments_are_refused_in_one_sentence(
    quick_cli: Cli, turns: Path, tmp_path: Path, rows: str, words: str
) -> None:
    (turns / "bad.csv").write_text(f"path,start_frame,end_frame,label,split\n{rows}\n")
    done = quick_cli("train", "label-frames", turns / "bad.csv", "--steps", 2, cwd=tmp_path)
    (turns / "bad.csv").unlink()
    assert done.returncode == 2 and words in done.stderr
    assert_one_sentence(done.stderr.strip().splitlines()[-1].removeprefix("unrolled: "))
    assert not (tmp_path / "runs").exists()
