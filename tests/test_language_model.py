"""The language model on real text: Korean, evaluation, engines, the Python interface."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import unrolled
from unrolled.data import corpus
from unrolled.data.sources import TextSource
from unrolled.data.tokenizers import decode
from unrolled.tasks.fitting import fit
from unrolled.tasks.language_model import evaluate
from unrolled.tasks.options import LanguageModelOptions
from unrolled.tasks.prepare_language_model import measured_part

UNSEEN = "𝄞 ∀x∈ℝ Ⴀ 🜁"


@pytest.mark.parametrize("tokens", ["char", "byte"])
def test_korean_trains_samples_and_keeps_characters_it_never_saw(
    shared_data: Path, tmp_path: Path, tokens: str
) -> None:
    reviews = (shared_data / "nsmc" / "ratings_dev.tsv").read_text(encoding="utf-8").splitlines()[1:3001]
    text = tmp_path / "reviews.txt"
    text.write_text("\n".join(line.split("\t")[1] for line in reviews), encoding="utf-8")
    fitted = fit([text], options=LanguageModelOptions(tokens=tokens, hidden=64, steps=150, lr=1e-2))
    model = fitted.model
    size = len(set(text.read_text(encoding="utf-8")))
    assert fitted.result.metrics["val_loss"] < 0.85 * math.log(size)  # has learned something
    for seed in range(3):
        written = model.sample("영화 ", length=60, seed=seed)
        assert written.encode("utf-8").decode("utf-8") == written
        assert len(written) == len("영화 ") + 60
    assert decode(model.tokenizer, model.tokenizer.encode(UNSEEN)) == UNSEEN
    unseen = tmp_path / "unseen.txt"
    unseen.write_text(UNSEEN * 3, encoding="utf-8")
    loss = model.evaluate(unseen)["val_loss"]
    assert math.isfinite(loss) and loss > fitted.result.metrics["val_loss"]


def test_evaluation_counts_every_prediction_and_every_character(shared_data: Path, tmp_path: Path) -> None:
    """Against one plain pass over the text, row by row of the loss, in float64."""
    korean = shared_data / "korean_text" / "constitution.txt"
    model = fit([korean], options=LanguageModelOptions(tokens="byte", hidden=32, steps=30, lr=1e-2)).model
    model.network.double()
    text = korean.read_text(encoding="utf-8")[:600]  # short: one lane
    sample = tmp_path / "part.txt"
    sample.write_text(text, encoding="utf-8")
    ids = torch.tensor(list(text.encode()))
    recurrent, table = model.network.topology.recurrent, model.network.table
    plain = torch.nn.LSTM(32, 32).double()
    plain.load_state_dict(recurrent.state_dict())
    with torch.no_grad():
        scores = model.network.topology.output(plain(table[ids[:-1]])[0])
        nats = F.cross_entropy(scores, ids[1:], reduction="sum").item()
    assert model.evaluate(sample)["val_loss"] == pytest.approx(nats / (len(text) - 1), rel=1e-9)


def test_documents_are_measured_apart(tmp_path: Path, shared_data: Path) -> None:
    """Two documents together cost what they cost alone: no state leaks from one into the next."""
    text = (shared_data / "tiny_shakespeare" / "input.txt").read_text()
    model = fit([shared_data / "korean_text"], options=LanguageModelOptions(hidden=16, steps=5)).model
    pair = tmp_path / "pair"
    pair.mkdir()
    alone = []
    for number, part in enumerate((text[:400], text[1000:1300])):
        path = pair / f"{number}.txt"
        path.write_text(part)
        tokens, _, _ = measured_part(model, [path], None)
        alone.append(evaluate(model.network, model.tokenizer, tokens, model.device))
    together = model.evaluate(pair)["val_loss"]
    expected = (alone[0].metrics["val_loss"] * 399 + alone[1].metrics["val_loss"] * 299) / 698
    assert together == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_engine_trains_to_the_same_model(shared_data: Path, cell: str) -> None:
    losses = [
        fit(
            [shared_data / "korean_text"],
            options=LanguageModelOptions(cell=cell, hidden=24, layers=2, steps=12, engine=engine, batch=8, bptt=16),
        ).result.metrics["val_loss"]
        for engine in ("loop", "bptt", "torch")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[2] == pytest.approx(losses[0], rel=1e-4)


def test_the_readme_from_python(shared_data: Path, tmp_path: Path) -> None:
    model = unrolled.LanguageModel.fit(
        shared_data / "tiny_shakespeare" / "input.txt", cell="lstm", hidden=32, steps=30, batch=16
    )
    written = model.sample("ROMEO:", length=50, temperature=0.8, seed=1)
    model.save(tmp_path / "shakespeare.safetensors")
    again = unrolled.load(tmp_path / "shakespeare.safetensors")
    assert again.sample("ROMEO:", length=50, temperature=0.8, seed=1) == written
    assert again.metrics == model.metrics


def test_a_validation_file_is_validation_alone(shared_data: Path, tmp_path: Path) -> None:
    train, val = tmp_path / "train.txt", tmp_path / "val.txt"
    train.write_text("abcab " * 200)
    val.write_text("abcxyz " * 40)
    fitted = fit([train], val=val, options=LanguageModelOptions(hidden=8, steps=3, batch=4))
    assert fitted.model.tokenizer.to_json()["characters"] == " abc"
    # x, y and z are not in the vocabulary, so two tokens each
    assert fitted.result.validated == 40 * (4 + 3 * 2)


def test_the_split_is_the_last_tenth_of_the_text(shared_data: Path) -> None:
    source = TextSource([shared_data / "tiny_shakespeare" / "input.txt"])
    scanned = corpus.scan(source)
    cut = int(scanned.characters * 0.9)
    tokenizer = corpus.make_tokenizer("char", source, scanned, cut)
    train, val = corpus.encode(source, tokenizer, cut)
    assert val is not None
    text = source.documents[0].read_text()
    assert (len(train.ids), len(val.ids)) == (1_003_854, 111_540)
    assert decode(tokenizer, val.ids) == text[cut:]


def test_a_model_writes_only_what_it_was_trained_on(shared_data: Path) -> None:
    """The tokens that spell unseen characters are never trained, and a cold start must not draw them."""
    model = fit(
        [shared_data / "tiny_shakespeare" / "input.txt"], options=LanguageModelOptions(hidden=32, steps=20)
    ).model
    with torch.no_grad():  # the worst case: the model is sure of a token that it was never trained on
        model.network.topology.output.bias[model.tokenizer.trained :] += 50
    for seed in range(5):
        assert set(model.sample("ROMEO:", length=80, seed=seed)) <= set(model.tokenizer.to_json()["characters"])


def test_a_prompt_is_the_beginning_of_a_line(shared_data: Path) -> None:
    model = fit(
        [shared_data / "tiny_shakespeare" / "input.txt"], options=LanguageModelOptions(hidden=32, steps=20)
    ).model
    assert model.sample("\nROMEO:", length=40, seed=3) == "\n" + model.sample("ROMEO:", length=40, seed=3)
