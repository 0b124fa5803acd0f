"""BLEU, ROUGE-L and CIDEr-D against golden values of the reference implementation.

The golden values were made with pycocoevalcap 1.2 (coco-caption for Python 3; its code and data are not here), with
Stanford's tokeniser, from the captions below. On coco-caption's own example (captions_val2014_fakecap_results, 1,000
pictures) this module gives what is published for it: BLEU 0.579, 0.404, 0.279, 0.191, ROUGE-L 0.396, CIDEr 0.600.
"""

import pytest

from unrolled.errors import InputError
from unrolled.metrics.captions import bleu, cider_d, exact, rouge_l, scores, words

CANDIDATES = [
    "A dog runs on the beach.",
    "two two two children play",
    "A man in a red jacket rides a bicycle down a very steep and very long hill in the rain",
    "",
    "Nothing of this is right",
    "snow",
]
REFERENCES = [
    ["A brown dog is running on the beach.", "The dog runs along a beach", "a dog's day at the sea: it runs!"],
    ["Two children play with a ball.", "two kids, playing", "Children don't sleep; two play", "two two play"],
    ["A cyclist in a red jacket.", "A man rides a bicycle down a hill in the rain"],
    ["A cat (black) sleeps", "a sleeping cat"],
    ["Three people sit at a table.", "People are having dinner"],
    ["snow on a mountain"],
]
"""A caption that ends early, one that repeats, one that is too long, an empty one, a wrong one, one without bigrams."""


def words_of(row: int) -> tuple[list[str], list[list[str]]]:
    return words(CANDIDATES[row]), [words(text) for text in REFERENCES[row]]


@pytest.mark.parametrize(
    "rows, golden",
    [
        (
            slice(None),
            {
                "bleu_1": 0.6486486486311177,
                "bleu_2": 0.6040404496750211,
                "bleu_3": 0.4894843837145981,
                "bleu_4": 0.3739093437462977,
                "rouge_l": 0.4319309052364862,
                "cider": 1.006023155340778,
            },
        ),
        (
            slice(2),  # no four words in a row are right
            {
                "bleu_1": 0.8300915601056766,
                "bleu_2": 0.7678035328646269,
                "bleu_3": 0.5357764459798668,
                "bleu_4": 7.279891096703384e-05,
                "rouge_l": 0.7408773786426793,
                "cider": 1.9054957346373347,
            },
        ),
        (
            slice(5, 6),  # of one picture all words are in all documents
            {
                "bleu_1": 0.049787068268290074,
                "bleu_2": 4.978706829318358e-05,
                "bleu_3": 4.978706830148144e-06,
                "bleu_4": 1.5744053386817196e-06,
                "rouge_l": 0.3609467455621302,
                "cider": 0.0,
            },
        ),
    ],
)
def test_scores_are_those_of_coco_caption(rows: slice, golden: dict[str, float]) -> None:
    found = scores(CANDIDATES[rows], REFERENCES[rows])
    assert list(found) == list(golden)
    assert found == pytest.approx(golden, rel=1e-9, abs=1e-15)


def test_each_captions_scores_are_those_of_coco_caption() -> None:
    written, true = zip(*map(words_of, range(len(CANDIDATES))), strict=True)
    rouge = [0.6963470319634703, 0.7854077253218884, 0.7488839285714286, 0.0, 0.0, 0.3609467455621302]
    cider = [2.2187946064370543, 1.5521487859466747, 0.8338826001596746, 0.0, 0.0, 1.4313129395012634]
    assert rouge_l(written, true) == pytest.approx(rouge, rel=1e-9)
    assert cider_d(written, true) == pytest.approx(cider, rel=1e-9)


@pytest.mark.parametrize(
    "caption, golden",
    [
        (
            "A dog's ball isn't in the \"red\" (big) box; can't it?",
            "a dog 's ball is n't in the red -lrb- big -rrb- box ca n't it",
        ),
        (
            "Long-sleeved T-shirt - black/white & 5.5 % off, $3 at 10:30 a.m.",
            "long-sleeved t-shirt black/white & 5.5 % off $ 3 at 10:30 a.m.",
        ),
        (
            "two dogs... run -- fast!! at 3pm?! [sic] {x} the boys' toys we're I'd they've",
            "two dogs run fast !! at 3pm ?! -lsb- sic -rsb- -lcb- x -rcb- the boys toys we 're i 'd they 've",
        ),
        (
            "café naïve “quoted” ‘single’ don’t – dash — em … ellipsis",
            "café naïve quoted single do n't dash em ellipsis",
        ),
        (
            "stop.go a,b 5x5 1/2 3-year-old No. 5 St. Louis vs. them A.",
            "stop.go a b 5x5 1/2 3-year-old no. 5 st. louis vs. them a.",
        ),
        ("A girl holding a horse 's lead .", "a girl holding a horse 's lead"),
    ],
)
def test_words_are_those_of_stanfords_tokeniser(caption: str, golden: str) -> None:
    assert " ".join(words(caption)) == golden


def test_a_caption_that_is_a_reference_is_right() -> None:
    """CIDEr's 10 is for a caption that is its only reference and that has no words of other pictures."""
    texts = ["a dog runs on sand", "two birds fly over water"]
    found = scores(texts, [[text] for text in texts])
    assert found == pytest.approx({**{f"bleu_{n}": 1 for n in range(1, 5)}, "rouge_l": 1, "cider": 10})


def test_of_two_equally_close_references_the_shorter_counts() -> None:
    """4 words beside references of 3 and 5: no brevity penalty, where one against the longer would be exp(-1/4)."""
    assert bleu([words("a b c d")], [[words("a b c d e"), words("a b x")]])[0] == pytest.approx(1)


@pytest.mark.parametrize("candidates, references", [([], []), (["a dog"], []), (["a dog"], [[]])])
def test_what_cannot_be_measured_is_said(candidates: list[str], references: list[list[str]]) -> None:
    with pytest.raises(InputError):
        scores(candidates, references)


def test_captions_without_spaces_are_compared_by_characters() -> None:
    """As words, a caption with one wrong character had nothing right."""
    references = [["一只狗在跑。", "狗在公园里跑"], ["两只鸟在水上飞。"]]
    written = ["一只狗在走", "两只鸟在水上飞"]
    found = scores(written, references)
    assert 0.5 < found["bleu_2"] < 1 and 0.5 < found["rouge_l"] < 1 and 5 < found["cider"] < 10
    assert exact(written, references) == 0.5
    apart = [[" ".join(text.strip("。")) for text in several] for several in references]
    assert found == scores([" ".join(text) for text in written], apart, words)


def test_what_was_written_never_decides_how_captions_are_cut() -> None:
    references = [["a dog runs"], ["two birds fly"]]
    assert scores(["狗", "adogruns"], references) == scores(["狗", "adogruns"], references, words)
    assert exact(["A dog runs.", "birds"], references) == 0.5
