"""How a network writes: greedily, by drawing, or by beam search. One decoder for every topology that emits tokens."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unrolled.cells import Inputs, State
from unrolled.decoding.beam import NO_END, Beams, Hypothesis, Limits, Step, highest
from unrolled.decoding.sampling import Sampling, draw, finite, probabilities
from unrolled.errors import InputError, UnrolledError
from unrolled.topologies import Decoder, ManyToMany, Memory, OneToMany

__all__ = ["Hypothesis", "Limits", "Step", "beam_search", "greedy", "sample", "stepper"]


def stepper(
    topology: ManyToMany | OneToMany | Decoder,
    table: Tensor | None = None,
    tokens: int | None = None,
) -> Step:
    """A topology as the decoder wants it.

    table: the embedding of the tokens that it writes, None for one-hot; tokens: how many of them, from 0, may be
    written (default: all). A `ManyToMany` starts with `Memory(state)`, the others with what their `start`, `remember`
    or `encode` returns.
    """

    def step(x: Tensor, state: State, memory: Memory, /) -> tuple[Tensor, State, Tensor | None]:
        weights = None
        if isinstance(topology, Decoder):
            scores, state, weights = topology.step(Inputs(x, table), state, memory)
        elif isinstance(topology, OneToMany):
            scores, state = topology.step(Inputs(x, table), state, memory)
        else:
            scores, state = topology.step(Inputs(x, table), state)
        return scores[:, :tokens], state, weights

    return step


@torch.inference_mode()
def greedy(step: Step, start: Memory, limits: Limits) -> list[Hypothesis]:
    """For each sentence the text of the likeliest token after the other; of equal ones the lower token."""
    texts = Beams(step, start, limits, 1, 0.0, 1).run(lambda scores, sentences, n: highest(scores, 1))
    return [best for (best,) in texts]


@torch.inference_mode()
def sample(step: Step, start: Memory, limits: Limits, how: Sampling, seeds: Sequence[int]) -> list[Hypothesis]:
    """For each sentence a text drawn token by token; sentence b draws from its own generator, seeded with seeds[b], so
    it is the same alone and among others."""
    if how.temperature == 0:
        return greedy(step, start, limits)
    count = int(torch.as_tensor(limits.max_length).max()) + 1
    numbers = np.stack([np.random.Generator(np.random.PCG64(seed)).random(count) for seed in seeds])

    def choose(scores: Tensor, sentences: Tensor, n: int) -> Tensor:
        host = scores.cpu().double().numpy()
        if not finite(host):
            raise UnrolledError(NO_END)
        drawn = draw(probabilities(host, how), numbers[sentences.cpu().numpy(), n])
        return torch.from_numpy(drawn)[:, None].to(scores.device)

    return [text for (text,) in Beams(step, start, limits, 1, 0.0, 1).run(choose)]


@torch.inference_mode()
def beam_search(
    step: Step, start: Memory, limits: Limits, beams: int = 5, length_penalty: float = 0.0, keep: int = 1
) -> list[list[Hypothesis]]:
    """For each sentence the `keep` best texts found, the best first.

    beams: hypotheses of a sentence; one that ends keeps its place, so the others go on one fewer, and 1 is greedy. A
    text of n tokens, the end counted, is ranked by its log-probability divided by ((5 + n) / 6) ** length_penalty (Wu
    et al. 2016, arXiv:1609.08144, eq. 14): 0 ranks by the probability, more favours longer texts. Of equal candidates
    that of the better hypothesis, then the lower token, comes first; of equal texts the one that ended first. A
    sentence stops early only where no text can come among its best any more.
    """
    if not 1 <= keep <= beams:
        raise InputError(f"beams is {beams} and keep is {keep}: at least 1 text is kept, and at most as many as beams")
    if not length_penalty >= 0:
        raise InputError(f"length_penalty is {length_penalty}: it must be at least 0")
    search = Beams(step, start, limits, beams, length_penalty, keep)
    return search.run(lambda scores, sentences, n: highest(scores, beams))
