"""`TextClassifier`: what users hold of a trained classifier. It labels, measures and saves itself."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
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
from unrolled.tasks.public_model import PublicModel


class Prediction(NamedTuple):
    label: str
    probability: float
    probabilities: dict[str, float]
    """Of every label"""


class TextClassifier(PublicModel):
    """A trained text classifier."""

    task = TextClassifierTask.name
    options_class = TextClassifierOptions
    network: Network

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        options: TextClassifierOptions,
        metrics: dict[str, float] | None = None,
        step: int = 0,
    ) -> None:
        super().__init__(network, options, metrics, step)
        self.tokenizer, self.labels = tokenizer, list(labels)

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

    def vocabulary(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.to_json(), "labels": self.labels}

    def _knows(self) -> str:
        return f"{self.tokenizer.size:,} tokens ({self.tokenizer.kind}), {len(self.labels):,} labels"

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
