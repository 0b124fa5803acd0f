"""Beam search in a language model, and the options with which a translator searches."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli
from helpers import assert_one_sentence
from translate_helpers import make, words

import unrolled
from unrolled import LanguageModel
from unrolled.cells import Inputs
from unrolled.errors import InputError
from unrolled.tasks.options import SearchOptions

Make = Callable[..., LanguageModel]


def log_probability(model: LanguageModel, prompt: str, text: str) -> float:
    """Of the text after the prompt, the prompt as the beginning of a line, among the tokens that may be written."""
    tokens = torch.from_numpy(np.append(model._opening(prompt), model.tokenizer.encode(text)))
    with torch.no_grad():
        scores, _ = model.network.topology(Inputs(tokens[:-1, None], model.network.table))
    each = scores[:, 0, : model.tokenizer.trained].double().log_softmax(-1)
    picked = each.gather(1, tokens[1:, None])[:, 0]
    return float(picked[len(model._opening(prompt)) - 1 :].sum())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_beam_as_wide_as_all_texts_finds_the_best_of_all(make_model: Make, cell: str) -> None:
    model = make_model("ab\n", cell=cell)
    texts = ["".join(t) for t in itertools.product("ab\n", repeat=3)]
    best = sorted(texts, key=lambda text: -log_probability(model, "ab", text))
    assert model.likeliest("ab", 3, beam=27, count=5) == ["ab" + text for text in best[:5]]


def test_a_beam_of_one_is_the_likeliest_character_each_time(make_model: Make) -> None:
    model = make_model()
    for prompt in ("", "b", "acb"):
        assert model.likeliest(prompt, 12, beam=1) == [model.sample(prompt, 12, temperature=0.0)]


def test_nothing_comes_twice_where_that_is_asked(make_model: Make) -> None:
    (text,) = make_model().likeliest("", 8, beam=4, no_repeat_ngram=2)
    pairs = list(itertools.pairwise(text))
    assert len(text) == 8 and len(set(pairs)) == len(pairs)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        (["--beam", 0], "--beam is 0"),
        (["--beam", 2, "--samples", 3], "--beam is 2 and --samples 3"),
        (["--beam", 2, "--temperature", 0.5], "draws nothing"),
        (["--no-repeat-ngram", 2], "is for --beam"),
        (["--beam", 2, "--length", 0], "--length is 0"),
    ],
)
def test_requests_that_cannot_be(
    quick_cli: Cli, make_model: Make, tmp_path: Path, rest: list[object], message: str
) -> None:
    make_model().save(tmp_path / "m.safetensors")
    done = quick_cli("sample", tmp_path / "m.safetensors", *rest)
    assert done.returncode == 2 and message in done.stderr
    assert_one_sentence(done.stderr.strip().removeprefix("unrolled: "))


def test_one_to_one_has_nothing_to_carry(make_model: Make) -> None:
    with pytest.raises(InputError, match="no recurrent layers"):
        make_model(topology="one_to_one").likeliest("a", 3)


def test_the_command(quick_cli: Cli, make_model: Make, tmp_path: Path) -> None:
    make_model().save(tmp_path / "m.safetensors")
    model = unrolled.load(tmp_path / "m.safetensors")
    command = ("sample", tmp_path / "m.safetensors", "--prompt", "a", "--length", 6, "--beam", 4)
    assert quick_cli(*command).stdout == model.likeliest("a", 6, beam=4)[0] + "\n"
    one, two = model.likeliest("a", 6, beam=4, count=2)
    assert quick_cli(*command, "--samples", 2).stdout == f"--- number 1\n{one}\n--- number 2\n{two}\n"


# A translator's options


def test_a_translator_keeps_to_lengths_and_repeats_nothing() -> None:
    model = make(growth=0.3)
    texts = words(12)
    for text in model.predict(texts, min_length=7, max_length=9, no_repeat_ngram=2):
        pairs = list(itertools.pairwise(text.tokens[:-1]))
        assert 7 <= len(text.tokens) - 1 <= 9 and len(set(pairs)) == len(pairs)
    longer = model.predict(texts, min_length=30)  # asked for, so the usual limit gives way
    assert all(len(text.tokens) - 1 >= 30 for text in longer)
    for text in model.predict(texts, beam=3, length_penalty=0.5):
        assert text.score == pytest.approx(text.log_probability / ((5 + len(text.tokens)) / 6) ** 0.5)
    assert model.predict(texts, beam=3) == model.predict(texts, beam=3, length_penalty=1.0)
    assert model.predict(texts, beam=1) == model.predict(texts, beam=1, length_penalty=0.0)


def test_predict_and_evaluate_take_them(quick_cli: Cli, make_model: Make, tmp_path: Path) -> None:
    make().save(tmp_path / "t.safetensors")
    make_model().save(tmp_path / "m.safetensors")
    model = unrolled.load(tmp_path / "t.safetensors")
    (tmp_path / "a").write_text("abc\nbca\n")
    (tmp_path / "b").write_text("cba\nacb\n")
    flags = ("--beam", 2, "--max-length", 3, "--no-repeat-ngram", 1)
    how = {"beam": 2, "max_length": 3, "no_repeat_ngram": 1}
    done = quick_cli("predict", "t.safetensors", "abc", *flags, cwd=tmp_path)
    assert done.stdout == model.translate(["abc"], **how)[0] + "\n"
    done = quick_cli("evaluate", "t.safetensors", "a", "b", *flags, cwd=tmp_path)
    assert f"{'max_length':20} 3" in done.stdout and done.returncode == 0
    found = model.evaluate(tmp_path / "a", tmp_path / "b", **how)
    assert f"{'chrf':20} {found['chrf']:.4f}" in done.stdout
    (tmp_path / "text.txt").write_text("abc\n" * 20)
    done = quick_cli("evaluate", "m.safetensors", "text.txt", "--beam", 2, cwd=tmp_path)
    assert done.returncode == 2 and "are for what writes" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "--beam is 0"),
        ({"length_penalty": -1.0}, "--length-penalty is -1.0"),
        ({"length_penalty": float("nan")}, "--length-penalty is nan"),
        ({"no_repeat_ngram": -1}, "--no-repeat-ngram is -1"),
        ({"min_length": 4, "max_length": 3}, "--min-length is 4 and --max-length 3"),
    ],
)
def test_options_that_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SearchOptions(**options)  # type: ignore[arg-type]
