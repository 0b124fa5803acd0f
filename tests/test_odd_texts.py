"""Odd input of classify-text and translate, from training to evaluation: one clear sentence, or what is documented."""

import re
from pathlib import Path

import pytest
import torch
from conftest import Cli
from helpers import assert_one_sentence

from unrolled.tasks.classify_text import LONGEST, USUAL, TextClassifierTask
from unrolled.tasks.options import TextClassifierOptions
from unrolled.tasks.prepare_classify_text import prepare_text_classifier
from unrolled.training.schedule import Clock

GOOD = "text\tlabel\n" + "".join(f"good film {n}\tpos\nbad film {n}\tneg\n" for n in range(15))
FILES = {
    "good.tsv": GOOD,
    "only_empty.tsv": "text\tlabel\n\tpos\n  \tneg\n",
    "some_empty.tsv": GOOD + "\tpos\n  \tneg\n",
    "mixed.tsv": GOOD + "a\tpos\n" + "good bad " * 400 + "\tneg\n",
    "long_word.tsv": GOOD + "x" * 100_000 + "\tpos\n",
    "one_class.tsv": "text\tlabel\n" + "film\tpos\n" * 9,
    "two_texts.tsv": "text\tlabel\ttext\na\tp\tb\nc\tn\td\n",
    "two_labels.tsv": "text\tlabel\tlabel\na\tp\tn\nc\tn\tp\n",
    "three.tsv": "a\tb\tc\n" * 3,
    "other_label.tsv": "text\tlabel\nfilm\tpos\nfilm\todd\n",
    "one_each.tsv": "text\tlabel\na\tp\nb\tn\n",
    "no_label.tsv": "text\tlabel\na\tpos\nb\t\n",
    "ragged.tsv": "text\tlabel\na\tpos\nb\n",
    "evaluated.tsv": "text\tlabel\na\tpos\n\tpos\n" + "film " * 20_000 + "\tpos\n",
    "a": "one two\n\nthree\nfour\nfive six\n" * 6,
    "b": "eins zwei\nleer\n\nvier\nfünf sechs\n" * 6,
    "short": "x\n" * 7,
    "blank": "\n" * 30,
    "long_a": "one\n" * 20 + "x" * 100_000 + "\n",
    "long_b": "eins\n" * 20 + "y\n",
    "two_sources.tsv": "source\tsource\ttarget\na\tb\tc\n",
    "two_targets.tsv": "source\ttarget\ttarget\na\tb\tc\n",
}
TINY = "--steps 2 --hidden 8 --embedding 8"
CLASSIFY, TRANSLATE = f"train classify-text {TINY} --out out", f"train translate {TINY} --tokens char --out out"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, quick_cli: Cli) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for line in (
        f"train classify-text good.tsv {TINY} --out cls",
        f"train translate a b {TINY} --tokens char --out tr",
    ):
        done = quick_cli(*line.split(), cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


REFUSED = {
    "only empty texts": ("only_empty.tsv has no texts", f"{CLASSIFY} only_empty.tsv"),
    "one class": ("all 8 training texts of one_class.tsv have the label 'pos'", f"{CLASSIFY} one_class.tsv"),
    "two columns of texts": ("several columns that --text-column could mean", f"{CLASSIFY} two_texts.tsv"),
    "two columns of labels": ("several columns that --label-column could mean", f"{CLASSIFY} two_labels.tsv"),
    "three columns": ("does not say which column is which", f"{CLASSIFY} three.tsv"),
    "one text of each": ("no label occurs twice in the 2 examples", f"{CLASSIFY} one_each.tsv"),
    "a text without label": ("no_label.tsv, line 3 has no label", f"{CLASSIFY} no_label.tsv"),
    "a row too short": ("ragged.tsv, line 3 has 1 columns and line 1 has 2", f"{CLASSIFY} ragged.tsv"),
    "unknown label to validate on": (
        r"other_label.tsv, line 3: the label 'odd' does not occur in the training data \('neg', 'pos'\)",
        f"{CLASSIFY} good.tsv --val other_label.tsv",
    ),
    "evaluate: unknown label": ("other_label.tsv, line 3: the label 'odd'", "evaluate cls other_label.tsv"),
    "evaluate: two columns of labels": ("several columns", "evaluate cls two_labels.tsv"),
    "evaluate: no labels": ("a has texts without labels", "evaluate cls a"),
    "evaluate: lines that do not match": ("a has 30 lines and short has 7", "evaluate tr a short"),
    "evaluate: a line too long": ("100,001 tokens that begins with 'x+' is too long", "evaluate tr long_a long_b"),
    "predict: a line too long": ("too long to translate at once", "predict tr long_a"),
    "lines that do not match": ("a has 30 lines and short has 7", f"{TRANSLATE} a short"),
    "lines to validate on that do not match": ("a has 30 lines and short has 7", f"{TRANSLATE} a b --val a short"),
    "only empty lines": ("there is no pair with both sides", f"{TRANSLATE} blank blank"),
    "two columns of sources": ("several columns that --source-column could mean", f"{TRANSLATE} two_sources.tsv"),
    "two columns of targets": ("several columns that --target-column could mean", f"{TRANSLATE} two_targets.tsv"),
    "three columns of two sides": ("does not say which column is the source", f"{TRANSLATE} three.tsv"),
    "one column twice": (
        "source and target are both column 1",
        f"{TRANSLATE} three.tsv --source-column 1 --target-column 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("message", "line"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_one_sentence(quick_cli: Cli, place: Path, message: str, line: str) -> None:
    done = quick_cli(*line.split(), cwd=place)
    assert done.returncode == 2 and done.stdout == ""
    said = done.stderr.strip().splitlines()[-1]
    assert re.search(f"unrolled: .*{message}", said), said
    assert_one_sentence(said.removeprefix("unrolled: "))
    assert not (place / "out").exists()


TAKEN = {
    "mixed lengths": ("train 28, validation 4 texts", f"{CLASSIFY} mixed.tsv"),
    "some empty texts": ("left out 2 empty texts, .* some_empty.tsv, line 32", f"{CLASSIFY} some_empty.tsv"),
    "a word of 100,000 letters": ("2 classes", f"{CLASSIFY} long_word.tsv"),
    "one class to validate on": ("validation 9 texts", f"{CLASSIFY} good.tsv --val one_class.tsv"),
    "pairs with an empty side": ("left out 12 pairs with an empty side, .* a, line 2", f"{TRANSLATE} a b"),
    "a pair that is too long": ("left out 1 training pairs .* than 1,000", f"{TRANSLATE} long_a long_b"),
}  # fmt: skip


@pytest.mark.parametrize(("note", "line"), TAKEN.values(), ids=TAKEN)
def test_what_can_be_used_is_and_what_is_left_out_is_said(quick_cli: Cli, place: Path, note: str, line: str) -> None:
    done = quick_cli(*line.split(), "--overwrite", cwd=place)
    assert done.returncode == 0 and re.search(note, done.stderr), done.stderr


def test_the_beginning_of_a_very_long_text_is_trained_on(tmp_path: Path) -> None:
    """A text of 100,000 characters among short ones: memory is that of a usual batch."""
    rows = [("a bad film", "neg"), ("a good film", "pos")] * 40 + [("good " * 20_000, "pos"), ("bad " * 500, "neg")]

    def task(count: int) -> TextClassifierTask:
        path = tmp_path / f"{count}.tsv"
        path.write_text("text\tlabel\n" + "".join(f"{t}\t{label}\n" for t, label in rows[:count]))
        options = TextClassifierOptions(tokens="char", steps=1, batch=16)
        return prepare_text_classifier([path], options, val=[path], device=torch.device("cpu"), clock=Clock())

    long, usual = task(82), task(80)
    assert "1 training text has more than 16,384 tokens, of which the first are read" in long.notes
    assert long.splits["train"].sources.lengths.max() == LONGEST
    assert long.splits["val"].sources.lengths.max() == 99_999  # what is measured is read whole
    stream = long.batches("train")
    sizes = [next(stream).inputs.shape for _ in range(stream.batches_a_pass)]
    assert sum(rows for _, rows in sizes) == 82 and max(t for t, _ in sizes) == LONGEST
    assert all(t * rows <= USUAL * 16 for t, rows in sizes)
    plain = usual.batches("train")  # texts of usual length: batches have all their rows
    assert [next(plain).inputs.shape[1] for _ in range(5)] == [16] * 5
    assert not any("tokens" in note for note in usual.notes)


def test_empty_and_long_texts_are_labelled_and_measured(quick_cli: Cli, place: Path) -> None:
    done = quick_cli("evaluate", "cls", "evaluated.tsv", "--json", cwd=place)
    assert done.returncode == 0 and '"count": 3' in done.stdout, done.stderr
    (place / "lines.txt").write_text("a\n\n" + "film " * 20_000 + "\n")
    done = quick_cli("predict", "cls", "lines.txt", "", cwd=place)
    lines = done.stdout.split("\n")[:-1]
    assert [line.split("\t")[2] for line in lines] == ["a", "", "film " * 20_000, ""]
    assert lines[1] == lines[3]


def test_empty_lines_are_translated_to_empty_lines(quick_cli: Cli, place: Path) -> None:
    done = quick_cli("predict", "tr", "a", cwd=place)
    assert done.returncode == 0 and len(done.stdout.split("\n")[:-1]) == 30
    assert [n for n, line in enumerate(done.stdout.split("\n")[:-1]) if n % 5 == 1 and line] == []
    done = quick_cli("evaluate", "tr", "blank", "blank", cwd=place)
    assert done.returncode == 0 and "exact                1.0000" in done.stdout
