"""Language models over words and byte pairs: figures a character that compare, samples, resume."""

import io
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import unrolled
from tests.helpers import Listener
from unrolled.app.live import Live
from unrolled.cells import Inputs
from unrolled.data.word_tokenizer import WordTokenizer
from unrolled.errors import InputError
from unrolled.tasks.fitting import fit, resume
from unrolled.tasks.language_model import Network, resolve
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions

KINDS = {"word": 150, "bpe": 300}


def options(kind: str, **more: object) -> LanguageModelOptions:
    chosen = {"tokens": kind, "vocabulary": KINDS[kind], "hidden": 16, "steps": 12, "batch": 4, "bptt": 8, "lr": 0.01}
    return LanguageModelOptions(**{**chosen, **more})


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tiny_text: Path) -> LanguageModel:
    return fit([tiny_text], options=options(request.param)).model


@torch.no_grad()
def nats(model: LanguageModel, text: str) -> tuple[float, np.ndarray]:
    """The loss of the text, step by step, and the tokens that it is the loss of."""
    tokens = torch.from_numpy(model.tokenizer.encode(text))
    state, total = model.network.topology.initial_state(1), 0.0
    for now, following in zip(tokens[:-1], tokens[1:], strict=True):
        scores, state = model.network.topology.step(Inputs(now[None], model.network.table), state)
        total -= float(scores[0].double().log_softmax(-1)[following])
    return total, tokens[1:].numpy()


def test_figures_are_those_of_the_definition(model: LanguageModel, tmp_path: Path) -> None:
    text = "Perxi or an be! Zzyzx 17 unseen,\nQuistu gra." * 3
    (tmp_path / "text").write_text(text, encoding="utf-8")
    found = model.evaluate(tmp_path / "text")
    total, targets = nats(model, text)
    characters = float(model.tokenizer.lengths[targets].sum())
    assert found["val_loss"] == pytest.approx(total / characters, rel=1e-5)
    assert found["bits_per_character"] == pytest.approx(total / characters / math.log(2), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(total / len(targets)), rel=1e-5)
    first = len(model.tokenizer.to_bytes(model.tokenizer.encode(text)[:1].tolist()).decode())
    if model.tokenizer.kind == "word":
        unknown = np.isin(targets, model.tokenizer.unknown)
        assert 0.3 < found["unknown"] == pytest.approx(unknown.mean())
    else:  # every character is counted, but those of the first token, which nothing predicts
        assert characters == len(text) - first
        assert "unknown" not in found


def test_a_large_vocabulary_is_measured_in_smaller_pieces(
    model: LanguageModel, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figures() -> dict[str, float]:
        return {name: value for name, value in model.evaluate(tiny_text).items() if isinstance(value, float)}

    whole = figures()
    monkeypatch.setattr("unrolled.tasks.language_model.SCORES", 2 * model.tokenizer.size)
    assert figures() == pytest.approx(whole, rel=1e-5)


def test_the_vocabulary_comes_from_the_training_part_alone(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("one two three four\n" * 9 + "five six seven\n" * 2, encoding="utf-8")
    for kind in KINDS:
        found = fit([path], options=options(kind, val_fraction=0.145, steps=1)).model.tokenizer
        known = b"".join(found.to_bytes([n]) for n in range(found.trained)).decode()
        assert "one" in known or kind == "bpe"
        assert not set("vsx") & set(known)


def test_samples_are_text_of_the_training(model: LanguageModel, tiny_text: Path) -> None:
    text = tiny_text.read_text("utf-8")
    with torch.no_grad():  # the worst case: the model is sure of what it must not write
        model.network.topology.output.bias[model.tokenizer.trained :] += 50
    try:
        for seed in range(3):
            sample = model.sample("Ana", length=120, seed=seed)
            assert sample.startswith("Ana")
            assert len(sample) == 3 + 120
            assert "<unk>" not in sample
            assert set(sample) <= set(text) | {"\ufffd"}  # bytes of the training need not make characters
            assert sample == "".join(["Ana", *model.stream("Ana", length=120, seed=seed)])
        assert model.sample_many(2, "Ana", length=50) == [model.sample("Ana", length=50, seed=n) for n in (0, 1)]
        assert model.sample(length=30, seed=1) != model.sample(length=30, seed=2)
    finally:
        with torch.no_grad():
            model.network.topology.output.bias[model.tokenizer.trained :] -= 50


def test_the_whole_tokeniser_is_in_the_model_file(model: LanguageModel, tiny_text: Path, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    loaded = unrolled.load(tmp_path / "m.safetensors")
    assert loaded.tokenizer.to_json() == model.tokenizer.to_json()
    assert loaded.sample("Ana", length=40) == model.sample("Ana", length=40)
    assert loaded.evaluate(tiny_text) == model.evaluate(tiny_text)


@pytest.mark.parametrize("kind", KINDS)
def test_resume_is_bit_for_bit(kind: str, tiny_text: Path, tmp_path: Path) -> None:
    whole = fit([tiny_text], options=options(kind, dropout=0.2), out=tmp_path / "whole").model
    fit([tiny_text], options=options(kind, dropout=0.2), out=tmp_path / "run", observer=Listener(stop_at=7))
    resumed = resume(tmp_path / "run").model
    assert resumed.metrics == whole.metrics
    for one, two in zip(whole.network.state_dict().values(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(one, two)


def test_start_from_keeps_the_tokens(tiny_text: Path, tmp_path: Path) -> None:
    first = fit([tiny_text], options=options("bpe", steps=2)).model
    first.save(tmp_path / "m.safetensors")
    more = LanguageModelOptions(steps=1)
    second = fit([tiny_text], options=more, start_from=tmp_path / "m.safetensors").model
    assert second.tokenizer.to_json() == first.tokenizer.to_json()
    assert (second.options.tokens, second.options.vocabulary) == ("bpe", 300)
    with pytest.raises(InputError, match="--vocabulary 400 contradicts the model to start from, which has 300"):
        fit([tiny_text], options=LanguageModelOptions(steps=1, vocabulary=400), start_from=tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"tokens": "letters"}, "unknown tokens 'letters': choose char, byte, word or bpe"),
        ({"tokens": "char", "vocabulary": 100}, "--vocabulary has no meaning for --tokens char"),
        ({"vocabulary": 300}, "--vocabulary has no meaning for --tokens char"),
        ({"tokens": "bpe", "vocabulary": 256}, "--vocabulary is 256: it must be at least 257"),
        ({"tokens": "word", "vocabulary": 2}, "--vocabulary is 2: it must be at least 3"),
    ],
)
def test_options_that_cannot_be(chosen: dict[str, object], message: str, tiny_text: Path) -> None:
    with pytest.raises(InputError, match=message):
        fit([tiny_text], options=LanguageModelOptions(steps=1, **chosen))


def test_the_command_says_what_a_word_model_measures(quick_cli: object, tiny_text: Path, tmp_path: Path) -> None:
    done = quick_cli(
        "train", "language-model", tiny_text, "--tokens", "word", "--vocabulary", 150, "--steps", 3, "--hidden", 8,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "150 tokens (word)" in done.stderr
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[:6])
    assert list(shown) == ["val_loss", "bits_per_character", "perplexity", "unknown", "seconds", "model"]
    assert 0 < float(shown["unknown"]) < 1


TEXTS = {
    "thai": "สุนัขวิ่งเล่นในสวนสาธารณะ แมวนอนหลับอยู่บนหลังคา " * 12,
    "chinese": "一只狗在公园里跑，两只猫在屋顶上睡觉。" * 20,
    "emoji": "".join(random.Random(2).choices("🙂🎉🙃 ", k=400)),
    "digits": "31415926 " * 60,
}


@pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_model_of_text_without_newlines_or_letters_writes_from_nothing(kind: str, text: str, tmp_path: Path) -> None:
    """A byte-pair model began with its first token, which is half a character here."""
    (tmp_path / "text.txt").write_text(TEXTS[text], encoding="utf-8")
    chosen = LanguageModelOptions(tokens=kind, hidden=8, steps=2, batch=2, bptt=8)
    model = fit([tmp_path / "text.txt"], options=chosen).model
    written = model.sample("", length=20, seed=1)
    assert 0 < len(written) <= 20 and model.sample("", length=20, seed=1) == written
    assert len(model.likeliest("", length=5)[0]) <= 5
    live = Live(io.StringIO(), lambda step: False)
    live.watch(model)
    assert live.sample is not None and live.sample[1]


def test_an_old_model_that_knows_no_word_says_so() -> None:
    chosen = resolve(LanguageModelOptions(tokens="word", hidden=8, steps=1))
    tokenizer = WordTokenizer([], (1.0, 2.0))
    model = LanguageModel(Network(tokenizer.size, chosen), tokenizer, chosen)
    for write in (model.sample, model.likeliest):
        with pytest.raises(InputError, match="nothing but unknown words"):
            write("a b")
