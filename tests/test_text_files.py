"""How text files are read: the same text, whatever its encoding, mark and line ends, from every reader of text."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import Listener, assert_one_sentence
from tests.media_helpers import make
from unrolled.app.given import Skips
from unrolled.app.predict import _texts
from unrolled.data import corpus, text_files
from unrolled.data.captioned import read_captions
from unrolled.data.encodings import likely
from unrolled.data.labelled import read_labelled
from unrolled.data.pairs import read_pairs
from unrolled.data.sources import TextSource
from unrolled.data.text_files import lines_of, lines_of_standard_input, read_text, split_lines
from unrolled.errors import InputError
from unrolled.tasks.fitting import fit, resume
from unrolled.tasks.options import LanguageModelOptions
from unrolled.tasks.text_classifier import TextClassifier

LINES = ["naïve film", "b\x85c\u2028d\x0be\x0cf\x1cg", "가나\ufeff다"]
PLAIN = "\n".join(LINES) + "\n"
FORMS = {
    "utf-8": PLAIN.encode(),
    "with a mark": PLAIN.encode("utf-8-sig"),
    "utf-16, low byte first": b"\xff\xfe" + PLAIN.encode("utf-16-le"),
    "utf-16, high byte first": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "utf-32": PLAIN.encode("utf-32"),
    "CRLF": PLAIN.replace("\n", "\r\n").encode("utf-8-sig"),
    "CR alone": PLAIN.replace("\n", "\r").encode("utf-8-sig"),
    "CR alone, utf-16": b"\xff\xfe" + PLAIN.replace("\n", "\r").encode("utf-16-le"),
    "no end": PLAIN.strip("\n").encode("utf-8-sig"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_reader_reads_the_same_text(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pos", "neg", "source", "target"):
        (tmp_path / name).write_bytes(FORMS[form])
    assert read_labelled([tmp_path / "pos", tmp_path / "neg"]).texts == LINES * 2
    assert read_pairs([tmp_path / "source", tmp_path / "target"]).sources == LINES
    assert list(_texts((str(tmp_path / "pos"),), None, 9, Skips(None))) == [LINES]  # what `predict` reads
    for size in (1, 2, 3, 5, 1 << 16):
        monkeypatch.setattr(text_files, "BLOCK", size)
        assert list(lines_of(tmp_path / "pos")) == LINES
        assert read_text(tmp_path / "pos") == read_text(tmp_path / "neg")
    source = TextSource([tmp_path / "pos"])  # a language model keeps the line ends
    ends = "\r\n" if form == "CRLF" else "\r" if form.startswith("CR") else "\n"
    assert "".join(block.text for block in source.blocks()) in (ends.join(LINES), ends.join(LINES) + ends)
    table = "text\tlabel\n" + "".join(f"{text}\tx\n" for text in LINES)
    codec = "utf-16" if "16" in form else "utf-8-sig"
    (tmp_path / "a.tsv").write_bytes(table.replace("\n", ends).encode(codec))
    assert read_labelled([tmp_path / "a.tsv"]).texts == LINES
    make(tmp_path, "images/a.png")
    (tmp_path / "captions.csv").write_bytes(f"image,caption{ends}a.png,{LINES[1]}{ends}".encode(codec))
    assert read_captions([tmp_path]).captions == [[LINES[1]]]


@given(st.text("ab\r\n\u2028\x85é", max_size=12), st.sampled_from([1, 2, 3, 1 << 16]))
def test_lines_that_come_are_the_lines_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, text: str, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK", size)
        assert list(lines_of(path)) == split_lines(text)


@pytest.mark.parametrize("form", FORMS)
def test_standard_input_is_read_as_a_file_is(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, FORMS[form])
    os.close(writing)
    with os.fdopen(reading) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        assert list(lines_of_standard_input()) == LINES


def test_a_line_of_standard_input_is_answered_before_the_next_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream, os.fdopen(writing, "wb", buffering=0) as user:
        monkeypatch.setattr("sys.stdin", stream)
        lines = lines_of_standard_input("utf-8")
        user.write(b"a\n")
        assert next(lines) == "a"
        user.write("é\r\nrest".encode())
        assert next(lines) == "é"


def test_a_byte_order_mark_changes_no_language_model(tmp_path: Path) -> None:
    texts = {"plain.txt": "abc\n", "marked.txt": "\ufeffabc\n", "mark.txt": "\ufeff"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    plain, marked = (corpus.scan(TextSource([tmp_path / name])) for name in list(texts)[:2])
    assert (plain.sha256, plain.characters) == (marked.sha256, marked.characters)
    with pytest.raises(InputError, match=r"mark\.txt is empty"):
        TextSource([tmp_path / "mark.txt"])
    assert [path.name for path in TextSource([tmp_path]).skipped] == ["mark.txt"]


def test_a_mark_that_contradicts_the_encoding_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    for data, encoding in (("utf-8-sig", "latin-1"), ("utf-16", "cp949"), ("utf-16", "utf-8"), ("utf-8-sig", "utf-16")):
        path.write_bytes("text\tlabel\né\tx\n".encode(data))
        with pytest.raises(InputError, match="begins with the byte-order mark of UTF-.*leave --encoding out") as raised:
            read_labelled([path], encoding=encoding)
        assert_one_sentence(str(raised.value).replace(str(path), ""))
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_bytes("text\tlabel\né\tx\n".encode("utf-8-sig"))
        assert read_labelled([path], encoding=encoding).texts == ["é"]


SAID = {
    "cp949": "정말 재미있는 영화였습니다. 다시 보고 싶어요",
    "shift_jis": "この映画はとても面白かったです。また見たいと思います",
    "euc_jp": "この映画はとても面白かったです。また見たいと思います",
    "gb18030": "这部电影非常好看，我很喜欢，还想再看一次",
    "cp1251": "Очень хороший фильм, советую всем",
    "cp1252": "the film’s “best” scene – a café",
    "latin-1": "un café très agréable",
    "utf-16-le": "a plain text without a mark",
    "utf-16-be": "a plain text without a mark",
}


@pytest.mark.parametrize("encoding", SAID)
def test_the_advice_on_an_encoding_leads_out(tmp_path: Path, encoding: str) -> None:
    text = SAID[encoding]
    assert likely((text * 3).encode(encoding)) == encoding
    path = tmp_path / "a b.tsv"
    path.write_bytes(f"text\tlabel\n{text}\tx\n{text}\ty\n".encode(encoding))
    with pytest.raises(InputError) as raised:
        read_labelled([path])
    found = re.search(r"--encoding (\S+)$", str(raised.value))
    assert found and read_labelled([path], encoding=found[1]).texts == [text, text]
    with pytest.raises(InputError) as raised:  # a language model has no such flag
        corpus.scan(TextSource([path]))
    command = re.search(r"iconv .*$", str(raised.value))
    assert command and os.system(command[0].replace("utf8.txt", str(tmp_path / "out"))) == 0
    assert text in (tmp_path / "out").read_text("utf-8")


def test_a_damaged_line_of_utf8_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes("text\tlabel\ncafé\tx\n".encode() + b"caf\xe9\ty\n")
    with pytest.raises(InputError, match=r"line 3, .*but it is before: correct that line"):
        read_labelled([path])


HALVES: dict[str, tuple[str, Callable[[list[Path]], object]]] = {
    "a.jsonl": ('{"text": "fine", "label": "x"}\n{"text": "cut \\ud83d", "label": "x"}\n', read_labelled),
    "label.jsonl": ('{"text": "a", "label": "x"}\n{"text": "b", "label": "\\uDE00"}\n', read_labelled),
    "pairs.jsonl": ('{"source": "a", "target": "b"}\n{"source": "a", "target": "\\ud83d"}\n', read_pairs),
    "metadata.jsonl": (
        '{"image": "a.png", "text": "a"}\n{"image": "a.png", "text": ["b", "\\ud83d"]}\n',
        read_captions,
    ),
    "a.json": ('[{"image": "a.png", "caption": "\\ud83d"}]', read_captions),
}


@pytest.mark.parametrize("name", HALVES)
def test_half_a_character_in_json_is_said_with_its_line(tmp_path: Path, name: str) -> None:
    text, read = HALVES[name]
    make(tmp_path, "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"half a character \(U\+D[8E]") as raised:
        read([tmp_path / name])
    assert ("line 2" in str(raised.value)) == name.endswith(".jsonl")
    assert_one_sentence(str(raised.value).replace(str(tmp_path), ""))
    (tmp_path / name).write_text(re.sub(r"\\ud83d|\\uDE00", r"\\ud83d\\ude00", text))
    read([tmp_path / name])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> TextClassifier:
    folder = tmp_path_factory.mktemp("classifier")
    make(folder, good="a good film\n" * 9, bad="a bad film\n" * 9)
    return TextClassifier.fit(folder / "good", folder / "bad", steps=3, hidden=8, embedding=8, tokens="char", threads=1)


def test_a_file_is_predicted_as_it_is_measured(
    classifier: TextClassifier, tmp_path: Path, quick_cli: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    """With a mark, CR alone and white space around the texts: predictions are those of the plain texts."""
    classifier.save(tmp_path / "model.safetensors")
    texts = ["a good film", "a bad one", "good, bad\x85and good"]
    expected = [(found.label, f"{found.probability:.4f}") for found in classifier.predict(texts)]
    written = {"plain": "\n".join(texts), "odd": "\r".join(f" {text}\t" for text in texts) + "\r"}
    for encoding in ("utf-8-sig", "utf-16"):
        for name, text in written.items():
            (tmp_path / name).write_bytes(text.encode(encoding))
            done = quick_cli("predict", "model.safetensors", name, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            rows = [line.split("\t")[:2] for line in done.stdout.split("\n") if line]
            assert [(label, probability) for label, probability in rows] == expected
    (tmp_path / "latin").write_bytes("caf\xe9\n".encode("latin-1"))
    for command, code, message in (
        ("predict model.safetensors latin", 1, "latin is not UTF-8 in line 1, .*--encoding latin-1"),  # skipped
        ("predict model.safetensors latin --bad-files stop", 2, "latin is not UTF-8 in line 1, .*--encoding latin-1"),
        ("predict model.safetensors latin --encoding klingon", 2, "unknown --encoding 'klingon'"),
    ):
        done = quick_cli(*command.split(), cwd=tmp_path)
        assert done.returncode == code and re.search(message, done.stderr), done.stderr


def test_half_a_character_in_a_text_of_python_is_said(classifier: TextClassifier, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not valid Unicode"):
        classifier.predict(["fine", "cut \ud83d"])
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    (tmp_path / os.fsdecode(b"caf\xe9") / "1").write_text("a text")
    make(tmp_path, **{"tea/1": "a text"})
    with pytest.raises(InputError, match="the name of .* has half a character"):
        read_labelled([tmp_path / os.fsdecode(b"caf\xe9"), tmp_path / "tea"])


def test_a_run_of_data_whose_name_is_not_utf8_goes_on(tmp_path: Path, tiny_text: Path) -> None:
    name = tmp_path / os.fsdecode(b"caf\xe9.txt")
    shutil.copy(tiny_text, name)
    options = LanguageModelOptions(steps=4, hidden=8, batch=2, bptt=8, threads=1)
    fit([name], options=options, out=tmp_path / "run", observer=Listener(2))
    assert resume(tmp_path / "run").result.finished
