"""Tokenisers: every text comes back exactly, and whatever a model emits is shown as valid UTF-8."""

import itertools
import json
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unrolled.data.tokenizers import ByteTokenizer, CharTokenizer, TextDecoder, Tokenizer, decode, from_json
from unrolled.errors import InputError

SPECIMENS = {
    "empty": "",
    "english": "To be, or not to be\n",
    "korean": "안녕하세요, 세계! 지방공무원법",
    "conjoining jamo": unicodedata.normalize("NFD", "한글"),
    "emoji": "👩‍👩‍👧‍👦🇰🇷👍🏽",
    "combining": "e\u0301 o\u0308\u0304 नि",
    "byte-order mark": "\ufeffbegins, \ufeff inside",
    "line ends": "a\r\nb\rc\n\n\u2028\u2029\x85",
    "right to left": "שלום \u202eabc\u202c",
    "the edges of UTF-8's lengths": "\x01\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff",
}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
# half of the characters are known to the tokeniser, on average
known = st.sampled_from(["", "hello world", "안녕하세요 é😀"])


def tokenizers(characters: str) -> list[Tokenizer]:
    return [ByteTokenizer(), CharTokenizer(characters)]


def check(tokenizer: Tokenizer, text: str) -> None:
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.int64
    assert tokens.ndim == 1
    assert ((tokens >= 0) & (tokens < tokenizer.size)).all()
    assert decode(tokenizer, tokens) == text
    assert tokenizer.to_bytes(tokens.tolist()) == text.encode()
    assert tokenizer.starts.shape == (tokenizer.size,)
    assert tokenizer.lengths.shape == (tokenizer.size,)
    assert tokenizer.lengths[tokens].sum() == len(text)


@given(known, texts)
def test_any_text_comes_back_exactly(characters: str, text: str) -> None:
    for tokenizer in tokenizers(characters):
        check(tokenizer, text)


@pytest.mark.parametrize("text", SPECIMENS.values(), ids=SPECIMENS)
@pytest.mark.parametrize("seen", ["all", "half", "none"])
def test_scripts_and_oddities_come_back_exactly(text: str, seen: str) -> None:
    for tokenizer in tokenizers({"all": text, "half": text[::2], "none": ""}[seen]):
        check(tokenizer, text)


@given(known, st.characters(exclude_categories=["Cs"]))
def test_an_unseen_character_takes_two_tokens_a_byte(characters: str, character: str) -> None:
    tokenizer = CharTokenizer(characters.replace(character, ""))
    assert len(tokenizer.encode(character)) == 2 * len(character.encode())
    assert len(CharTokenizer([character]).encode(character)) == 1


def test_bytes_are_their_own_tokens() -> None:
    assert ByteTokenizer().encode("é€").tolist() == [0xC3, 0xA9, 0xE2, 0x82, 0xAC]
    assert ByteTokenizer().size == 256


def test_the_order_and_number_of_characters_do_not_matter() -> None:
    one, other = CharTokenizer("hello"), CharTokenizer(iter("oolleehh"))
    assert one.characters == other.characters == "ehlo"
    assert one.size == 4 + 32
    assert one.encode("hole").tolist() == other.encode("hole").tolist() == [1, 3, 2, 0]


@given(known, texts)
def test_json_describes_a_tokeniser_completely(characters: str, text: str) -> None:
    for tokenizer in tokenizers(characters):
        again = from_json(json.loads(json.dumps(tokenizer.to_json())))
        assert type(again) is type(tokenizer)
        assert again.size == tokenizer.size
        assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="'wordpiece'.*newer unrolled"):
        from_json({"kind": "wordpiece"})


@pytest.mark.parametrize("text", ["\ud800", "fine until here \udfff", "\udc80a"])
def test_lone_surrogates_are_refused_with_their_place(text: str) -> None:
    where = next(i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff")
    for tokenizer in tokenizers("abc"):
        with pytest.raises(InputError, match=f"at character {where}"):
            tokenizer.encode(text)


# Decoding what a model emits, token by token


def stream(tokenizer: Tokenizer, tokens: list[int]) -> tuple[list[str], str]:
    """What each token shows, and what is left at the end."""
    decoder = TextDecoder(tokenizer)
    return [decoder.feed(token) for token in tokens], decoder.flush()


@given(known, texts)
def test_a_character_is_shown_by_its_last_token(characters: str, text: str) -> None:
    for tokenizer in tokenizers(characters):
        expected = [shown for c in text for shown in ["", "", "", "", "", "", "", c][-len(tokenizer.encode(c)) :]]
        assert stream(tokenizer, tokenizer.encode(text).tolist()) == (expected, "")


def emitted(size: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, size - 1), max_size=40)


@given(emitted(256))
@example([0xED, 0xA0, 0x80])  # a surrogate
@example([0xC0, 0x80, 0xF8, 0x88, 0x80, 0x80, 0x80])  # overlong, and five bytes
def test_any_bytes_are_shown_as_decoding_them_together_would(tokens: list[int]) -> None:
    shown, rest = stream(ByteTokenizer(), tokens)
    assert "".join(shown) + rest == bytes(tokens).decode(errors="replace")


@given(emitted(36))
def test_any_tokens_are_shown_as_valid_text(tokens: list[int]) -> None:
    tokenizer = CharTokenizer("ehlo")
    shown, rest = stream(tokenizer, tokens)
    text = "".join(shown) + rest
    assert text.encode().decode() == text
    whole = decode(tokenizer, tokens)
    assert text.replace("\ufffd", "") == whole.replace("\ufffd", "")  # what makes sense is never lost
    assert ("\ufffd" in text) == ("\ufffd" in whole)


@given(st.data(), st.characters(exclude_categories=["Cs"]))
def test_garbage_swallows_no_character_beside_it(data: st.DataObject, character: str) -> None:
    for tokenizer in tokenizers("안é"):
        garbage = data.draw(emitted(tokenizer.size))
        spelled = tokenizer.encode(character).tolist()
        shown, rest = stream(tokenizer, [*spelled, *garbage, *spelled])
        assert ("".join(shown) + rest).startswith(character)
        assert "".join(shown).endswith(character)
        assert rest == ""


def test_garbage_is_not_held_back_for_ever() -> None:
    for tokenizer, token in [(ByteTokenizer(), 0x80), (CharTokenizer("a"), 1 + 8), (CharTokenizer("a"), 1 + 16)]:
        shown, rest = stream(tokenizer, [token] * 100)
        assert len("".join(shown)) >= 92  # a character has at most 8 tokens
        assert len(rest) <= 8


def test_half_a_byte_makes_no_sense_alone() -> None:
    tokenizer = CharTokenizer("a")
    a, high, low = 0, 1 + 0x6, 17 + 0x2  # the two halves of "b"
    assert decode(tokenizer, [high, low]) == "b"
    for tokens in ([high], [low], [high, a], [a, low], [high, high], [low, high]):
        text = decode(tokenizer, tokens)
        assert "\ufffd" in text
        assert ("a" in text) == (a in tokens)
        assert "b" not in text
    assert decode(tokenizer, [low, high, low, high]) == "\ufffdb\ufffd"


@given(st.data())
def test_tokens_decode_together_as_they_do_one_by_one(data: st.DataObject) -> None:
    tokenizer: Tokenizer = data.draw(st.sampled_from([ByteTokenizer(), CharTokenizer("ab가é")]))
    text = data.draw(st.text("ab가é한𝄞", max_size=12))
    tokens = tokenizer.encode(text).tolist()
    for at in data.draw(st.lists(st.integers(0, max(0, len(tokens) - 1)), max_size=3)):
        if tokens:
            tokens[at] = data.draw(st.integers(0, tokenizer.size - 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(tokens)), max_size=3)))
    together, one_by_one = TextDecoder(tokenizer), TextDecoder(tokenizer)
    for begin, end in itertools.pairwise([0, *cuts, len(tokens)]):
        expected = "".join(one_by_one.feed(token) for token in tokens[begin:end])
        assert together.feed_all(tokens[begin:end]) == expected
    assert together.flush() == one_by_one.flush()
