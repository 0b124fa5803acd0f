"""Figures of labels over time, against cases counted by hand after the definitions of MS-TCN's eval.py."""

import numpy as np
import pytest

from unrolled.metrics import segments
from unrolled.metrics.segments import Segment, edit_score, overlapping


def labels(*runs: tuple[int, int]) -> np.ndarray:
    """(label, how long) each."""
    return np.concatenate([np.full(length, label) for label, length in runs])


TRUE = labels((0, 4), (1, 10), (2, 6))
PREDICTED = labels((0, 4), (1, 4), (3, 2), (1, 4), (2, 6))
"""The second segment is torn in two, each half a part 0.4 of it."""


def test_segments_are_runs_and_the_background_is_none() -> None:
    assert segments.segments(np.array([3, 3, 1, 1, 1, 3])) == [Segment(0, 2, 3), Segment(2, 5, 1), Segment(5, 6, 3)]
    assert segments.segments(np.array([3, 3, 1, 1, 1, 3]), background=3) == [Segment(2, 5, 1)]
    assert segments.segments(np.zeros(0, dtype=int)) == []


@pytest.mark.parametrize(
    ("overlap", "counts"),
    [
        (0.10, (3, 2, 0)),  # the second half finds its segment taken; label 3 is nowhere
        (0.25, (3, 2, 0)),
        (0.40, (3, 2, 0)),  # 4 of 10 is enough
        (0.50, (2, 3, 1)),
    ],
)
def test_a_torn_segment_is_right_once_and_only_where_it_overlaps_enough(
    overlap: float, counts: tuple[int, int, int]
) -> None:
    found = overlapping(segments.segments(TRUE), segments.segments(PREDICTED), overlap)
    assert found == counts


def test_a_segment_is_compared_to_the_one_of_its_label_that_it_overlaps_most() -> None:
    true = [Segment(0, 4, 1), Segment(6, 10, 1)]
    assert overlapping(true, [Segment(3, 10, 1)], 0.5) == (1, 0, 1)  # 1 of 10, and 4 of 7
    assert overlapping(true, [Segment(3, 10, 1)], 0.6) == (0, 1, 2)
    assert overlapping(true, [Segment(0, 4, 2)], 0.1) == (0, 1, 2)  # another label
    assert overlapping(true, [Segment(4, 6, 1)], 0.1) == (0, 1, 2)  # it touches, and has no frame in common
    assert overlapping([], [Segment(0, 4, 1)], 0.1) == (0, 1, 0)
    assert overlapping(true, [], 0.1) == (0, 0, 2)


def test_the_edit_score_is_levenshteins_distance_of_the_orders() -> None:
    def score(true: str, predicted: str) -> float:
        return edit_score(*([Segment(n, n + 1, ord(c)) for n, c in enumerate(word)] for word in (true, predicted)))

    assert score("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert score("abc", "abc") == 1.0 and score("", "") == 1.0
    assert score("abc", "") == 0.0 and score("a", "bcd") == 0.0


def test_the_scores_of_several_clips() -> None:
    """By hand: 18 of 20 frames and 6 of 6; hits 4, wrong 2, missed 0 at 0.25, and 3, 3, 1 at 0.5; edit 3 of 5, 1."""
    other = labels((4, 6))
    found = segments.scores([TRUE, other], [PREDICTED, other])
    assert found["accuracy"] == pytest.approx(24 / 26)
    assert found["f1_10"] == found["f1_25"] == pytest.approx(2 * 4 / (2 * 4 + 2))
    assert found["f1_50"] == pytest.approx(2 * 3 / (2 * 3 + 3 + 1))
    assert found["edit"] == pytest.approx((3 / 5 + 1) / 2)


def test_the_background_counts_as_a_frame_and_is_no_segment() -> None:
    found = segments.scores([labels((0, 5), (1, 5))], [labels((0, 6), (1, 4))], background=0)
    assert found["accuracy"] == 0.9 and found["f1_50"] == 1.0 and found["edit"] == 1.0
    nothing = segments.scores([labels((0, 5))], [labels((0, 5))], background=0)
    assert nothing["f1_50"] == 1.0 and nothing["accuracy"] == 1.0
