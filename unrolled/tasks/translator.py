"""`Translator`: what users hold of a trained translator. It translates, measures and saves itself."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from unrolled.data.batches import Examples
from unrolled.data.pairs import read_pairs
from unrolled.data.tokenizers import decode
from unrolled.data.vocabulary import SPECIALS, Vocabulary
from unrolled.errors import InputError
from unrolled.metrics import translation
from unrolled.tasks.arguments import options_of, texts_of
from unrolled.tasks.options import SearchOptions, TranslateOptions
from unrolled.tasks.public_model import PublicModel, built, remarks
from unrolled.tasks.translate import READ, Languages, Network, TranslateTask
from unrolled.tasks.writing import mean_loss, write

PathLike = str | os.PathLike[str]
END = "<end>"


class Translation(NamedTuple):
    text: str
    score: float
    """What the beam search ranks by: the log-probability, divided by the length penalty"""
    log_probability: float
    """In nats, of the tokens and the end"""
    source_tokens: list[str]
    tokens: list[str]
    """Both with their end"""
    alignment: list[list[float]] | None
    """Attention weights, a row a token of the translation, a column a token of the source; None without attention, and
    where they were not asked for"""


class Translator(PublicModel):
    """A trained translator."""

    task = TranslateTask.name
    options_class = TranslateOptions
    reading = ("encoding", "source_column", "target_column")
    network: Network

    def __init__(
        self,
        network: Network,
        languages: Languages,
        options: TranslateOptions,
        metrics: dict[str, float] | None = None,
        step: int = 0,
    ) -> None:
        super().__init__(network, options, metrics, step)
        self.languages = languages

    @classmethod
    def from_file(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> "Translator":
        """From what `model_file.load` returns."""
        options = TranslateOptions.from_json(description["options"])
        languages = Languages.from_json(description["vocabulary"])
        # the engine of the training need not exist where the model is used
        network = built(lambda: Network(languages, replace(options, engine="auto")), tensors)
        return cls(network, languages, options, description["metrics"], description["step"])

    def vocabulary(self) -> dict[str, Any]:
        return self.languages.to_json()

    def _knows(self) -> str:
        return f"{self.languages.source.size:,} source and {self.languages.target.size:,} target tokens"

    def translate(self, texts: Sequence[str], beam: int = 5, **how: Any) -> list[str]:
        """The translation of each text; that of an empty one is empty. beam: hypotheses of each, 1 for greedy; how:
        length_penalty, min_length, max_length, no_repeat_ngram (see `SearchOptions`)."""
        return [found.text for found in self.predict(texts, beam, **how)]

    def predict(self, texts: Sequence[str], beam: int = 5, *, aligned: bool = False, **how: Any) -> list[Translation]:
        """The translations with their scores; aligned: with attention weights."""
        search, texts = options_of(SearchOptions, {"beam": beam, **how}), texts_of(texts)
        results = [Translation("", 0.0, 0.0, [], [], None)] * len(texts)
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if not rows:
            return results
        sources = self.languages.sources([texts[row].strip() for row in rows])
        if (longest := int(sources.lengths.max())) > READ:
            begin = texts[rows[int(sources.lengths.argmax())]].strip()[:20]
            raise InputError(
                f"a text of {longest:,} tokens that begins with {begin!r} is too long to translate at once, which is "
                f"done up to {READ:,}: divide it into sentences, one a line"
            )
        examples = Examples(sources, np.zeros(len(sources), dtype=np.int64))
        numbers, found = write(self.network, self.languages, examples, self.device, search=search, aligned=aligned)
        for number, best in zip(numbers, found, strict=True):
            results[rows[number]] = Translation(
                self.languages.target.decode(best.tokens),
                best.score,
                best.log_probability,
                _pieces(self.languages.source, sources[number][:-1].tolist()),
                _pieces(self.languages.target, best.tokens),
                None if best.alignment is None else best.alignment.tolist(),
            )
        return results

    def evaluate(
        self,
        *paths: PathLike,
        split: str | None = None,
        encoding: str | None = None,
        source_column: str | None = None,
        target_column: str | None = None,
        beam: int = 5,
        **how: Any,
    ) -> dict[str, Any]:
        """bleu and chrf (0 to 100) and exact of the translations with BLEU's signature; val_loss (nats per target
        token, with teacher forcing); pairs; `notes` and `skipped`.

        Empty lines count as what they are: an empty source has an empty translation. split: train or val as the
        training divides these pairs (without those that have an empty side); test where the data say so. encoding: of
        these files, default UTF-8. source_column, target_column: default: the training's where the table has them,
        else guessed.
        """
        pairs = self.with_columns(
            partial(read_pairs, paths, encoding=encoding, keep_empty=split not in ("train", "val")),
            source_column=source_column,
            target_column=target_column,
        )
        pairs = self.part(pairs, split, paths, "pair")
        empty = sum(not (source and target) for source, target in zip(pairs.sources, pairs.targets, strict=True))
        told = (
            [f"{empty:,} pairs have an empty side: they are measured here, and a training omits them"] if empty else []
        )
        scores, signature = translation.scores(self.translate(pairs.sources, beam, **how), pairs.targets)
        loss, _ = mean_loss(self.network, self.languages.examples(pairs), self.device)
        return {
            **scores,
            "val_loss": loss,
            "pairs": len(pairs),
            "beam": beam,
            **how,
            "signature": signature,
            **remarks([*pairs.notes, *told], []),
        }


def _pieces(vocabulary: Vocabulary, tokens: Sequence[int]) -> list[str]:
    """The text of each token, spaces included, and the end."""
    return [*(decode(vocabulary.tokenizer, [token - SPECIALS]) for token in tokens), END]
