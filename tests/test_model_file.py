"""Model files and checkpoints: complete, checked byte by byte, and never half written."""

import errno
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import unrolled
from unrolled.errors import InputError, UnrolledError
from unrolled.tasks.models import LanguageModel, load
from unrolled.training import checkpoint, files, model_file

Make = Callable[..., LanguageModel]


@pytest.fixture
def saved_model(tmp_path: Path, make_model: Make) -> Path:
    path = tmp_path / "kept" / "model.safetensors"
    path.parent.mkdir()
    make_model("한abc\n", cell="gru", layers=2).save(path)
    return path


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# The model file


@pytest.mark.parametrize("change", ["weights", "options"])
def test_a_model_of_another_version_is_refused_in_a_sentence(saved_model: Path, tmp_path: Path, change: str) -> None:
    tensors, description = model_file.load(saved_model)
    if change == "weights":
        tensors = {("table.old" if name == "table" else name): tensor for name, tensor in tensors.items()}
    else:
        description["options"]["gone"] = 1
    model_file.save(tmp_path / "old.safetensors", tensors, description)
    with pytest.raises(InputError, match="by a version of unrolled whose networks for language-model were others"):
        load(tmp_path / "old.safetensors")


@pytest.mark.parametrize("characters", ["한abc\n", None], ids=["char", "byte"])
@pytest.mark.parametrize("options", [{}, {"cell": "rnn_relu", "embedding": 0}, {"topology": "one_to_one"}], ids=str)
def test_a_model_comes_back_whole(
    make_model: Make, tmp_path: Path, characters: str | None, options: dict[str, Any]
) -> None:
    model = make_model(characters, **options)
    model.save(tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", tmp_path, str(tmp_path)):  # a file or its folder
        loaded = unrolled.load(path)
        assert loaded.options == model.options
        assert (loaded.metrics, loaded.step) == (model.metrics, 3)
        assert loaded.tokenizer.to_json() == model.tokenizer.to_json()
        weights, expected = loaded.network.state_dict(), model.network.state_dict()
        assert list(weights) == list(expected)
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        assert not loaded.network.training
        assert loaded.sample("abc", 40, seed=1) == model.sample("abc", 40, seed=1)


def test_the_file_is_plain_safetensors_with_json_beside_the_weights(saved_model: Path, make_model: Make) -> None:
    with safetensors.safe_open(saved_model, "pt") as file:
        described = json.loads(file.metadata()["unrolled"])
        names = set(file.keys())
    assert names == set(make_model("한abc\n", cell="gru", layers=2).network.state_dict())
    assert described["task"] == "language-model"
    assert described["format"] == files.FORMAT
    assert described["options"]["cell"] == "gru"
    assert described["vocabulary"] == {"kind": "char", "characters": "\nabc한"}
    assert described["metrics"] == {"val_loss": 1.5, "bits_per_character": 2.25}


def test_every_flipped_bit_is_found(saved_model: Path) -> None:
    data = saved_model.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    draw = random.Random(0)
    bits = [*range(64), *draw.sample(range(64, 8 * header), 200), *draw.sample(range(8 * header, 8 * len(data)), 60)]
    for bit in bits:
        saved_model.write_bytes(flipped(data, bit))
        with pytest.raises(InputError) as raised:
            unrolled.load(saved_model)
        assert str(saved_model) in str(raised.value), bit
    saved_model.write_bytes(data)
    unrolled.load(saved_model)


def test_a_truncated_or_longer_file_is_found(saved_model: Path) -> None:
    data = saved_model.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for end in (0, 1, 7, 8, 9, header // 2, header, header + 1, len(data) - 4, len(data) - 1):
        saved_model.write_bytes(data[:end])
        with pytest.raises(InputError, match="damaged"):
            unrolled.load(saved_model)
    saved_model.write_bytes(data + b"\0")
    with pytest.raises(InputError, match="damaged"):
        unrolled.load(saved_model)


def test_files_of_others_are_refused_by_name(saved_model: Path, make_model: Make, tmp_path: Path) -> None:
    tensors, description = model_file.load(saved_model)
    other = tmp_path / "other.safetensors"

    model_file.save(other, tensors, {**description, "task": "write-music"})
    with pytest.raises(InputError, match=r"other\.safetensors is a model for write-music"):
        unrolled.load(other)
    with pytest.raises(InputError, match=r"is a model for language-model, not for translate"):
        load(saved_model, task="translate")

    text = json.dumps({**description, "format": files.FORMAT + 1, "something": "new"})
    metadata = {"unrolled": text, "unrolled_sha256": hashlib.sha256(text.encode()).hexdigest()}
    other.write_bytes(safetensors.torch.save(tensors, metadata))
    with pytest.raises(InputError, match=r"has format 2, newer than 1: update unrolled"):
        unrolled.load(other)

    for foreign in (None, {"format": "pt"}):
        other.write_bytes(safetensors.torch.save(tensors, foreign))
        with pytest.raises(InputError, match="was not written by unrolled"):
            unrolled.load(other)

    other.write_bytes(safetensors.torch.save(tensors, {"unrolled": text}))  # without the checksum
    with pytest.raises(InputError, match="checksum"):
        unrolled.load(other)

    for place in (tmp_path / "nowhere", tmp_path, Path(os.devnull)):
        with pytest.raises(InputError, match="no model at"):
            unrolled.load(place)


# Failing writes


def full(*args: object, **keywords: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["os.fsync", "os.replace", "pathlib.Path.open"])
def test_a_failing_write_keeps_the_old_model(
    saved_model: Path, make_model: Make, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    before = saved_model.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(
            UnrolledError, match=r"cannot write .*model\.safetensors: No space left on device"
        ) as raised:
            make_model(seed=9).save(saved_model)
    assert raised.value.exit_code == 1
    assert saved_model.read_bytes() == before
    assert [p.name for p in saved_model.parent.iterdir()] == ["model.safetensors"]  # no temporary file either
    make_model(seed=9).save(saved_model)
    assert saved_model.read_bytes() != before


def test_saving_to_a_folder_that_does_not_exist_is_said(make_model: Make, tmp_path: Path) -> None:
    with pytest.raises(UnrolledError, match=r"cannot write .*No such file or directory"):
        make_model().save(tmp_path / "missing" / "model.safetensors")


# Checkpoints


def save(folder: Path, number: int, step: int | None = None) -> Path:
    """A checkpoint whose contents say its number."""
    step = number if step is None else step
    return checkpoint.save(folder, step, {"w": torch.full((5,), float(number))}, {"step": step, "number": number})


def newest(folder: Path) -> int:
    """The number of the latest checkpoint, which is whole."""
    path = checkpoint.latest(folder)
    assert path is not None
    tensors, description = checkpoint.load(path)
    assert tensors["w"].tolist() == [description["number"]] * 5
    return int(description["number"])


def test_a_checkpoint_replaces_the_one_before(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    for number in (1, 9, 10, 1000):
        path = save(tmp_path, number)
        assert path == tmp_path / f"step-{number}"
        assert newest(tmp_path) == number
        assert list(tmp_path.iterdir()) == [path]
    save(tmp_path, 2000, step=1000)  # the same step again
    assert newest(tmp_path) == 2000
    assert list(tmp_path.iterdir()) == [checkpoint.latest(tmp_path)]


def test_every_file_of_a_checkpoint_is_checked(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    names = sorted(p.name for p in path.iterdir())
    assert names == ["manifest.json", "tensors.safetensors", "training.json"]
    for name in names:
        data = (path / name).read_bytes()
        for bit in range(8 * len(data)):
            (path / name).write_bytes(flipped(data, bit))
            with pytest.raises(InputError, match=r"step-7 is damaged .*--start-from"):
                checkpoint.load(path)
        (path / name).unlink()
        with pytest.raises(InputError, match="damaged"):
            checkpoint.load(path)
        (path / name).write_bytes(data)
    assert newest(tmp_path) == 7


def test_a_checkpoint_of_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(files, "FORMAT", 2)
        path = save(tmp_path, 1)
    with pytest.raises(InputError, match="format 2, newer than 1"):
        checkpoint.load(path)


class Killed(BaseException):
    """The process ends here."""


def kill_at(patch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Let the process die at the `count`-th change to the disk: even counts before it, odd ones just after it.
    A folder is removed file by file. Returns a list that grows with each change."""
    changes: list[int] = []

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **keywords: Any) -> Any:
            for after in (False, True):
                if after:
                    result = change(*args, **keywords)
                changes.append(1)
                if len(changes) == count:
                    raise Killed
            return result

        return wrapped

    def rmtree(path: Path, ignore_errors: bool = False) -> None:
        for file in sorted(Path(path).glob("*")):
            file.unlink()
        if Path(path).exists():
            Path(path).rmdir()

    for owner, names in ((Path, "unlink rmdir rename mkdir"), (os, "replace rename fsync")):
        for name in names.split():
            patch.setattr(owner, name, dying(getattr(owner, name)))
    patch.setattr(shutil, "rmtree", rmtree)
    return changes


@pytest.mark.parametrize("step", [8, 7], ids=["next step", "same step"])
@pytest.mark.parametrize("leftovers", [False, True])
def test_a_kill_at_any_instant_leaves_the_old_checkpoint_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, leftovers: bool
) -> None:
    """The same step is saved twice when a training is stopped or ends right after a checkpoint of the clock."""
    outcomes, lost = [], []
    for count in range(1, 200):
        folder = tmp_path / str(count)
        folder.mkdir()
        save(folder, 7)
        if leftovers:  # of an earlier kill
            shutil.copytree(folder / "step-7", folder / ".step-unfinished")
            shutil.copytree(folder / "step-7", folder / "step-5")
            (folder / "step-5" / "manifest.json").unlink()
        with monkeypatch.context() as patch:
            changes = kill_at(patch, count)
            try:
                save(folder, 8, step)
            except Killed:
                pass
            else:
                assert len(changes) < count
                assert newest(folder) == 8
                assert list(folder.iterdir()) == [checkpoint.latest(folder)]
                break
        try:
            outcomes.append(newest(folder))
        except (AssertionError, InputError):
            lost.append(count)
            continue
        save(folder, 9)  # and the next one comes as if nothing had happened
        assert newest(folder) == 9
        assert list(folder.iterdir()) == [folder / "step-9"]
    assert lost == []
    assert set(outcomes) == {7, 8}
    assert outcomes == sorted(outcomes)
    assert len(outcomes) > 20


@pytest.mark.parametrize("place", ["os.fsync", "os.replace", "pathlib.Path.rename", "pathlib.Path.mkdir"])
def test_a_failing_write_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    save(tmp_path, 7)
    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        with pytest.raises(UnrolledError, match=r"cannot write .*step-.*No space left on device") as raised:
            save(tmp_path, 8)
    assert raised.value.exit_code == 1
    assert newest(tmp_path) == 7
    save(tmp_path, 9)
    assert newest(tmp_path) == 9
    assert list(tmp_path.iterdir()) == [tmp_path / "step-9"]
