"""How good the labels are: accuracy, F1, and who is taken for whom."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def confusion(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts: rows are the true class, columns the predicted one.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def scores(counts: np.ndarray) -> dict[str, float]:
    """Accuracy, and macro-F1: the mean of the classes' F1, whatever their sizes; a class that occurs neither as truth
    nor as prediction is left out, as in scikit-learn."""
    _, _, f1 = _per_class(counts)
    seen = counts.sum(0) + counts.sum(1) > 0
    total = counts.sum()
    return {
        "accuracy": float(np.trace(counts) / total) if total else 0.0,
        "f1": float(f1[seen].mean()) if seen.any() else 0.0,
    }


def top_k(true: np.ndarray, probabilities: np.ndarray, ks: Sequence[int] = (3, 5)) -> dict[str, float]:
    """For each k below the number of classes: how often the true class (N,) is among the k likeliest of (N, classes).

    >>> top_k(np.array([0, 2]), np.array([[0.1, 0.6, 0.2, 0.1], [0.1, 0.6, 0.2, 0.1]]), ks=(1, 2, 4))
    {'top_1': 0.0, 'top_2': 0.5}
    """
    ranked = np.argsort(-probabilities, axis=1, kind="stable")  # as argmax: of equals the first
    rank = (ranked == true[:, None]).argmax(1)
    used = [k for k in ks if k < probabilities.shape[1]]
    return {f"top_{k}": float((rank < k).mean()) if len(true) else 0.0 for k in used}


def report(counts: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """For each class: precision, recall, F1 (each 0 where it is 0 / 0) and how many there are of it."""
    precision, recall, f1 = _per_class(counts)
    return [
        {
            "label": name,
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "count": int(counts[i].sum()),
        }
        for i, name in enumerate(names)
    ]


def _per_class(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    right = np.diag(counts).astype(np.float64)
    predicted, true = counts.sum(0), counts.sum(1)
    precision = np.divide(right, predicted, out=np.zeros_like(right), where=predicted > 0)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    both = precision + recall
    return precision, recall, np.divide(2 * precision * recall, both, out=np.zeros_like(right), where=both > 0)
