"""Word and BPE tokens and the vocabulary of sequence tasks: texts come back, and nothing is known too early."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.test_tokenizers import SPECIMENS, check, stream, texts
from unrolled.data import bpe_tokenizer, corpus, text_files, tokenizers
from unrolled.data.bpe_tokenizer import BpeTokenizer
from unrolled.data.labelled import read_labelled
from unrolled.data.pairs import read_pairs
from unrolled.data.sources import TextSource
from unrolled.data.tokenizers import TextDecoder, Tokenizer, decode, from_json
from unrolled.data.vocabulary import BEGIN, END, PADDING, SPECIALS, Vocabulary
from unrolled.data.word_tokenizer import WordTokenizer, pieces
from unrolled.errors import InputError

SENTENCES = [
    "The dog isn't here, is it?",
    "  two  spaces\n\n",
    "안녕하세요, 세계! 한국어 텍스트",
    "नमस्ते दुनिया",
    "漢字とかな 1,000.5%",
]
BPE = BpeTokenizer.train(SENTENCES, 300)


# Words


@given(texts | st.text(" \n'ab.,漢안é\u0301", max_size=40))
@example(" ")
@example("a  b \n c")
def test_pieces_are_the_text(text: str) -> None:
    found = pieces(text)
    assert "".join(found) == text
    assert all(found)
    assert all(piece.isspace() or not piece[1:].count(" ") for piece in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello, world", ["hello", ",", " world"]),
        ('He said: "don\'t!"', ["He", " said", ":", ' "', "don't", "!", '"']),
        ("3.5 1,000,000 x2", ["3.5", " 1,000,000", " x", "2"]),
        ("wait... what?!", ["wait", "...", " what", "?", "!"]),
        ("안녕하세요, 세계!", ["안녕하세요", ",", " 세계", "!"]),
        ("नमस्ते दुनिया", ["नमस्ते", " दुनिया"]),
        ("e\u0301te\u0301 fini", ["e\u0301te\u0301", " fini"]),
        ("漢字かな", ["漢", "字", "か", "な"]),
        (" <unk> said <unk>\n", [" <unk>", " said", " <unk>", "\n"]),
        ("a  b\r\n", ["a", " ", " b", "\r", "\n"]),
        ("snake_case", ["snake", "_", "case"]),
    ],
)
def test_where_words_end(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


@given(texts)
@example(SPECIMENS["combining"])
@example(SPECIMENS["line ends"])
def test_known_words_come_back_exactly(text: str) -> None:
    check(WordTokenizer.train([text], min_count=1), text)


def test_frequency_cuts_and_unknown_words() -> None:
    text = "a b a b a c. a d e"
    tokenizer = WordTokenizer.train([text], min_count=2)
    assert tokenizer.words == [" a", " b"]  # "a" at the beginning is another token, and occurs once
    assert WordTokenizer.train([text], min_count=1, size=5).words == [" a", " b", " c"]
    assert tokenizer.trained == 2
    assert tokenizer.encode(" a x").tolist() == [0, tokenizer.unknown[1]]
    assert decode(tokenizer, tokenizer.encode(" a xyz. b")) == " a <unk><unk> b"
    # of what is unknown "a" and "." have no space and one character; " c", " d" and " e" have two
    assert tokenizer.lengths.tolist() == [2, 2, 1, 2]
    tokens = tokenizer.encode(text)
    assert tokenizer.lengths[tokens].sum() == len(text)


def test_a_known_word_after_an_unusual_space() -> None:
    tokenizer = WordTokenizer.train(["one  two\none two\ntwo"], min_count=1)
    assert [tokenizer.words[t] for t in tokenizer.encode("two one")] == ["two", " ", "one"]


def test_lower_case() -> None:
    tokenizer = WordTokenizer.train(["The THE the"], min_count=1, lower=True)
    assert tokenizer.words == [" the", "the"]
    again = from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert again.encode("tHe The").tolist() == [1, 0]


def test_equally_frequent_words_are_ordered_by_themselves() -> None:
    one, two = (WordTokenizer.train(texts, min_count=1) for texts in (["b a", "c"], ["c", "b a"]))
    assert one.words == two.words == [" a", "b", "c"]


# Byte pairs


@given(texts)
def test_bpe_brings_any_text_back(text: str) -> None:
    check(BPE, text)


@pytest.mark.parametrize("name", SPECIMENS)
def test_bpe_of_unusual_texts(name: str) -> None:
    check(BPE, SPECIMENS[name])


@given(st.text("ab \n한é,", max_size=40), st.integers(1, 7))
def test_parts_are_encoded_as_the_whole(text: str, size: int) -> None:
    with mock.patch.object(bpe_tokenizer, "PART", size):
        assert "".join(bpe_tokenizer.parts(text)) == text
        uncut = BpeTokenizer(BPE.tokens, BPE.merges, BPE.trained, None)  # else a part may end in a long word
        assert uncut.encode(text).tolist() == [t for e in [uncut._library.encode(text)] for t in e.ids]


def test_bpe_bytes_that_did_not_occur_come_last() -> None:
    seen = set("".join(SENTENCES).encode())
    assert BPE.size == 300
    assert BPE.size - BPE.trained == 256 - len(seen)
    assert {BPE.to_bytes([t])[0] for t in range(BPE.trained, BPE.size)} == set(range(256)) - seen
    assert all(set(BPE.to_bytes([t])) <= seen for t in range(BPE.trained))
    for text in SENTENCES:
        assert (BPE.encode(text) < BPE.trained).all()


def test_bpe_applies_the_published_example() -> None:
    """Sennrich et al. 2016, algorithm 1: low ×5, lower ×2, newest ×6, widest ×3 merge es, est, lo, low."""
    text = " ".join(["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3)
    tokenizer = BpeTokenizer.train([text], 256 + 8)
    merged = {tokenizer.to_bytes([n]) for n in range(tokenizer.size)} - {bytes([n]) for n in range(256)}
    assert {b"es", b"est", b"lo", b"low"} <= merged


def test_a_vocabulary_must_hold_the_bytes() -> None:
    with pytest.raises(InputError, match="at least 257"):
        BpeTokenizer.train(["a"], 256)
    assert BpeTokenizer.train(["a"], 257).size == 256  # there is no pair to merge


SCRIPT = """
import hashlib, json, sys
from unrolled.data.bpe_tokenizer import BpeTokenizer
lines = open(sys.argv[1], encoding="utf-8").read().splitlines(keepends=True)[:3000]
t = BpeTokenizer.train(lines, 1000)
for data in (json.dumps(t.to_json()).encode(), t.encode("".join(lines))):
    print(hashlib.sha256(data).hexdigest())
"""


def test_bpe_is_the_same_in_every_process_and_with_any_threads(shared_data: Path) -> None:
    path = shared_data / "multi30k" / "train.de"
    said = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path)],
            env={
                **os.environ,
                "RAYON_NUM_THREADS": threads,
                "PYTHONHASHSEED": threads,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for threads in ("1", "2", "4")
    }
    assert len(said) == 1
    assert len(said.pop().split()) == 2


@pytest.mark.parametrize("missing", ["tokenizers"])
def test_without_the_extra_there_is_one_sentence(missing: str) -> None:
    with mock.patch.dict(sys.modules, {missing: None}):
        for call in (lambda: tokenizers.train("bpe", ["text"]), lambda: from_json(BPE.to_json())):
            with pytest.raises(InputError, match=r"need the tokenizers library: pip install 'unrolled\[text\]'"):
                call()


# Both


def both(text: str) -> list[Tokenizer]:
    return [WordTokenizer.train([text], min_count=1), BpeTokenizer.train([text], 280)]


@given(st.text("ab한é \n.,", max_size=30), st.text("ab한é \n.,x", max_size=30))
def test_json_describes_them_completely(text: str, other: str) -> None:
    for tokenizer in both(text):
        again = from_json(json.loads(json.dumps(tokenizer.to_json())))
        assert type(again) is type(tokenizer)
        assert (again.size, again.trained, again.unknown) == (tokenizer.size, tokenizer.trained, tokenizer.unknown)
        assert again.encode(other).tolist() == tokenizer.encode(other).tolist()
        assert np.array_equal(again.lengths, tokenizer.lengths)
        assert again.to_json() == tokenizer.to_json()


@given(st.text("ab한é \n.,", max_size=30))
def test_text_is_shown_token_by_token(text: str) -> None:
    for tokenizer in both(text):
        tokens = tokenizer.encode(text).tolist()
        shown, rest = stream(tokenizer, tokens)
        assert "".join(shown) + rest == text
        decoder = TextDecoder(tokenizer)
        assert decoder.feed_all(tokens) + decoder.flush() == text


@given(st.lists(st.integers(0, 299), max_size=30))
def test_whatever_a_bpe_model_writes_is_valid_text(tokens: list[int]) -> None:
    shown, rest = stream(BPE, tokens)
    text = "".join(shown) + rest
    assert text.encode().decode() == text
    assert text.replace("\ufffd", "") == decode(BPE, tokens).replace("\ufffd", "")


def test_lone_surrogates_are_refused_with_their_place() -> None:
    for tokenizer in both("abc"):
        with pytest.raises(InputError, match="at character 2"):
            tokenizer.encode("ab\udc80")


LONG = "ab cd  한국어 é\n\nef\tg " * 9


@pytest.mark.parametrize("block", [1, 2, 3, 5, 7, 64, 1 << 22])
@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_blocks_change_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, block: int) -> None:
    monkeypatch.setattr(text_files, "BLOCK", block)
    documents = [LONG, "word" * 9, LONG[::-1]]
    for number, text in enumerate(documents):
        (tmp_path / str(number)).write_text(text, encoding="utf-8", newline="")
    source = TextSource([tmp_path])
    scanned = corpus.scan(source)
    whole = tokenizers.train(kind, documents, 290)
    for cut in (47, len(LONG), len(LONG) + 5, scanned.characters):
        left, right = "".join(documents)[:cut], "".join(documents)[cut:]
        learnt = corpus.make_tokenizer(kind, source, scanned, cut, 290)
        parts = [left[: len(LONG)], left[len(LONG) : len(LONG) + 36], left[len(LONG) + 36 :]]
        assert learnt.to_json() == tokenizers.train(kind, [p for p in parts if p], 290).to_json()
        train, rest = corpus.encode(source, whole, cut)
        assert rest is not None
        assert len(train.ids) + len(rest.ids) > 0
        if kind == "bpe":
            assert (decode(whole, train.ids), decode(whole, rest.ids)) == (left, right)
    tokens, _ = corpus.encode(source, whole)
    expected = [whole.encode(text) for text in documents]
    assert tokens.ids.tolist() == np.concatenate(expected).tolist()
    assert tokens.documents.tolist() == np.cumsum([0, *map(len, expected)])[:-1].tolist()


# Sequences


@pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])
def test_a_vocabulary_has_specials_in_front(kind: str) -> None:
    vocabulary = Vocabulary.learn(kind, SENTENCES, min_count=1)
    for text in [*SENTENCES, ""]:
        tokens = vocabulary.encode(text, begin=True, end=True)
        assert tokens.dtype == np.int64
        assert (tokens[0], tokens[-1]) == (BEGIN, END)
        assert (tokens[1:-1] >= SPECIALS).all()
        assert (tokens < vocabulary.size).all()
        assert vocabulary.writable[tokens[1:]].all()
        assert vocabulary.decode(tokens) == text
        assert vocabulary.decode([*tokens, PADDING, PADDING, *tokens]) == text  # what follows the end is not read
    assert not vocabulary.writable[[PADDING, BEGIN, *vocabulary.unknown]].any()
    assert vocabulary.writable.sum() == vocabulary.tokenizer.trained + 1
    again = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again.encode(SENTENCES[2]).tolist() == vocabulary.encode(SENTENCES[2]).tolist()
    assert again.size == vocabulary.size


def test_the_first_word_is_the_token_it_is_elsewhere() -> None:
    for kind in ("word", "bpe"):
        vocabulary = Vocabulary.learn(kind, ["dog sees dog", "dog"], min_count=1)
        assert len(set(vocabulary.encode("dog sees dog")[[0, -1]].tolist())) == 1


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_a_vocabulary_of_translations(shared_data: Path, kind: str) -> None:
    folder = shared_data / "multi30k"
    training = read_pairs([folder / "train.de", folder / "train.en"]).sources
    unseen = read_pairs([folder / "val.de", folder / "val.en"]).sources
    vocabulary = Vocabulary.learn(kind, training, 5000)
    tokens = [vocabulary.encode(text, end=True) for text in unseen]
    if kind != "word":
        assert [vocabulary.decode(t) for t in tokens] == unseen
        return
    share = np.isin(np.concatenate(tokens), vocabulary.unknown).mean()
    assert 0.03 < share < 0.07
    for text, t in zip(unseen, tokens, strict=True):
        if not np.isin(t, vocabulary.unknown).any():
            assert vocabulary.decode(t) == text
    # known words come from the training part alone
    counted = Counter(piece for text in training for piece in pieces(" " + text))
    assert all(counted[word] >= 2 for word in vocabulary.tokenizer.to_json()["words"])


def test_korean_reviews(shared_data: Path) -> None:
    found = read_labelled([shared_data / "nsmc" / "ratings_dev.tsv"]).texts
    for kind in ("word", "bpe"):
        vocabulary = Vocabulary.learn(kind, found[:4000], 4000)
        tokens = [vocabulary.encode(text) for text in found[4000:]]
        if kind == "bpe":
            assert [vocabulary.decode(t) for t in tokens] == found[4000:]
        else:  # words of Korean carry endings, so many are new
            assert 0.2 < np.isin(np.concatenate(tokens), vocabulary.unknown).mean() < 0.6
