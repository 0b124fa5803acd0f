"""Metrics against hand-counted values and a public golden value."""

import math

import numpy as np
import pytest

from unrolled.metrics.text import bigram_cross_entropy, bits, xz_bits_per_character


def test_bigram_cross_entropy_against_counting_by_hand() -> None:
    train, validation = np.array([0, 1, 0, 1, 1]), np.array([0, 1, 1])
    # counts plus one: from 0: (1, 3), from 1: (2, 2)
    expected = -(math.log(3 / 4) + math.log(2 / 4)) / 2
    assert bigram_cross_entropy(train, validation, 2) == pytest.approx(expected)


def test_uniform_text_has_the_entropy_of_its_alphabet() -> None:
    random = np.random.default_rng(0)
    train, validation = random.integers(0, 4, 200_000), random.integers(0, 4, 50_000)
    assert bits(bigram_cross_entropy(train, validation, 4)) == pytest.approx(2, abs=1e-3)


def test_xz_knows_the_training_text() -> None:
    random = np.random.default_rng(0)
    text = "".join(chr(97 + i) for i in random.integers(0, 16, 20_000))
    assert xz_bits_per_character(text, text[:10_000]) < 0.1  # seen before
    fresh = "".join(chr(97 + i) for i in random.integers(0, 16, 10_000))
    assert xz_bits_per_character(text, fresh) == pytest.approx(4, rel=0.15)  # 16 letters, nothing to learn
