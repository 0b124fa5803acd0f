"""classify-video: what it learns, groups, what it says of bad data, resume and model file."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Cli
from helpers import Listener, assert_one_sentence
from video_helpers import picture, write_clip, write_ways

import unrolled
from unrolled.data.batches import Examples
from unrolled.data.frames import Frames
from unrolled.errors import InputError
from unrolled.metrics import classification
from unrolled.nn.convnet import pack, standardise
from unrolled.tasks.fitting import Fitted, fit, resume
from unrolled.tasks.media_options import VideoClassifierOptions
from unrolled.tasks.video_classifier import VideoClassifier
from unrolled.training import model_file

SMALL: dict[str, Any] = {"hidden": 12, "features": 12, "batch": 8, "lr": 1e-2, "dropout": 0.1, "shift": 0.0}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded frames go to a folder of the test's; the compiled kernels stay where they are."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unrolled.data.frame_store.cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ways(tmp_path_factory.mktemp("ways"))


def train(folder: Path, out: Path | None = None, stop_at: int | None = None, **options: Any) -> Fitted:
    chosen = VideoClassifierOptions(**{**SMALL, "steps": 10, **options})
    return fit([folder], options=chosen, out=out, observer=Listener(stop_at))


@pytest.fixture(scope="module")
def model(ways: Path) -> VideoClassifier:
    found = train(ways, steps=60, val_groups="A").model
    assert isinstance(found, VideoClassifier)
    return found


# What it learns


def test_it_learns_what_only_the_order_of_the_frames_tells(model: VideoClassifier, ways: Path) -> None:
    assert model.metrics["accuracy"] >= 0.9
    found = model.predict([ways / "left" / "00.mkv", ways / "right" / "01.mkv"])
    assert [p.label for p in found] == ["left", "right"]
    assert sum(found[0].probabilities.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("pooling", ["final", "mean", "max", "attention"])
def test_a_clip_is_labelled_the_same_alone_and_among_others(ways: Path, pooling: str) -> None:
    model = train(ways, steps=3, pooling=pooling).model
    clips = sorted(ways.glob("*/*.mkv"))[::5]
    for clip, found in zip(clips, model.predict(clips), strict=True):
        assert model.predict([clip])[0].probabilities == pytest.approx(found.probabilities, abs=1e-5)


def test_the_loss_is_pytorchs_with_smoothing(ways: Path) -> None:
    model = train(ways, steps=1, dropout=0.0, speed=0.0, light=0.0, scale=0.0, label_smoothing=0.2).model
    frames = model.shape.read(sorted(ways.glob("*/0*.mkv"))[:3]).frames
    batch = Examples(frames, np.array([0, 1, 1])).batch(np.arange(3))
    loss, state = model.network(batch, None)
    expected = F.cross_entropy(model.network.scores(batch), batch.targets, label_smoothing=0.2)
    assert state == () and loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.25, 0.0])
def test_mixed_clips_count_as_much_as_is_seen_of_them(
    ways: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Laid over each other by hand, two clips of one length give the same loss."""
    still = dict.fromkeys(("speed", "light", "scale", "turn", "blur", "cover", "dropout", "label_smoothing"), 0.0)
    network = train(ways, steps=2, mix=0.4, **still).model.network.train()
    frames = Frames.pack([np.random.default_rng(n).integers(0, 256, (5, 16, 16, 1), dtype=np.uint8) for n in range(2)])
    batch = Examples(frames, np.array([0, 1])).batch(np.arange(2))
    monkeypatch.setattr("torch.distributions.Beta.sample", lambda _, shape: torch.full(shape, share))
    monkeypatch.setattr("torch.randperm", lambda _: torch.tensor([1, 0]))
    loss, _ = network(batch, None)
    packed = standardise(pack(batch.inputs, batch.lengths))
    swapped = standardise(pack(batch.inputs.flip(1), batch.lengths)).frames
    mixed = packed._replace(frames=share * packed.frames + (1 - share) * swapped)
    chances = network._scores(mixed, batch.lengths).log_softmax(-1)
    expected = -(share * chances[[0, 1], [0, 1]] + (1 - share) * chances[[0, 1], [1, 0]]).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_what_the_frames_are_like_is_found_out(ways: Path, tmp_path: Path) -> None:
    assert train(ways, steps=1).model.shape.channels == 1  # the clips are coloured, and all of them grey
    assert train(ways, steps=1, grey=False).model.shape.channels == 3
    for n in range(4):
        wide = np.zeros((40, 100, 3), dtype=np.uint8)
        wide[..., n % 3] = 200
        write_clip(tmp_path / "ab"[n % 2] / f"{n}.mkv", [wide] * 9)
    shape = train(tmp_path, steps=1, frames=4, val_fraction=0.4).model.shape
    assert (shape.height, shape.width, shape.channels, shape.count) == (26, 64, 3, 4)
    assert shape.read([tmp_path / "a" / "0.mkv"]).frames[0].shape == (4, 26, 64, 3)
    assert train(tmp_path, steps=1, size=20, val_fraction=0.4).model.shape.width == 20


def test_a_model_that_learnt_from_mirror_images_labels_both_alike(ways: Path, tmp_path: Path) -> None:
    """Mirrored, a clip that goes left goes right: the opposite of what the labels say, and no difference to it."""
    model = train(ways, steps=3, flip=True).model
    clip = ways / "left" / "00.mkv"
    mirrored = write_clip(tmp_path / "m.mkv", [frame.repeat(3, 2)[:, ::-1] for frame in model.shape.stream(clip)])
    one, other = model.predict([clip, mirrored])
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    plain = train(ways, steps=3).model.predict([clip, mirrored])
    assert abs(plain[0].probabilities["left"] - plain[1].probabilities["left"]) > 1e-4


def test_damaged_clips_are_skipped_on_request_and_named(tmp_path: Path) -> None:
    folder = write_ways(tmp_path / "data", count=16)
    whole = (folder / "left" / "00.mkv").read_bytes()
    (folder / "left" / "00.mkv").write_bytes(whole[: len(whole) // 2])
    (folder / "right" / "05.mkv").write_text("no video")
    with pytest.raises(InputError, match=r"00\.mkv"):
        train(folder / "clips.csv", steps=1)
    listener = Listener()
    fit([folder], options=VideoClassifierOptions(**SMALL, steps=1, bad_files="skip"), observer=listener)
    notes = " ".join(str(line["note"]) for line in listener.lines if "note" in line)
    assert "00.mkv" in notes and "05.mkv" in notes and "train 11, validation 3 clips" in notes


def test_the_channels_of_the_convolutions_are_an_option_that_the_model_keeps(ways: Path, tmp_path: Path) -> None:
    model = train(ways, steps=1, channels="6,10", size=8).model
    model.save(tmp_path / "m.safetensors")
    kernels = [
        p.shape for name, p in unrolled.load(tmp_path / "m.safetensors").network.named_parameters() if p.dim() == 4
    ]
    assert kernels == [(6, 3, 5, 5)]
    with pytest.raises(InputError, match="--channels"):
        VideoClassifierOptions(channels="6,x")


# Groups, and what is measured


def test_whole_groups_are_kept_for_validation(model: VideoClassifier, ways: Path) -> None:
    listener = Listener()
    options = VideoClassifierOptions(**SMALL, steps=1, val_groups="A, C")
    fit([ways / "clips.csv"], options=options, observer=listener)
    notes = " ".join(str(line["note"]) for line in listener.lines if "note" in line)
    assert "train 20, validation 20 clips" in notes and "A, C" in notes
    with pytest.raises(InputError, match="no group 'Z'"):
        train(ways, val_groups="Z")
    whole, part = model.evaluate(ways), model.evaluate(ways, split="val")
    assert np.array(whole["confusion"]).sum() == 40 and np.array(part["confusion"]).sum() == 10
    assert part["accuracy"] == pytest.approx(model.metrics["accuracy"])
    assert [row["label"] for row in part["report"]] == ["left", "right"]


def test_top_k_is_how_often_the_truth_is_among_the_k_likeliest() -> None:
    chances = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]])
    true = np.array([1, 0, 3])
    assert classification.top_k(true, chances, (1, 2, 3, 4)) == pytest.approx(
        {"top_1": 0, "top_2": 1 / 3, "top_3": 1 / 3}
    )
    accuracy = classification.scores(classification.confusion(true, chances.argmax(1), 4))["accuracy"]
    assert classification.top_k(true, chances, (1,))["top_1"] == accuracy


# Resume and model file


def test_a_resumed_training_equals_one_that_never_stopped(ways: Path, tmp_path: Path) -> None:
    everything = {"flip": True, "shift": 0.1, "cover": 0.2, "turn": 5.0, "val_groups": "B"}
    whole = train(ways, tmp_path / "whole", **everything)
    assert not train(ways, tmp_path / "parts", stop_at=6, **everything).result.finished
    assert resume(tmp_path / "parts").result.metrics == whole.result.metrics
    hashes = [model_file.sha256(model_file.load(tmp_path / name)[0]) for name in ("whole", "parts")]
    assert hashes[0] == hashes[1]


def test_a_changed_clip_is_noticed_on_resume(tmp_path: Path) -> None:
    folder = write_ways(tmp_path / "data", count=16)
    train(folder, tmp_path / "run", stop_at=3)
    write_clip(folder / "left" / "00.mkv", [picture(3, 200)] * 5)
    with pytest.raises(InputError, match="the data of .* have changed"):
        resume(tmp_path / "run")


def test_the_model_file_holds_everything(model: VideoClassifier, ways: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    again = unrolled.load(tmp_path / "m.safetensors")
    assert isinstance(again, unrolled.VideoClassifier) and again.labels == ["left", "right"]
    clips = [ways / "left" / "00.mkv"]
    assert again.predict(clips) == model.predict(clips)
    assert again.metrics == model.metrics and again.shape == model.shape


# The command


@pytest.mark.slow
def test_the_command_from_training_to_prediction(unrolled_cli: Cli, ways: Path, tmp_path: Path) -> None:
    small = [str(x) for name, value in SMALL.items() for x in (f"--{name}", value)]
    done = unrolled_cli(
        "train", "classify-video", ways, *small, "--val-groups", "A,B", "--steps", 60, "--out", "run", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["task"] == "classify-video" and summary["topology"] == "many_to_one" and summary["accuracy"] > 0.7
    clips = [str(ways / "left" / "00.mkv"), str(ways / "right" / "01.mkv")]
    done = unrolled_cli("predict", "run", *clips, cwd=tmp_path)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[2] for row in rows] == clips and [row[0] for row in rows] == ["left", "right"]
    done = unrolled_cli("predict", "run", clips[0], "--picture", "clip.png", cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "clip.png").read_bytes().startswith(b"\x89PNG")
    shown = unrolled_cli("evaluate", "run", ways, "--split", "val", cwd=tmp_path).stdout
    assert re.search(r"accuracy +[01]\.\d{4}", shown) and "confusion" in shown


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path,label\nleft/00.mkv,x\nright/01.mkv,x\nleft/02.mkv,x\n", "all 2 training clips"),
        ("path,label\nleft/00.mkv,x\nabsent.mkv,y\n", "no such file"),
        ("path,label\nleft/00.mkv,x\nleft/02.mkv,x\nclips.csv,y\nright/01.mkv,y\n", "clips.csv"),
        ("path,label\nleft/00.mkv,x\nright/01.mkv,y\nempty.mkv,y\nleft/02.mkv,x\n", "empty.mkv"),
    ],
)
def test_unusable_clips_are_refused_in_one_sentence(
    quick_cli: Cli, ways: Path, tmp_path: Path, content: str, words: str
) -> None:
    (ways / "empty.mkv").touch()
    (ways / "bad.csv").write_text(content)
    done = quick_cli("train", "classify-video", ways / "bad.csv", "--steps", 2, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr
    assert_one_sentence(done.stderr.strip().splitlines()[-1].removeprefix("unrolled: "))
    assert not (tmp_path / "runs").exists()
    (ways / "bad.csv").unlink()


def test_a_prediction_wants_a_list_and_frames_on_the_models_device(model: VideoClassifier) -> None:
    assert model.predict([]) == []
    with pytest.raises(InputError, match="list of clips"):
        model.predict("clip.mp4")
    assert model.device == torch.device("cpu")
