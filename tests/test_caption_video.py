"""Captioning clips: the data, the loss, what is written, the file and the commands, on real video files."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Cli
from helpers import Listener, assert_one_sentence

import unrolled
from unrolled.data.batches import Examples, Sequences, Several
from unrolled.data.frames import Frames
from unrolled.errors import InputError
from unrolled.nn.convnet import pack
from unrolled.tasks import fitting
from unrolled.tasks.caption_video import Network, resolve, said_in, sample, spread
from unrolled.tasks.captioning import Words, inputs_alone, with_all_captions, with_captions
from unrolled.tasks.media_options import VideoCaptionerOptions
from unrolled.tasks.options import SearchOptions
from unrolled.tasks.video import Shape
from unrolled.tasks.video_captioner import VideoCaptioner
from unrolled.tasks.writing import mean_loss, write

pytest.importorskip("av")
from video_helpers import moving, write_clip  # noqa: E402 (needs PyAV)

SMALL: dict[str, Any] = {"hidden": 16, "embedding": 8, "features": 16, "batch": 4, "min_count": 1}
STILL: dict[str, Any] = {"shift": 0.0, "scale": 0.0, "speed": 0.0, "dropout": 0.0, "label_smoothing": 0.0}
COLOURS = {"red": (1.0, 0.1, 0.1), "green": (0.1, 1.0, 0.1), "white": (1.0, 1.0, 1.0)}
WAYS = {"left": -1, "right": 1}


def write_captioned(folder: Path, count: int = 18, val: int = 6) -> Path:
    """Squares of a colour that go one way, or one way and then the other; two captions each."""
    import random

    draw = random.Random(5)
    rows = ["path,caption,split"]
    for number in range(count + val):
        colour, way = draw.choice(list(COLOURS)), draw.choice(list(WAYS))
        frames = moving(draw, WAYS[way], draw.randint(5, 7))
        said = f"goes {way}"
        if draw.random() < 0.5:
            other = next(name for name in WAYS if name != way)
            frames += moving(draw, WAYS[other], draw.randint(5, 7))
            said += f" and then {other}"
        painted = [(f.astype(float) * COLOURS[colour]).astype(np.uint8) for f in frames]
        write_clip(folder / "clips" / f"{number:02}.mkv", painted)
        part = "train" if number < count else "val"
        rows += [f"{number:02}.mkv,A {colour} square {said}.,{part}", f"{number:02}.mkv,it {said},{part}"]
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_captioned(tmp_path_factory.mktemp("captioned"))


@pytest.fixture(scope="module")
def model(folder: Path) -> VideoCaptioner:
    return VideoCaptioner.fit(folder, **SMALL, steps=4)


# The batches


def test_several_targets_go_with_their_examples() -> None:
    """Example 1 has three, the others one each."""
    sequences = Sequences.pack([np.array(s) for s in ([3], [4, 4], [5], [6, 6, 6], [7, 8])], 9)
    examples = Examples(
        Frames.pack([np.full((n, 2), n, dtype=np.uint8) for n in (2, 3, 1)]),
        Several(sequences, np.array([0, 1, 4, 5])),
    )
    assert examples.sizes().tolist() == [[2, 1], [3, 3], [1, 2]]
    batch = examples.batch(np.array([2, 1]))
    assert batch.owners is not None and batch.owners.tolist() == [0, 1, 1, 1]
    assert batch.target_lengths is not None and batch.target_lengths.tolist() == [2, 2, 1, 3]
    assert batch.targets.t().tolist() == [[7, 8, -100], [4, 4, -100], [5, -100, -100], [6, 6, 6]]
    assert batch.inputs.shape == (3, 2, 2) and batch.rows.tolist() == [2, 1]


def test_one_of_each_two_frames_is_looked_at_beside_its_true_neighbours() -> None:
    """Frames hold their own number, clip 1 from 100 on."""
    frames = torch.zeros(5, 2, 1, 1, 1)
    frames[:, 0, 0, 0, 0], frames[:, 1, 0, 0, 0] = torch.arange(5), torch.arange(100, 105)
    packed = pack(frames, torch.tensor([5, 2]))
    torch.manual_seed(0)
    seen = set()
    for _ in range(50):
        rows, lengths = sample(packed, 2, True)
        assert lengths.tolist() == [3, 1]
        shown = spread(packed.frames[rows, 0, 0], lengths)[..., 0].t().tolist()
        seen.add((*shown[0], shown[1][0]))
        assert shown[1][1:] == [0, 0]
        before = packed.frames[packed.before[rows], 0, 0, 0].tolist()
        assert before == [n - (n not in (0, 100)) for n in packed.frames[rows, 0, 0, 0].tolist()]
    assert seen == {(a, b, 4, c) for a in (0, 1) for b in (2, 3) for c in (100, 101)}
    rows, lengths = sample(packed, 1, False)
    assert rows.tolist() == list(range(7)) and lengths.tolist() == [5, 2]
    rows, lengths = sample(packed, 2, False)  # outside of a training always the same ones
    assert packed.frames[rows, 0, 0, 0].tolist() == [1, 101, 3, 4] and lengths.tolist() == [3, 1]


def network_of(texts: list[list[str]], **more: Any) -> tuple[Network, Words]:
    options = resolve(VideoCaptionerOptions(**{**SMALL, **STILL, "steps": 1, **more}))
    words = Words.learn([text for several in texts for text in several], options)
    torch.manual_seed(0)
    return Network(words, Shape(16, 16, False), options), words


def clips(count: int, seed: int = 0) -> Frames:
    draw = np.random.default_rng(seed)
    return Frames.pack([draw.integers(0, 256, (2 + n, 16, 16, 3), dtype=np.uint8) for n in range(count)])


def test_all_captions_of_a_clip_at_once_have_the_loss_and_gradient_of_each_alone() -> None:
    texts = [["a dog", "a brown dog runs"], ["a cat"], ["two birds fly", "birds", "two birds in the sky"]]
    network, words = network_of(texts, concepts=0.0)
    inputs, everything = clips(3), np.arange(3)
    network.eval()  # no batch normalisation over different batches
    together = with_all_captions(inputs, texts, words).batch(everything)
    apart = with_captions(inputs, texts, words).batch(np.arange(6))
    gradients = []
    for batch in (together, apart):
        loss, _ = network(batch, None)
        network.zero_grad()
        loss.backward()
        gradients.append(
            (loss.item(), {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None})
        )
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    for name, gradient in gradients[0][1].items():
        torch.testing.assert_close(gradient, gradients[1][1][name], rtol=1e-3, atol=1e-6, msg=name)
    cpu = torch.device("cpu")
    assert mean_loss(network, with_all_captions(inputs, texts, words), cpu) == pytest.approx(
        mean_loss(network, with_captions(inputs, texts, words), cpu), rel=1e-5
    )


def test_concepts_are_the_words_of_all_captions_of_a_clip() -> None:
    """The loss grows by their cross-entropy, from what the convolutions find on average: rare words count more, and
    what all clips have (here "a" and the end) counts nothing."""
    texts = [["a dog", "a brown dog runs"], ["a cat"], ["a brown bear"], ["a a a"]]
    network, words = network_of(texts, concepts=0.5)
    everything = with_all_captions(clips(4), texts, words)
    counts = said_in(everything, words.vocabulary.size)
    tokens = [{int(t) for text in several for t in words.vocabulary.encode(text, end=True)} for several in texts]
    assert counts.tolist() == [sum(token in of for of in tokens) for token in range(words.vocabulary.size)]
    network.knows_words(counts, 4)
    network.eval()
    rows = np.arange(4)
    batch = everything.batch(rows)
    loss, _ = network(batch, None)
    scores, targets = network.scores(batch)
    features, lengths = network._look(batch)
    assert network.concepts is not None
    expected = 0.0
    for n, of in enumerate(tokens):
        found = network.concepts(features[: lengths[n], n].mean(0)).log_softmax(-1)
        weights = {token: -math.log(counts[token] / 4) for token in of}
        total = sum(weights.values())
        assert (total == 0) == (n == 3)
        expected -= sum(w * found[token].item() for token, w in weights.items()) / (total or 1)
    added = loss - torch.nn.functional.cross_entropy(scores, targets)
    assert added.item() == pytest.approx(0.5 * expected / 4, rel=1e-4)
    before = network_of(texts, concepts=0.0)[0]
    assert before.concepts is None


@pytest.mark.parametrize("attention", ["none", "dot", "additive"])
def test_a_clip_is_captioned_alone_as_among_longer_ones(attention: str) -> None:
    network, words = network_of([["a dog runs in the sun", "two cats sleep"]], attention=attention)
    inputs, cpu = clips(6), torch.device("cpu")
    search = SearchOptions(beam=3)
    rows, found = write(network, words, inputs_alone(inputs), cpu, search=search, aligned=True)
    assert rows == list(range(6))
    for row in (0, 3):
        _, (alone,) = write(
            network, words, inputs_alone(inputs.take(np.array([row]))), cpu, search=search, aligned=True
        )
        assert alone.tokens == found[row].tokens
        assert alone.log_probability == pytest.approx(found[row].log_probability, abs=1e-4)
        if attention == "none":
            assert alone.alignment is None
        else:
            assert alone.alignment is not None and alone.alignment.shape == (len(alone.tokens) + 1, 1 + (1 + row) // 2)
            assert found[row].alignment.shape == alone.alignment.shape  # without the longer ones' padding
            torch.testing.assert_close(alone.alignment.sum(1), torch.ones(len(alone.tokens) + 1))


# Training


def test_it_learns_what_the_clips_show(folder: Path) -> None:
    """Colour, direction and order of clips that it was trained on."""
    model = VideoCaptioner.fit(
        folder, val=folder, hidden=32, embedding=16, features=32, batch=18, min_count=1, steps=150, lr=0.01, **STILL
    )
    measured = model.evaluate(folder, split="train")
    assert measured["exact"] >= 0.9 and measured["bleu_4"] > 0.9 and measured["clips"] == 18
    assert measured["captions"] == 36 and measured["cider"] > 3


def test_resume_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    options = VideoCaptionerOptions(**SMALL, steps=9, eval_every=4)
    whole = fitting.fit([folder], options=options, out=tmp_path / "whole")
    fitting.fit([folder], options=options, out=tmp_path / "parts", observer=Listener(stop_at=3))
    parts = fitting.resume(tmp_path / "parts")
    assert parts.result.finished and parts.result.metrics == whole.result.metrics
    for name, tensor in whole.model.network.state_dict().items():
        assert torch.equal(tensor, parts.model.network.state_dict()[name]), name


def test_a_clip_has_all_its_captions_on_one_side(folder: Path, tmp_path: Path) -> None:
    """Without a split column, and with a group for each three clips: whole groups are drawn."""
    rows = (folder / "captions.csv").read_text().splitlines()[1:]
    table = folder / "grouped.csv"
    table.write_text("path,caption,group\n" + "".join(f"{r.rsplit(',', 1)[0]},{int(r[:2]) // 3}\n" for r in rows))
    listener = Listener()
    options = VideoCaptionerOptions(**SMALL, steps=1, val_fraction=0.25)
    task = fitting.KINDS["caption-video"].prepare(
        [table], options, val=None, device=torch.device("cpu"), clock=fitting.Clock()
    )
    assert len(task.pairs["train"]) + len(task.pairs["val"]) == 24
    assert len(task.pairs["val"]) % 3 == 0 and len(task.references) == len(task.pairs["val"])
    assert all(len(several) == 2 for several in task.references)
    assert listener.lines == []


# The model


def test_a_model_file_keeps_all(folder: Path, model: VideoCaptioner, tmp_path: Path) -> None:
    model.save(tmp_path / "model.safetensors")
    again = unrolled.load(tmp_path / "model.safetensors")
    assert isinstance(again, unrolled.VideoCaptioner)
    assert (again.options, again.metrics, again.step) == (model.options, model.metrics, model.step)
    clip = folder / "clips" / "03.mkv"
    assert again.predict([clip], aligned=True) == model.predict([clip], aligned=True)
    assert again.evaluate(folder, split="val") == model.evaluate(folder, split="val")
    assert again.evaluate(folder, split="val", beam=1)["cider"] == pytest.approx(model.metrics["cider"])
    assert again.evaluate(folder, split="val")["val_loss"] == pytest.approx(model.metrics["val_loss"], rel=1e-5)


def test_a_long_clip_is_read_in_few_frames_from_all_of_it(folder: Path, tmp_path: Path) -> None:
    model = VideoCaptioner.fit(folder, **SMALL, steps=1, frames=6)
    frames = [np.full((16, 16, 3), n, dtype=np.uint8) for n in range(250)]
    long = write_clip(tmp_path / "long.mkv", frames)
    assert model.shape.decode(long).mean((1, 2, 3)) == pytest.approx([20, 62, 104, 145, 187, 229], abs=2)
    (found,) = model.predict([long], aligned=True)
    assert found.attention is not None and {len(row) for row in found.attention} == {3}
    assert len(found.tokens) == len(found.attention) and found.tokens[-1] == "<end>"


def test_a_folder_of_pictures_is_a_clip(folder: Path, model: VideoCaptioner, tmp_path: Path) -> None:
    from PIL import Image

    clip = folder / "clips" / "05.mkv"
    for number, frame in enumerate(model.shape.decode(clip)):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    (a,), (b,) = model.predict([clip]), model.predict([tmp_path])
    assert a.text == b.text and a.log_probability == pytest.approx(b.log_probability, abs=1e-3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"hidden": 15}, "--hidden is 15: it must be even"),
        ({"attention": "self"}, "unknown attention 'self'"),
        ({"tokens": "char", "cased": True}, "--cased are for --tokens word"),
        ({"frames": 0}, "--frames is 0"),
        ({"val_fraction": 1.0}, "--val-fraction"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        VideoCaptionerOptions(**options)
    assert_one_sentence(str(error.value))


def test_the_picture_has_a_row_a_word_and_a_column_a_frame(folder: Path, tmp_path: Path) -> None:
    from helpers import svg_text

    from unrolled.inspection import clip_captions, pictures
    from unrolled.tasks.captioning import Caption

    frames = [np.full((12, 20, 3), 10 * n, dtype=np.uint8) for n in range(14)]
    weights = np.random.default_rng(0).dirichlet(np.ones(14), 4)
    found = Caption("costs $5 à", -1.0, -2.0, ["costs", " $5", " à", "<end>"], weights.tolist())
    drawn = clip_captions.captioned(frames, found)
    pictures.save(drawn, tmp_path / "a.svg")
    lines = svg_text(tmp_path / "a.svg")
    for text in ("costs $5 à", "costs", "$5", "à", "<end>", "0", "13"):
        assert text in lines.split("\n"), (text, lines)
    assert f"14 frames, at most {weights.max():.0%} on one." in lines
    shown = drawn.axes[0].images
    assert len(shown) == 11 and shown[-1].get_array().shape == (4, 14)
    edges = [image.get_extent() for image in shown]
    assert edges[-1][0] <= edges[0][0] and edges[9][1] <= edges[-1][1]  # the frames lie over the rows
    without = clip_captions.captioned(frames[:2], found._replace(attention=None))
    assert len(without.axes[0].images) == 2


@pytest.mark.parametrize("count", [1, 4, 6, 13])
def test_a_still_shows_all_of_the_clip_and_the_light_of_its_pieces(count: int) -> None:
    from unrolled.inspection.clip_captions import Still

    frames = [np.full((4, 5, 1), n, dtype=np.uint8) for n in range(count)]
    still = Still()
    picture = still.picture(frames)
    assert picture.shape == (8, 15, 3)
    shown = [int(picture[4 * row, 5 * column, 0]) for row in range(2) for column in range(3)]
    pieces = still.pieces(count)
    assert all(n in range(count)[piece] for n, piece in zip(shown, pieces, strict=True))
    assert sorted({n for piece in pieces for n in range(count)[piece]}) == list(range(count))
    weights = [n + 1.0 for n in range(count)]
    assert still.light(weights) == [sum(weights[piece]) for piece in pieces]
    if count >= 6:
        assert sum(still.light(weights)) == sum(weights) and shown == sorted(shown)


# The commands


def test_the_commands(folder: Path, tmp_path: Path, quick_cli: Cli) -> None:
    run = tmp_path / "run"
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    trained = quick_cli("train", "caption-video", str(folder), "--steps", "2", "--out", str(run), "--json", *flags)
    assert trained.returncode == 0, trained.stderr
    summary = json.loads(trained.stdout)
    assert (summary["task"], summary["topology"]) == ("caption-video", "sequence_to_sequence")
    clip = str(folder / "clips" / "20.mkv")
    said = quick_cli("predict", str(run), clip, clip, "--beam", "2", "--max-length", "4")
    lines = [line.split("\t") for line in said.stdout.splitlines()]
    assert [line[0] for line in lines] == [clip, clip] and lines[0][1] == lines[1][1]
    assert len(lines[0][1].split()) <= 4
    listed = json.loads(quick_cli("predict", str(run), clip, "--json").stdout)["predictions"]
    assert set(listed[0]) == {"clip", "text", "score", "log_probability", "tokens", "attention"}
    drawn = quick_cli("predict", str(run), clip, "--picture", str(tmp_path / "looked.png"))
    assert drawn.returncode == 0 and (tmp_path / "looked.png").stat().st_size > 5000, drawn.stderr
    measured = quick_cli("evaluate", str(run), str(folder), "--split", "val", "--json")
    found = json.loads(measured.stdout)
    assert {"cider", "bleu_4", "rouge_l", "exact", "val_loss"} <= set(found) and found["clips"] == 6
    for name in ("sheet.png", "report.html"):
        told = quick_cli("report", str(run), str(folder), "--split", "val", "--out", str(tmp_path / name))
        assert told.stdout.strip() == str(tmp_path / name), told.stderr
    page = (tmp_path / "report.html").read_text()
    assert page.count("<article>") == page.count("data:image/jpeg;base64,") == page.count("<canvas") == 6
    assert "6 clips measured against 12 captions" in page
    assert "data-rows=2 data-columns=3" in page
    missing = quick_cli("predict", str(run), str(tmp_path / "no.mp4"), "--bad-files", "stop")
    assert missing.returncode == 2 and "no.mp4" in missing.stderr
    assert_one_sentence(missing.stderr.strip())
