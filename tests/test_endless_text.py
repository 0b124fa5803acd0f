"""Byte pairs of text without white space, such as DNA: words are cut, so that nothing takes time with their square."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import tokenizers as tokenizers_library
from helpers import Listener

from unrolled.data import bpe_tokenizer
from unrolled.data.bpe_tokenizer import BpeTokenizer
from unrolled.data.tokenizers import decode, from_json
from unrolled.tasks.fitting import fit
from unrolled.tasks.options import LanguageModelOptions


def test_text_without_white_space_is_cut_into_words_of_bounded_length_in_training_and_encoding() -> None:
    dna = "".join(random.Random(0).choices("ACGT", k=60_000))
    tokenizer = BpeTokenizer.train([dna], 400)
    assert tokenizer.size == 400 and tokenizer.note and "cut after every 64" in tokenizer.note
    ids = tokenizer.encode(dna)
    assert decode(tokenizer, ids) == dna
    ends = set(np.cumsum([len(tokenizer.to_bytes([n])) for n in ids]).tolist())
    assert set(range(64, len(dna), 64)) <= ends  # no token goes across such a place
    assert len(ids) < len(dna) / 2.5
    kept = from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert kept.encode(dna).tolist() == ids.tolist()
    for odd in ("漢字" * 500, "a" * 99 + "'s" * 99, " " * 300 + "x", "\n" * 20_000, "1" * 65 + "é" * 65, "🙂" * 20_000):
        assert decode(tokenizer, tokenizer.encode(odd)) == odd


def test_only_the_beginning_of_endless_text_teaches_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unrolled.data.bpe_tokenizer.LEARNT", bpe_tokenizer.PART)
    tokenizer = BpeTokenizer.train(["ab" * bpe_tokenizer.PART + "cd" * 4 * bpe_tokenizer.PART], 300)
    assert "the first 16,384 characters taught the tokens" in str(tokenizer.note)
    assert tokenizer.trained == tokenizer.size - 256 + 4  # c and d are known, though no merge has them
    assert "abab" in tokenizer.tokens and "cd" not in tokenizer.tokens


def test_a_byte_pair_tokeniser_of_version_0_1_0_encodes_as_it_did() -> None:
    library = tokenizers_library.Tokenizer(tokenizers_library.models.BPE())
    library.pre_tokenizer = tokenizers_library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = "".join(random.Random(1).choices("ACGT", k=3000)) + " to be, or not to be's  \n\n 1999" + " " * 200 + "end"
    new = BpeTokenizer.train([text], 300)
    old = {key: value for key, value in new.to_json().items() if key != "longest"}
    described = json.loads(library.to_str())
    described["model"]["vocab"] = {token: n for n, token in enumerate(new.tokens)}
    described["model"]["merges"] = [[new.tokens[a], new.tokens[b]] for a, b in new.merges]
    expected = tokenizers_library.Tokenizer.from_str(json.dumps(described)).encode(text).ids
    assert from_json(old).encode(text).tolist() == expected
    assert from_json(old).to_json() == old
    assert new.encode(text).tolist() != expected
    ordinary = "to be, or not to be's  \n\n 1999    don't 漢字 é"
    assert new.encode(ordinary).tolist() == from_json(old).encode(ordinary).tolist()


def test_endless_words_are_noted_in_a_training(tmp_path: Path) -> None:
    (tmp_path / "dna.txt").write_text("".join(random.Random(0).choices("ACGT", k=5000)))
    listener = Listener()
    options = LanguageModelOptions(steps=1, tokens="bpe", vocabulary=300, hidden=4, batch=2, bptt=4)
    fitted = fit([tmp_path / "dna.txt"], options=options, observer=listener)
    assert any("cut after every 64" in str(line.get("note")) for line in listener.lines)
    assert len(fitted.model.sample("ACGT", 30, seed=0)) == 34
