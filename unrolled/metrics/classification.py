"""How good the labels are: accuracy, F1, and who is taken for whom."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

CONFUSED = 1000
"""Classes up to which it is counted who is taken for whom: as many numbers as classes times classes."""


class Tally(NamedTuple):
    """Counts of each class (classes,): as truth and prediction at once, as prediction, as truth."""

    right: np.ndarray
    predicted: np.ndarray
    true: np.ndarray

    @classmethod
    def of(cls, true: np.ndarray, predicted: np.ndarray, classes: int) -> "Tally":
        counted = (true[true == predicted], predicted, true)
        return cls(*(np.bincount(values, minlength=classes) for values in counted))


class Outcomes(NamedTuple):
    """What is known of N predictions; the probabilities of all classes would be as many numbers as N times classes."""

    predicted: np.ndarray
    """(N,) the likeliest class"""
    chance: np.ndarray
    """(N,) the probability of the true one"""
    rank: np.ndarray
    """(N,) how many classes are likelier than the true one"""

    @classmethod
    def of(cls, true: np.ndarray, probabilities: np.ndarray) -> "Outcomes":
        """Of N predictions (N, classes)."""
        chance = probabilities[np.arange(len(true)), true]
        before = np.arange(probabilities.shape[1]) < true[:, None]  # as argmax: of equals the first
        equal = (probabilities == chance[:, None]) & before
        return cls(probabilities.argmax(-1), chance, ((probabilities > chance[:, None]) | equal).sum(1))

    @classmethod
    def join(cls, parts: "Sequence[Outcomes]", order: np.ndarray) -> "Outcomes":
        """Of several batches, in this order of their rows."""
        return cls(*(np.concatenate(values)[order] for values in zip(*parts, strict=True)))

    def loss(self) -> float:
        """In nats."""
        return float(-np.log(np.maximum(self.chance, 1e-30)).mean())

    def top_k(self, classes: int, ks: Sequence[int] = (3, 5)) -> dict[str, float]:
        """For each k below the number of classes: how often the true class is among the k likeliest."""
        used = [k for k in ks if k < classes]
        return {f"top_{k}": float((self.rank < k).mean()) if len(self.rank) else 0.0 for k in used}


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts: rows are the true class, columns the predicted one.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def scores(counts: np.ndarray | Tally) -> dict[str, float]:
    """Of a confusion or its sums: accuracy, and macro-F1, the mean of the classes' F1, whatever their sizes; a class
    that occurs neither as truth nor as prediction is left out, as in scikit-learn."""
    found = _sums(counts)
    _, _, f1 = _per_class(found)
    seen = found.predicted + found.true > 0
    total = found.true.sum()
    return {
        "accuracy": float(found.right.sum() / total) if total else 0.0,
        "f1": float(f1[seen].mean()) if seen.any() else 0.0,
    }


def top_k(true: np.ndarray, probabilities: np.ndarray, ks: Sequence[int] = (3, 5)) -> dict[str, float]:
    """For each k below the number of classes: how often the true class (N,) is among the k likeliest of (N, classes).

    >>> top_k(np.array([0, 2]), np.array([[0.1, 0.6, 0.2, 0.1], [0.1, 0.6, 0.2, 0.1]]), ks=(1, 2, 4))
    {'top_1': 0.0, 'top_2': 0.5}
    """
    return Outcomes.of(true, probabilities).top_k(probabilities.shape[1], ks)


def details(true: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """`report`, and `confusion` where there are not too many classes for it; else `notes` say that it is left out."""
    found: dict[str, Any] = {"report": report(Tally.of(true, predicted, len(names)), names)}
    if len(names) <= CONFUSED:
        return {**found, "confusion": confusion(true, predicted, len(names)).tolist(), "notes": []}
    note = f"who is taken for whom is left out: there are {len(names):,} classes, and it is counted up to {CONFUSED:,}"
    return {**found, "confusion": None, "notes": [note]}


def report(counts: np.ndarray | Tally, names: Sequence[str]) -> list[dict[str, Any]]:
    """For each class: precision, recall, F1 (each 0 where it is 0 / 0) and how many there are of it."""
    found = _sums(counts)
    precision, recall, f1 = _per_class(found)
    return [
        {
            "label": name,
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "count": int(found.true[i]),
        }
        for i, name in enumerate(names)
    ]


def _sums(counts: np.ndarray | Tally) -> Tally:
    return counts if isinstance(counts, Tally) else Tally(np.diag(counts), counts.sum(0), counts.sum(1))


def _per_class(counts: Tally) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    right, predicted, true = counts.right.astype(np.float64), counts.predicted, counts.true
    precision = np.divide(right, predicted, out=np.zeros_like(right), where=predicted > 0)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    both = precision + recall
    return precision, recall, np.divide(2 * precision * recall, both, out=np.zeros_like(right), where=both > 0)
