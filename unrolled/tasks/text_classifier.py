"""`TextClassifier`: what users hold of a trained classifier. It labels, measures and saves itself."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from unrolled.data import tokenizers
from unrolled.data.batches import Examples
from unrolled.data.examples import BadFiles
from unrolled.data.labelled import Classes, named, read_labelled
from unrolled.data.tokenizers import Tokenizer
from unrolled.metrics import classification
from unrolled.tasks.arguments import texts_of
from unrolled.tasks.classified import outcomes, predict
from unrolled.tasks.classify_text import Network, TextClassifierTask, encode_all, measure
from unrolled.tasks.options import TextClassifierOptions
from unrolled.tasks.public_model import PublicModel, built, remarks


class Prediction(NamedTuple):
    label: str
    probability: float
    probabilities: dict[str, float]
    """Of every label"""


class TextClassifier(PublicModel):
    """A trained text classifier."""

    task = TextClassifierTask.name
    options_class = TextClassifierOptions
    reading = ("encoding", "bad_files", "text_column", "label_column")
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
        options = TextClassifierOptions.from_json(description["options"])
        vocabulary = description["vocabulary"]
        tokenizer, labels = tokenizers.from_json(vocabulary["tokenizer"]), named(vocabulary["labels"])
        # the engine of the training need not exist where the model is used
        network = built(lambda: Network(tokenizer.size, len(labels), replace(options, engine="auto")), tensors)
        return cls(network, tokenizer, labels, options, description["metrics"], description["step"])

    def vocabulary(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer.to_json(), "labels": self.labels}

    def _knows(self) -> str:
        return f"{self.tokenizer.size:,} tokens ({self.tokenizer.kind}), {len(self.labels):,} labels"

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """The likeliest label of each text, with its probability; an empty text gets one too."""
        read = [text.strip() for text in texts_of(texts)]  # as the texts of a training are
        if not read:
            return []
        found = predict(self.network, self._examples(read, np.zeros(len(read), dtype=np.int64)), self.device)
        return [
            Prediction(self.labels[row.argmax()], float(row.max()), dict(zip(self.labels, row.tolist(), strict=True)))
            for row in found
        ]

    def evaluate(
        self,
        *paths: str | os.PathLike[str],
        split: str | None = None,
        encoding: str | None = None,
        bad_files: BadFiles = "stop",
        text_column: str | None = None,
        label_column: str | None = None,
    ) -> dict[str, Any]:
        """accuracy, f1 (macro), val_loss; `report` (a row per class), `confusion` (rows: the truth), `notes` and
        `skipped` (files that were left out).

        split: train or val as the training divides these texts; test where the data say which text is what. encoding:
        of these files, default UTF-8. bad_files: "stop" at a file that cannot be read, or "skip" it. text_column,
        label_column: default: the training's where the table has them, else guessed. Raises `InputError` at a label
        that the training did not have.
        """
        how: dict[str, Any] = {
            "encoding": encoding,
            "bad_files": bad_files,
            "keep_empty": split not in ("train", "val"),
        }
        read = self.with_columns(
            partial(read_labelled, paths, **how), text_column=text_column, label_column=label_column
        )
        read = self.part(read, split, paths, "text", strata=read.labels)
        targets = Classes(self.labels).numbers(read)
        _, found = outcomes(self.network, self._examples(read.texts, targets), self.device)
        details = classification.details(targets, found.predicted, self.labels)
        return {
            **measure(targets, found, len(self.labels)),
            **details,
            **remarks([*read.notes, *details["notes"]], read.skipped),
        }

    def _examples(self, texts: Sequence[str], targets: np.ndarray) -> Examples:
        return Examples(encode_all(self.tokenizer, texts, self.options.lower), targets)
