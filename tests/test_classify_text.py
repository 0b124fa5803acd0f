"""classify-text: what it learns, what it measures, what it says of bad data, resume and model file."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Cli
from helpers import Listener, assert_one_sentence

import unrolled
from unrolled.cells import Inputs
from unrolled.data.batches import Examples, Limit, in_order_of_length
from unrolled.errors import InputError
from unrolled.metrics import classification
from unrolled.tasks.classified import outcomes
from unrolled.tasks.classify_text import encode_all, measure
from unrolled.tasks.fitting import Fitted, fit, resume
from unrolled.tasks.options import TextClassifierOptions
from unrolled.tasks.text_classifier import TextClassifier
from unrolled.training import model_file

SMALL = {"tokens": "char", "hidden": 12, "embedding": 8, "batch": 8, "lr": 2e-2, "dropout": 0.1}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words in which an a comes before a b, or after it: nothing but the order tells the classes apart."""
    draw = random.Random(3)
    rows = []
    for _ in range(300):
        letters = [draw.choice("cdef") for _ in range(draw.randint(2, 9))]
        first, second = sorted(draw.sample(range(len(letters) + 2), 2))
        label = draw.choice(("ab", "ba"))
        letters.insert(first, label[0])
        letters.insert(second, label[1])
        rows.append(f"{''.join(letters)}\t{label}")
    path = tmp_path_factory.mktemp("labelled") / "order.tsv"
    path.write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    return path


def train(table: Path, out: Path | None = None, stop_at: int | None = None, **options: object) -> Fitted:
    chosen = TextClassifierOptions(**{**SMALL, "steps": 30, **options})
    return fit([table], options=chosen, out=out, observer=Listener(stop_at))


@pytest.fixture(scope="module")
def model(table: Path) -> TextClassifier:
    found = train(table, steps=400, cell="lstm").model
    assert isinstance(found, TextClassifier)
    return found


# What it learns


def test_it_learns_what_only_the_order_tells(model: TextClassifier, table: Path) -> None:
    assert model.metrics["accuracy"] > 0.9
    assert model.predict(["cacbc", "cbca"])[0].label == "ab"
    assert model.predict(["cacbc", "cbca"])[1].label == "ba"


@pytest.mark.parametrize("pooling", ["final", "mean", "max", "attention"])
@pytest.mark.parametrize("one_directional", [False, True])
def test_a_text_is_labelled_the_same_alone_and_among_others(table: Path, pooling: str, one_directional: bool) -> None:
    model = train(table, steps=5, pooling=pooling, one_directional=one_directional, layers=2).model
    texts = ["a", "", "abcdefabcdef" * 20, "한글", "ba" * 7]
    together = model.predict(texts)
    for text, found in zip(texts, together, strict=True):
        (alone,) = model.predict([text])
        assert alone.label == found.label
        assert alone.probabilities == pytest.approx(found.probabilities, abs=1e-6)
        assert sum(found.probabilities.values()) == pytest.approx(1.0)


def test_the_loss_is_pytorchs_with_smoothing_and_weights(table: Path) -> None:
    fitted = train(table, steps=1, dropout=0.0, token_dropout=0.0, label_smoothing=0.2, balance=True)
    network, model = fitted.model.network, fitted.model
    targets = np.array([0, 1, 1])
    examples = Examples(encode_all(model.tokenizer, ["ab", "bac", "ba"], False), targets)
    batch = examples.batch(np.arange(3))
    network.train()
    loss, state = network(batch, None)
    expected = F.cross_entropy(
        network.scores(batch), torch.tensor(targets), weight=network.weights, label_smoothing=0.2
    )
    assert state == () and loss.item() == pytest.approx(expected.item(), rel=1e-6)
    counts = np.bincount([0 if line.endswith("ab") else 1 for line in table.read_text().splitlines()[1:]])
    assert network.weights.shape == (2,) and (network.weights[0] > 1) == (counts[0] < counts[1])


def test_dropout_hides_the_same_units_at_every_timestep(table: Path) -> None:
    """And no evaluation knows of it."""
    network = train(table, steps=1, dropout=0.5, token_dropout=0.5).model.network
    seen = []
    network.topology.forward = lambda inputs, lengths: seen.append(inputs.x) or torch.zeros(inputs.x.shape[1], 2)
    batch = Examples(
        encode_all(train(table, steps=1).model.tokenizer, ["abcdefab"] * 4, False), np.zeros(4, int)
    ).batch(np.arange(4))
    network.train()
    with torch.no_grad():
        network.hidden_token.zero_()
    network.scores(batch)
    network.eval()
    network.scores(batch)
    dropped, whole = seen
    hidden = (dropped == 0).all(-1)  # tokens that were hidden: their vector is zero at the start
    assert 0 < hidden.float().mean() < 1
    for row in range(4):
        shown = dropped[:, row][~hidden[:, row]] == 0
        assert (shown == shown[0]).all()
    assert (whole == F.embedding(batch.inputs, network.table)).all()


# What it measures


def test_figures_are_those_of_the_definition(model: TextClassifier, table: Path) -> None:
    texts, labels = zip(*(line.split("\t") for line in table.read_text().splitlines()[1:]), strict=True)
    found = model.evaluate(table)
    predicted = [p.label for p in model.predict(texts)]
    assert found["accuracy"] == pytest.approx(np.mean([a == b for a, b in zip(predicted, labels, strict=True)]))
    chances = [p.probabilities[label] for p, label in zip(model.predict(texts), labels, strict=True)]
    assert found["val_loss"] == pytest.approx(-np.log(chances).mean(), rel=1e-5)
    assert np.array(found["confusion"]).sum() == len(texts)
    assert [row["label"] for row in found["report"]] == ["ab", "ba"]


def test_classification_figures_are_scikit_learns() -> None:
    """Golden values of scikit-learn 1.7: f1_score(…, average="macro"), precision_recall_fscore_support."""
    true = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    predicted = np.array([0, 1, 0, 1, 1, 0, 2, 2, 1])
    counts = classification.confusion(true, predicted, 4)
    assert classification.scores(counts) == pytest.approx({"accuracy": 6 / 9, "f1": (2 / 3 + 2 / 3 + 2 / 3) / 3})
    rows = classification.report(counts, "abcd")
    assert [row["precision"] for row in rows] == pytest.approx([2 / 3, 0.5, 1.0, 0.0])
    assert [row["recall"] for row in rows] == pytest.approx([2 / 3, 1.0, 0.5, 0.0])
    assert [row["count"] for row in rows] == [3, 2, 4, 0]
    assert classification.scores(np.zeros((2, 2), int)) == {"accuracy": 0.0, "f1": 0.0}


def test_a_limited_evaluation_measures_a_drawn_part(model: TextClassifier) -> None:
    examples = Examples(encode_all(model.tokenizer, ["ab", "ba"] * 50, False), np.array([0, 1] * 50))
    rows, found = outcomes(model.network, examples, torch.device("cpu"), 20)
    assert len(rows) == 20 and len(set(rows)) == 20 and (rows % 2 == 0).any() and (rows % 2 == 1).any()
    assert measure(examples.targets[rows], found, 2)["accuracy"] == 1.0
    assert sum(len(b.rows) for b in in_order_of_length(examples, Limit(7), 20)) == 20


# Resume, model file, start from


def test_a_resumed_training_equals_one_that_never_stopped(table: Path, tmp_path: Path) -> None:
    whole = train(table, tmp_path / "whole", dropout=0.4)
    assert not train(table, tmp_path / "parts", stop_at=13, dropout=0.4).result.finished
    last = resume(tmp_path / "parts")
    assert last.result.metrics == whole.result.metrics
    hashes = [model_file.sha256(model_file.load(tmp_path / name)[0]) for name in ("whole", "parts")]
    assert hashes[0] == hashes[1]


def test_a_changed_table_is_noticed_on_resume(table: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tsv"
    copy.write_text(table.read_text())
    train(copy, tmp_path / "run", stop_at=3)
    copy.write_text(table.read_text().replace("\tab", "\tba", 1))
    with pytest.raises(InputError, match="has changed"):
        resume(tmp_path / "run")


def test_the_model_file_holds_everything(model: TextClassifier, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    again = unrolled.load(tmp_path / "m.safetensors")
    assert isinstance(again, TextClassifier) and again.labels == ["ab", "ba"]
    assert again.predict(["acb", "x"]) == model.predict(["acb", "x"])
    assert again.metrics == model.metrics


def test_it_starts_from_a_language_model(table: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(line.split("\t")[0] for line in table.read_text().splitlines()))
    language = unrolled.LanguageModel.fit(text, steps=5, hidden=12, embedding=8, cell="gru")
    language.save(tmp_path / "lm.safetensors")
    options = TextClassifierOptions(steps=1, lr=1e-9, weight_decay=0.0)
    fitted = fit([table], options=options, start_from=tmp_path / "lm.safetensors")
    network = fitted.model.network
    ratio = language.network.table / network.table  # the same vectors, as small as those of a new classifier
    assert torch.allclose(ratio, ratio[0, 0], rtol=1e-4) and network.table.std().item() == pytest.approx(0.1, rel=1e-3)
    assert torch.allclose(
        network.topology.recurrent.weight_ih_l0,
        language.network.topology.recurrent.weight_ih_l0 * ratio[0, 0],
        rtol=1e-4,
    )
    assert torch.allclose(
        network.topology.recurrent.weight_hh_l0, language.network.topology.recurrent.weight_hh_l0, atol=1e-6
    )
    with pytest.raises(InputError, match="contradicts"):
        fit([table], options=TextClassifierOptions(steps=1, hidden=13), start_from=tmp_path / "lm.safetensors")
    fitted.model.save(tmp_path / "classifier.safetensors")
    with pytest.raises(InputError, match="no language model"):
        fit([table], options=options, start_from=tmp_path / "classifier.safetensors")


@pytest.mark.parametrize("tokens", ["char", "byte", "word", "bpe"])
@pytest.mark.parametrize("one_directional", [True, False])
def test_it_begins_as_the_language_model_reads(table: Path, tmp_path: Path, tokens: str, one_directional: bool) -> None:
    """Whatever the tokens: the forward states of every layer are the language model's before the first update."""
    text = tmp_path / "text.txt"
    text.write_text("a dab of bad feed, a cab faced a fad.\n" * 30)
    size = {"vocabulary": 260} if tokens == "bpe" else {}
    language = unrolled.LanguageModel.fit(
        text, steps=3, hidden=12, layers=2, embedding=8, cell="gru", tokens=tokens, **size
    )
    language.save(tmp_path / "lm.safetensors")
    options = TextClassifierOptions(steps=1, lr=1e-12, weight_decay=0.0, one_directional=one_directional)
    model = fit([table], options=options, start_from=tmp_path / "lm.safetensors").model
    assert model.options.tokens == tokens and model.tokenizer.to_json() == language.tokenizer.to_json()
    assert model.options.one_directional == one_directional
    sequence = torch.from_numpy(language.tokenizer.encode(" a bad cab"))[:, None]
    with torch.no_grad():
        read, _ = language.network.topology.recurrent.unroll(Inputs(sequence, language.network.table))
        begun, _ = model.network.topology.recurrent.unroll(Inputs(sequence, model.network.table))
    assert begun.shape[-1] == (12 if one_directional else 24)
    assert torch.allclose(begun[..., :12], read, atol=1e-5)
    assert model.predict(["a bad cab", ""])[0].label in ("ab", "ba")


@pytest.mark.parametrize(
    ("language", "options", "words"),
    [
        ({"tokens": "char"}, {"tokens": "word"}, "--tokens word contradicts the model to start from, which has char"),
        ({"cell": "lstm"}, {"cell": "gru"}, "--cell gru contradicts"),
        ({"embedding": 0}, {}, "no embedding"),
        ({"topology": "one_to_one"}, {}, "no recurrent layers"),
    ],
)
def test_a_language_model_that_cannot_be_started_from(
    table: Path, tmp_path: Path, language: dict[str, object], options: dict[str, object], words: str
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a dab of bad feed, a cab faced a fad.\n" * 30)
    unrolled.LanguageModel.fit(text, **{"steps": 1, "hidden": 8, "embedding": 8, **language}).save(tmp_path / "lm")
    with pytest.raises(InputError, match=words) as raised:
        fit([table], options=TextClassifierOptions(steps=1, **options), start_from=tmp_path / "lm")
    assert_one_sentence(str(raised.value))


# The command


@pytest.mark.slow
def test_the_command_from_training_to_prediction(unrolled_cli: Cli, table: Path, tmp_path: Path) -> None:
    small = [str(x) for name, value in SMALL.items() for x in (f"--{name}", value)]
    done = unrolled_cli("train", "classify-text", table, *small, "--steps", 300, "--out", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["task"] == "classify-text" and summary["accuracy"] > 0.7 and summary["f1"] > 0.7
    (tmp_path / "lines.txt").write_text("acb\r\n\r\nbca\r\n")
    done = unrolled_cli("predict", "run", "lines.txt", "bbba", "", cwd=tmp_path)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[2] for row in rows] == ["acb", "", "bca", "bbba", ""]
    assert all(row[0] in ("ab", "ba") and 0.5 <= float(row[1]) <= 1 for row in rows)
    shown = unrolled_cli("evaluate", "run", table, cwd=tmp_path).stdout
    assert re.search(r"accuracy +[01]\.\d{4}", shown) and "confusion" in shown and "precision" in shown
    assert json.loads(unrolled_cli("evaluate", "run", table, "--json", cwd=tmp_path).stdout)["confusion"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text\tlabel\nab\tx\nba\tx\n", "at least two classes"),
        ("", "no rows"),
        ("text\tlabel\nab\t\nba\tx\n", "has no label"),
        ("text\tlabel\tlabel\nab\tx\ty\n", "label"),
    ],
)
def test_unusable_tables_are_refused_in_one_sentence(quick_cli: Cli, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "table.tsv").write_text(content)
    done = quick_cli("train", "classify-text", "table.tsv", "--steps", 2, "--tokens", "char", cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr
    assert_one_sentence(done.stderr.strip().splitlines()[-1].removeprefix("unrolled: "))
    assert not (tmp_path / "runs").exists()


def test_an_unknown_label_at_evaluation_names_its_line(model: TextClassifier, tmp_path: Path) -> None:
    (tmp_path / "other.tsv").write_text("text\tlabel\nab\tab\nba\tcd\n")
    with pytest.raises(InputError, match=r"other\.tsv, line 3: the label 'cd' does not occur"):
        model.evaluate(tmp_path / "other.tsv")


def test_a_very_long_line_is_labelled(model: TextClassifier) -> None:
    (found,) = model.predict(["ab" + "c" * 100_000])
    assert found.label in ("ab", "ba")
