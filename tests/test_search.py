"""Writing greedily and by drawing, token by token; ties, and what is refused."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from helpers import assert_one_sentence
from search_helpers import (
    BEGIN,
    END,
    HIDDEN,
    KINDS,
    LIMITS,
    SENTENCES,
    allowed,
    assert_same,
    decided,
    make,
    recomputed,
)
from torch import Tensor

from unrolled.cells import CELLS
from unrolled.decoding.beam import highest
from unrolled.decoding.sampling import Sampling, draw, probabilities
from unrolled.decoding.search import Limits, Step, beam_search, greedy, sample, stepper
from unrolled.errors import InputError, UnrolledError
from unrolled.nn import Recurrent
from unrolled.topologies import ManyToMany, Memory


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_whole_sequence(kind: str) -> None:
    writing = make(kind, seed=5)
    limits = Limits(BEGIN, END, 9, min_length=2, no_repeat_ngram=2)
    drawn = sample(writing.step, writing.start, limits, Sampling(top_k=3), range(SENTENCES))
    best = [texts[0] for texts in beam_search(writing.step, writing.start, limits, 4, 1.0)]
    for row, (one, other) in enumerate(zip(best, drawn, strict=True)):
        assert one.log_probability == pytest.approx(recomputed(writing, row, one.tokens), abs=1e-9)
        assert one.score == pytest.approx(one.log_probability / ((6 + len(one.tokens)) / 6), abs=1e-9)
        assert other.log_probability == pytest.approx(recomputed(writing, row, other.tokens), abs=1e-9)
        assert other.score == other.log_probability


@pytest.mark.parametrize("limits", [LIMITS["plain"], LIMITS["no bigram twice, at least 9"]], ids=["plain", "limits"])
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_takes_the_likeliest(kind: str, limits: Limits) -> None:
    writing = make(kind, seed=2)
    ours = greedy(writing.step, writing.start, limits)
    for row in range(SENTENCES):
        text: list[int] = []
        while True:
            scores = writing.scores(row, torch.tensor([BEGIN, *text]))[-1]
            token = max(allowed(text, len(scores), limits), key=lambda t: scores[t])
            if token == END:
                break
            text.append(token)
        assert ours[row].tokens == text
    for others in (
        [h for (h,) in beam_search(writing.step, writing.start, limits, 1)],
        sample(writing.step, writing.start, limits, Sampling(temperature=0), range(SENTENCES)),
    ):
        for one, other in zip(ours, others, strict=True):
            assert_same([one], [other])


@pytest.mark.parametrize("how", [Sampling(), Sampling(0.7, top_k=4, top_p=0.9), Sampling(2.0, min_p=0.1)], ids=str)
def test_sampling_draws_each_sentence_from_its_own_generator(how: Sampling) -> None:
    writing, limits = make("dot", seed=4), Limits(BEGIN, END, 9, min_length=3, no_repeat_ngram=2)
    seeds = [11, 5, 5, 0, 7, 123]
    ours = sample(writing.step, writing.start, limits, how, seeds)
    for row, seed in enumerate(seeds):
        generator, text = np.random.Generator(np.random.PCG64(seed)), []
        while True:
            scores = writing.scores(row, torch.tensor([BEGIN, *text]))[-1].numpy()
            masked = np.full_like(scores, -np.inf)
            legal = allowed(text, len(scores), limits)
            masked[legal] = scores[legal]
            token = int(draw(probabilities(masked[None], how), np.array([generator.random()]))[0])
            if token == END:
                break
            text.append(token)
        assert ours[row].tokens == text
    assert len({tuple(h.tokens) for h in ours}) > 3


def test_sampling_follows_the_probabilities() -> None:
    writing = make("text", seed=4)
    many = writing.start.select(torch.zeros(4000, dtype=torch.long))
    drawn = sample(writing.step, many, Limits(BEGIN, END, 1), Sampling(), range(4000))
    p = writing.scores(0, torch.tensor([BEGIN]))[0].softmax(0)
    for token in range(len(p)):
        share = sum(h.tokens == ([] if token == END else [token]) for h in drawn) / 4000
        assert abs(share - float(p[token])) < 4 * math.sqrt(0.25 / 4000)


def test_of_equal_tokens_the_lower_comes_first() -> None:
    scores = torch.randint(3, (50, 40), generator=torch.Generator().manual_seed(1)).float()
    scores[0, 3:] = scores[1, 1:] = -torch.inf
    for k in (1, 2, 5, 39, 40, 41):
        expected = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
        real = scores.gather(1, expected) > -torch.inf  # what is not allowed has no order
        assert torch.equal(highest(scores, k)[real], expected[real])

    def same(tokens: Tensor, state: tuple[Tensor, ...], memory: Memory) -> tuple[Tensor, tuple[Tensor, ...], None]:
        return torch.zeros(len(tokens), 50), state, None  # no opinion at all

    start = Memory((torch.zeros(1, 2, 1),))
    found = beam_search(same, start, Limits(0, None, 2), 4, keep=4)
    assert [[h.tokens for h in texts] for texts in found] == [[[0, 0], [0, 1], [0, 2], [0, 3]]] * 2
    assert [h.tokens for h in greedy(same, start, Limits(0, None, 3))] == [[0, 0, 0]] * 2


def test_only_tokens_that_may_be_written() -> None:
    torch.manual_seed(1)
    model = decided(ManyToMany(Recurrent(CELLS["rnn"], 9, HIDDEN), 9))
    start = Memory(model.initial_state(3))
    drawn = sample(stepper(model, tokens=4), start, Limits(8, None, 200), Sampling(), range(3))
    assert {t for h in drawn for t in h.tokens} == {0, 1, 2, 3}
    assert all(h.alignment is None and len(h.tokens) == 200 for h in drawn)


def test_a_search_of_no_sentence_finds_nothing() -> None:
    writing = make("text")
    nobody = writing.start.select(torch.zeros(0, dtype=torch.long))
    assert beam_search(writing.step, nobody, Limits(BEGIN, END, 5)) == []


def test_what_is_refused() -> None:
    writing, limits = make("text"), Limits(BEGIN, END, 5)

    def step(scores: list[float]) -> Step:
        return lambda tokens, state, memory: (torch.tensor([scores]).expand(len(tokens), -1), state, None)

    def drawn(scores: list[float]) -> Callable[[], object]:
        return lambda: sample(step(scores), writing.start, limits, Sampling(), range(SENTENCES))

    for call, kind in (
        (lambda: Limits(BEGIN, END, -1), InputError),
        (lambda: Limits(BEGIN, None, 0), InputError),
        (lambda: Limits(BEGIN, END, 3, min_length=4), InputError),
        (lambda: Limits(BEGIN, END, 3, no_repeat_ngram=-1), InputError),
        (lambda: beam_search(writing.step, writing.start, limits, 0), InputError),
        (lambda: beam_search(writing.step, writing.start, limits, 3, keep=4), InputError),
        (lambda: beam_search(writing.step, writing.start, limits, 3, -1.0), InputError),
        (lambda: greedy(step([0.0, math.nan, 0.0]), writing.start, limits), UnrolledError),
        (lambda: greedy(step([0.0, math.inf, 0.0]), writing.start, limits), UnrolledError),
        (lambda: greedy(step([0.0, 0.0, -math.inf]), writing.start, limits), UnrolledError),  # no end, ever
        (drawn([0.0, math.nan, 0.0]), UnrolledError),
        (drawn([0.0, 0.0, -math.inf]), UnrolledError),
    ):
        with pytest.raises(kind) as error:
            call()
        assert_one_sentence(str(error.value))
