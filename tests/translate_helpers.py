"""Untrained translators and made-up pairs that the tests of translation share."""

import random
from pathlib import Path

import torch

from unrolled.data.batches import Examples
from unrolled.data.tokenizers import CharTokenizer
from unrolled.data.vocabulary import Vocabulary
from unrolled.tasks.options import TranslateOptions
from unrolled.tasks.translate import Languages, Network, resolve
from unrolled.tasks.translator import Translator

TINY = {"tokens": "char", "hidden": 16, "embedding": 8, "batch": 8}


def make(characters: str = "abcdefgh", growth: float = 1.0, seed: int = 3, **options: object) -> Translator:
    """An untrained translator with decided opinions."""
    chosen = resolve(TranslateOptions(**{**TINY, "steps": 1, "dropout": 0.0, **options}))
    side = Vocabulary(CharTokenizer(characters))
    languages = Languages(side, side, growth)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(languages, chosen)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(2.5)
    return Translator(network, languages, chosen)


def words(count: int, seed: int = 0, letters: str = "abcdefgh", most: int = 9) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(letters, k=draw.randint(1, most))) for _ in range(count)]


def examples_of(model: Translator, sources: list[str], targets: list[str]) -> Examples:
    return Examples(model.languages.sources(sources), model.languages.targets(targets))


def pairs_file(folder: Path, count: int, length: int = 4) -> Path:
    """Strings of letters and their reverse."""
    draw = random.Random(1)
    texts = ["".join(draw.choices("abcdef", k=length)) for _ in range(count)]
    path = folder / "reverse.tsv"
    path.write_text("".join(f"{t}\t{t[::-1]}\n" for t in texts))
    return path
