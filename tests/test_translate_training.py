"""Training a translator, its file, and the command."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Cli, _environment
from helpers import Listener, assert_one_sentence
from translate_helpers import TINY, make, pairs_file, words

import unrolled
from unrolled.data.tokenizers import CharTokenizer
from unrolled.data.vocabulary import Vocabulary
from unrolled.errors import InputError
from unrolled.tasks import fitting
from unrolled.tasks.options import TranslateOptions
from unrolled.tasks.translate import Languages
from unrolled.tasks.translator import Translator

# Training


def test_resume_gives_the_same_bits(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, 60)
    options = TranslateOptions(**TINY, steps=24, eval_every=5)
    whole = fitting.fit([path], options=options, out=tmp_path / "whole")
    fitting.fit([path], options=options, out=tmp_path / "parts", observer=Listener(stop_at=7))
    fitting.resume(tmp_path / "parts", observer=Listener(stop_at=16))
    parts = fitting.resume(tmp_path / "parts")
    assert parts.result.finished and parts.result.metrics == whole.result.metrics
    for name, tensor in whole.model.network.state_dict().items():
        assert torch.equal(tensor, parts.model.network.state_dict()[name]), name
    lines = [(tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    scores = [[json.loads(line)["bleu"] for line in run if "bleu" in line] for run in lines]
    assert scores[0] == scores[1] and len(scores[0]) >= 5


@pytest.mark.parametrize("tokens", ["char", "byte", "word", "bpe"])
def test_a_model_file_keeps_all(tmp_path: Path, tokens: str) -> None:
    lines = [" ".join(words(5, seed=n, letters="aeilmnrst")) for n in range(24)]
    source, target = tmp_path / "a.src", tmp_path / "a.tgt"
    source.write_text("\n".join(lines) + "\n")
    target.write_text("\n".join(line.upper() for line in lines) + "\n")
    options = {"vocabulary": 280} if tokens in ("word", "bpe") else {}
    model = Translator.fit(source, target, val=(source, target), tokens=tokens, hidden=16, steps=4, batch=8, **options)
    model.save(tmp_path / "model.safetensors")
    again = unrolled.load(tmp_path / "model.safetensors")
    assert isinstance(again, unrolled.Translator)
    assert (again.options, again.metrics, again.step) == (model.options, model.metrics, model.step)
    texts = [*lines[:10], "été 한국", ""]
    assert [(t.text, t.score) for t in again.predict(texts)] == [(t.text, t.score) for t in model.predict(texts)]
    assert again.evaluate(source, target) == model.evaluate(source, target)
    assert again.evaluate(source, target, beam=1)["chrf"] == pytest.approx(model.metrics["chrf"])
    assert again.evaluate(source, target)["val_loss"] == pytest.approx(model.metrics["val_loss"], rel=1e-5)


def test_start_from_goes_on_with_the_model(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, 60)
    first = fitting.fit([path], options=TranslateOptions(**TINY, steps=40), out=tmp_path / "first")
    how = {"steps": 1, "lr": 1e-9}
    second = fitting.fit([path], options=TranslateOptions(**how), start_from=tmp_path / "first")
    assert second.model.options.hidden == 16
    assert second.result.metrics["val_loss"] == pytest.approx(first.result.metrics["val_loss"], rel=1e-3)
    with pytest.raises(InputError, match="--hidden 32 contradicts the model to start from, which has 16"):
        fitting.fit([path], options=TranslateOptions(hidden=32, **how), start_from=tmp_path / "first")


def test_pairs_that_are_too_long_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(f"{'a' * 1200}\tb\n" + "".join(f"{t}\t{t}\n" for t in words(20)))
    listener = Listener()
    fitting.fit([path], val=[path], options=TranslateOptions(**TINY, steps=1), observer=listener)
    notes = [line["note"] for line in listener.lines if "note" in line]
    assert "left out 1 training pairs with a side of more than 1,000 tokens" in notes
    path.write_text(f"{'a' * 1200}\tb\n" * 3)
    with pytest.raises(InputError, match="every pair has a side of more than 1,000 tokens"):
        fitting.fit([path], val=[path], options=TranslateOptions(**TINY, steps=1))


def test_evaluate_counts_empty_lines_and_takes_a_split(tmp_path: Path) -> None:
    model = make()
    source, target = tmp_path / "s", tmp_path / "t"
    source.write_text("abc\n\nfgh\n")
    target.write_text("cba\n\n\n")
    found = model.evaluate(source, target)
    assert found["pairs"] == 3
    assert 1 / 3 <= found["exact"] <= 2 / 3  # the empty line is translated by an empty one
    table = tmp_path / "t.tsv"
    table.write_text("source\ttarget\tsplit\nab\tba\ttrain\ncd\tdc\ttest\n")
    assert model.evaluate(table, split="test")["pairs"] == 1
    with pytest.raises(InputError, match="too few to keep some for validation"):
        model.evaluate(table, split="val")
    target.write_text("cba\n")
    with pytest.raises(InputError, match="3 lines and .* has 1"):
        model.evaluate(source, target)


def test_limits_follow_the_training_pairs() -> None:
    side = Vocabulary(CharTokenizer("ab"))
    limits = Languages(side, side, 0.5).limits(torch.tensor([1, 10, 9_000]))
    assert limits.tolist() == [6, 10, 1000]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 33}, "--hidden is 33: it must be even"),
        ({"attention": "much"}, "unknown attention 'much'"),
        ({"tokens": "char", "vocabulary": 300}, "--vocabulary has no meaning for --tokens char"),
        ({"vocabulary": 100}, "--vocabulary is 100"),
        ({"dropout": 1.0}, "--dropout is 1.0"),
        ({"label_smoothing": -0.1}, "--label-smoothing is -0.1"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TranslateOptions(**options)


# The command


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    make().save(path)
    return path


def test_predict_gives_a_line_for_a_line(quick_cli: Cli, saved: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    lines = [*words(30), "", "  ", *words(5, seed=2)]
    file.write_text("\n".join(lines) + "\n")
    done = quick_cli("predict", saved, file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == unrolled.load(saved).translate(lines)
    greedy = quick_cli("predict", saved, file, "--beam", 1)
    assert greedy.stdout.split("\n")[:-1] == unrolled.load(saved).translate(lines, beam=1)
    found = json.loads(quick_cli("predict", saved, "abc", "--json").stdout)["predictions"]
    assert found[0]["source"] == "abc" and len(found[0]["alignment"]) == len(found[0]["tokens"])


def test_commands_that_cannot_be(
    quick_cli: Cli, saved: Path, tmp_path: Path, make_model: Callable[..., unrolled.LanguageModel]
) -> None:
    (tmp_path / "a").write_text("1\n2\n")
    (tmp_path / "b").write_text("1\n")
    make_model().save(tmp_path / "language.safetensors")
    for arguments, message in (
        (("train", "translate", tmp_path / "a", tmp_path / "b"), "has 2 lines and"),
        (("train", "translate", tmp_path / "a"), "give the file of translations too"),
        (("evaluate", saved, tmp_path / "a", tmp_path / "b"), "has 2 lines and"),
        (("predict", saved, "abc", "--beam", 0), "--beam is 0"),
        (("predict", saved, "a" * 100_000), "too long to translate at once"),
        (("predict", tmp_path / "language.safetensors", "abc"), "see unrolled sample"),
        (("sample", saved), "is a model for translate, not for language-model"),
    ):
        done = quick_cli(*arguments, cwd=tmp_path)
        assert done.returncode == 2 and message in done.stderr, arguments
        assert_one_sentence(done.stderr.strip())


def test_train_takes_two_files_to_validate_on(quick_cli: Cli, tmp_path: Path) -> None:
    for name, lines in (("a", words(20)), ("b", words(20, seed=1)), ("c", words(4)), ("d", words(4, seed=1))):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    small = ("--tokens", "char", "--hidden", 8, "--steps", 2)
    done = quick_cli("train", "translate", "a", "b", "--val", "c", "d", *small, "--out", "run", cwd=tmp_path)
    assert done.returncode == 0 and "train 20, validation 4 pairs" in done.stderr, done.stderr
    config = json.loads((tmp_path / "run" / "run.json").read_text())
    assert config["val"] == [str(tmp_path / "c"), str(tmp_path / "d")]
    done = quick_cli("train", "translate", "a", "b", "--val", "c", *small, "--out", "other", cwd=tmp_path)
    assert done.returncode == 2 and "give the file of translations too" in done.stderr


@pytest.mark.slow
def test_standard_input_is_answered_line_by_line(saved: Path) -> None:
    model = unrolled.load(saved)
    with subprocess.Popen(
        [sys.executable, "-m", "unrolled", "predict", str(saved)],
        env=_environment(None),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        assert process.stdin and process.stdout
        for text in ("abc", "", "hgf"):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == model.translate([text])[0] + "\n"
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.slow
def test_the_command_learns_to_reverse(quick_cli: Cli, tmp_path: Path) -> None:
    pairs_file(tmp_path, 1500)
    done = quick_cli(
        *("train", "translate", "reverse.tsv", "--tokens", "char", "--hidden", 64, "--embedding", 32, "--steps", 400),
        *("--batch", 64, "--out", "run", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["topology"] == "sequence_to_sequence" and summary["exact"] > 0.95
    assert quick_cli("predict", "run", "fade", cwd=tmp_path).stdout == "edaf\n"
    (tmp_path / "new.src").write_text("abca\nfeed\nbead\n")
    (tmp_path / "new.tgt").write_text("acba\ndeef\ndaeb\n")
    measured = quick_cli("evaluate", "run", "new.src", "new.tgt", cwd=tmp_path).stdout
    assert "exact                1.0000" in measured and "eff:no|tok:char" in measured
