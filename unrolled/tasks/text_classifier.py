"""`TextClassifier`: what users hold of a trained classifier. It labels, measures and saves itself."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.data import tokenizers
from unrolled.data.batches import Examples
from unrolled.data.examples import rows_of
from unrolled.data.labelled import Classes, read_labelled
from unrolled.data.tokenizers import Tokenizer
from unrolled.errors import InputError
from unrolled.metrics import classification
from unrolled.tasks.classify_text import Network, TextClassifierTask, encode_all, measure, predict
from unrolled.tasks.options import TextClassifierOptions
from unrolled.training import model_file


class Prediction(NamedTuple):
    label: str
    probability: float
    probabilities: dict[str, float]
    """Of every label"""


class TextClassifier:
    """A trained text classifier."""

    task = TextClassifierTask.name

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        options: TextClassifierOptions,
        metrics: dict[str, float] | None = None,
        step: int = 0,
    ) -> None:
        self.network, self.tokenizer, self.labels, self.options = network.eval(), tokenizer, list(labels), options
        self.metrics, self.step = dict(metrics or {}), step

    @property
    def device(self) -> torch.device:
        return self.network.topology.output.weight.device

    @classmethod
    def fit(cls, *paths: str | Path, val: str | Path | None = None, **options: Any) -> "TextClassifier":
        """Train on labelled texts; keywords are the flags of `unrolled train classify-text`.

        Raises `InputError` for unusable files or options and `NonFiniteError` where the loss is not finite.
        """
        from unrolled.tasks.fitting import fit  # the other way round at import

        model = fit(paths, val=val, options=TextClassifierOptions(**options)).model
        assert isinstance(model, cls)
        return model

    @classmethod
    def from_file(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> "TextClassifier":
        """From what `model_file.load` returns."""
        options = TextClassifierOptions(**description["options"])
        vocabulary = description["vocabulary"]
        tokenizer, labels = tokenizers.from_json(vocabulary["tokenizer"]), vocabulary["labels"]
        # the engine of the training need not exist where the model is used
        network = Network(tokenizer.size, len(labels), replace(options, engine="auto"))
        network.load_state_dict(tensors)
        return cls(network, tokenizer, labels, options, description["metrics"], description["step"])

    def to(self, device: str | torch.device) -> "TextClassifier":
        self.network.to(device)
        return self

    def save(self, path: str | Path) -> None:
        """One self-contained `.safetensors`; an existing file is replaced whole or not at all."""
        description = {
            "task": self.task,
            "options": asdict(self.options),
            "vocabulary": {"tokenizer": self.tokenizer.to_json(), "labels": self.labels},
            "metrics": self.metrics,
            "step": self.step,
        }
        model_file.save(Path(path), self.network.state_dict(), description)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """The likeliest label of each text, with its probability; an empty text gets one too."""
        if isinstance(texts, str):
            raise InputError("predict takes a list of texts: put the text into brackets")
        if not texts:
            return []
        _, found = predict(self.network, self._examples(texts, np.zeros(len(texts), dtype=np.int64)), self.device)
        return [
            Prediction(self.labels[row.argmax()], float(row.max()), dict(zip(self.labels, row.tolist(), strict=True)))
            for row in found
        ]

    def evaluate(self, *paths: str | os.PathLike[str], split: str | None = None) -> dict[str, Any]:
        """accuracy, f1 (macro), val_loss; `report` (a row a class) and `confusion` (rows: the truth).

        split: train, val or test, where the data say which text is what. Raises `InputError` at a label that the
        training did not have.
        """
        options = self.options
        read = read_labelled(
            paths,
            text_column=options.text_column,
            label_column=options.label_column,
            encoding=options.encoding,
            keep_empty=True,
        )
        if split is not None:
            read = read.take(rows_of(split, read.splits, read.places, "text"))
        targets = Classes(self.labels).numbers(read)
        _, found = predict(self.network, self._examples(read.texts, targets), self.device)
        counts = classification.confusion(targets, found.argmax(-1), len(self.labels))
        return {
            **measure(targets, found),
            "report": classification.report(counts, self.labels),
            "confusion": counts.tolist(),
        }

    def _examples(self, texts: Sequence[str], targets: np.ndarray) -> Examples:
        return Examples(encode_all(self.tokenizer, texts, self.options.lower), targets)
