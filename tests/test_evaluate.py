"""What a training divided and `evaluate` divides again, the rows that --val leaves out, and how files are read."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import Cli
from helpers import Listener, assert_one_sentence
from PIL import Image
from video_helpers import moving, write_clip

import unrolled
from unrolled.errors import InputError
from unrolled.tasks.fitting import fit, resume
from unrolled.tasks.media_options import (
    FrameLabelerOptions,
    ImageCaptionerOptions,
    VideoCaptionerOptions,
    VideoClassifierOptions,
)
from unrolled.tasks.options import LanguageModelOptions, TextClassifierOptions, TranslateOptions
from unrolled.training import model_file
from unrolled.training.run import signed

TINY = {"steps": 2, "hidden": 8, "batch": 4, "seed": 3}
CLIPS = {"features": 4, "channels": "4,4", "size": 8, **TINY}
SPLITS = ("train", "train", "val", "test")
WORDS = ("red", "green", "blue")


class Case(NamedTuple):
    """A task, and how its tables are written: the header, and the cells of row n."""

    options: Any
    header: str
    row: Callable[[int], str]
    media: Callable[[Path, int], object] = lambda folder, n: None


def picture(folder: Path, n: int) -> None:
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., n % 3] = 120 + 10 * (n // 3)
    Image.fromarray(colour).save(folder / f"{n}.png")


def clip(folder: Path, n: int) -> None:
    if not (folder / f"{n}.mkv").exists():
        write_clip(folder / f"{n}.mkv", moving(random.Random(n), (1, -1)[n % 2], 4))


CASES = {
    "classify-text": Case(
        TextClassifierOptions(tokens="char", embedding=4, **TINY),
        "text,label",
        lambda n: f"{WORDS[n % 3]} {n},{'ab'[n % 2]}",
    ),
    "translate": Case(
        TranslateOptions(tokens="char", embedding=4, **TINY), "source,target", lambda n: f"{n} {WORDS[n % 3]},{n}"
    ),
    "caption-image": Case(
        ImageCaptionerOptions(min_count=1, size=8, channels="4,4", **TINY),
        "image,caption",
        lambda n: f"{n}.png,a {WORDS[n % 3]} square",
        picture,
    ),
    "caption-video": Case(
        VideoCaptionerOptions(min_count=1, embedding=4, **CLIPS),
        "path,caption",
        lambda n: f"{n}.mkv,it goes {('right', 'left')[n % 2]}",
        clip,
    ),
    "classify-video": Case(
        VideoClassifierOptions(**CLIPS),
        "path,label,group",
        lambda n: f"{n}.mkv,{'ab'[n % 2]},g{n // 4}",
        clip,
    ),
    "label-frames": Case(
        FrameLabelerOptions(**CLIPS),
        "path,start_frame,end_frame,label",
        lambda n: f"{n}.mkv,0,{1 + n % 3},{'ab'[n % 2]}",
        clip,
    ),
}
SIZES = {"classify-text": "report", "translate": "pairs", "caption-image": "pictures", "caption-video": "clips"}


def write(folder: Path, case: Case, name: str, rows: range, splits: bool = False) -> Path:
    """A table, and the files that it names."""
    folder.mkdir(exist_ok=True, parents=True)
    for n in rows:
        case.media(folder, n)
    lines = [case.header + (",split" if splits else "")]
    lines += [case.row(n) + (f",{SPLITS[n % 4]}" if splits else "") for n in rows]
    (folder / name).write_text("\n".join(lines) + "\n")
    return folder / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def notes_of(listener: Listener) -> str:
    return "\n".join(str(line["note"]) for line in listener.lines if "note" in line)


def old(run: Path) -> Path:
    """A model file as versions before wrote it."""
    tensors, description = model_file.load(run)
    del description["trained_on"]
    model_file.save(run / "old.safetensors", tensors, description)
    return run / "old.safetensors"


@pytest.mark.parametrize("task", CASES)
def test_the_validation_part_is_divided_again_as_the_training_divided_it(task: str, place: Path) -> None:
    """Its loss is the one that the training reported; other data, and older files, are told apart."""
    case = CASES[task]
    table = write(place / task, case, "all.csv", range(20))
    if task in ("classify-text", "translate"):  # a row that a training leaves out, and an evaluation of all does not
        table.write_text(table.read_text().replace("\n", "\n,b\n", 1))
    run = place / task / "run"
    reported = fit([table], options=replace(case.options, val_fraction=0.3), out=run).result.metrics
    model = unrolled.load(run)
    again = model.evaluate(table, split="val")
    assert again["val_loss"] == pytest.approx(reported["val_loss"], rel=1e-6)
    assert not any("not the data" in note or "assumed" in note for note in again["notes"])
    train = model.evaluate(table, split="train")
    if task in SIZES and task != "classify-text":
        assert again[SIZES[task]] + train[SIZES[task]] == 20
    others = write(place / task, case, "others.csv", range(20, 32))
    assert any("not the data" in note for note in model.evaluate(others, split="val")["notes"])
    found = unrolled.load(old(run)).evaluate(table, split="val")
    assert any("assumed" in note for note in found["notes"]) and found["val_loss"] == again["val_loss"]
    with pytest.raises(InputError, match="unknown split 'tset'"):
        model.evaluate(table, split="tset")


@pytest.mark.parametrize("task", CASES)
def test_val_leaves_the_other_rows_of_a_split_column_out_and_says_so(task: str, place: Path) -> None:
    """Of the training data only those for training are learned; of the others those for validation; and `--split val`
    of such a model means the file that --val named."""
    case, folder = CASES[task], place / task
    table = write(folder, case, "parts.csv", range(20), splits=True)
    dev = write(folder, case, "dev.csv", range(18, 26), splits=True)
    listener, run = Listener(), folder / "with_val"
    fitted = fit([table], val=[dev], options=case.options, out=run, observer=listener)
    said = notes_of(listener)
    assert "trained on the 10 rows" in said and "5 for validation, 5 for test" in said
    assert "validated on the 2 rows" in said and "6 others" in said
    assert ("groups are in training and validation" in said) == (task == "classify-video")
    model = unrolled.load(run)
    assert model.trained_on is not None and model.trained_on["val"] == [str(dev)]
    with pytest.raises(InputError, match=r"validated on .*dev\.csv \(--val\)") as caught:
        model.evaluate(table, split="val")
    assert_one_sentence(str(caught.value))
    asked = model.evaluate(dev, split="val")["val_loss"]
    assert asked == pytest.approx(fitted.result.metrics["val_loss"], rel=1e-6)
    old_file = old(run)  # in a run folder its run.json says what the file does not
    old_file.replace(run / "model.safetensors")
    with pytest.raises(InputError, match=r"dev\.csv"):
        unrolled.load(run).evaluate(table, split="val")


def test_rows_for_validation_are_needed_where_the_file_has_several_parts(place: Path) -> None:
    case = CASES["classify-text"]
    table = write(place / "parts", case, "a.csv", range(20), splits=True)
    write(place / "parts", case, "b.csv", range(20, 26), splits=True)
    rows = [line for line in (place / "parts" / "b.csv").read_text().splitlines() if not line.endswith(",val")]
    (place / "parts" / "b.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match="none for validation"):
        fit([table], val=[place / "parts" / "b.csv"], options=case.options)
    only = [rows[0], *(line for line in rows if line.endswith(",test"))]
    (place / "parts" / "b.csv").write_text("\n".join(only) + "\n")
    listener = Listener()
    fit([table], val=[place / "parts" / "b.csv"], options=case.options, observer=listener)
    assert f"validation {len(only) - 1} texts" in notes_of(listener)  # all of one part: all of them


def test_examples_of_both_parts_and_paths_given_twice_are_noted(place: Path, tiny_text: Path) -> None:
    case, listener = CASES["classify-text"], Listener()
    table = write(place / "both", case, "a.csv", range(20))
    fit(
        [table, table],
        val=[write(place / "both", case, "b.csv", range(17, 30))],
        options=case.options,
        observer=listener,
    )
    said = notes_of(listener)
    assert "given more than once" in said and "3 of 13 validation examples are in the training data too" in said
    listener = Listener()
    language = LanguageModelOptions(steps=1, hidden=8, batch=2, bptt=8)
    fit([tiny_text, tiny_text], val=[tiny_text], options=language, observer=listener)
    assert "given more than once" in notes_of(listener) and "trained on and validated on" in notes_of(listener)


def test_a_language_models_parts_too(tiny_text: Path, tmp_path: Path) -> None:
    options = LanguageModelOptions(steps=2, hidden=8, batch=2, bptt=8, val_fraction=0.2)
    reported = fit([tiny_text], options=options, out=tmp_path / "run").result.metrics["val_loss"]
    model = unrolled.load(tmp_path / "run")
    assert model.evaluate(tiny_text, split="val")["val_loss"] == pytest.approx(reported, rel=1e-6)
    assert model.evaluate(tiny_text, split="val")["notes"] == []
    (tmp_path / "other.txt").write_text(tiny_text.read_text()[:3000])
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("abc")
    (tmp_path / "folder" / "b.png").write_bytes(b"\x89PNG\0")
    (note,) = model.evaluate(tmp_path / "other.txt", split="val")["notes"]
    assert "not the data" in note
    found = model.evaluate(tmp_path / "folder")
    assert "b.png" in found["notes"][0] and found["skipped"][0]["path"].endswith("b.png")
    fit([tiny_text], val=[tmp_path / "other.txt"], options=replace(options, val_fraction=None), out=tmp_path / "v")
    model = unrolled.load(tmp_path / "v")
    with pytest.raises(InputError, match=r"other\.txt \(--val\)"):
        model.evaluate(tiny_text, split="val")
    assert model.evaluate(tiny_text, split="train") == model.evaluate(tiny_text)


# How the files of an evaluation are read


def test_no_option_of_the_training_reads_the_files_of_an_evaluation(tmp_path: Path, quick_cli: Cli) -> None:
    """The same texts in another encoding and in a table with other columns score the same."""
    rows = [(f"{('so schön', 'übel')[n % 2]} {n}", "ab"[n % 2]) for n in range(40)]

    def table(name: str, header: str, encoding: str) -> Path:
        lines = [header, *(f"{text}\t{label}\tx" for text, label in rows)]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding=encoding)
        return tmp_path / name

    latin = table("latin.tsv", "words\tkind\tother", "latin-1")
    utf8, plain = table("utf8.tsv", "words\tkind\tother", "utf-8"), table("plain.tsv", "text\tlabel\tother", "utf-8")
    options = TextClassifierOptions(
        tokens="char", steps=40, hidden=16, encoding="latin-1", text_column="words", label_column="kind"
    )
    model = fit([latin], options=options).model
    model.save(tmp_path / "m.safetensors")
    whole = model.evaluate(utf8)
    named = "columns as in the training: --text-column words"
    assert whole["accuracy"] == 1.0 and named in whole["notes"][-1]
    assert model.evaluate(latin, encoding="latin-1")["val_loss"] == whole["val_loss"]
    guessed = model.evaluate(plain)
    assert guessed["val_loss"] == whole["val_loss"] and "were guessed" in guessed["notes"][-1]
    with pytest.raises(InputError, match="is not UTF-8"):
        model.evaluate(latin)
    with pytest.raises(InputError, match="no column kind"):
        model.evaluate(plain, label_column="kind")
    done = quick_cli(
        "evaluate", tmp_path / "m.safetensors", latin, "--encoding", "latin-1", "--label-column", "2", "--json"
    )
    found = json.loads(done.stdout)
    assert found["val_loss"] == whole["val_loss"] and found["skipped"] == []
    assert found["notes"] == done.stderr.splitlines() and named == found["notes"][-1]
    done = quick_cli("evaluate", tmp_path / "m.safetensors", utf8, "--source-column", "words")
    assert done.returncode == 2 and "--source-column means nothing" in done.stderr


@pytest.mark.parametrize("task", ["caption-image", "caption-video", "classify-video", "label-frames"])
def test_an_evaluation_stops_at_bad_files_or_names_them(task: str, place: Path) -> None:
    """Whatever the training did with its own."""
    case, folder = CASES[task], place / f"bad-{task}"
    table = write(folder, case, "all.csv", range(12))
    suffix = ".png" if task == "caption-image" else ".mkv"
    (folder / f"1{suffix}").write_bytes(b"no such thing")
    (folder / f"2{suffix}").write_bytes(b"")
    (folder / f"4{suffix}").unlink()
    fitted = fit([table], options=replace(case.options, bad_files="skip", val_fraction=0.3))
    assert {Path(one.path).stem for one in fitted.skipped} == {"1", "2", "4"}
    with pytest.raises(InputError, match=rf"[124]\{suffix}"):
        fitted.model.evaluate(table)
    with pytest.raises(InputError, match="unknown bad_files 'ignore'"):
        fitted.model.evaluate(table, bad_files="ignore")
    found = fitted.model.evaluate(table, bad_files="skip")
    assert {Path(one["path"]).stem for one in found["skipped"]} == {"1", "2", "4"}
    assert all(one["reason"] for one in found["skipped"]) and "1 (4" in " ".join(found["notes"])


def test_texts_of_a_folder_that_cannot_be_read_stop_or_are_named(tmp_path: Path) -> None:
    for n in range(12):
        file = tmp_path / "data" / "ab"[n % 2] / f"{n}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(f"{WORDS[n % 2]} {n}".encode() if n != 4 else "über".encode("latin-1"))
    options = CASES["classify-text"].options
    with pytest.raises(InputError, match=r"4\.txt is not UTF-8"):
        fit([tmp_path / "data"], options=options)
    fitted = fit([tmp_path / "data"], options=replace(options, bad_files="skip", val_fraction=0.3))
    assert [Path(one.path).name for one in fitted.skipped] == ["4.txt"]
    with pytest.raises(InputError, match=r"4\.txt is not UTF-8"):
        fitted.model.evaluate(tmp_path / "data")
    found = fitted.model.evaluate(tmp_path / "data", bad_files="skip")
    assert np.array(found["confusion"]).sum() == 11 and found["skipped"][0]["path"].endswith("4.txt")


def test_tables_of_figures_do_not_cut_the_names_of_classes(tmp_path: Path, quick_cli: Cli) -> None:
    names = ["a rather long name of a class", "a rather long name of another"]
    lines = ["text\tlabel", *(f"{WORDS[n % 2]} {n}\t{names[n % 2]}" for n in range(20))]
    (tmp_path / "a.tsv").write_text("\n".join(lines) + "\n")
    fit([tmp_path / "a.tsv"], options=CASES["classify-text"].options).model.save(tmp_path / "m.safetensors")
    shown = quick_cli("evaluate", tmp_path / "m.safetensors", tmp_path / "a.tsv").stdout.splitlines()
    at = shown.index("confusion (rows: the truth, columns: predicted)")
    assert [name.strip() for name in shown[at + 1].split("  ") if name] == names
    assert len({len(line) for line in shown[at + 1 :]}) == 1


# Options that were given, and what a start model or the data decide


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("classify-text", {"val_fraction": 0.1, "val": True}, "--val-fraction too"),
        ("classify-video", {"val_groups": "g1", "val": True}, "--val-groups too"),
        ("classify-video", {"val_groups": "g1", "val_fraction": 0.1}, "--val-groups and --val-fraction"),
        ("classify-text", {"val_fraction": 0.1, "splits": True}, "leave --val-fraction out"),
        ("classify-text", {"vocabulary": 20_000, "tokens": "char"}, "--vocabulary has no meaning"),
        ("translate", {"bptt": 16}, "--bptt 16 is for language models"),
    ],
)
def test_an_option_without_effect_is_refused(task: str, options: dict[str, Any], message: str, place: Path) -> None:
    case, given = CASES[task], dict(options)
    table = write(place / task, case, "refused.csv", range(12), splits=given.pop("splits", False))
    val = [write(place / task, case, "val.csv", range(12, 16))] if given.pop("val", False) else None
    with pytest.raises(InputError, match=message) as caught:
        fit([table], val=val, options=replace(case.options, **given))
    assert_one_sentence(str(caught.value))


def test_an_option_that_equals_its_default_is_not_overridden_by_the_model_to_start_from(
    place: Path, tiny_text: Path, tmp_path: Path
) -> None:
    case = CASES["caption-image"]
    table = write(place / "start", case, "all.csv", range(12))
    run = tmp_path / "run"
    fit([table], options=replace(case.options, layers=2, tokens="char", min_count=None, image="initial"), out=run)
    silent = replace(case.options, hidden=None, size=None, channels=None, min_count=None)
    more = fit([table], options=silent, start_from=run).model.options
    assert (more.layers, more.tokens, more.image, more.hidden) == (2, "char", "initial", 8)
    for given in ({"layers": 1}, {"tokens": "word"}, {"image": "attention"}, {"cased": True}):
        with pytest.raises(InputError, match=f"--{next(iter(given))} .* contradicts"):
            fit([table], options=replace(silent, **given), start_from=run)
    language = LanguageModelOptions(steps=1, hidden=8, batch=2, bptt=8)
    fit([tiny_text], options=language, out=tmp_path / "language")
    with pytest.raises(InputError, match="--forget-bias"):
        fit([tiny_text], options=replace(language, forget_bias=1.0), start_from=tmp_path / "language")
    with pytest.raises(InputError, match="--vocabulary is that of the model"):
        options = replace(CASES["classify-text"].options, hidden=None, embedding=None, tokens=None, vocabulary=20_000)
        fit(
            [write(place / "start", CASES["classify-text"], "t.csv", range(9))],
            options=options,
            start_from=tmp_path / "language",
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topology": "one_to_one", "layers": 1}, "leave out --layers"),
        ({"cell": "gru", "forget_bias": 1.0}, "a gru has none"),
        ({"vocabulary": 10_000}, "--vocabulary has no meaning"),
    ],
)
def test_a_language_model_refuses_what_it_has_no_use_for(
    options: dict[str, Any], message: str, tiny_text: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fit([tiny_text], options=LanguageModelOptions(steps=1, hidden=8, **options))


def test_a_run_that_an_older_version_began_goes_on_with_the_rows_that_it_had(place: Path) -> None:
    case, folder = CASES["classify-text"], place / "before"
    options = replace(case.options, steps=4, val_fraction=None)
    table = write(folder, case, "a.csv", range(20), splits=True)
    dev = write(folder, case, "b.csv", range(20, 28), splits=True)
    stripped = [folder / f"{name}-all.csv" for name in ("a", "b")]  # what it read: all rows
    for path, whole in zip((table, dev), stripped, strict=True):
        whole.write_text("\n".join(line.rpartition(",")[0] for line in path.read_text().splitlines()) + "\n")
    fit([stripped[0]], val=[stripped[1]], options=options, out=folder / "run", observer=Listener(2))
    config = json.loads((folder / "run" / "run.json").read_text())
    del config["trained_on"], config["rules"]
    config |= {"data": [str(table)], "val": [str(dev)], "options": {**config["options"], "val_fraction": 0.1}}
    (folder / "run" / "run.json").write_text(json.dumps(signed(config)))
    listener = Listener()
    assert resume(folder / "run", observer=listener).result.finished
    assert "trained on all rows" in notes_of(listener)


def test_an_evaluation_of_all_parts_says_that_it_measures_the_training_too(tmp_path: Path) -> None:
    rows = [
        (f"a {'good' if n % 2 else 'bad'} film {n}", n % 2, ("train", "train", "val", "test")[n % 4]) for n in range(40)
    ]
    table = tmp_path / "all.tsv"
    table.write_text("text\tlabel\tsplit\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows))
    model = unrolled.TextClassifier.fit(table, steps=1, hidden=4, embedding=4, tokens="char", threads=1)
    told = [note for note in model.evaluate(table)["notes"] if "part for training too" in note]
    assert len(told) == 1 and "--split test" in told[0]
    assert not any("part for training too" in note for note in model.evaluate(table, split="test")["notes"])
