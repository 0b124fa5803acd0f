"""Captioning pictures: training, its four ways of giving the picture, the file, the command."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli, _environment
from helpers import Listener, assert_one_sentence
from PIL import Image
from vision_helpers import captioned, convolutional, transformer

import unrolled
from unrolled.app.output import FilesRead
from unrolled.data import frame_store
from unrolled.data.captioned import read_captions
from unrolled.data.frames import Frames
from unrolled.errors import InputError
from unrolled.metrics import captions
from unrolled.nn.vision import Backbone
from unrolled.tasks import caption_image, fitting
from unrolled.tasks.caption_image import features_of, moments
from unrolled.tasks.captioning import Words
from unrolled.tasks.image_captioner import ImageCaptioner
from unrolled.tasks.media_options import IMAGES, ImageCaptionerOptions
from unrolled.tasks.prepare_caption_image import prepare_image_captioner
from unrolled.training import model_file
from unrolled.training.schedule import Clock

SMALL = {"hidden": 32, "features": 32, "embedding": 16, "batch": 16, "min_count": 1}
QUICK = {**SMALL, "dropout": 0.0, "image_dropout": 0.0, "lr": 0.01, "label_smoothing": 0.0, "warmup": 5}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features only: kernels that were compiled are not compiled again."""
    monkeypatch.setattr(frame_store, "cache_folder", lambda: tmp_path / "cache")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return transformer(tmp_path_factory.mktemp("nets") / "vit", pooling=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captioned(tmp_path_factory.mktemp("data") / "shapes")


@pytest.mark.parametrize("image", IMAGES)
def test_each_way_of_giving_the_picture_tells_its_colour(data: Path, backbone: Path, image: str) -> None:
    """What it writes of pictures that it has not seen has their colour; without the picture it could not."""
    model = ImageCaptioner.fit(data, backbone=backbone, image=image, steps=150, eval_every=150, **QUICK)
    held = read_captions([data]).take(np.flatnonzero(np.array(read_captions([data]).splits) == "val"))
    written = model.caption(held.paths)
    colours = [path.name.split("_")[0] for path in held.paths]
    right = sum(colour in text.split() for colour, text in zip(colours, written, strict=True))
    assert right >= 7, list(zip(colours, written, strict=True))
    metrics = model.evaluate(data, split="val")
    assert metrics["cider"] == pytest.approx(captions.scores(written, held.captions)["cider"])
    assert (metrics["pictures"], metrics["captions"], metrics["beam"]) == (8, 16, 5)
    (found,) = model.predict(held.paths[:1], aligned=True)
    assert (found.attention is not None) == (image == "attention")
    if found.attention is not None:
        assert np.array(found.attention).shape == (len(found.tokens), 16)
        np.testing.assert_allclose(np.sum(found.attention, 1), 1, rtol=1e-5)


@pytest.mark.parametrize("image", IMAGES)
def test_the_picture_enters_where_it_is_said_to(data: Path, backbone: Path, image: str) -> None:
    task = prepare(data, backbone, image=image)
    network, batch = task.model().eval(), next(task.batches("val"))
    memory = network.read(batch)
    assert (memory.constant is not None) == (image in ("every-step", "both"))
    assert bool((memory.start[0] != 0).any()) == (image != "every-step")
    assert (memory.values is not None) == (image == "attention")
    assert batch.inputs.shape[0] == (16 if image == "attention" else 1)
    if memory.values is not None:
        seen = torch.tanh(network.project((batch.inputs.float() - network.mean) / network.deviation))
        torch.testing.assert_close(memory.values, seen)
        expected = network.topology.bridge(seen.mean(0)).start
        torch.testing.assert_close(memory.start, expected)


def prepare(data: Path, backbone: Path, **options: object) -> caption_image.ImageCaptionTask:
    chosen = ImageCaptionerOptions(backbone=str(backbone), steps=1, **{**SMALL, **options})
    return prepare_image_captioner([data], chosen, val=None, device=torch.device("cpu"), clock=Clock())


def test_captions_of_a_picture_are_never_divided(data: Path, backbone: Path, tmp_path: Path) -> None:
    """By a ratio too: no picture is in both parts, and each has all its captions."""
    folder = shutil.copytree(data, tmp_path / "plain")
    table = folder / "captions.csv"
    table.write_text("".join(line.rpartition(",")[0] + "\n" for line in table.read_text().splitlines()))
    task = prepare(folder, backbone, val_fraction=0.25)
    pictures = {name: set(part.sources.rows.tolist()) for name, part in task.pairs.items()}
    assert not pictures["train"] & pictures["val"]
    assert (len(pictures["train"]), len(pictures["val"])) == (24, 8)
    for part in task.pairs.values():
        assert (np.bincount(part.sources.rows) == 2).sum() == len(set(part.sources.rows.tolist()))


def test_words_are_learned_from_the_training_captions_alone(data: Path, backbone: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "odd")
    table = folder / "captions.csv"
    table.write_text(table.read_text().replace("A red circle .,dev", "Zebra ZEBRA zebra zebra,dev"))
    vocabulary = prepare(folder, backbone).words.vocabulary
    assert vocabulary.decode(vocabulary.encode("A Red zebra .")) == "a red <unk> ."
    assert "A" not in vocabulary.tokenizer.words and " a" in vocabulary.tokenizer.words
    rare = prepare(folder, backbone, min_count=13).words.vocabulary
    assert rare.decode(rare.encode("a red circle")) == "a <unk> circle"  # red: 12 in training; circle: 24
    cased = prepare(folder, backbone, cased=True).words.vocabulary
    assert cased.decode(cased.encode("A red")) == "A red"


def test_an_unknown_word_is_never_written(data: Path, backbone: Path) -> None:
    task = prepare(data, backbone, min_count=24)
    network = task.model()
    unknown = list(task.words.vocabulary.unknown)
    with torch.no_grad():
        network.topology.bias[unknown] += 100
    written = task.public(network).caption(read_captions([data]).paths[:3])
    assert not any("<unk>" in text for text in written)


def test_features_are_those_of_the_backbone_and_come_from_the_cache(
    data: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, paths = Backbone.open(backbone), read_captions([data]).paths[:20]
    first = features_of(network, paths, "attention").frames
    pooled = features_of(network, paths, "both").frames
    monkeypatch.setattr(Backbone, "compute", None)
    again = features_of(network, paths, "attention").frames
    picture = np.array(Image.open(paths[3]))
    seen = network(network.pixels([picture]))
    for found in (first, again):
        np.testing.assert_allclose(found[3], seen.regions[0], rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(pooled[3], seen.pooled, rtol=2e-3, atol=2e-3)
    with torch.no_grad():
        network.network.layernorm.weight.mul_(2)
    with pytest.raises(TypeError):  # another network: nothing of it is there
        features_of(network, paths, "attention")


def test_moments_are_those_of_the_training_pictures() -> None:
    draw = np.random.default_rng(0)
    array = draw.normal(3, 2, (10, 4)).astype(np.float16)
    array[:, 1] = 5
    mean, deviation = moments(array, [slice(0, 3), slice(5, 10)])
    rows = np.concatenate([array[:3], array[5:]]).astype(np.float64)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(deviation[[0, 2, 3]], rows.std(0)[[0, 2, 3]], rtol=1e-6)
    assert deviation[1] == 1


def test_resume_gives_the_same_bits(data: Path, backbone: Path, tmp_path: Path) -> None:
    options = ImageCaptionerOptions(backbone=str(backbone), steps=12, eval_every=4, **SMALL)
    whole = fitting.fit([data], options=options, out=tmp_path / "whole")
    fitting.fit([data], options=options, out=tmp_path / "parts", observer=Listener(stop_at=5))
    parts = fitting.resume(tmp_path / "parts")
    assert parts.result.finished and parts.result.metrics == whole.result.metrics
    for name, tensor in whole.model.network.state_dict().items():
        assert torch.equal(tensor, parts.model.network.state_dict()[name]), name


def test_start_from_goes_on_with_the_model(data: Path, backbone: Path, tmp_path: Path) -> None:
    first = fitting.fit(
        [data],
        options=ImageCaptionerOptions(backbone=str(backbone), image="both", steps=30, **QUICK),
        out=tmp_path / "first",
    )
    how = {"steps": 1, "lr": 1e-9}
    second = fitting.fit([data], options=ImageCaptionerOptions(**how), start_from=tmp_path / "first")
    assert (second.model.options.hidden, second.model.options.image) == (32, "both")
    assert second.result.metrics["val_loss"] == pytest.approx(first.result.metrics["val_loss"], rel=1e-3)
    with pytest.raises(InputError, match="contradicts the model to start from"):
        fitting.fit([data], options=ImageCaptionerOptions(hidden=8, **how), start_from=tmp_path / "first")
    other = convolutional(tmp_path / "other")
    with pytest.raises(InputError, match="is not the backbone of the model to start from"):
        fitting.fit([data], options=ImageCaptionerOptions(backbone=str(other), **how), start_from=tmp_path / "first")


@pytest.mark.parametrize("image", ["both", "attention"])
def test_the_model_file_is_enough(data: Path, tmp_path: Path, image: str) -> None:
    """The backbone travels along, so its folder may be gone."""
    folder = transformer(tmp_path / "vit", pooling=True)
    model = ImageCaptioner.fit(data, backbone=folder, image=image, steps=4, **SMALL)
    before = [tensor.clone() for tensor in Backbone.open(folder).state_dict().values()]
    model.save(tmp_path / "model.safetensors")
    shutil.rmtree(folder)
    again = unrolled.load(tmp_path / "model.safetensors")
    assert isinstance(again, unrolled.ImageCaptioner)
    assert (again.options, again.metrics, again.step) == (model.options, model.metrics, model.step)
    paths = read_captions([data]).paths[:4]
    assert again.predict(paths, aligned=True) == model.predict(paths, aligned=True)
    after = again.eye.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))  # frozen
    tensors, description = model_file.load(tmp_path / "model.safetensors")
    description["vocabulary"]["backbone"]["config"].update(hidden_size=2**18, intermediate_size=2**20)  # 4 TiB
    model_file.save(tmp_path / "other.safetensors", tensors, description)
    with pytest.raises(InputError, match=r"other\.safetensors .*its backbone asks for"):
        unrolled.load(tmp_path / "other.safetensors")


def test_arrays_that_are_no_pictures_are_refused(data: Path) -> None:
    model = ImageCaptioner.fit(data, steps=1, **LEARNING)
    for wrong in (np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8)):
        with pytest.raises(InputError, match="takes pictures of shape") as error:
            model.caption([wrong])
        assert_one_sentence(str(error.value))


def test_a_large_backbone_is_named_by_the_file(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = transformer(tmp_path / "vit", pooling=True)
    monkeypatch.setattr(caption_image, "EMBEDDED", 100)
    model = ImageCaptioner.fit(data, backbone=folder, steps=2, **SMALL)
    assert not any(name.startswith("eye") for name in model.network.state_dict())
    model.save(tmp_path / "model.safetensors")
    paths = read_captions([data]).paths[:4]
    assert unrolled.load(tmp_path / "model.safetensors").caption(paths) == model.caption(paths)
    shutil.rmtree(folder)
    torch.manual_seed(5)
    convolutional(folder)
    with pytest.raises(InputError, match="not the backbone that this model was trained with"):
        unrolled.load(tmp_path / "model.safetensors")
    shutil.rmtree(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=str(folder)):
        unrolled.load(tmp_path / "model.safetensors")


LEARNING = {**QUICK, "size": 32, "channels": "8,16", "batch": 8}


@pytest.mark.parametrize("image", ["attention", "both"])
def test_without_a_backbone_convolutions_learn_from_the_pictures(data: Path, tmp_path: Path, image: str) -> None:
    """Colour and shape of pictures that they have not seen; the file is all that is needed, and one goes on from it."""
    model = ImageCaptioner.fit(data, image=image, steps=150, eval_every=150, **LEARNING)
    held = read_captions([data]).take(np.flatnonzero(np.array(read_captions([data]).splits) == "val"))
    written = model.caption(held.paths)
    right = sum(text in [one.lower() for one in several] for text, several in zip(written, held.captions, strict=True))
    assert right >= 6, list(zip(written, held.captions, strict=True))
    assert model.caption([np.array(Image.open(path)) for path in held.paths]) == written
    model.save(tmp_path / "model.safetensors")
    again = unrolled.load(tmp_path / "model.safetensors")
    assert isinstance(again, ImageCaptioner)
    assert again.predict(held.paths, aligned=True) == model.predict(held.paths, aligned=True)
    how = ImageCaptionerOptions(steps=1, lr=1e-9)
    more = fitting.fit([data], options=how, start_from=tmp_path / "model.safetensors")
    assert (more.model.options.size, more.model.options.channels) == (32, "8,16")
    assert more.result.metrics["cider"] == pytest.approx(model.evaluate(data, split="val", beam=1)["cider"], rel=0.2)


def test_convolutions_that_learn_resume_with_the_same_bits(data: Path, tmp_path: Path) -> None:
    options = ImageCaptionerOptions(steps=12, eval_every=4, **{**SMALL, "size": 32, "channels": "8,16"})
    whole = fitting.fit([data], options=options, out=tmp_path / "whole")
    fitting.fit([data], options=options, out=tmp_path / "parts", observer=Listener(stop_at=5))
    parts = fitting.resume(tmp_path / "parts")
    for name, tensor in whole.model.network.state_dict().items():
        assert torch.equal(tensor, parts.model.network.state_dict()[name]), name


def test_a_backbone_and_convolutions_that_learn_do_not_mix(data: Path, backbone: Path, tmp_path: Path) -> None:
    fitting.fit([data], options=ImageCaptionerOptions(steps=1, **LEARNING), out=tmp_path / "learned")
    with pytest.raises(InputError, match="is not the backbone of the model to start from"):
        how = ImageCaptionerOptions(backbone=str(backbone), steps=1)
        fitting.fit([data], options=how, start_from=tmp_path / "learned")


def test_damaged_pictures_stop_or_are_skipped_and_listed(data: Path, backbone: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "damaged")
    (folder / "images" / "red_circle_0.png").write_bytes(b"")
    (folder / "images" / "blue_square_1.png").unlink()
    how = {"backbone": str(backbone), "steps": 1, **SMALL}
    with pytest.raises(InputError, match="blue_square_1"):
        ImageCaptioner.fit(folder, **how)
    listener = Listener()
    fitted = fitting.fit([folder], options=ImageCaptionerOptions(bad_files="skip", **how), observer=listener)
    notes = " ".join(line["note"] for line in listener.lines if "note" in line)
    assert "blue_square_1.png" in notes and "red_circle_0.png" in notes and "of 22 different pictures" in notes
    assert fitted.model.evaluate(folder, bad_files="skip")["pictures"] == 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 64, "backbone": "net"}, "--size is for convolutions that learn"),
        ({"size": 7}, "--size is 7"),
        ({"channels": "8,x"}, "--channels is '8,x'"),
        ({"image": "everywhere"}, "unknown image"),
        ({"tokens": "char", "min_count": 2}, "--min-count and --cased"),
        ({"image_dropout": 1.0}, "--image-dropout is 1.0"),
        ({"features": 0}, "--features is 0"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(data: Path, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        ImageCaptioner.fit(data, steps=1, **options)
    assert_one_sentence(str(error.value))


@pytest.mark.parametrize("tokens", ["char", "byte", "bpe"])
def test_other_tokens_than_words(data: Path, backbone: Path, tokens: str) -> None:
    more = {"vocabulary": 270} if tokens == "bpe" else {}
    how = {key: value for key, value in SMALL.items() if key != "min_count"}
    model = ImageCaptioner.fit(data, backbone=backbone, image="both", tokens=tokens, steps=2, **how, **more)
    vocabulary = model.words.vocabulary
    assert vocabulary.decode(vocabulary.encode("A red Square .")) == "A red Square ."
    assert isinstance(model.caption(read_captions([data]).paths[:1])[0], str)


def test_what_takes_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal a line that is written over and goes; elsewhere one now and then; nothing where all is known."""
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    for terminal in (True, False):
        stream = io.StringIO()
        stream.isatty = lambda terminal=terminal: terminal  # type: ignore[method-assign]
        told = FilesRead(stream)
        told(40, 40)
        assert stream.getvalue() == ""
        for done in range(20, 41):
            told(done, 40)
        written = stream.getvalue()
        assert "read 30 of 40 files" in written or "read 29 of 40 files" in written
        assert ("\r" in written) == terminal and "\x1b" not in written
        if terminal:
            assert written.endswith(" \r")
        else:
            assert 3 < len(written.splitlines()) < 12  # every ten seconds


def test_words_keep_all_in_json() -> None:
    words = Words.learn(["A dog .", "a Cat ."], ImageCaptionerOptions(tokens="word", min_count=1))
    again = Words.from_json(json.loads(json.dumps(words.to_json())))
    assert again.longest == words.longest == 3
    assert again.vocabulary.encode("a cat").tolist() == words.vocabulary.encode("A CAT").tolist()
    assert isinstance(Frames.pack([np.zeros((2, 3))]), Frames)


# the command


@pytest.mark.slow
def test_train_predict_evaluate_report(data: Path, backbone: Path, tmp_path: Path, quick_cli: Cli) -> None:
    run = tmp_path / "run"
    how = ["--backbone", backbone, "--steps", 6, "--hidden", 32, "--min-count", 1, "--out", run, "--json"]
    done = quick_cli("train", "caption-image", data, *how)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["task"], summary["topology"]) == ("caption-image", "one_to_many")
    assert {"cider", "bleu_4", "val_loss"} <= summary.keys()
    assert summary["parameters"] < 100_000  # what is trained: the backbone is not
    images = data / "images"
    listed = f"{images / 'red_circle_0.png'}\n\n{images / 'blue_square_1.png'}\n"
    from_input = subprocess.run(
        [sys.executable, "-m", "unrolled", "predict", str(run), "-", "--beam", "2"],
        input=listed, capture_output=True, text=True, env=_environment(None), timeout=120,
    )  # fmt: skip
    assert [line.split("\t")[0] for line in from_input.stdout.splitlines()] == listed.split()
    folder = quick_cli("predict", run, images, images / "red_circle_0.png", "--json")
    predictions = json.loads(folder.stdout)["predictions"]
    assert len(predictions) == 33 and predictions[-1]["picture"].endswith("red_circle_0.png")
    assert {"text", "score", "log_probability", "tokens", "attention"} <= predictions[0].keys()
    measured = json.loads(quick_cli("evaluate", run, data, "--split", "val", "--beam", 2, "--json").stdout)
    assert measured["pictures"] == 8 and measured["beam"] == 2 and 0 <= measured["bleu_4"] <= 1
    for name in ("sheet.png", "report.html"):
        told = quick_cli("report", run, data, "--split", "val", "--out", tmp_path / name, "--pictures", 5)
        assert told.stdout.strip() == str(tmp_path / name), told.stderr
    page = (tmp_path / "report.html").read_text()
    assert page.count("<article>") == page.count("data:image/jpeg;base64,") == page.count("<canvas") == 5
    assert "http" not in page  # it needs nothing else
    assert "There is a" in page and "data-light" in page
    drawn = quick_cli("predict", run, images / "red_circle_0.png", "--picture", tmp_path / "a.png")
    assert drawn.stdout.startswith(str(images)), drawn.stderr
    for name in ("sheet.png", "a.png"):
        assert np.array(Image.open(tmp_path / name).convert("L")).std() > 5


@pytest.mark.slow
def test_the_commands_refuse_in_a_sentence(data: Path, backbone: Path, tmp_path: Path, quick_cli: Cli) -> None:
    run, picture = tmp_path / "run", data / "images" / "red_circle_0.png"
    ImageCaptioner.fit(data, backbone=backbone, image="both", steps=1, **SMALL).save(run.with_suffix(".safetensors"))
    model = run.with_suffix(".safetensors")
    (tmp_path / "text.jpg").write_text("no picture")
    for arguments, words in (
        (("predict", model, picture, "--picture", tmp_path / "a.png"), "no attention"),
        (("predict", model, picture, "--beam", 0), "--beam is 0"),
        (("predict", model, tmp_path / "text.jpg", "--bad-files", "stop"), "text.jpg is not a picture"),
        (("predict", model, tmp_path / "none.jpg", "--bad-files", "stop"), "none.jpg"),
        (("predict", model, "--bean", 3), "unknown option: --bean"),
        (("report", model, data, "--out", "a.pdf"), ".html nor .png nor .svg"),
        (("evaluate", model, data, "--split", "test"), "no picture of the split 'test'"),
    ):
        done = quick_cli(*arguments)
        assert (done.returncode, done.stdout) == (2, "") and words in done.stderr, done.stderr
        assert_one_sentence(done.stderr.strip().replace("See unrolled", "see unrolled").replace(". see", "; see"))
