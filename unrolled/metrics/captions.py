"""BLEU, ROUGE-L and CIDEr-D of captions with several references each, as coco-caption computes them.

The reference implementation is github.com/tylin/coco-caption (Chen et al. 2015, arXiv:1504.00325). It cuts captions
with Stanford's tokeniser of the Penn Treebank, which needs Java. `words` gives the same for all 4,375 captions of
875 pictures of Flickr8k and for 6,004 of 6,005 of coco-caption's example; it knows fewer abbreviations ("bat.,"
is one there), cuts fewer colloquial words ("rock'n'roll") and knows nothing of addresses or smileys.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from unrolled.errors import InputError
from unrolled.metrics.text import spaced

Words = Sequence[str]
Cut = Callable[[str], list[str]]
"""From a caption to its words."""

ORDER = 4
"""n-grams up to this n, in BLEU and in CIDEr."""
BETA = 1.2
"""How much more ROUGE-L's recall counts than its precision."""
SIGMA = 6.0
"""Words of difference in length that CIDEr-D forgives: the deviation of its Gaussian."""
TINY, SMALL = 1e-15, 1e-9
"""Added above and below in BLEU's fractions, as there: with nothing right BLEU-4 is about 1e-4 and not 0."""

PUNCTUATION = {"'", "''", ".", "..", "...", "?", "!", ",", ":", "-", "--", ";"}
"""What is left out; a run such as "!!" is not among it, there as here."""
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_PLAIN = str.maketrans({**dict.fromkeys('"“”„', " "), **dict.fromkeys("‘’`", "'"), "–": "--", "—": "--", "…": "..."})
_ABBREVIATION = r"(?:mr|mrs|ms|dr|st|rd|ave|blvd|jr|sr|vs|etc|prof|inc|ltd|co|corp|mt|lt|sgt|gen|gov|no(?=\.\s*\d))\."
_PIECES = re.compile(
    rf"""
    (?:[a-z]\.)+(?![\w'])                       # a.m., u.s., and a letter at the end of a sentence
    | (?<!\w) '(?:s|re|ve|ll|d|m) (?!\w)        # a contraction that was cut off before
    | (?<!\w) {_ABBREVIATION} (?!\w)
    | \d+ (?: [.,:] \d+ )+ (?!\w)               # 1,000.5 and 10:30
    | @? \w+ (?: (?: [-'&./_]+ | (?<=\w)\\ ) (?=\w) \w+ )*    # t-shirt, o'clock, black/white
    | [!?]+ | \.+ | -+ | '+ | [^\w\s]
    """,
    re.VERBOSE,
)
_CONTRACTION = re.compile(r"(n't|'(?:s|re|ve|ll|d|m))$")
_TWO = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "lemme": "lem me",
    "gimme": "gim me",
}


def words(caption: str) -> list[str]:
    """The words of a caption: lower case, contractions cut in two, punctuation left out.

    >>> " ".join(words("A dog's ball isn't in the long-sleeved T-shirt, at 10:30 a.m."))
    "a dog 's ball is n't in the long-sleeved t-shirt at 10:30 a.m."
    """
    found: list[str] = []
    for piece in _PIECES.findall(caption.lower().translate(_PLAIN)):
        if piece in PUNCTUATION:
            continue
        piece = BRACKETS.get(piece) or _TWO.get(piece) or _CONTRACTION.sub(r" \1", piece)
        found.extend(piece.split())
    return found


def characters(caption: str) -> list[str]:
    """The characters of a caption in lower case, white space and punctuation left out.

    >>> characters("一只狗，在跑。")
    ['一', '只', '狗', '在', '跑']
    """
    return [c for c in caption.lower() if not c.isspace() and unicodedata.category(c)[0] != "P"]


def cut_for(references: Sequence[Sequence[str]]) -> Cut:
    """How captions are cut that have these references: by `words`; by `characters` where spaces do not divide the
    references into words (see `text.spaced`). The references alone decide, never what is compared with them."""
    return words if spaced(caption for several in references for caption in several) else characters


def scores(candidates: Sequence[str], references: Sequence[Sequence[str]], cut: Cut | None = None) -> dict[str, float]:
    """`bleu_1` to `bleu_4`, `rouge_l` (0 to 1) and `cider` (0 to 10) of N captions, each with one reference or more.
    cut: what `cut_for` gives; default: for these references.

    Raises `InputError` where there is nothing to measure. CIDEr weighs words by how few pictures they belong to, so its
    figure depends on the whole set that is measured; of a single picture it is 0.
    """
    if len(candidates) != len(references):
        raise InputError(f"{len(candidates)} captions have {len(references)} sets of references: give one for each")
    if not candidates:
        raise InputError("there is no caption to measure")
    if not all(references):
        raise InputError("a caption has no reference: each needs one or more to be measured")
    cut = cut or cut_for(references)
    written = [cut(caption) for caption in candidates]
    true = [[cut(caption) for caption in several] for several in references]
    return {
        **{f"bleu_{n}": value for n, value in enumerate(bleu(written, true), 1)},
        "rouge_l": float(rouge_l(written, true).mean()),
        "cider": float(cider_d(written, true).mean()),
    }


def exact(candidates: Sequence[str], references: Sequence[Sequence[str]], cut: Cut | None = None) -> float:
    """The share of captions that are, word by word, one of their references."""
    cut = cut or cut_for(references)
    right = [
        cut(text) in [cut(reference) for reference in several]
        for text, several in zip(candidates, references, strict=True)
    ]
    return sum(right) / max(1, len(right))


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of all captions together (Papineni et al. 2002), with the length of the closest reference, of
    two equally close ones the shorter."""
    right, written = np.zeros(ORDER), np.zeros(ORDER)
    length = closest = 0
    for candidate, several in zip(candidates, references, strict=True):
        most = Counter[Words]()
        for reference in several:
            most |= _grams(reference)
        for gram, count in (_grams(candidate) & most).items():
            right[len(gram) - 1] += count
        written += [max(0, len(candidate) - n) for n in range(ORDER)]
        length += len(candidate)
        closest += min((abs(len(r) - len(candidate)), len(r)) for r in several)[1]
    logs = np.log((right + TINY) / (written + SMALL))
    brevity = min(0.0, 1 - (closest + SMALL) / (length + TINY))
    return np.exp(np.cumsum(logs) / np.arange(1, ORDER + 1) + brevity).tolist()


def rouge_l(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """(N,) F-measure of the longest common subsequence: the best precision and the best recall that a caption has with
    any of its references (Lin 2004, with coco-caption's beta)."""
    found = np.zeros(len(candidates))
    for row, (candidate, several) in enumerate(zip(candidates, references, strict=True)):
        common = [(_common(candidate, reference), len(reference)) for reference in several]
        recall = max(shared / max(1, size) for shared, size in common)
        precision = max(shared for shared, _ in common) / max(1, len(candidate))
        if recall:
            found[row] = (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)
    return found


def _common(a: Words, b: Words) -> int:
    """The length of the longest common subsequence, a row of the table in the bits of one number (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << place
    everything = (1 << len(a)) - 1
    rest = everything
    for word in b:
        met = rest & places.get(word, 0)
        rest = (rest + met | rest - met) & everything
    return (rest ^ everything).bit_count()


def cider_d(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """(N,) CIDEr-D of each caption (Vedantam et al. 2015, arXiv:1411.5726, sec. 5 and 9): the mean over n and over the
    references of 10 times the cosine of the n-grams' TF-IDF vectors, the candidate's counts clipped, times a Gaussian
    of the difference in length. Document frequencies are those of these references, a picture a document."""
    true = [[_grams(reference) for reference in several] for several in references]
    frequency = Counter(gram for several in true for gram in set().union(*several))
    documents = math.log(max(1, len(candidates)))
    rarity = {gram: documents - math.log(count) for gram, count in frequency.items()}

    def weigh(counts: Counter[Words]) -> tuple[dict[Words, float], np.ndarray]:
        """TF-IDF of each n-gram, and the length of the vector of each n."""
        weighed = {gram: count * rarity.get(gram, documents) for gram, count in counts.items()}
        squares = np.zeros(ORDER)
        for gram, value in weighed.items():
            squares[len(gram) - 1] += value * value
        return weighed, np.sqrt(squares)

    found = np.zeros(len(candidates))
    for row, (candidate, several) in enumerate(zip(candidates, true, strict=True)):
        written, length = weigh(_grams(candidate))
        for reference, counts in zip(references[row], several, strict=True):
            weighed, other = weigh(counts)
            product = np.zeros(ORDER)
            for gram in written.keys() & weighed.keys():
                product[len(gram) - 1] += min(written[gram], weighed[gram]) * weighed[gram]
            norms = length * other
            cosine = np.divide(product, norms, out=np.zeros(ORDER), where=norms > 0)
            # both lengths as the reference implementation counts them, in bigrams: an empty caption is as long as one
            # word
            apart = max(0, len(candidate) - 1) - max(0, len(reference) - 1)
            found[row] += 10 * cosine.mean() * math.exp(-(apart**2) / (2 * SIGMA**2)) / len(several)
    return found


def _grams(caption: Words) -> Counter[Words]:
    """How often each n-gram of up to `ORDER` words occurs."""
    return Counter(tuple(caption[at : at + n]) for n in range(1, ORDER + 1) for at in range(len(caption) - n + 1))
