"""Files whose checksums are right and whose contents are not: refused by name, or of no consequence; and old files."""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from unrolled.data.batches import Examples
from unrolled.data.frames import Frames
from unrolled.data.vocabulary import Vocabulary
from unrolled.errors import InputError
from unrolled.tasks import classify_video, translate
from unrolled.tasks.classified import predict
from unrolled.tasks.fitting import fit, resume
from unrolled.tasks.media_options import VideoClassifierOptions
from unrolled.tasks.models import LanguageModel, load
from unrolled.tasks.options import LanguageModelOptions, TranslateOptions
from unrolled.tasks.translator import Translator
from unrolled.tasks.video import Shape
from unrolled.tasks.video_classifier import VideoClassifier
from unrolled.training import checkpoint, model_file
from unrolled.training.observer import Observer
from unrolled.training.run import CHECKSUM

Make = Callable[..., LanguageModel]
FOREIGN = (None, "many", [None], True)
"""What a field is replaced by."""


def changed(description: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Copies of a description, each with one field missing, null or of another type, and which field it is."""
    items = list(enumerate(description[:2]) if isinstance(description, list) else description.items())
    for key, value in items:
        for other in FOREIGN:
            if type(other) is not type(value) or other == [None]:
                new = copy.copy(description)
                new[key] = other
                yield (*path, key), new
        if isinstance(description, dict):
            yield (*path, key), {name: each for name, each in description.items() if name != key}
        if isinstance(value, dict | list):
            for where, inner in changed(value, (*path, key)):
                new = copy.copy(description)
                new[key] = inner
                yield where, new


def write(path: Path, tensors: dict[str, torch.Tensor], description: Any) -> None:
    """A model file with right checksums, whatever it says."""
    text = json.dumps(description)
    metadata = {"unrolled": text, "unrolled_sha256": hashlib.sha256(text.encode()).hexdigest()}
    path.write_bytes(safetensors.torch.save(tensors, metadata))


def translator() -> Translator:
    words = Vocabulary.learn("word", ["a b c a b c"], min_count=1)
    options = translate.resolve(TranslateOptions(steps=1, tokens="word", hidden=4, embedding=4))
    languages = translate.Languages(words, Vocabulary.learn("bpe", ["de f de f"], 258), 1.5)
    return Translator(translate.Network(languages, options), languages, options, {"bleu": 1.0}, 1)


def video_classifier() -> VideoClassifier:
    options = classify_video.resolve(VideoClassifierOptions(steps=1, hidden=4, features=4, channels="2", flip=True))
    shape = Shape(8, 8, True, 1, 4)
    return VideoClassifier(classify_video.Network(shape, 2, options), shape, ["a", "b"], options, {"f1": 1.0}, 1)


def says(model: Any) -> Any:
    """What a model gives for some input, and what travels with it."""
    if isinstance(model, LanguageModel):
        found: Any = model.sample("a", 20, seed=1)
    elif isinstance(model, Translator):
        found = model.translate(["a b", "c"], beam=2)
    else:
        clips = Frames.pack([np.arange(192, dtype=np.uint8).reshape(3, 8, 8, 1)])
        found = predict(model.network, Examples(clips, np.zeros(1, int)), model.device).tolist()
    return found, model.vocabulary(), model.metrics, model.step


@pytest.mark.parametrize("kind", ["language-model", "translate", "classify-video"])
def test_a_model_file_with_any_field_missing_null_or_of_another_type_is_refused_by_name(
    kind: str, make_model: Make, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = {"language-model": make_model, "translate": translator, "classify-video": video_classifier}[kind]()
    model.save(tmp_path / "good.safetensors")
    tensors, good = model_file.load(tmp_path / "good.safetensors")
    bad, refused, expected = tmp_path / "bad.safetensors", 0, says(model)
    for where, description in changed(good):
        write(bad, tensors, description)
        try:
            loaded = load(bad)
        except InputError as error:
            assert str(bad) in str(error) and "\n" not in str(error), where
            refused += 1
        else:
            meaningful = where[:1] == ("metrics",) or where[-1] in ("count", "longest")  # null and none mean something
            assert meaningful or says(loaded) == expected, where
    assert refused > 80
    for strange in ([], None, "x", 3, {"format": 1}, {"format": "1", **{k: good[k] for k in good if k != "format"}}):
        write(bad, tensors, strange)
        with pytest.raises(InputError, match=r"bad\.safetensors"):
            load(bad)


def test_a_model_file_whose_tensors_its_options_do_not_ask_for_is_refused_before_its_network_is_built(
    make_model: Make, tmp_path: Path
) -> None:
    make_model("abc\n").save(tmp_path / "good.safetensors")
    tensors, good = model_file.load(tmp_path / "good.safetensors")
    bad = tmp_path / "bad.safetensors"
    for options, vocabulary in (
        ({"hidden": 1_000_000, "embedding": 500_000, "layers": 9}, {}),  # more than 100 TB
        ({}, {"characters": "abcdefgh"}),
        ({"cell": "gru"}, {}),
    ):
        what = {"options": {**good["options"], **options}, "vocabulary": {**good["vocabulary"], **vocabulary}}
        write(bad, tensors, {**good, **what})
        with pytest.raises(InputError, match=r"bad\.safetensors was trained by a version .* whose networks"):
            load(bad)
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    model_file.save(bad, halves, good)
    with pytest.raises(InputError, match="float16"):
        load(bad)


RELEASED = {
    "language-model": "cell hidden layers embedding topology dropout forget_bias tokens vocabulary val_fraction",
    "translate": "source_column target_column encoding val_fraction tokens vocabulary cell hidden layers attention "
    "embedding dropout label_smoothing",
}
TRAINING = (
    "seconds steps batch bptt lr weight_decay warmup clip eval_every patience average seed engine device threads "
    "dropout_kind embedding_dropout weight_drop"
)


@pytest.mark.parametrize("options", [LanguageModelOptions(), TranslateOptions()], ids=["language-model", "translate"])
def test_the_options_of_files_of_version_0_1_0_are_enough(options: Any) -> None:
    """An option that came later must be named in `training/options.ADDED`."""
    task = "language-model" if isinstance(options, LanguageModelOptions) else "translate"
    kept = {name: getattr(options, name) for name in (RELEASED[task] + " " + TRAINING).split()}
    assert type(options).from_json(kept) == options


# Run folders


class Stop(Observer):
    def __init__(self, at: int = -1) -> None:
        self.at, self.notes = at, list[str]()

    def stop(self, step: int) -> bool:
        return step == self.at

    def report(self, line: dict[str, Any]) -> None:
        self.notes += [line["note"]] if "note" in line else []


@pytest.fixture
def stopped(tmp_path: Path, tiny_text: Path) -> Path:
    """A run that was stopped at step 4 of 6."""
    options = LanguageModelOptions(steps=6, hidden=4, batch=4, bptt=8, eval_every=2, average=0.5, engine="loop")
    fit([tiny_text], options=options, out=tmp_path / "run", observer=Stop(4))
    return tmp_path / "run"


def rewritten(run: Path, **contents: Any) -> None:
    """The checkpoint with other contents and right checksums."""
    (folder,) = run.glob("step-*")
    for name, value in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    names = ("training.json", "tensors.safetensors")
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "manifest.json").write_text(json.dumps(sums))


def test_a_checkpoint_with_any_field_missing_null_or_of_another_type_is_refused_by_name(stopped: Path) -> None:
    (folder,) = stopped.glob("step-*")
    good = json.loads((folder / "training.json").read_text())
    run = json.loads((stopped / "run.json").read_text())
    log = (stopped / "metrics.jsonl").read_bytes()
    tried = 0
    for where, description in changed(good):
        if where[:1] == ("cursor",) and len(where) > 2 and where[2] > 0:
            continue  # one place of a list stands for all
        if "progress" not in description:  # as in checkpoints of version 0.1.0
            continue
        rewritten(stopped, training=description)
        with pytest.raises(InputError, match=r"step-4") as raised:
            pytest.fail(f"{where} {resume(stopped, observer=Stop(4))}")
        assert "\n" not in str(raised.value), where
        tried += 1
    assert tried > 40
    for step, threads in ((5, 1), (4, 40_000)):
        rewritten(stopped, training={**good, "step": step, "threads": threads})
        with pytest.raises(InputError, match="step-4 makes no sense"):
            resume(stopped)
    rewritten(stopped, training=good)
    for where, config in changed({key: value for key, value in run.items() if key != CHECKSUM}):
        if where[0] in ("data", "val", "sha256") or where == ("options", "engine"):  # said elsewhere; not used
            continue
        if where[0] not in config and where[0] in ("decoders", "rules", "trained_on"):  # version 0.1.0 had none of them
            continue
        if where == ("trained_on", "digest") and config["trained_on"].get("digest", "") is None:  # not known
            continue
        (stopped / "run.json").write_text(json.dumps(config))  # as version 0.1.0 wrote it, without a checksum
        with pytest.raises(InputError):
            pytest.fail(f"{where} {resume(stopped, observer=Stop(4))}")
    (stopped / "run.json").write_text(json.dumps(run))
    assert (stopped / "metrics.jsonl").read_bytes() == log
    assert not resume(stopped, observer=Stop(4)).result.finished


def test_tensors_of_a_checkpoint_that_do_not_fit_are_refused_by_name(stopped: Path) -> None:
    (folder,) = stopped.glob("step-*")
    tensors, _ = checkpoint.load(folder)
    for lacking in ("random/cpu", "optimizer/0.exp_avg", "average/table", "model/table"):
        kept = {name: tensor for name, tensor in tensors.items() if name != lacking}
        (folder / "tensors.safetensors").write_bytes(safetensors.torch.save(kept))
        rewritten(stopped)
        with pytest.raises(InputError):
            resume(stopped, observer=Stop(4))


def test_a_changed_digit_in_run_json_is_found(stopped: Path) -> None:
    text = (stopped / "run.json").read_text()
    assert '"lr": 0.01,' in text
    other = text.replace('"lr": 0.01,', '"lr": 0.02,')
    (stopped / "run.json").write_text(other)
    with pytest.raises(InputError, match=r"run\.json is damaged \(it fails its checksum\)"):
        resume(stopped)
    old = {key: value for key, value in json.loads(other).items() if key != CHECKSUM}
    (stopped / "run.json").write_text(json.dumps(old))  # version 0.1.0 wrote none, but its model file has one
    with pytest.raises(InputError, match=r"lr of its options is 0\.02, and 0\.01 in .*model\.safetensors"):
        resume(stopped)
    (stopped / "run.json").write_text(json.dumps({**old, "options": {**old["options"], "lr": 0.01}}))
    assert not resume(stopped, observer=Stop(4)).result.finished


def test_a_log_that_cannot_be_read_or_written_never_stops_a_training(stopped: Path) -> None:
    log = stopped / "metrics.jsonl"
    good = log.read_bytes().splitlines(keepends=True)
    bad = b'\xff\xfe\0\n{"step": 2, "tr\n[3]\n{"step": "x"}\n{"step": 99}\n{"st'
    log.write_bytes(b'{"val_loss": 1}\n' + good[0] + bad)
    observer = Stop(4)
    resume(stopped, observer=observer)
    assert log.read_bytes() == good[0]
    assert any("had lines that are no reports, which were left out: 1, 3, 4, 5, 6" in note for note in observer.notes)
    log.unlink()
    log.mkdir()
    observer = Stop()
    assert resume(stopped, observer=observer).result.finished
    assert any("metrics.jsonl cannot be read or written" in note for note in observer.notes)
    assert sum("the training goes on without it" in note for note in observer.notes) == 1
