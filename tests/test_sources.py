"""Files and folders to text, text to tokens: nothing lost, nothing known too early, and errors that say where."""

import errno
import os
import re
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unrolled.data import corpus, text_files
from unrolled.data.corpus import Tokens
from unrolled.data.sources import TextSource
from unrolled.data.tokenizers import ByteTokenizer, CharTokenizer, decode
from unrolled.errors import InputError, UnrolledError

MIXED = "aé한😀\r\nb😀😀한é\tz\ufeffé"
BLOCKS = [1, 2, 3, 4, 5, 6, 7, 1 << 22]


@pytest.fixture(params=BLOCKS)
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bytes read at a time: small enough to cut every character everywhere."""
    monkeypatch.setattr(text_files, "BLOCK", request.param)
    return request.param


def write(folder: Path, contents: dict[str, bytes]) -> None:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def texts_of(source: TextSource) -> list[str]:
    """The text of each document, its blocks joined."""
    found = [""] * len(source.documents)
    for part in source.blocks():
        found[part.document] += part.text
    return found


# Which files


def test_a_folder_gives_its_text_files_sorted(tmp_path: Path) -> None:
    text = {"b.txt": b"B", "a/z.txt": b"Z", "a/b/c.md": "é".encode(), "a.py": b"A", "B.txt": b"C"}
    binary = {"pic.png": b"\x89PNG\r\n\x1a\n\0\0", "a/latin.txt": b"caf\xe9 au lait", "z.npy": b"abc\0def"}
    hidden = {".hidden": b"h", ".git/config": b"h", "a/.b/c.txt": b"h", "a/b/.c": b"h"}
    write(tmp_path, {**text, **binary, **hidden, "empty.txt": b""})
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    source = TextSource([tmp_path])
    assert source.documents == sorted(tmp_path / name for name in text)
    assert source.skipped == sorted(tmp_path / name for name in [*binary, "empty.txt"])
    assert texts_of(source) == [(tmp_path / p).read_text() for p in sorted(tmp_path / name for name in text)]
    assert source.bytes == 6


def test_paths_keep_the_order_they_are_given_in(tmp_path: Path) -> None:
    write(tmp_path, {"z.txt": b"Z", "folder/a.txt": b"A", "folder/b.txt": b"B", "c.txt": b"C"})
    source = TextSource([tmp_path / "z.txt", tmp_path / "folder", str(tmp_path / "c.txt")])
    assert texts_of(source) == ["Z", "A", "B", "C"]
    assert source.name == "4 documents"


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path) -> None:
    write(tmp_path, {".notes/a.txt": b"A"})
    assert texts_of(TextSource([tmp_path / ".notes"])) == ["A"]


def test_what_cannot_be_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"empty.txt": b"", "pictures/a.png": b"\x89PNG\0", ".hidden/a.txt": b"h"})
    (tmp_path / "nothing").mkdir()
    for name, message in {
        "missing.txt": r"no such file or folder: .*missing\.txt",
        "empty.txt": r"empty\.txt is empty",
        "pictures": "no UTF-8 text files in the folder .*pictures",
        "nothing": "no UTF-8 text files in the folder .*nothing",
        "empty.txt/below": "no such file or folder",
        "n" * 300: "cannot read .*…: File name too long",
    }.items():
        with pytest.raises(InputError, match=message):
            TextSource([tmp_path / name])
    with pytest.raises(InputError, match="/dev/null is neither a file nor a folder"):
        TextSource([os.devnull])
    with pytest.raises(InputError, match="no text is given"):
        TextSource([])


# What is in them


def test_block_boundaries_cut_no_character(tmp_path: Path, block: int) -> None:
    write(tmp_path, {"a.txt": MIXED.encode(), "b.txt": MIXED[::-1].encode()})
    source = TextSource([tmp_path])
    assert texts_of(source) == [MIXED, MIXED[::-1]]
    scanned = corpus.scan(source)
    assert scanned.characters == 2 * len(MIXED)
    assert {chr(c) for _, codes in scanned.blocks for c in codes} == set(MIXED)


@given(st.binary(max_size=30), st.sampled_from(BLOCKS))
@example(b"abcdefgh\xff", 4)
@example("é한😀".encode()[:-1], 2)  # the last character is cut short
@example(b"ab\xe2\x82", 1)
@example(b"ab\xf0\x9f\x98", 7)
@example(b"abcde\xe2\x82Afgh", 3)
@example(b"\x80", 1)
@example(b"abc\xed\xa0\x80", 2)  # a surrogate
@example("é".encode() * 5 + b"\xc3(", 7)
def test_bad_utf8_is_found_at_its_byte(tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int) -> None:
    data = data.replace(b"\0", b"x") or b"x"
    path = tmp_path_factory.getbasetemp() / "bytes.txt"
    path.write_bytes(data)
    with mock.patch.object(text_files, "BLOCK", size):
        try:
            expected = data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            byte = f"at byte {error.start:,} of the file (0x{data[error.start]:02x})"
            place = f"{path} is not UTF-8 in line {line}, {byte}"
            with pytest.raises(InputError, match=re.escape(place)):
                corpus.scan(TextSource([path]))
        else:
            assert "".join(texts_of(TextSource([path]))) == expected


def test_bad_utf8_far_into_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_bytes("한".encode() * 3_000_000 + b"\xfe" + b"abc")  # beyond the second block
    with pytest.raises(InputError, match=r"not UTF-8 in line 1, at byte 9,000,000 .*\(0xfe\), but it is before"):
        corpus.scan(TextSource([path]))


@pytest.mark.parametrize("where", [0, 5, 23])
def test_a_zero_byte_is_found_at_its_byte(tmp_path: Path, block: int, where: int) -> None:
    data = "é".encode() * 12
    write(tmp_path, {"a.txt": b"fine", "b.bin": data[:where] + b"\0" + data[where:]})
    with pytest.raises(InputError, match=rf"b\.bin .*byte {where}\b"):
        corpus.scan(TextSource([tmp_path / "a.txt", tmp_path / "b.bin"]))


def test_the_hash_knows_text_and_documents(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"1/a": b"ab", "1/b": b"c", "2/a": b"a", "2/b": b"bc", "3/a": b"ab", "3/b": b"d", "4/x": b"ab", "4/y": b"c"},
    )
    one, two, three, four = (corpus.scan(TextSource([tmp_path / n])).sha256 for n in "1234")
    assert len({one, two, three}) == 3
    assert one == four  # names do not matter


# Vocabulary and split


def test_the_vocabulary_comes_from_the_training_part_alone(tmp_path: Path, block: int) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(MIXED.encode())
    source = TextSource([path])
    scanned = corpus.scan(source)
    for cut in range(len(MIXED) + 1):
        tokenizer = corpus.make_tokenizer("char", source, scanned, cut)
        assert isinstance(tokenizer, CharTokenizer)
        assert tokenizer.characters == "".join(sorted(set(MIXED[:cut])))


def test_an_unknown_kind_of_tokens_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": b"text"})
    source = TextSource([tmp_path])
    scanned = corpus.scan(source)
    assert isinstance(corpus.make_tokenizer("byte", source, scanned, 3), ByteTokenizer)
    with pytest.raises(InputError, match="'letters'.*char, byte, word or bpe"):
        corpus.make_tokenizer("letters", source, scanned, 3)


def check(tokens: Tokens, tokenizer: CharTokenizer | ByteTokenizer, documents: list[str]) -> None:
    """The tokens spell these documents, and know where each begins."""
    assert decode(tokenizer, tokens.ids) == "".join(documents)
    sizes = [len(tokenizer.encode(d)) for d in documents]
    assert tokens.documents.tolist() == np.cumsum([0, *sizes])[: len(sizes)].tolist()
    assert tokens.predictions == sum(sizes) - len(sizes)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharTokenizer("a한z"), CharTokenizer(MIXED)])
def test_every_split_falls_between_two_characters(
    tmp_path: Path, block: int, tokenizer: CharTokenizer | ByteTokenizer
) -> None:
    documents = ["aé한😀z", "é", "b", "한한a\r\nz"]
    write(tmp_path, {str(n): d.encode() for n, d in enumerate(documents)})
    source = TextSource([tmp_path])
    whole, nothing = corpus.encode(source, tokenizer)
    assert nothing is None
    check(whole, tokenizer, documents)
    ends = np.cumsum([len(d) for d in documents]).tolist()
    for split in range(1, ends[-1]):  # also where a document begins
        left = [d[: max(0, split - end + len(d))] for d, end in zip(documents, ends, strict=True)]
        right = [d[len(part) :] for d, part in zip(documents, left, strict=True)]
        before, after = corpus.encode(source, tokenizer, split)
        assert after is not None
        check(before, tokenizer, [d for d in left if d])
        check(after, tokenizer, [d for d in right if d])


def test_tokens_lie_on_disk_in_the_smallest_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, temporary = tmp_path / "text.txt", tmp_path / "temporary"
    text.write_text("aé한", encoding="utf-8")
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 225)))
    for tokenizer, dtype in [
        (ByteTokenizer(), np.uint8),
        (CharTokenizer(many[:224]), np.uint8),
        (CharTokenizer(many), np.uint16),
    ]:
        tokens, _ = corpus.encode(TextSource([text]), tokenizer)
        assert isinstance(tokens.ids, np.memmap)
        assert tokens.ids.dtype == dtype
        assert list(temporary.iterdir()) == []  # without a name: nothing stays behind


def test_a_full_temporary_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a.txt": b"text"})

    def full(**how: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UnrolledError, match=r"No space left on device.*TMPDIR"):
        corpus.encode(TextSource([tmp_path]), ByteTokenizer())


def test_a_text_that_vanishes_is_not_blamed_on_the_temporary_folder(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": b"text"})
    source = TextSource([tmp_path])
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UnrolledError, match=r"cannot read .*a\.txt") as raised:
        corpus.encode(source, ByteTokenizer())
    assert "TMPDIR" not in str(raised.value)


# Real files


def test_tiny_shakespeare(shared_data: Path) -> None:
    path = shared_data / "tiny_shakespeare" / "input.txt"
    source = TextSource([path])
    scanned = corpus.scan(source)
    assert scanned.characters == 1_115_394
    tokenizer = corpus.make_tokenizer("char", source, scanned, scanned.characters)
    assert tokenizer.size == 65 + 32
    train, rest = corpus.encode(source, tokenizer, int(scanned.characters * 0.9))
    assert rest is not None
    assert (len(train.ids), len(rest.ids)) == (1_003_854, 111_540)
    assert decode(tokenizer, train.ids) + decode(tokenizer, rest.ids) == path.read_text("utf-8")


def test_korean_text(shared_data: Path) -> None:
    folder = shared_data / "korean_text"
    source = TextSource([folder])
    assert len(source.documents) == len(list(folder.glob("*.txt")))
    scanned = corpus.scan(source)
    whole = [p.read_bytes().decode() for p in source.documents]
    assert scanned.characters == sum(map(len, whole)) < 0.7 * source.bytes
    cut = int(scanned.characters * 0.9)
    tokenizer = corpus.make_tokenizer("char", source, scanned, cut)
    unseen = set("".join(whole)[cut:]) - set("".join(whole)[:cut])
    assert unseen  # the last tenth has characters of its own
    assert not unseen & set(tokenizer.to_json()["characters"])
    train, rest = corpus.encode(source, tokenizer, cut)
    assert rest is not None
    assert train.ids.dtype == np.uint16
    assert decode(tokenizer, train.ids) == "".join(whole)[:cut]
    assert decode(tokenizer, rest.ids) == "".join(whole)[cut:]
    assert int(tokenizer.starts[rest.ids].sum()) == scanned.characters - cut
