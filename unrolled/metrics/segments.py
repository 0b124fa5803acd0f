"""How good a label for every frame is: by frames, and by the segments that equal labels in a row make.

Segments as in MS-TCN (Abu Farha & Gall 2019, arXiv:1903.01945, its `eval.py`): a predicted segment is right if it
overlaps a true one of its label, that no other has been right about, by at least a part of both together (intersection
over union). Two true segments of the same label without a frame between them are one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

OVERLAPS = (0.10, 0.25, 0.50)


class Segment(NamedTuple):
    begin: int
    end: int
    """The frame after the last"""
    label: int


def segments(labels: np.ndarray, background: int | None = None) -> list[Segment]:
    """Runs of equal labels (T,); those of the background are left out.

    >>> segments(np.array([2, 2, 0, 1, 1]), background=0)
    [Segment(begin=0, end=2, label=2), Segment(begin=3, end=5, label=1)]
    """
    if len(labels) == 0:
        return []
    edges = np.flatnonzero(np.diff(labels)) + 1
    begins, ends = np.append(0, edges).tolist(), np.append(edges, len(labels)).tolist()
    runs = (Segment(begin, end, int(labels[begin])) for begin, end in zip(begins, ends, strict=True))
    return [run for run in runs if run.label != background]


def overlapping(true: Sequence[Segment], predicted: Sequence[Segment], overlap: float) -> tuple[int, int, int]:
    """Of one clip: predicted segments that are right, predicted ones that are wrong, and true ones that nothing hit.

    Each predicted segment, in the order of time, is compared to the true one of its label that it overlaps most.
    """
    hit: set[int] = set()
    wrong = 0
    for segment in predicted:
        best, at = 0.0, -1
        for number, other in enumerate(true):
            if other.label == segment.label:
                common = min(segment.end, other.end) - max(segment.begin, other.begin)
                together = max(segment.end, other.end) - min(segment.begin, other.begin)
                if common / together > best:
                    best, at = common / together, number
        if at >= 0 and best >= overlap and at not in hit:
            hit.add(at)
        else:
            wrong += 1
    return len(hit), wrong, len(true) - len(hit)


def edit_score(true: Sequence[Segment], predicted: Sequence[Segment]) -> float:
    """Of one clip: 1 less the Levenshtein distance of the two orders of labels, divided by the longer one's length."""
    longer = max(len(true), len(predicted))
    if longer == 0:
        return 1.0
    before = list(range(len(predicted) + 1))
    for row, segment in enumerate(true, 1):
        now = [row]
        for column, other in enumerate(predicted, 1):
            change = before[column - 1] + (segment.label != other.label)
            now.append(min(change, before[column] + 1, now[-1] + 1))
        before = now
    return 1 - before[-1] / longer


def scores(
    true: Sequence[np.ndarray], predicted: Sequence[np.ndarray], background: int | None = None
) -> dict[str, float]:
    """Of N clips, each (T_n,) labels, true and predicted: accuracy, the part of all frames that is right; f1_10, f1_25
    and f1_50, from the segments of all clips together; edit, the mean of the clips' scores. The background counts as a
    label of frames, and is no segment.
    """
    frames = sum(map(len, true))
    right = sum(int((a == b).sum()) for a, b in zip(true, predicted, strict=True))
    pairs = [(segments(a, background), segments(b, background)) for a, b in zip(true, predicted, strict=True)]
    found = {"accuracy": right / frames if frames else 0.0}
    for overlap in OVERLAPS:
        counts = np.array([overlapping(a, b, overlap) for a, b in pairs]).reshape(-1, 3)
        hits, wrong, missed = counts.sum(0).tolist()
        both = 2 * hits + wrong + missed
        found[f"f1_{overlap * 100:.0f}"] = 2 * hits / both if both else 1.0
    found["edit"] = float(np.mean([edit_score(a, b) for a, b in pairs])) if pairs else 1.0
    return found
