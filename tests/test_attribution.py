"""Which words moved a classifier: against log-odds computed anew, and against autograd on a copy of the network."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unrolled.cells import Inputs
from unrolled.errors import InputError
from unrolled.inspection.attribution import MOST, attribute, cut, log_odds
from unrolled.tasks.text_classifier import TextClassifier

TEXT = "A dull, dull plot and a wonderful cast."


@pytest.fixture(scope="module", params=["word", "char", "bpe"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextClassifier:
    """Three classes; its opinions are decided, but those of a network that has learnt for 30 updates."""
    path = tmp_path_factory.mktemp("labelled") / "table.tsv"
    rows = [("a wonderful cast", "good"), ("a dull, dull plot", "bad"), ("what a plot", "odd")] * 20
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows))
    small = {"hidden": 10, "embedding": 6, "batch": 8, "lr": 2e-2, "token_dropout": 0.3, "steps": 30}
    size = {"bpe": 270, "word": 100, "char": None}[request.param]
    return TextClassifier.fit(path, tokens=request.param, vocabulary=size, **small)


def odds(model: TextClassifier, x: Tensor, target: int) -> float:
    p = model.network.topology(Inputs(x)).double().softmax(-1)[0, target].item()
    return math.log(p / (1 - p))


def embedded(model: TextClassifier, text: str) -> Tensor:
    lead = " " if model.tokenizer.kind in ("word", "bpe") else ""
    return model.network.table[torch.from_numpy(model.tokenizer.encode(lead + text))][:, None]


def test_words_are_the_text_and_their_tokens_its_tokens(model: TextClassifier) -> None:
    for text in (TEXT, " Don't  you?\n\tno — 한국어 漢字…", "x"):
        words = cut(model.tokenizer, text)
        assert "".join(words) == text
        tokens = [token for word in words for token in model.tokenizer.encode(word).tolist()]
        assert tokens == model.tokenizer.encode(text).tolist()


@torch.no_grad()
def test_occlusion_is_the_difference_of_log_odds(model: TextClassifier) -> None:
    found = attribute(model, TEXT, label="good")
    x, target = embedded(model, TEXT), model.labels.index("good")
    assert found.probability == pytest.approx(model.predict([TEXT])[0].probabilities["good"], abs=1e-6)
    assert found.log_odds == pytest.approx(odds(model, x, target), abs=1e-5)
    lead = " " if model.tokenizer.kind in ("word", "bpe") else ""
    at = 0
    for word, score in zip(cut(model.tokenizer, lead + TEXT), found.scores, strict=True):
        hidden = x.clone()
        end = at + len(model.tokenizer.encode(word))
        hidden[at:end] = model.network.hidden_token
        at = end
        assert score == pytest.approx(odds(model, x, target) - odds(model, hidden, target), abs=1e-5)
    assert at == len(x) and any(abs(score) > 1e-3 for score in found.scores)
    punctuation = [] if model.tokenizer.kind == "bpe" else [",", "."]
    assert [word for word in found.words if not word.isalpha()] == (punctuation or ["dull,", "cast."])


def test_gradient_times_input_is_autograds(model: TextClassifier) -> None:
    """On a copy in float64, by finite differences along the input: d/ds log-odds(with s times the word's vectors)."""
    found = attribute(model, TEXT, label="bad", method="gradient")
    twin = copy.copy(model)
    twin.network = copy.deepcopy(model.network).double()
    x, target = embedded(twin, TEXT).detach(), model.labels.index("bad")
    lead = " " if model.tokenizer.kind in ("word", "bpe") else ""
    lengths = [len(model.tokenizer.encode(word)) for word in cut(model.tokenizer, lead + TEXT)]
    at, step = 0, 1e-5
    for length, score in zip(lengths, found.scores, strict=True):
        scale = torch.zeros(len(x), 1, 1, dtype=torch.float64)
        scale[at : at + length] = step
        at += length
        with torch.no_grad():
            slope = (odds(twin, x * (1 + scale), target) - odds(twin, x * (1 - scale), target)) / (2 * step)
        assert score == pytest.approx(slope, abs=1e-5)


def test_log_odds() -> None:
    scores = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    p = scores.softmax(-1)[0]
    for target in range(3):
        assert log_odds(scores, target).item() == pytest.approx(math.log(p[target] / (1 - p[target])))


def test_the_likeliest_label_is_asked_and_unknown_words_are_named(model: TextClassifier) -> None:
    found = attribute(model, TEXT + " Zyxomma")
    assert found.label == model.predict([TEXT + " Zyxomma"])[0].label
    named = [word for word, unknown in zip(found.words, found.unknown, strict=True) if unknown]
    assert "Zyxomma" in named if model.tokenizer.kind == "word" else not named


def test_what_cannot_be(model: TextClassifier, tmp_path: Path) -> None:
    for text, how, words in (
        (" \n", {}, "the text is empty"),
        (TEXT, {"label": "fair"}, "no label 'fair'"),
        (TEXT, {"method": "magic"}, "unknown method"),
        ("a " * int(MOST**0.5 + 2), {}, "too long for occlusion"),
    ):
        with pytest.raises(InputError, match=words):
            attribute(model, text, **how)
    long = attribute(model, "a " * int(MOST**0.5 + 2), method="gradient")
    assert len(long.words) == len(long.scores) > 4000
