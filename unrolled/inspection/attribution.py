"""Which words of a text moved a classifier, and how far: in the log-odds of a label, ln(p / (1 - p)).

Occlusion (Zeiler & Fergus 2014, arXiv:1311.2901): a word's score is what the log-odds lose when it is hidden, its place
kept, behind the vector that stands for hidden tokens in a training. Gradient times input (Shrikumar et al. 2016,
arXiv:1605.01713): the derivative of the log-odds by the word's vector, times that vector, summed over the vector's
numbers; one forward and backward for all words, but only what a tiny change would do.
"""

import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unrolled.cells import Inputs
from unrolled.data.tokenizers import Tokenizer
from unrolled.data.word_tokenizer import pieces
from unrolled.errors import InputError
from unrolled.tasks.classify_text import TOKENS, Network, plain
from unrolled.tasks.text_classifier import TextClassifier

METHODS = ("occlusion", "gradient")
MOST = 1 << 24
"""Words times timesteps of an occlusion at most, which reads the text once a word."""


class Attribution(NamedTuple):
    label: str
    probability: float
    log_odds: float
    """Of the label, nats"""
    method: str
    words: list[str]
    """In the order of the text, without the space before them; as the network reads them, so perhaps in lower case"""
    scores: list[float]
    """A word's part in the log-odds; above 0 it speaks for the label"""
    unknown: list[bool]
    """Whether the vocabulary lacks the word"""


def attribute(model: TextClassifier, text: str, *, label: str | None = None, method: str = "occlusion") -> Attribution:
    """What each word of a text does to the log-odds of a label; None: of the one that the model finds likeliest.

    Raises `InputError` for a text without words, an unknown label or method, and a text too long for occlusion.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: choose {' or '.join(METHODS)}")
    if label is not None and label not in model.labels:
        raise InputError(f"the model has no label {label!r}: choose one of {', '.join(model.labels)}")
    if not text.strip():
        raise InputError("the text is empty: give one with words")
    network, tokenizer = model.network, model.tokenizer
    (read,) = plain([text.strip()], tokenizer.kind, model.options.lower)
    words = cut(tokenizer, read)
    tokens = [tokenizer.encode(word) for word in words]
    bounds = np.cumsum([0, *map(len, tokens)])
    x = F.embedding(torch.from_numpy(np.concatenate(tokens)).to(model.device)[:, None], network.table).detach()
    with torch.no_grad():
        scores = network.topology(Inputs(x)).double()
    target = int(scores.argmax()) if label is None else model.labels.index(label)
    how = _occlude if method == "occlusion" else _gradient_times_input
    return Attribution(
        model.labels[target],
        float(scores.softmax(-1)[0, target]),
        float(log_odds(scores, target)),
        method,
        [word.strip() or word for word in words],
        how(network, x, target, bounds).tolist(),
        [bool(np.isin(t, tokenizer.unknown).any()) for t in tokens],
    )


def cut(tokenizer: Tokenizer, text: str) -> list[str]:
    """The text in words, each with the space before it; their tokens one after the other are those of the text.

    Punctuation is apart, except from byte pairs, which go across it.
    """
    return re.findall(r"\s+\S*|\S+", text) if tokenizer.kind == "bpe" else pieces(text)


def log_odds(scores: Tensor, target: int) -> Tensor:
    """ln(p / (1 - p)) of a class: scores (B, classes) to (B,)."""
    others = torch.cat([scores[:, :target], scores[:, target + 1 :]], 1)
    return scores[:, target] - others.logsumexp(1)


@torch.no_grad()
def _occlude(network: Network, x: Tensor, target: int, bounds: np.ndarray) -> np.ndarray:
    """x (T, 1, E); word n is the tokens from bounds[n] to bounds[n + 1]: the scores (words,)."""
    steps, count = len(x), len(bounds) - 1
    if steps * count > MOST:
        raise InputError(
            f"a text of {count:,} words is too long for occlusion: take the method gradient, or a part of the text"
        )
    whole = log_odds(network.topology(Inputs(x)).double(), target)
    found = []
    rows = max(1, TOKENS // steps)
    for begin in range(0, count, rows):
        some = list(pairwise(bounds[begin : begin + rows + 1].tolist()))
        hidden = x.repeat(1, len(some), 1)
        for row, (first, end) in enumerate(some):
            hidden[first:end, row] = network.hidden_token
        found.append(whole - log_odds(network.topology(Inputs(hidden)).double(), target))
    return torch.cat(found).cpu().numpy()


@torch.enable_grad()
def _gradient_times_input(network: Network, x: Tensor, target: int, bounds: np.ndarray) -> np.ndarray:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_odds(network.topology(Inputs(x)), target).sum(), x)
    tokens = (gradient.double() * x.double()).sum(-1)[:, 0].detach().cpu().numpy()
    return np.add.reduceat(tokens, bounds[:-1])
