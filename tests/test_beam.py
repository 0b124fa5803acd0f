"""Beam search over a batch, against the plain search and every text there is."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from search_helpers import BEGIN, END, KINDS, LIMITS, SENTENCES, assert_same, make, plain, recomputed
from torch import Tensor

from unrolled.cells import State
from unrolled.decoding.sampling import Sampling
from unrolled.decoding.search import Hypothesis, Limits, beam_search, sample
from unrolled.topologies import Memory


@pytest.mark.parametrize("limits", LIMITS.values(), ids=list(LIMITS))
@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_one_plain_search_after_the_other(kind: str, limits: Limits) -> None:
    writing = make(kind, seed=KINDS.index(kind), cell="lstm" if kind in ("dot", "vector") else "gru")
    if limits.end is None and kind in ("none", "dot", "additive"):
        limits = replace(limits, end=END)  # a translation has an end; texts need not
    for beams, penalty, keep in ((1, 0.0, 1), (2, 0.0, 2), (3, 1.0, 1), (4, 0.6, 4), (5, 0.0, 1), (6, 2.0, 3)):
        found = beam_search(writing.step, writing.start, limits, beams, penalty, keep)
        assert len(found) == SENTENCES
        for row, texts in enumerate(found):
            assert_same(texts, plain(writing, row, limits, beams, penalty, keep))


def test_the_plain_searches_differ() -> None:
    """So that the comparison above has something to find: beams, penalties and limits each change the texts."""
    writing = make("none")

    def texts(limits: Limits, beams: int, penalty: float = 0.0) -> list[list[int]]:
        return [h.tokens for (h,) in beam_search(writing.step, writing.start, limits, beams, penalty)]

    first = texts(LIMITS["plain"], 5)
    assert len({len(t) for t in first}) > 2  # sentences end, and leave, at different times
    assert texts(LIMITS["plain"], 1) != first
    assert texts(LIMITS["plain"], 5, 2.0) != first
    others = [texts(limits, 5) for limits in LIMITS.values() if limits.end is not None]
    assert len({str(o) for o in others}) == len(others)


@pytest.mark.parametrize("penalty", [0.0, 1.5])
@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_as_wide_as_the_tree_finds_the_best_text_there_is(kind: str, penalty: float) -> None:
    writing, longest = make(kind, words=4, seed=3), 3
    others = [t for t in range(4) if t != END]
    texts = [list(t) for n in range(longest + 1) for t in itertools.product(others, repeat=n)]
    found = beam_search(writing.step, writing.start, Limits(BEGIN, END, longest), len(texts), penalty, len(texts))
    for row, ours in enumerate(found):
        ranked = []
        for text in texts:
            log_probability = recomputed(writing, row, text)
            ranked.append((log_probability / ((6 + len(text)) / 6) ** penalty, text))
        ranked.sort(reverse=True)
        assert [h.tokens for h in ours] == [text for _, text in ranked]
        assert [h.score for h in ours] == pytest.approx([score for score, _ in ranked], abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_is_the_same_in_any_batch(kind: str) -> None:
    """With its own begin and its own longest length, which counts more than the shortest."""
    writing, begins, longest = make(kind, seed=6), torch.tensor([1, 0, 3, 1, 4, 5]), torch.tensor([2, 9, 4, 7, 1, 5])

    def texts(rows: list[int]) -> list[list[Hypothesis]]:
        start, limits = writing.start.select(torch.tensor(rows)), Limits(begins[rows], END, longest[rows], min_length=3)
        drawn = sample(writing.step, start, limits, Sampling(), rows)
        wide = beam_search(writing.step, start, limits, 4, 0.8, keep=3)
        return [[*beams, one] for beams, one in zip(wide, drawn, strict=True)]

    together = texts(list(range(SENTENCES)))
    for rows in ([4, 1, 3], [5, 5, 0], *([r] for r in range(SENTENCES))):
        for row, ours in zip(rows, texts(rows), strict=True):
            assert_same(ours, together[row])
    for row in range(SENTENCES):
        limits = Limits(int(begins[row]), END, longest[row], min_length=3)
        assert_same(together[row][:3], plain(writing, row, limits, 4, 0.8, keep=3))


def test_a_text_of_the_greatest_length_can_still_become_the_best() -> None:
    """The search must not stop at the end of "", though nothing longer is as probable."""

    def step(tokens: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        return torch.tensor([[0.0, -math.inf, 0.1]]).expand(len(tokens), -1), state, None

    start = Memory((torch.zeros(1, 1, 1),))
    (found,) = beam_search(step, start, Limits(BEGIN, END, 1), 2, length_penalty=12.0, keep=2)
    assert [h.tokens for h in found] == [[0], []]
    assert found[0].log_probability < found[1].log_probability
    assert found[0].score == pytest.approx(found[0].log_probability / (7 / 6) ** 12)
    assert beam_search(step, start, Limits(BEGIN, END, 1), 2, length_penalty=12.0) == [found[:1]]
