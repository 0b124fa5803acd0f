"""What of a folder is data: parts of the data, what people leave beside it, and what `unrolled` itself has written."""

import shutil
from pathlib import Path

import pytest

from tests.helpers import Listener, assert_one_sentence
from tests.media_helpers import make
from unrolled.data.captioned import read_captions
from unrolled.data.clips import read_clips
from unrolled.data.folders import leaving_out
from unrolled.data.labelled import read_labelled
from unrolled.data.sources import TextSource, training_text
from unrolled.errors import InputError
from unrolled.tasks.fitting import fit, resume
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions

# Parts


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """As the Large Movie Review Dataset is unpacked, with what systems leave in folders."""
    folder = tmp_path / "aclImdb"
    for part in ("train", "test"):
        for label in ("pos", "neg"):
            for n in range(2):
                make(folder, **{f"{part}/{label}/{n}_9__txt": f"{part} {label} {n}"})
        make(folder, **{f"{part}/urls_pos__txt": "http://a\n", f"{part}/labeledBow__feat": "9 0:1 1:2\n"})
    make(folder, "train/pos/.DS_Store", "test/neg/Thumbs.db", "train/neg/desktop.ini")
    return make(folder, **{"train/unsup/0_0__txt": "unsup", "imdb__vocab": "the\n", "README": "about\n"})


def test_folders_named_after_parts_are_no_classes(reviews: Path) -> None:
    found = read_labelled([reviews])
    assert sorted(zip(found.texts, found.labels, found.splits or [], strict=True)) == sorted(
        (f"{part} {label} {n}", label, part) for part in ("train", "test") for label in ("pos", "neg") for n in (0, 1)
    )
    said = "\n".join(found.notes)
    for left_out in ("unsup", "labeledBow.feat", "urls_pos.txt", "imdb.vocab", "README"):
        assert left_out in said, said
    assert f"left out, hidden or of the system: 3, the first is {reviews / 'test/neg/Thumbs.db'}" in found.notes
    both = read_labelled([reviews / "train", reviews / "test"])
    assert sorted(zip(both.texts, both.splits or [], strict=True)) == sorted(
        zip(found.texts, found.splits or [], strict=True)
    )
    alone = read_labelled([reviews / "train"])
    assert set(alone.labels) == {"pos", "neg"} and alone.splits is None and "unsup" in "\n".join(alone.notes)


def test_a_language_model_trains_on_the_part_for_it(reviews: Path) -> None:
    def names(source: TextSource | None) -> set[str]:
        return {path.relative_to(reviews).parts[0] for path in source.documents} if source else set()

    train, held, notes = training_text([reviews], None)
    assert names(train) == {"train"} and held is None and len(train.documents) == 6
    said = "\n".join(notes)
    assert "left out of the training: 5 files of the part for test" in said
    assert "imdb.vocab" in said and "labeledBow.feat" in said and "hidden or of the system: 3" in said
    make(reviews, **{"dev/pos/0__txt": "dev"})
    train, held, notes = training_text([reviews], None)
    assert (names(train), names(held)) == ({"train"}, {"dev"})
    train, held, notes = training_text([reviews], [reviews / "README"])
    assert names(train) == {"train"} and names(held) == {"README"}
    assert "left out of the training: 1 file of the part for validation and 5 files of the part for test" in notes[-1]
    train, _, _ = training_text([reviews / "train", reviews / "test"], None)
    assert names(train) == {"train"}


def test_files_named_after_parts_are_parts_of_a_corpus(tmp_path: Path) -> None:
    make(tmp_path, SOURCE__txt="about", ptb__train__txt="a", ptb__valid__txt="b", ptb__test__txt="c")
    train, held, notes = training_text([tmp_path], None)
    assert [path.name for path in train.documents] == ["ptb.train.txt"]
    assert held is not None and [path.name for path in held.documents] == ["ptb.valid.txt"]
    assert f"left out of {tmp_path}: SOURCE.txt" in notes and "1 file of the part for test" in notes[-1]
    named = [tmp_path / f"ptb.{part}.txt" for part in ("train", "valid", "test")]
    assert training_text(named, None)[0].documents == named  # files that are named are read
    (tmp_path / "notes.txt").write_text("d")  # now not all are parts
    assert len(training_text([tmp_path], None)[0].documents) == 5


def test_what_a_language_model_is_measured_on(
    tmp_path: Path, tiny_text: Path, make_model: "type[LanguageModel]"
) -> None:
    text = tiny_text.read_text("utf-8")
    make(tmp_path, train__txt=text[:900], valid__txt=text[900:1200], test__txt=text[1200:1700])
    model = make_model("abcdefghijklmnopqrstuvwxyz \n")
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        assert model.evaluate(tmp_path, split=split) == model.evaluate(tmp_path / f"{name}.txt")
    with pytest.raises(InputError, match="does not say what is for test"):
        model.evaluate(tiny_text, split="test")


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    for label in ("test", "exam", "quiz"):
        make(tmp_path, **{f"{label}/1__txt": label})
    assert sorted(read_labelled([tmp_path]).labels) == ["exam", "quiz", "test"]
    make(tmp_path, **{"train/1__txt": "x"})
    with pytest.raises(InputError, match="train is named after a part of the data, and exam") as raised:
        read_labelled([tmp_path])
    assert_one_sentence(str(raised.value).replace(str(tmp_path), ""))


def test_parts_with_a_name_before_them_and_other_layouts_in_them(tmp_path: Path) -> None:
    """20news-bydate-train and -test; tables and a file a class in each part."""
    make(tmp_path, **{"a/news-train/x/1": "one", "a/news-train/y/1": "two", "a/news-test/x/1": "three"})
    assert read_labelled([tmp_path / "a"]).splits == ["test", "train", "train"]
    make(tmp_path, **{"b/train/all__tsv": "text\tlabel\na\tx\n", "b/val/all__tsv": "text\tlabel\nb\tx\n"})
    assert read_labelled([tmp_path / "b"]).splits == ["train", "val"]
    make(tmp_path, **{"c/train/pos__txt": "a\nb\n", "c/train/neg__txt": "c\n", "c/test/pos__txt": "d\n"})
    found = read_labelled([tmp_path / "c"])
    assert dict(zip(found.texts, found.splits or [], strict=True)) == {
        "a": "train",
        "b": "train",
        "c": "train",
        "d": "test",
    }
    make(tmp_path, **{"d/train__txt": "a\tx\nb\tx\nc\ty\n", "d/test__txt": "d\tx\ne\ty\nf\tx\n"})
    assert read_labelled([tmp_path / "d"]).splits == ["test"] * 3 + ["train"] * 3
    make(tmp_path, **{"e/train__txt": "a\nb\n", "e/test__txt": "c\nd\n"})
    with pytest.raises(InputError, match="are named after parts of the data, not after classes"):
        read_labelled([tmp_path / "e"])


def test_deeper_files_are_read_and_folders_of_classes_are_not_classes(tmp_path: Path) -> None:
    make(tmp_path, **{"a/pos/2019/1": "one", "a/pos/2": "two", "a/neg/1": "three", "a/neg/old/older/1": "four"})
    found = read_labelled([tmp_path / "a"])
    assert sorted(zip(found.texts, found.labels, strict=True)) == [
        ("four", "neg"), ("one", "pos"), ("three", "neg"), ("two", "pos"),
    ]  # fmt: skip
    assert any(note.startswith("texts in folders below that of their class: 2, the first is") for note in found.notes)
    make(tmp_path, **{"b/texts/pos/1": "one", "b/texts/neg/1": "two"})
    with pytest.raises(InputError, match=r"b/texts holds folders and no texts \(neg, pos\): if those are the classes"):
        read_labelled([tmp_path / "b"])
    assert read_labelled([tmp_path / "b" / "texts"]).labels == ["neg", "pos"]  # the advice


def test_parts_and_deeper_folders_of_clips(tmp_path: Path) -> None:
    make(
        tmp_path, "train/wave/s1/a.mp4", "train/wave/b/1.png", "train/nod/c.mp4", "test/nod/d.mp4", "train/unlabeled/e"
    )
    found = read_clips([tmp_path])
    assert sorted(zip((p.name for p in found.paths), found.labels, found.splits or [], strict=True)) == [
        ("a.mp4", "wave", "train"), ("b", "wave", "train"), ("c.mp4", "nod", "train"), ("d.mp4", "nod", "test"),
    ]  # fmt: skip
    assert "clips in folders below that of their class: 1" in found.notes[-1] and "unlabeled" in "".join(found.notes)
    given = read_clips([tmp_path / "train", tmp_path / "test"])
    assert sorted(zip(given.paths, given.splits or [], strict=True)) == sorted(
        zip(found.paths, found.splits or [], strict=True)
    )


# What is ours


SMALL = LanguageModelOptions(steps=6, hidden=8, batch=2, bptt=8, threads=1)


def test_a_training_never_reads_what_trainings_wrote(
    tmp_path: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_text, "text.txt")
    first = fit(["."], options=SMALL, out=Path("runs/a"))
    stopped = fit(["."], options=SMALL, out=Path("runs/b"), observer=Listener(3))
    assert not stopped.result.finished
    again = resume(Path("runs/b"))  # runs/a and runs/b lie below the data
    assert again.result.metrics == first.result.metrics
    assert training_text(["."], None)[2] == ["left out, since unrolled wrote it: runs"]
    assert [path.name for path in TextSource(["."]).documents] == ["text.txt"]
    assert [path.name for path in TextSource([".", "runs/a/metrics.jsonl"]).documents] == ["text.txt", "metrics.jsonl"]
    (tmp_path / "runs" / "notes.txt").write_text("mine")  # so that runs holds something else too
    assert [path.name for path in TextSource(["."]).documents] == ["notes.txt", "text.txt"]
    for read in (TextSource, read_labelled, read_clips, read_captions):
        with pytest.raises(InputError, match="runs/a is the folder of a training, not data") as raised:
            read([Path("runs/a")])
        assert_one_sentence(str(raised.value))
    (tmp_path / "runs" / "notes.txt").unlink()
    with pytest.raises(InputError, match="no UTF-8 text files"):
        TextSource(["runs"])


@pytest.mark.parametrize("out", ["runs/x", "out"])
def test_runs_the_folder_to_write_and_the_cache_are_no_classes(
    tmp_path: Path, tiny_text: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    make(tmp_path, **{"wave/a__mp4": "", "nod/b__mp4": "", "nod/c": "", "wave/d": "", "cache/frames/1/data": "x"})
    fit([tiny_text], options=SMALL, out=tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "wave" / "run")
    (tmp_path / out).mkdir(parents=True)
    with leaving_out(tmp_path / out):
        for found in (read_clips([tmp_path]), read_labelled([tmp_path], keep_empty=True)):
            assert sorted(found.labels) == ["nod", "nod", "wave", "wave"]
            (said,) = (note for note in found.notes if "since unrolled wrote it" in note)
            assert all(name in said for name in ("cache", "old", out.split("/")[0], "wave/run"))
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "wave"))
    make(tmp_path, **{"wave/native/a__so": "x", "wave/frames/a": "x"})
    assert len(read_labelled([tmp_path / "wave", tmp_path / "nod"], keep_empty=True)) == 4


def test_a_run_called_test_is_no_part_of_captions(tmp_path: Path, tiny_text: Path) -> None:
    make(tmp_path, "train/a.png", **{"train/metadata__jsonl": '{"image": "a.png", "text": "a"}\n'})
    fit([tiny_text], options=SMALL, out=tmp_path / "test")
    assert read_captions([tmp_path]).captions == [["a"]]
