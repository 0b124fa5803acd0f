"""BLEU and chrF of translations through sacrebleu, whose signature makes figures comparable; and exact matches."""

import importlib
from collections.abc import Sequence
from typing import Any

from unrolled.errors import InputError
from unrolled.metrics.text import spaced

ORDER = 4
"""BLEU counts n-grams up to this n."""


def bleu_for(references: Sequence[str]) -> Any:
    """The sacrebleu BLEU that suits these references. They alone decide, never what is compared with them, so that all
    validations of a training measure the same thing.

    Where spaces do not divide the references into words (see `text.spaced`), it counts characters (`tok:char` in the
    signature). Where no reference has 4 tokens, so that BLEU would always be 0, it counts n-grams up to the length
    that there is (`eff:yes`).
    """
    metrics = library()
    how = {} if spaced(references) else {"tokenize": "char"}
    bleu = metrics.BLEU(**how)
    if any(len(bleu.tokenizer(text).split()) >= ORDER for text in references):
        return bleu
    return metrics.BLEU(effective_order=True, **how)


def scores(written: Sequence[str], references: Sequence[str], bleu: Any = None) -> tuple[dict[str, float], str]:
    """`bleu` and `chrf` (0 to 100) and `exact` (0 to 1) of N translations with a reference each, and BLEU's signature.

    BLEU: Papineni et al. 2002; chrF2: Popović 2015; both as sacrebleu computes them (Post 2018, arXiv:1804.08771), from
    texts that are not tokenised. bleu: what `bleu_for` gives; default: for these references.
    """
    references = list(references)
    bleu = bleu or bleu_for(references)
    found = bleu.corpus_score(list(written), [references])
    chrf = library().CHRF().corpus_score(list(written), [references])
    exact = sum(a == b for a, b in zip(written, references, strict=True)) / max(1, len(references))
    return {"bleu": float(found.score), "chrf": float(chrf.score), "exact": exact}, str(bleu.get_signature())


def library() -> Any:
    """`sacrebleu.metrics`; raises `InputError` where it is not installed."""
    try:
        return importlib.import_module("sacrebleu.metrics")
    except ImportError as error:
        raise InputError("translations are measured with sacrebleu: pip install 'unrolled[text]'") from error
