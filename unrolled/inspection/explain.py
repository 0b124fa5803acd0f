"""The lecture's example, live: a character-level language model learns one short text, and every number is kept.

CS231n's lecture on recurrent networks (after Karpathy, "The unreasonable effectiveness of recurrent neural networks",
2015) has the word "hello", the vocabulary h, e, l, o, one-hot inputs and a hidden layer of size 3. Here such a network,
made of this package's own parts, is trained and taken apart: the forward pass, the gradient of the shared W_hh as the
sum of what each timestep contributes, the same under truncated backpropagation through time, and a few characters
sampled. Everything is float64. The result's fields and shapes: `unrolled.inspection.explanation`.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unrolled.cells import CELLS, Inputs, State
from unrolled.decoding.sampling import Sampling, draw, probabilities
from unrolled.errors import InputError, NonFiniteError
from unrolled.inspection.explanation import (
    Backward,
    Draw,
    Explanation,
    Matrix,
    Sample,
    Timestep,
    Training,
    Truncated,
    Vector,
)
from unrolled.nn import Recurrent
from unrolled.topologies import ManyToMany

LONGEST = 64
"""Characters of a text that can be explained."""
WIDEST = 128
"""Hidden units, at most."""
MOST_UPDATES = 100_000
LEARNING_RATE, BETAS = 0.05, (0.9, 0.999)
"""Of Adam."""
CLIP = 5.0
"""The largest norm of a gradient in training."""
GOOD_ENOUGH = 0.15
"""Nats a timestep: training ends below it, once every character is right, while gradients are still visible."""


def explain(
    text: str = "hello", *, cell: str = "rnn", hidden: int = 3, steps: int = 300, bptt: int | None = None, seed: int = 0
) -> Explanation:
    """Train a character-level network on `text` and compute what there is to see.

    steps: updates at most. bptt: timesteps of a chunk for the truncation, by default half of all, rounded up; the
    training itself is not truncated. The same arguments give the same numbers, and PyTorch's random state is left as it
    was. Raises `InputError` for what cannot be explained.
    """
    _check(text, cell, hidden, steps, bptt, seed)
    vocabulary = list(dict.fromkeys(text))
    tokens = torch.tensor([vocabulary.index(c) for c in text])
    x, targets = tokens[:-1], tokens[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        recurrent = Recurrent(CELLS[cell], len(vocabulary), hidden, engine="bptt")
        network = ManyToMany(recurrent, len(vocabulary)).double()
    with torch.enable_grad():
        training = _train(network, x, targets, steps)
        backward = _backward(network, x, targets)
        truncated = _truncated(network, x, targets, (len(x) + 1) // 2 if bptt is None else bptt, backward)
    timesteps = _forward(network, text, vocabulary)
    loss = sum(step.loss for step in timesteps)
    return Explanation(
        text=text,
        cell=cell,
        hidden=hidden,
        seed=seed,
        vocabulary=vocabulary,
        weights=_weights(network),
        parameters=sum(p.numel() for p in network.parameters()),
        training=training,
        timesteps=timesteps,
        loss=loss,
        mean_loss=loss / len(timesteps),
        backward=backward,
        truncated=truncated,
        sample=_sample(network, vocabulary, len(x), seed),
    )


def _check(text: str, cell: str, hidden: int, steps: int, bptt: int | None, seed: int) -> None:
    if len(text) > LONGEST:
        raise InputError(
            f"the text has {len(text):,} characters and {LONGEST} can be explained: shorten it, or learn it with "
            "unrolled train language-model FILE"
        )
    if len(set(text)) < 2:
        raise InputError(
            f"there is nothing to predict in the text {text!r}: "
            "give one of at least 2 different characters, such as hello"
        )
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise InputError("the text is not valid Unicode: give it in the encoding of your terminal")
    if cell not in CELLS:
        raise InputError(f"unknown cell {cell!r}: choose one of {', '.join(CELLS)}")
    limits = {"hidden": (hidden, 1, WIDEST), "steps": (steps, 0, MOST_UPDATES), "seed": (seed, 0, 2**63 - 1)}
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            raise InputError(f"--{name} is {value}: it must be from {least} to {most:,}")
    if bptt is not None and bptt < 1:
        raise InputError(f"--bptt is {bptt}: it must be at least 1 timestep a chunk")


def _train(network: ManyToMany, x: Tensor, targets: Tensor, steps: int) -> Training:
    """Adam on the summed loss of the whole text, until it is learned or the updates are spent."""
    optimizer = Adam(list(network.parameters()))
    before = math.nan
    for update in range(steps + 1):
        scores = network(Inputs(x[:, None]))[0][:, 0]
        loss = F.cross_entropy(scores, targets, reduction="sum")
        if not math.isfinite(loss.item()):
            raise NonFiniteError(f"the loss is not finite after {update} updates: take fewer --steps or another --cell")
        before = before if update else loss.item()
        correct = int((scores.argmax(-1) == targets).sum())
        learned = correct == len(x)
        if update == steps or (learned and loss.item() < GOOD_ENOUGH * len(x)):
            break
        optimizer.step(torch.autograd.grad(loss, optimizer.parameters))
    return Training(update, before, loss.item(), correct, learned)


class Adam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1), after the gradient's norm is clipped.

    The first optimizer of torch.optim in a process imports torch._dynamo: a second, ten times the training of "hello".
    """

    def __init__(self, parameters: list[Tensor]) -> None:
        self.parameters, self.updates = parameters, 0
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    @torch.no_grad()
    def step(self, gradients: tuple[Tensor, ...]) -> None:
        self.updates += 1
        norm = torch.stack([g.norm() for g in gradients]).norm().item()
        for p, g, (m, v) in zip(self.parameters, gradients, self.moments, strict=True):
            g = g * min(1.0, CLIP / norm) if norm else g
            m.lerp_(g, 1 - BETAS[0])
            v.lerp_(g * g, 1 - BETAS[1])
            m_hat, v_hat = m / (1 - BETAS[0] ** self.updates), v / (1 - BETAS[1] ** self.updates)
            p -= LEARNING_RATE * m_hat / (v_hat.sqrt() + 1e-8)


def _weights(network: ManyToMany) -> dict[str, Matrix | Vector]:
    w = network.recurrent.weights(0)
    named = {"W_xh": w.ih, "W_hh": w.hh, "b_xh": w.bias_ih, "b_hh": w.bias_hh}
    named |= {"W_hy": network.output.weight, "b_y": network.output.bias}
    return {name: tensor.tolist() for name, tensor in named.items() if tensor is not None}


@torch.no_grad()
def _forward(network: ManyToMany, text: str, vocabulary: list[str]) -> list[Timestep]:
    steps, state = [], network.initial_state(1)
    for t, (here, there) in enumerate(zip(text, text[1:], strict=False), 1):
        token, target = vocabulary.index(here), vocabulary.index(there)
        scores, state = network.step(Inputs(torch.tensor([token])), state)
        y = scores[0]
        steps.append(
            Timestep(
                t=t,
                input=here,
                one_hot=[int(i == token) for i in range(len(vocabulary))],
                hidden=state[0][0, 0].tolist(),
                cell_state=state[1][0, 0].tolist() if len(state) > 1 else None,
                scores=y.tolist(),
                softmax=y.softmax(0).tolist(),
                likeliest=vocabulary[int(y.argmax())],
                target=there,
                loss=-y.log_softmax(0)[target].item(),
            )
        )
    return steps


def _through_time(network: ManyToMany, x: Tensor, targets: Tensor, bptt: int) -> tuple[list[Tensor], list[Tensor]]:
    """The contribution (G*H, H) of each timestep to the gradient of W_hh, and how the last loss depends on each state.

    All timesteps share one W_hh, so autograd adds their contributions up before anyone sees them. Here each timestep
    computes with a copy of its own, equal in value: one backward of the summed loss tells the copies apart.
    """
    cell, w = network.recurrent.cell, network.recurrent.weights(0)
    copies = [w.hh.detach().clone().requires_grad_() for _ in x]
    state: State = cell.zero_state(1, w.hh.shape[1], w.hh)
    losses, states = [], []
    for t in range(len(x)):
        if t % bptt == 0:
            state = tuple(s.detach() for s in state)  # the truncation: carried forward, but no gradient flows back
        state = cell.step(w._replace(hh=copies[t]), Inputs(x[t : t + 1]), state)
        states.append(state[-1])  # an LSTM's c: h_t is made of it
        losses.append(F.cross_entropy(network.output(state[0]), targets[t : t + 1], reduction="sum"))
    contributions = torch.autograd.grad(torch.stack(losses).sum(), copies, retain_graph=True)
    back = torch.autograd.grad(losses[-1], states, allow_unused=True)  # None behind a truncation
    return list(contributions), [torch.zeros_like(w.hh[0]) if b is None else b for b in back]


def _backward(network: ManyToMany, x: Tensor, targets: Tensor) -> Backward:
    contributions, back = _through_time(network, x, targets, len(x))
    network.recurrent.engine = "loop"  # plain autograd, so that the comparison is with PyTorch and not with ourselves
    loss = F.cross_entropy(network(Inputs(x[:, None]))[0][:, 0], targets, reduction="sum")
    (autograd,) = torch.autograd.grad(loss, [network.recurrent.weights(0).hh])
    difference = (torch.stack(contributions).sum(0) - autograd).abs().max().item()
    return Backward(**_gradient(contributions, back), autograd=autograd.tolist(), largest_difference=difference)


def _truncated(network: ManyToMany, x: Tensor, targets: Tensor, bptt: int, full: Backward) -> Truncated:
    bptt = min(bptt, len(x))
    contributions, back = _through_time(network, x, targets, bptt)
    total, whole = torch.stack(contributions).sum(0), torch.tensor(full.total, dtype=torch.float64)
    lengths = total.norm() * whole.norm()
    return Truncated(
        **_gradient(contributions, back),
        bptt=bptt,
        chunks=[(first + 1, min(first + bptt, len(x))) for first in range(0, len(x), bptt)],
        lost=(whole - total).norm().item(),
        cosine=((whole * total).sum() / lengths).clamp(-1, 1).item() if lengths else None,
    )


def _gradient(contributions: list[Tensor], back: list[Tensor]) -> dict[str, Any]:
    """The fields of `Gradient`."""
    total = torch.stack(contributions).sum(0)
    return {
        "contributions": [c.tolist() for c in contributions],
        "norms": [c.norm().item() for c in contributions],
        "total": total.tolist(),
        "norm": total.norm().item(),
        "reach": [b.norm().item() for b in back],
    }


@torch.no_grad()
def _sample(network: ManyToMany, vocabulary: list[str], length: int, seed: int) -> Sample:
    u = np.random.Generator(np.random.PCG64(seed)).random(length)
    draws = _write(network, vocabulary, u, Sampling())
    likeliest = _write(network, vocabulary, u, Sampling(temperature=0))
    first = vocabulary[0]
    return Sample(draws, first + "".join(d.drawn for d in draws), first + "".join(d.drawn for d in likeliest))


def _write(network: ManyToMany, vocabulary: list[str], u: np.ndarray, how: Sampling) -> list[Draw]:
    """Feed the first character, draw the next from its scores, feed that."""
    draws, token, state = [], 0, network.initial_state(1)
    for number in u:
        scores, state = network.step(Inputs(torch.tensor([token])), state)
        p = probabilities(scores.numpy(), how)
        drawn = int(draw(p, np.array([number]))[0])
        draws.append(Draw(vocabulary[token], p[0].tolist(), float(number), vocabulary[drawn]))
        token = drawn
    return draws
