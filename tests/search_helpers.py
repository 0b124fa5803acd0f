"""Small models that write, and a beam search written plainly for one sentence at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from unrolled.cells import CELLS, Inputs
from unrolled.decoding.search import Hypothesis, Limits, Step, stepper
from unrolled.nn import Recurrent
from unrolled.topologies import ManyToMany, Memory, OneToMany, SequenceToSequence

BEGIN, END, HIDDEN, SIZE = 1, 2, 6, 4
LENGTHS = [3, 5, 0, 1, 4, 2]
SENTENCES = len(LENGTHS)


@dataclass
class Writing:
    """A small model with decided opinions, in the middle of `SENTENCES` texts."""

    step: Step
    start: Memory
    alone: Callable[[int], Memory]
    """What one sentence begins with when it is alone"""
    scores: Callable[[int, Tensor], Tensor]
    """A sentence and the tokens that go in (T,) to scores (T, V) of the whole sequence at once"""


def decided(model: nn.Module) -> nn.Module:
    """In float64, where nothing is nearly equal; its outputs depend on all that came before, and seldom end."""
    with torch.no_grad():
        for name, parameter in model.double().named_parameters():
            parameter.mul_(6 if "output.weight" in name else 3)
        model.output.bias[END] -= 1.5
    return model.eval()


def make(kind: str, words: int = 6, cell: str = "gru", seed: int = 0) -> Writing:
    """kind: none, dot, additive (sequence to sequence with that attention), vector (one to many) or text."""
    torch.manual_seed(seed)
    recurrent = Recurrent(CELLS[cell], SIZE, HIDDEN, 2)
    table = torch.randn(words, SIZE).double()
    if kind == "text":
        model = decided(ManyToMany(recurrent, words))
        state = tuple(torch.randn(2, SENTENCES, HIDDEN).double() for _ in range(CELLS[cell].states))

        def memory(rows: list[int]) -> Memory:
            return Memory(tuple(s[:, rows] for s in state))

        def scores(row: int, x: Tensor) -> Tensor:
            return model(Inputs(x[:, None], table), memory([row]).start)[0]

    elif kind == "vector":
        model, v = decided(OneToMany(recurrent, words, 3)), torch.randn(SENTENCES, 3).double()

        def memory(rows: list[int]) -> Memory:
            return model.start(v[rows])

        def scores(row: int, x: Tensor) -> Tensor:
            return model(Inputs(x[:, None], table), v[[row]])[0]

    else:
        encoder = Recurrent(CELLS[cell], SIZE, HIDDEN, bidirectional=True)
        model = decided(SequenceToSequence(encoder, recurrent, words, attention=kind))
        source, lengths = torch.randn(max(LENGTHS), SENTENCES, SIZE).double(), torch.tensor(LENGTHS)

        def memory(rows: list[int]) -> Memory:
            if len(rows) > 1:
                return model.encode(Inputs(source[:, rows]), lengths[rows])
            return model.encode(Inputs(source[: LENGTHS[rows[0]], rows]))

        def scores(row: int, x: Tensor) -> Tensor:
            return model(Inputs(source[:, [row]]), lengths[[row]], Inputs(x[:, None], table))

    with torch.no_grad():
        start = memory(list(range(SENTENCES)))
    return Writing(
        stepper(model, table),
        start,
        torch.no_grad()(lambda row: memory([row])),
        torch.no_grad()(lambda row, x: scores(row, x)[:, 0]),
    )


@torch.no_grad()
def plain(
    writing: Writing, row: int, limits: Limits, beams: int, penalty: float = 0.0, keep: int = 1
) -> list[Hypothesis]:
    """Beam search over one sentence, one hypothesis after the other, that goes on until every place has ended."""
    memory = writing.alone(row)
    live = [([], 0.0, memory.start, [])]
    ended: list[Hypothesis] = []
    while live:
        candidates = []
        for rank, (tokens, total, state, seen) in enumerate(live):
            last = torch.tensor([tokens[-1] if tokens else int(limits.begin)])
            scores, state, weights = writing.step(last, state, memory)
            seen = seen if weights is None else [*seen, weights[0]]
            for token in allowed(tokens, scores.shape[1], limits):
                new = total + float(scores[0].log_softmax(0)[token])
                candidates.append((-new, rank, token, tokens, state, seen))
        candidates.sort(key=lambda c: c[:3])
        live = []
        for minus, _, token, tokens, state, seen in candidates[: beams - len(ended)]:
            tokens = [*tokens, token]
            if token == limits.end or (limits.end is None and len(tokens) == limits.max_length):
                score = -minus / ((5 + len(tokens)) / 6) ** penalty
                kept = tokens[:-1] if token == limits.end else tokens
                ended.append(Hypothesis(kept, score, -minus, torch.stack(seen) if seen else None))
            else:
                live.append((tokens, -minus, state, seen))
    return sorted(ended, key=lambda h: -h.score)[:keep]


def allowed(tokens: list[int], words: int, limits: Limits) -> list[int]:
    if limits.end is not None and len(tokens) == limits.max_length:
        return [limits.end]
    n = limits.no_repeat_ngram
    grams = {tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)} if n else set()
    found = [
        token
        for token in range(words)
        if (token != limits.end or len(tokens) >= limits.min_length) and tuple([*tokens, token][-n:]) not in grams
    ]
    return found or list(range(words))


def assert_same(ours: list[Hypothesis], truth: list[Hypothesis]) -> None:
    assert [h.tokens for h in ours] == [h.tokens for h in truth]
    for one, other in zip(ours, truth, strict=True):
        assert one[1:3] == pytest.approx(other[1:3], abs=1e-9)
        assert (one.alignment is None) == (other.alignment is None)
        if one.alignment is not None and other.alignment is not None:
            assert one.alignment.shape == other.alignment.shape and len(one.alignment) == len(one.tokens) + 1
            torch.testing.assert_close(one.alignment, other.alignment)


def recomputed(writing: Writing, row: int, text: list[int]) -> float:
    """The log-probability of a text and its end, from the whole sequence at once."""
    scores = writing.scores(row, torch.tensor([BEGIN, *text])).log_softmax(-1)
    return sum(float(scores[t, token]) for t, token in enumerate([*text, END]))


LIMITS = {
    "plain": Limits(BEGIN, END, 8),
    "at least 4": Limits(BEGIN, END, 7, min_length=4),
    "no token twice": Limits(BEGIN, END, 9, no_repeat_ngram=1),
    "no bigram twice, at least 9": Limits(BEGIN, END, 12, min_length=9, no_repeat_ngram=2),
    "nothing allowed": Limits(BEGIN, END, 9, min_length=8, no_repeat_ngram=1),
    "no trigram twice, no end": Limits(BEGIN, None, 8, no_repeat_ngram=3),
    "ends at once": Limits(BEGIN, END, 0),
    "one token": Limits(BEGIN, None, 1),
}
KINDS = ["none", "dot", "additive", "vector", "text"]
