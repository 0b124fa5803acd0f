"""BLEU and chrF of translations through sacrebleu, whose signature makes figures comparable; and exact matches."""

import importlib
from collections.abc import Sequence
from typing import Any

from unrolled.errors import InputError

ORDER = 4
"""BLEU counts n-grams up to this n."""


def scores(written: Sequence[str], references: Sequence[str]) -> tuple[dict[str, float], str]:
    """`bleu` and `chrf` (0 to 100) and `exact` (0 to 1) of N translations with a reference each, and BLEU's signature.

    BLEU: Papineni et al. 2002; chrF2: Popović 2015; both as sacrebleu computes them (Post 2018, arXiv:1804.08771), from
    texts that are not tokenised. Where all translations are shorter than 4 tokens, so that BLEU would be 0, it counts
    n-grams up to the length that there is (`eff:yes` in the signature).
    """
    metrics = library()
    references = list(references)
    bleu = metrics.BLEU()
    found = bleu.corpus_score(list(written), [references])
    if found.totals[ORDER - 1] == 0:
        bleu = metrics.BLEU(effective_order=True)
        found = bleu.corpus_score(list(written), [references])
    chrf = metrics.CHRF().corpus_score(list(written), [references])
    exact = sum(a == b for a, b in zip(written, references, strict=True)) / max(1, len(references))
    return {"bleu": float(found.score), "chrf": float(chrf.score), "exact": exact}, str(bleu.get_signature())


def library() -> Any:
    """`sacrebleu.metrics`; raises `InputError` where it is not installed."""
    try:
        return importlib.import_module("sacrebleu.metrics")
    except ImportError as error:
        raise InputError("translations are measured with sacrebleu: pip install 'unrolled[text]'") from error
