"""Sampling: probabilities against written-out references, one uniform number a token, the same text for a seed."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unrolled.data.tokenizers import TextDecoder
from unrolled.decoding.sampling import Sampling, StopAt, draw, generate, probabilities
from unrolled.decoding.writers import TorchWriter
from unrolled.errors import InputError
from unrolled.tasks.models import LanguageModel

Make = Callable[..., LanguageModel]
BAD = [
    {"temperature": -0.1},
    {"temperature": math.nan},
    {"temperature": math.inf},
    {"top_k": -1},
    {"top_p": 0.0},
    {"top_p": 1.1},
    {"top_p": math.nan},
    {"min_p": -0.1},
    {"min_p": 1.1},
    {"min_p": math.nan},
]


def scores_for(*p: float) -> np.ndarray:
    return np.log(p)


def reference(scores: list[float], how: Sampling) -> list[float]:
    """The filters one after the other, each renormalised, in plain Python."""
    weights = [math.exp((s - max(scores)) / how.temperature) for s in scores]
    p = [w / sum(weights) for w in weights]
    ranked = sorted(range(len(p)), key=lambda i: (-p[i], i))
    if how.top_k:
        p = [x if i in ranked[: how.top_k] else 0.0 for i, x in enumerate(p)]
        p = [x / sum(p) for x in p]
    if how.top_p < 1:
        kept, reached = set(), 0.0
        for i in ranked:
            if reached >= how.top_p:
                break
            kept.add(i)
            reached += p[i]
        p = [x if i in kept else 0.0 for i, x in enumerate(p)]
        p = [x / sum(p) for x in p]
    p = [x if x >= how.min_p * max(p) else 0.0 for x in p]
    return [x / sum(p) for x in p]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, [0.5, 0.125, 0.25, 0.125]),
        ({"temperature": 0.5}, [16 / 22, 1 / 22, 4 / 22, 1 / 22]),
        ({"temperature": 0.0}, [1, 0, 0, 0]),
        ({"top_k": 1}, [1, 0, 0, 0]),
        ({"top_k": 2}, [2 / 3, 0, 1 / 3, 0]),
        ({"top_k": 3}, [4 / 7, 1 / 7, 2 / 7, 0]),  # of two equally likely, the lower number
        ({"top_k": 4}, [0.5, 0.125, 0.25, 0.125]),
        ({"top_k": 99}, [0.5, 0.125, 0.25, 0.125]),
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
        ({"top_p": 0.49}, [1, 0, 0, 0]),
        ({"top_p": 0.51}, [2 / 3, 0, 1 / 3, 0]),
        ({"top_p": 0.8}, [4 / 7, 1 / 7, 2 / 7, 0]),
        ({"top_p": 0.9}, [0.5, 0.125, 0.25, 0.125]),
        ({"min_p": 0.2}, [0.5, 0.125, 0.25, 0.125]),
        ({"min_p": 0.3}, [2 / 3, 0, 1 / 3, 0]),
        ({"min_p": 1.0}, [1, 0, 0, 0]),
        ({"top_k": 2, "top_p": 0.6}, [1, 0, 0, 0]),  # top-k first: two thirds reach 0.6
        ({"temperature": 2.0, "min_p": 0.6}, [2**0.5 / (1 + 2**0.5), 0, 1 / (1 + 2**0.5), 0]),
    ],
)
def test_filters_by_hand(how: dict[str, float], expected: list[float]) -> None:
    found = probabilities(scores_for(0.5, 0.125, 0.25, 0.125), Sampling(**how))
    assert found.tolist() == pytest.approx(expected, abs=1e-15)


def test_combined_filters_against_the_reference() -> None:
    scores = np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32) * 2
    for t, k, p, m in itertools.product((0.3, 1.0, 2.5), (0, 1, 3, 12), (0.15, 0.6, 0.95, 1.0), (0.0, 0.05, 0.4)):
        how = Sampling(temperature=t, top_k=k, top_p=p, min_p=m)
        found = probabilities(scores, how)
        assert found.dtype == np.float64
        for row, ours in zip(scores.tolist(), found.tolist(), strict=True):
            assert ours == pytest.approx(reference(row, how), abs=1e-12)


def test_equal_scores_leave_the_first_tokens() -> None:
    for kept, how in [(3, Sampling(top_k=3)), (4, Sampling(top_p=0.5)), (8, Sampling(min_p=1.0))]:
        assert probabilities(np.zeros((2, 8)), how).tolist() == [[1 / kept] * kept + [0.0] * (8 - kept)] * 2


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-300, 5e-324, 1e300])
@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_probabilities_stay_finite(temperature: float, scale: float) -> None:
    """A very low temperature is nearly greedy, a very high one nearly uniform; both are numbers."""
    p = probabilities(np.array([[-scale, scale, 0.5 * scale]]), Sampling(temperature=temperature))
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1)
    assert p[0, 1] == p.max()


@pytest.mark.parametrize("how", BAD, ids=str)
def test_bad_settings_are_refused_under_the_name_of_their_flag(how: dict[str, float], make_model: Make) -> None:
    flag = "--" + next(iter(how)).replace("_", "-")
    with pytest.raises(InputError, match=f"^{flag} is "):
        Sampling(**how)
    with pytest.raises(InputError, match=f"^{flag} is "):
        make_model().sample(length=3, **how)


# Drawing


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), st.floats(0, 1, exclude_max=True))
def test_draw_inverts_the_cumulated_distribution(weights: list[int], u: float) -> None:
    p = np.array([weights]) / sum(weights)
    token = draw(p, np.array([u])).item()
    assert weights[token] > 0
    assert sum(weights[:token]) / sum(weights) <= u + 1e-12
    assert sum(weights[: token + 1]) / sum(weights) >= u - 1e-12


def test_draw_at_the_edges() -> None:
    p = np.array([[0, 0.25, 0, 0.75, 0, 0]])
    last = math.nextafter(1, 0)
    for u, expected in [(0.0, 1), (math.nextafter(0.25, 0), 1), (0.25, 3), (last, 3)]:
        assert draw(p, np.array([u])).tolist() == [expected]
    short = np.array([[0.3, 0.3, 0.3, 0]])  # rounding: does not quite sum to 1
    assert draw(short, np.array([last])).tolist() == [2]


def test_many_draws_follow_the_probabilities() -> None:
    p = np.array([0.4, 0.0, 0.25, 0.05, 0.3])
    count = 40_000
    u = np.random.default_rng(5).random(count)
    found = np.bincount(draw(np.broadcast_to(p, (count, 5)), u), minlength=5)
    assert found[1] == 0
    expected = p * count
    chi_square = float(((found - expected)[p > 0] ** 2 / expected[p > 0]).sum())
    assert chi_square < 16.27  # exceeded once in a thousand times with 3 degrees of freedom


def test_a_row_is_the_same_alone_and_among_others() -> None:
    table = torch.randn(7, 7, generator=torch.Generator().manual_seed(2))

    def tokens(seeds: list[int]) -> list[list[int]]:
        writer = TorchWriter(lambda tokens: table[tokens], table[:1].expand(len(seeds), -1))
        blocks = generate(writer, Sampling(), seeds, lambda: 50)
        return list(itertools.islice(itertools.chain.from_iterable(block.tolist() for block in blocks), 50))

    together = tokens([3, 9, 4])
    for row, seed in enumerate([3, 9, 4]):
        assert [t[row] for t in together] == [t[0] for t in tokens([seed])]
    assert [t[0] for t in together] != [t[1] for t in together]


# Stop strings


@given(st.text("ab", max_size=20), st.text("ab", min_size=1, max_size=4), st.data())
def test_stop_cuts_as_if_the_text_were_whole(text: str, stop: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    stopper, shown, fed = StopAt(stop), "", ""
    for begin, end in itertools.pairwise([0, *cuts, len(text)]):
        shown += stopper.feed(text[begin:end])
        fed += text[begin:end]
        if stop in fed:
            assert shown == fed[: fed.index(stop)]
        else:  # nothing is held back but what may begin the stop string
            held = fed[len(shown) :]
            assert shown + held == fed
            assert stop.startswith(held)
            assert held != stop
    assert stopper.stopped == (stop in text)
    assert shown + stopper.flush() == text.split(stop)[0]


@pytest.mark.parametrize("stop", [None, ""])
def test_without_a_stop_string_all_text_passes(stop: str | None) -> None:
    stopper = StopAt(stop)
    assert [stopper.feed(t) for t in ("a", "", "bc")] == ["a", "", "bc"]
    assert (stopper.flush(), stopper.stopped) == ("", False)


# A model

HOWS = [{}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.9, "min_p": 0.02}, {"temperature": 0.0}, {"stop": "a"}]


@pytest.mark.parametrize("how", HOWS, ids=str)
@pytest.mark.parametrize("characters", ["abcdefgh \n", None], ids=["char", "byte"])
def test_a_seed_gives_the_same_text_on_every_path(
    make_model: Make, characters: str | None, how: dict[str, object]
) -> None:
    model = make_model(characters)
    before = torch.get_rng_state()
    text = model.sample("bad ", 60, seed=5, **how)
    assert torch.equal(torch.get_rng_state(), before)  # training goes on as if nothing had been sampled
    assert model.sample("bad ", 60, seed=5, **how) == text
    assert "bad " + "".join(model.stream("bad ", 60, seed=5, **how)) == text
    many = model.sample_many(3, "bad ", 60, seed=4, **how)
    assert many == [model.sample("bad ", 60, seed=seed, **how) for seed in (4, 5, 6)]
    assert (len(set(many)) == 1) == (how.get("temperature") == 0)


@pytest.mark.parametrize("characters", ["abcdefgh \n", "가나다라", None], ids=["char", "korean", "byte"])
def test_length_counts_characters_of_valid_text(make_model: Make, characters: str | None) -> None:
    model = make_model(characters)
    for length in (0, 1, 2, 77):
        for seed in range(4):
            text = model.sample("한é", length, seed=seed)
            assert text.startswith("한é")
            assert len(text) == 2 + length
            assert text.encode().decode() == text


@pytest.mark.parametrize("characters", ["abcdefgh \n", None], ids=["char", "byte"])
def test_a_sample_ends_before_its_stop_string(make_model: Make, characters: str | None) -> None:
    model = make_model(characters)
    whole = model.sample("abc", 80, seed=2)[3:]
    for at in (0, 11, 40, 78):
        stop = whole[at : at + 2]
        assert model.sample("abc", 80, seed=2, stop=stop) == "abc" + whole.split(stop)[0]
    never = "no such text"
    assert never not in whole
    assert model.sample("abc", 80, seed=2, stop=never) == "abc" + whole
    assert model.sample("abc", 80, seed=2, stop=whole[-1:] + "한") == "abc" + whole  # its beginning is held back


@torch.no_grad()
@pytest.mark.parametrize("topology", ["many_to_many", "one_to_one"])
def test_a_long_prompt_is_read_whole_and_greedy_takes_the_likeliest(make_model: Make, topology: str) -> None:
    model = make_model(topology=topology, layers=2)
    model.network.double()
    prompt = ("bad cafe\n" * 400)[:3_001]
    state, decoder, expected = model.network.topology.initial_state(1), TextDecoder(model.tokenizer), ""
    for token in model.tokenizer.encode("\n" + prompt).tolist():  # a prompt is the beginning of a line
        scores, state = model.network.step(torch.tensor([token]), state)
    while len(expected) < 30:
        best = int(scores[0, : model.tokenizer.trained].argmax())
        expected += decoder.feed(best)
        scores, state = model.network.step(torch.tensor([best]), state)
    assert model.sample(prompt, 30, temperature=0) == prompt + expected[:30]


def test_unusable_requests_are_refused(make_model: Make) -> None:
    model = make_model()
    with pytest.raises(InputError, match="--length is -1"):
        model.sample("a", -1)
    with pytest.raises(InputError, match="--seed"):
        model.sample("a", 3, seed=-1)
    for count in (0, -2):
        with pytest.raises(InputError, match="--samples"):
            model.sample_many(count, "a", 3)
    with pytest.raises(InputError, match="not valid Unicode at character 1"):
        model.sample("a\udc80", 3)
