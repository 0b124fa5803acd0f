"""`predict`: which arguments are texts and which are files, and files that cannot be read; and what commands print."""

import json
import random
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli
from helpers import Listener, assert_one_sentence
from PIL import Image
from video_helpers import moving, write_clip

import unrolled
from unrolled.app.given import looks_like_a_file
from unrolled.app.predict_clips import _clips
from unrolled.errors import InputError
from unrolled.tasks.fitting import fit, resume
from unrolled.tasks.kinds import KINDS
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions
from unrolled.training import model_file
from unrolled.training.schedule import Clock

TINY = {"steps": 1, "hidden": 8, "batch": 4}
CLIPS = {"features": 4, "channels": "4,4", "size": 8, **TINY}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., LanguageModel]) -> Path:
    """A model of each kind that predicts, good files and bad ones."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "texts.tsv").write_text("".join(f"{w} {n}\t{w}\n" for n in range(8) for w in ("good", "bad")))
    for n in range(6):
        write_clip(folder / f"{n}.mkv", moving(random.Random(n), (1, -1)[n % 2], 4))
        (folder / "pictures").mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * n, np.uint8)).save(folder / "pictures" / f"{n}.png")
    rows = range(6)
    (folder / "clips.csv").write_text("path,label\n" + "".join(f"{n}.mkv,{'ab'[n % 2]}\n" for n in rows))
    (folder / "segments.csv").write_text(
        "path,start_frame,end_frame,label\n" + "".join(f"{n}.mkv,0,{1 + n % 3},{'ab'[n % 2]}\n" for n in rows)
    )
    (folder / "captions.csv").write_text("path,caption\n" + "".join(f"{n}.mkv,it goes {n % 2}\n" for n in rows))
    (folder / "pictures" / "captions.csv").write_text(
        "image,caption\n" + "".join(f"{n}.png,a {n % 2} square\n" for n in rows)
    )
    how = {"val_fraction": 0.4}
    models = {
        "text": unrolled.TextClassifier.fit(folder / "texts.tsv", tokens="char", embedding=4, **TINY, **how),
        "clip": unrolled.VideoClassifier.fit(folder / "clips.csv", **CLIPS, **how),
        "frames": unrolled.FrameLabeler.fit(folder / "segments.csv", **CLIPS, **how),
        "tell": unrolled.VideoCaptioner.fit(folder / "captions.csv", min_count=1, embedding=4, **CLIPS, **how),
        "picture": unrolled.ImageCaptioner.fit(folder / "pictures", min_count=1, size=8, channels="4,4", **TINY, **how),
        "language": make_model(),
    }
    for name, model in models.items():
        model.save(folder / f"{name}.safetensors")
    (folder / "lines.txt").write_text("good\nbad\n")
    (folder / "latin.txt").write_bytes("good\nübel\n".encode("latin-1"))
    for name in ("bad.mkv", "pictures/bad.png"):
        (folder / name).write_bytes(b"no such thing")
    for name in ("empty.txt", "empty.mkv", "pictures/empty.png"):
        (folder / name).touch()
    return folder


PREDICTED = {
    "text": (["lines.txt", "latin.txt", "empty.txt", "gone.txt", "so good"], ["latin", "empty", "gone"], 3),
    "clip": (["0.mkv", "bad.mkv", "empty.mkv", "gone.mkv", "1.mkv"], ["bad", "empty", "gone"], 2),
    "frames": (["0.mkv", "bad.mkv", "empty.mkv", "gone.mkv", "1.mkv"], ["bad", "empty", "gone"], 2),
    "tell": (["0.mkv", "bad.mkv", "empty.mkv", "gone.mkv", "1.mkv"], ["bad", "empty", "gone"], 2),
    "picture": (["pictures", "gone.png"], ["bad", "empty", "gone"], 6),
}


@pytest.mark.parametrize("model", PREDICTED)
def test_files_that_cannot_be_read_are_named_and_the_others_predicted(model: str, place: Path, quick_cli: Cli) -> None:
    given, bad, count = PREDICTED[model]
    done = quick_cli("predict", f"{model}.safetensors", *given, "--json", cwd=place)
    found = json.loads(done.stdout)
    assert done.returncode == 1 and len(found["predictions"]) == count
    assert [Path(one["path"]).stem for one in found["skipped"]] == bad
    assert [line.startswith("left out: ") for line in done.stderr.splitlines()] == [True] * len(bad)
    assert all(name in line for name, line in zip(bad, done.stderr.splitlines(), strict=True))
    plain = quick_cli("predict", f"{model}.safetensors", *given, cwd=place)
    assert plain.returncode == 1 and plain.stderr == done.stderr and plain.stdout
    stopped = quick_cli("predict", f"{model}.safetensors", *given, "--bad-files", "stop", cwd=place)
    assert stopped.returncode == 2
    assert_one_sentence(stopped.stderr.strip().removeprefix("unrolled: "))
    assert "lat" in stopped.stderr or "bad." in stopped.stderr


def test_nothing_is_skipped_where_nothing_is_bad(place: Path, quick_cli: Cli) -> None:
    for model, given in (("text", "lines.txt"), ("clip", "0.mkv"), ("picture", "pictures/0.png")):
        done = quick_cli("predict", f"{model}.safetensors", given, "--json", cwd=place)
        assert done.returncode == 0 and json.loads(done.stdout)["skipped"] == [] and done.stderr == ""


def test_paths_on_standard_input_are_skipped_alike(place: Path, quick_cli: Cli) -> None:
    for model, good, bad in (("picture", "pictures/0.png", "pictures/bad.png"), ("clip", "0.mkv", "bad.mkv")):
        named = f"{good}\n{bad}\n{good}\n"
        done = quick_cli("predict", f"{model}.safetensors", "-", cwd=place, stdin=named)
        assert done.returncode == 1 and len(done.stdout.splitlines()) == 2 and bad in done.stderr


# Texts and names of files


@pytest.mark.parametrize("name", ["lnies.txt", "./lines", "texts/lines.tsv", "and/or", "lines.tx", "a.jsonl"])
def test_a_mistyped_name_is_refused_and_never_a_text(name: str, place: Path, quick_cli: Cli) -> None:
    done = quick_cli("predict", "text.safetensors", name, "a text", cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert name in done.stderr and "standard input" in done.stderr
    explained = quick_cli("explain", "prediction", "text.safetensors", name, cwd=place)
    assert explained.returncode == 2 and "standard input" in explained.stderr


@pytest.mark.parametrize(
    "text", ["3.5", "10/10", "U.S.", "http://x.y/z", "Was?", "l'été", "1/2", "v2.0", "2026-11-28", "…", ""]
)
def test_numbers_dates_addresses_and_words_are_texts(text: str) -> None:
    assert not looks_like_a_file(text)


def test_a_refused_word_goes_through_standard_input(place: Path, quick_cli: Cli) -> None:
    done = quick_cli("predict", "text.safetensors", cwd=place, stdin="and/or\n")
    assert done.returncode == 0 and done.stdout.endswith("\tand/or\n")
    done = quick_cli("explain", "prediction", "text.safetensors", "-", "--json", cwd=place, stdin="and/or\n")
    assert json.loads(done.stdout)["words"] == ["and", "/", "or"]


def test_an_option_is_not_silently_without_effect(place: Path, quick_cli: Cli) -> None:
    for line, words in (
        ("predict text.safetensors good --encoding utf-9", "unknown --encoding 'utf-9'"),
        ("predict text.safetensors good --encoding hex", "unknown --encoding 'hex'"),
        ("predict clip.safetensors 0.mkv --encoding utf-8", "--encoding is for texts"),
        ("predict frames.safetensors 0.mkv --follow --beam 5", "leave --picture"),
        ("predict clip.safetensors 0.mkv --beam 5", "are for what writes"),
        ("sample language.safetensors --beam 2 --temperature 1.0", "draws nothing"),
        ("sample language.safetensors --no-repeat-ngram 0", "is for --beam"),
        ("predict text.safetensors -x", "unknown option: -x"),
        ("sample language.safetensors --prompt --json", "--prompt --json: give it a text"),
    ):
        done = quick_cli(*line.split(), cwd=place)
        assert (done.returncode, done.stdout) == (2, "") and words in done.stderr, (line, done.stderr)


def test_texts_may_begin_with_a_dash(place: Path, quick_cli: Cli) -> None:
    done = quick_cli("sample", "language.safetensors", "--prompt", "- a", "--length", 3, "--seed", 1, cwd=place)
    assert done.returncode == 0 and done.stdout.startswith("- a")
    assert quick_cli("predict", "text.safetensors", "- good", cwd=place).stdout.endswith("\t- good\n")
    assert quick_cli("explain", "prediction", "text.safetensors", "- good", cwd=place).returncode == 0
    noted = quick_cli("sample", "language.safetensors", "--prompt", "lines.txt", "--length", 3, cwd=place)
    assert noted.returncode == 0 and "not what is in that file" in noted.stderr


# What commands print and where data may lie


def test_commands_that_are_printed_can_be_pasted(place: Path, tiny_text: Path, quick_cli: Cli, tmp_path: Path) -> None:
    shutil.copy(tiny_text, tmp_path / "a text.txt")
    small = ["--steps", 1, "--hidden", 8, "--batch", 2, "--bptt", 8]
    done = quick_cli("train", "language-model", "a text.txt", *small, "--out", "a run", cwd=tmp_path)
    command = shlex.split(done.stdout.splitlines()[-1])
    assert command[:3] == ["unrolled", "sample", "a run"]
    assert quick_cli(*command[1:], cwd=tmp_path).returncode == 0
    refused = quick_cli("resume", "a run", cwd=tmp_path)
    assert "--start-from 'a run'" in refused.stderr
    written = quick_cli("moving-digits", "some digits", "--train", 1, "--val", 1, cwd=tmp_path)
    assert "train caption-video 'some digits'" in written.stdout


def test_a_training_goes_on_with_data_that_have_moved(tiny_text: Path, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        shutil.copy(tiny_text, tmp_path / name)
    options = LanguageModelOptions(steps=6, hidden=8, batch=2, bptt=8)
    whole = fit([tmp_path / "a.txt"], val=[tmp_path / "b.txt"], options=options, out=tmp_path / "whole")
    for name in ("run", "same"):
        fit([tmp_path / "a.txt"], val=[tmp_path / "b.txt"], options=options, out=tmp_path / name, observer=Listener(3))
    (tmp_path / "moved").mkdir()
    (tmp_path / "a.txt").rename(tmp_path / "moved" / "c.txt")
    with pytest.raises(InputError, match=r"a\.txt.* is not there any more.*resume .*run --data PATH"):
        resume(tmp_path / "run")
    with pytest.raises(InputError, match="the data of .* have changed"):
        (tmp_path / "other.txt").write_text("another text " * 99)
        resume(tmp_path / "run", data=[tmp_path / "other.txt"])
    (tmp_path / "b.txt").rename(tmp_path / "moved" / "d.txt")
    moved = {"data": [tmp_path / "moved" / "c.txt"], "val": [tmp_path / "moved" / "d.txt"]}
    listener = Listener(5)
    assert not resume(tmp_path / "run", **moved, observer=listener).result.finished
    done = resume(tmp_path / "run")  # it remembers where they are now
    assert done.result.metrics == whole.result.metrics
    one, other = (model_file.load(tmp_path / name)[1] for name in ("run", "whole"))
    for name in ("sha256", "metrics", "trained_on"):
        assert one[name] == other[name]


def test_resume_names_no_validation_data_that_there_never_were(tiny_text: Path, tmp_path: Path, quick_cli: Cli) -> None:
    options = LanguageModelOptions(steps=6, hidden=8, batch=2, bptt=8)
    fit([tiny_text], options=options, out=tmp_path / "run", observer=Listener(3))
    done = quick_cli("resume", tmp_path / "run", "--val", tiny_text)
    assert done.returncode == 2 and "was given no --val" in done.stderr
    done = quick_cli("resume", tmp_path / "run", "--data", tiny_text)
    assert done.returncode == 0, done.stderr


def test_a_folder_of_clips_is_its_clips_and_a_folder_of_pictures_one_clip(tmp_path: Path) -> None:
    clips, frames = tmp_path / "clips", tmp_path / "frames"
    for folder, names in ((clips, ("b10.mp4", "b2.mp4", "notes.txt", ".hidden.mp4")), (frames, ("1.png", "2.png"))):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
    found = list(_clips((str(clips), str(frames), "alone.mp4")))
    assert found == [str(clips / "b2.mp4"), str(clips / "b10.mp4"), str(frames), "alone.mp4"]


def test_only_tasks_that_start_from_their_own_models_advise_it() -> None:
    for name, kind in KINDS.items():
        with pytest.raises(InputError) as refused:
            kind.prepare([], kind.options(steps=1), val=None, device=torch.device("cpu"), clock=Clock(), start=object())
        assert not (kind.goes_on and "starts from nothing yet" in str(refused.value)), name
    assert [name for name, kind in KINDS.items() if kind.goes_on] == ["language-model", "translate", "caption-image"]
