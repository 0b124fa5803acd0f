"""Lanes and chunks: each prediction exactly once, and the carried state always the right one."""

import json
from collections.abc import Callable, Iterator
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from unrolled.data.corpus import Tokens
from unrolled.data.streams import IGNORED, Batch, LaneStream
from unrolled.tasks.language_model import Network, evaluate
from unrolled.tasks.models import LanguageModel

layouts = st.lists(st.integers(1, 12), min_size=1, max_size=8)
"""Tokens in each document; a document of one token predicts nothing."""
lane_counts = st.integers(1, 5)
chunks = st.one_of(st.none(), st.integers(1, 7))


def tokens_of(layout: list[int]) -> Tokens:
    """Every token differs from every other, so that a token says where it stands."""
    ids = np.arange(sum(layout), dtype=np.uint16)
    return Tokens(ids, np.cumsum([0, *layout[:-1]]).astype(np.int64))


def all_inputs(layout: list[int]) -> list[int]:
    """Every token but the last of each document: each is the input of one prediction."""
    ends = np.cumsum(layout).tolist()
    return [token for token in range(ends[-1]) if token + 1 not in ends]


def one_pass(layout: list[int], lanes: int, steps: int | None) -> list[Batch]:
    """All batches without repetition; one that never ended would be cut."""
    return list(islice(LaneStream(tokens_of(layout), lanes, steps, repeat=False), 200))


def rows(batch: Batch) -> Iterator[list[int]]:
    """The inputs of each row without padding."""
    steps, lanes = batch.inputs.shape
    lengths = [steps] * lanes if batch.lengths is None else batch.lengths.tolist()
    return (batch.inputs[:length, row].tolist() for row, length in enumerate(lengths))


def in_lanes(batches: list[Batch]) -> list[list[int]]:
    """The inputs of each row over all batches."""
    whole: list[list[int]] = [[] for _ in range(batches[0].inputs.shape[1])]
    for batch in batches:
        for lane, row in zip(whole, rows(batch), strict=True):
            lane += row
    return whole


@given(layouts, lane_counts, chunks)
@example([1, 1, 1, 9, 1], 3, 2)
@example([5, 5], 2, 4)  # a lane ends where a document ends
def test_one_pass_predicts_everything_once(layout: list[int], lanes: int, steps: int | None) -> None:
    count, batches = LaneStream(tokens_of(layout), lanes, steps).lanes, one_pass(layout, lanes, steps)
    expected = all_inputs(layout)
    if not expected:
        assert batches == []
        return
    found = in_lanes(batches)
    assert len(found) == count
    assert [token for lane in found for token in lane] == expected  # contiguous, in order, nothing twice
    assert max(map(len, found)) - min(map(len, found)) <= 1


@given(layouts, lane_counts, chunks, st.booleans())
def test_targets_follow_inputs_and_padding_is_ignored(
    layout: list[int], lanes: int, steps: int | None, repeat: bool
) -> None:
    stream = LaneStream(tokens_of(layout), lanes, steps, repeat)
    for batch in islice(stream, 10):
        length, width = batch.inputs.shape
        assert batch.targets.shape == (length, width)
        assert batch.carry.shape == (width,)
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert batch.carry.dtype == torch.bool
        assert 1 <= length <= stream.longest
        real = torch.ones(length, width, dtype=torch.bool)
        if batch.lengths is not None:
            assert batch.lengths.shape == (width,)
            real = torch.arange(length)[:, None] < batch.lengths
            assert not real.all()  # otherwise no lengths are needed
            assert int(batch.lengths.max()) == length
        assert (batch.targets[real] == batch.inputs[real] + 1).all()
        assert (batch.targets[~real] == IGNORED).all()
        assert ((batch.inputs >= 0) & (batch.inputs < sum(layout))).all()


@given(layouts, lane_counts, chunks, st.booleans())
def test_the_state_is_carried_exactly_where_a_row_goes_on(
    layout: list[int], lanes: int, steps: int | None, repeat: bool
) -> None:
    """A chunk goes on from the last one if its first input is what the last one predicted last."""
    batches = list(islice(LaneStream(tokens_of(layout), lanes, steps, repeat), 40))
    if not batches:
        assert all_inputs(layout) == []
        return
    assert not batches[0].carry.any()
    for before, after in pairwise(batches):
        for old, new, carry in zip(rows(before), rows(after), after.carry.tolist(), strict=True):
            if new:
                assert carry == (old[-1] + 1 == new[0])


@given(layouts.filter(all_inputs), lane_counts, chunks)
def test_lanes_repeat_for_ever(layout: list[int], lanes: int, steps: int | None) -> None:
    once = in_lanes(one_pass(layout, lanes, steps))
    stream = LaneStream(tokens_of(layout), lanes, steps)
    found = in_lanes([next(stream) for _ in range(60)])
    assert len(found) == len(once)
    for lane, row in zip(once, found, strict=True):
        assert row == (lane * (len(row) // len(lane) + 1))[: len(row)]
    assert all(len(row) >= 60 for row in found)


@given(layouts.filter(all_inputs), lane_counts, chunks, st.integers(0, 20))
def test_a_cursor_finds_the_place_again(layout: list[int], lanes: int, steps: int | None, before: int) -> None:
    stream = LaneStream(tokens_of(layout), lanes, steps)
    for _ in range(before):
        next(stream)
    again = LaneStream(tokens_of(layout), lanes, steps)
    again.seek(json.loads(json.dumps(stream.cursor())))
    for _ in range(8):
        for ours, theirs in zip(next(stream), next(again), strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.equal(ours, theirs)


def test_a_batch_keeps_its_numbers_when_the_stream_goes_on() -> None:
    stream = LaneStream(tokens_of([7, 5, 9]), 2, 3)
    kept = [next(stream) for _ in range(6)]
    copies = [[None if t is None else t.clone() for t in batch] for batch in kept]
    for _ in range(6):
        next(stream)
    for batch, copy in zip(kept, copies, strict=True):
        for ours, then in zip(batch, copy, strict=True):
            assert (ours is None and then is None) or torch.equal(ours, then)


def test_without_steps_a_chunk_is_a_whole_document() -> None:
    assert LaneStream(tokens_of([4, 1, 7, 2]), 1, None).longest == 6
    assert [list(rows(batch)) for batch in one_pass([4, 1, 7, 2], 1, None)] == [
        [[0, 1, 2]],
        [[5, 6, 7, 8, 9, 10]],
        [[12]],
    ]


def test_without_steps_and_documents_a_chunk_is_a_whole_lane() -> None:
    assert LaneStream(tokens_of([31]), 3, None).longest == 10
    (batch,) = one_pass([31], 3, None)
    assert list(rows(batch)) == [list(range(10)), list(range(10, 20)), list(range(20, 30))]
    assert batch.lengths is None


@pytest.mark.parametrize(
    ("predictions", "lanes", "steps", "expected"),
    [(99, 4, 10, 4), (39, 4, 10, 3), (19, 4, 10, 1), (5, 4, 10, 1), (3, 8, None, 3), (0, 4, 10, 1)],
)
def test_a_short_text_gets_fewer_lanes(predictions: int, lanes: int, steps: int | None, expected: int) -> None:
    assert LaneStream(tokens_of([predictions + 1]), lanes, steps).lanes == expected


# With a real model

LAYOUT = [23, 1, 40, 2, 9, 31]


@pytest.fixture(params=["lstm", "gru", "rnn"])
def model(request: pytest.FixtureRequest, make_model: Callable[..., LanguageModel]) -> LanguageModel:
    made = make_model("abcdefgh \n", cell=request.param, layers=2)
    made.network.double()
    return made


def random_tokens(layout: list[int], size: int) -> Tokens:
    ids = np.random.default_rng(3).integers(0, size, sum(layout)).astype(np.uint8)
    return Tokens(ids, tokens_of(layout).documents)


def scores_of(network: Network, ids: np.ndarray) -> torch.Tensor:
    """(T, V): one pass from an empty state."""
    inputs = torch.from_numpy(ids.astype(np.int64))[:, None]
    batch = Batch(inputs, inputs, None, torch.zeros(1, dtype=torch.bool))
    return network.scores(batch, None)[0][:, 0]


@torch.no_grad()
@pytest.mark.parametrize(("lanes", "steps"), [(1, 7), (3, 7), (4, 1), (3, None)])
def test_carried_chunk_by_chunk_the_scores_are_those_of_one_pass(
    model: LanguageModel, lanes: int, steps: int | None
) -> None:
    """One pass over each document, or over the part of it that lies in the lane."""
    tokens = random_tokens(LAYOUT, model.tokenizer.size)
    state, found = None, {}
    ours = LaneStream(tokens, lanes, steps, repeat=False)
    # the same stream over tokens that say where they stand
    for batch, places in zip(ours, one_pass(LAYOUT, lanes, steps), strict=True):
        scores, state = model.network.scores(batch, state)
        for row, where in enumerate(rows(places)):
            found |= {place: scores[t, row] for t, place in enumerate(where)}
    expected = {}
    for lane in in_lanes(one_pass(LAYOUT, lanes, None)):
        cuts = [0, *(i for i in range(1, len(lane)) if lane[i] != lane[i - 1] + 1), len(lane)]
        for begin, end in pairwise(cuts):
            part = lane[begin:end]
            expected |= dict(zip(part, scores_of(model.network, tokens.ids[part]), strict=True))
    assert sorted(found) == sorted(expected) == all_inputs(LAYOUT)
    for place, scores in expected.items():
        torch.testing.assert_close(found[place], scores)


@torch.no_grad()
def test_evaluation_is_the_mean_over_characters_of_each_document_alone(model: LanguageModel) -> None:
    tokenizer = model.tokenizer
    documents = ["abc dé f", "b", "한글 is Korean\n", "hgfedcba"]
    ids = [tokenizer.encode(d) for d in documents]
    tokens = Tokens(np.concatenate(ids).astype(np.uint8), np.cumsum([0, *map(len, ids[:-1])]))
    nats, characters = 0.0, 0
    for row in ids:
        scores = scores_of(model.network, row[:-1]) if len(row) > 1 else torch.zeros(0, tokenizer.size)
        log_p = torch.log_softmax(scores, -1)
        nats -= sum(float(log_p[t, row[t + 1]]) for t in range(len(row) - 1))
        characters += int(tokenizer.starts[row[1:]].sum())
    result = evaluate(model.network, tokenizer, tokens, torch.device("cpu"))
    assert characters == sum(len(d) - 1 for d in documents)
    assert result.metrics["val_loss"] == pytest.approx(nats / characters)
    assert result.metrics["bits_per_character"] == pytest.approx(nats / characters / np.log(2))
