"""The numbers of `unrolled explain`: against plain PyTorch and closed forms."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from helpers import PUBLISHED
from torch import Tensor

from unrolled.cells import CELLS, Inputs, Weights
from unrolled.inspection.explain import CLIP, LEARNING_RATE, Adam, explain
from unrolled.inspection.explanation import Explanation
from unrolled.nn import Recurrent
from unrolled.topologies import ManyToMany


def tensors(e: Explanation) -> dict[str, Tensor]:
    return {name: torch.tensor(weight, dtype=torch.float64) for name, weight in e.weights.items()}


def columns(e: Explanation) -> tuple[list[int], list[int]]:
    """Inputs and targets as indices."""
    tokens = [e.vocabulary.index(c) for c in e.text]
    return tokens[:-1], tokens[1:]


def torch_weights(e: Explanation) -> Weights:
    w = tensors(e)
    return Weights(w["W_xh"], w["W_hh"], w["b_xh"], w["b_hh"])


def unrolled_by_hand(e: Explanation, w: Weights, bptt: int = 10**9) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """The published formulas of the cell: state (each (1, H)) and loss of each timestep."""
    out, step = tensors(e), PUBLISHED[e.cell]
    state = tuple(torch.zeros(1, e.hidden, dtype=torch.float64) for _ in range(CELLS[e.cell].states))
    for t, (x, target) in enumerate(zip(*columns(e), strict=True)):
        if t % bptt == 0:
            state = tuple(s.detach() for s in state)
        state = step(w, torch.eye(len(e.vocabulary), dtype=torch.float64)[x : x + 1], state)
        yield state, -(state[0] @ out["W_hy"].T + out["b_y"]).log_softmax(-1)[0, target]


def close(actual: object, expected: Tensor) -> None:
    torch.testing.assert_close(torch.tensor(actual, dtype=torch.float64), expected.detach())


@pytest.fixture(scope="module")
def hello() -> Explanation:
    return explain("hello")


# The numbers


def test_the_forward_pass_is_the_lectures(hello: Explanation) -> None:
    w = tensors(hello)
    h, total = torch.zeros(3, dtype=torch.float64), 0.0
    assert hello.vocabulary == ["h", "e", "l", "o"]
    for step, here, there in zip(hello.timesteps, "hell", "ello", strict=True):
        x = torch.zeros(4, dtype=torch.float64)
        x["helo".index(here)] = 1
        h = torch.tanh(w["W_hh"] @ h + w["W_xh"] @ x + w["b_xh"] + w["b_hh"])
        y = w["W_hy"] @ h + w["b_y"]
        p = y.exp() / y.exp().sum()
        assert (step.input, step.target, step.cell_state) == (here, there, None)
        close(step.one_hot, x)
        close(step.hidden, h)
        close(step.scores, y)
        close(step.softmax, p)
        assert step.loss == pytest.approx(-p["helo".index(there)].log().item())
        assert step.likeliest == "helo"[int(p.argmax())]
        total += step.loss
    assert hello.loss == pytest.approx(total) == pytest.approx(hello.training.loss_after)
    assert hello.mean_loss == pytest.approx(total / 4)
    assert hello.parameters == 12 + 9 + 3 + 3 + 12 + 4


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_shown_as_published(cell: str) -> None:
    e = explain("to be or not", cell=cell, hidden=5, steps=10)
    for step, (state, loss) in zip(e.timesteps, unrolled_by_hand(e, torch_weights(e)), strict=True):
        close(step.hidden, state[0][0])
        if cell == "lstm":
            close(step.cell_state, state[1][0])
        assert step.loss == pytest.approx(loss.item())


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("text", ["hello", "mississippi"])
def test_contributions_add_up_to_autograds_gradient(cell: str, text: str) -> None:
    e = explain(text, cell=cell, hidden=4, steps=15)
    w = torch_weights(e)
    w.hh.requires_grad_()
    (gradient,) = torch.autograd.grad(sum(loss for _, loss in unrolled_by_hand(e, w)), [w.hh])
    close(e.backward.total, gradient)
    close(e.backward.autograd, gradient)
    contributions = torch.tensor(e.backward.contributions, dtype=torch.float64)
    assert contributions.shape == (len(text) - 1, CELLS[cell].gates * 4, 4)
    close(contributions.sum(0).tolist(), gradient)
    assert not contributions[0].any()  # h_0 is 0
    assert all(contribution.any() for contribution in contributions[1:])
    close(e.backward.norms, contributions.flatten(1).norm(dim=1))
    assert e.backward.norm == pytest.approx(gradient.norm().item())
    assert e.backward.largest_difference < 1e-12


@pytest.mark.parametrize("cell", ["rnn", "rnn_relu"])
@pytest.mark.parametrize("bptt", [1, 2, 3, 10])
def test_contributions_are_the_closed_form(cell: str, bptt: int) -> None:
    """δ_t h_{t-1}ᵀ, by the recursion over time that the lesson prints, whole and cut into chunks."""
    e = explain("mississippi", cell=cell, hidden=4, steps=15, bptt=bptt)
    w, (_, targets) = tensors(e), columns(e)
    h = [torch.zeros(4, dtype=torch.float64), *(torch.tensor(s.hidden, dtype=torch.float64) for s in e.timesteps)]
    for gradient, chunk in ((e.backward, 10), (e.truncated, bptt)):
        delta, reach = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
        for t in range(10, 0, -1):
            if t % chunk == 0:
                delta, reach = torch.zeros_like(delta), torch.zeros_like(reach)
            p = torch.tensor(e.timesteps[t - 1].softmax, dtype=torch.float64)
            surprise = w["W_hy"].T @ (p - F.one_hot(torch.tensor(targets[t - 1]), len(p)))
            slope = 1 - h[t] ** 2 if cell == "rnn" else (h[t] > 0).double()
            reach = surprise if t == 10 else reach  # dL_10/dh_t
            delta = slope * (surprise + w["W_hh"].T @ delta)
            close(gradient.contributions[t - 1], torch.outer(delta, h[t - 1]))
            assert gradient.reach[t - 1] == pytest.approx(reach.norm().item(), abs=1e-15)
            reach = w["W_hh"].T @ (slope * reach)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bptt", [1, 2, 3, 5, 99])
def test_truncation_is_what_training_does(cell: str, bptt: int) -> None:
    """The package's own layers, a forward and a backward a chunk, the carried state detached, gradients accumulated."""
    e = explain("hello!", cell=cell, steps=10, bptt=bptt)
    network = ManyToMany(Recurrent(CELLS[cell], 5, 3, dtype=torch.float64), 5).double()
    names = ["recurrent.weight_ih_l0", "recurrent.weight_hh_l0", "recurrent.bias_ih_l0", "recurrent.bias_hh_l0"]
    network.load_state_dict(dict(zip([*names, "output.weight", "output.bias"], tensors(e).values(), strict=True)))
    x, targets = (torch.tensor(c) for c in columns(e))
    state, shared, chunks = None, network.recurrent.weight_hh_l0, []
    for first in range(0, 5, bptt):
        chunk = slice(first, first + bptt)
        scores, state = network(Inputs(x[chunk, None]), state)
        before = torch.zeros_like(shared) if shared.grad is None else shared.grad.clone()
        F.cross_entropy(scores[:, 0], targets[chunk], reduction="sum").backward()
        state = tuple(s.detach() for s in state)
        close(torch.tensor(e.truncated.contributions[chunk]).sum(0).tolist(), shared.grad - before)
        chunks.append((first + 1, min(first + bptt, 5)))
    assert e.truncated.chunks == chunks
    close(e.truncated.total, shared.grad)
    full = torch.tensor(e.backward.total, dtype=torch.float64)
    assert e.truncated.lost == pytest.approx((full - shared.grad).norm().item(), abs=1e-15)
    cosine = F.cosine_similarity(full.flatten(), shared.grad.flatten(), dim=0).item()
    assert e.truncated.cosine == (pytest.approx(cosine) if shared.grad.any() else None)
    if bptt >= 5:
        assert (e.truncated.lost, e.truncated.cosine) == (0, pytest.approx(1))
        assert e.truncated.contributions == e.backward.contributions


def test_without_a_state_before_there_is_no_gradient() -> None:
    e = explain("ab")
    assert (e.backward.norm, e.truncated.norm, e.truncated.cosine, e.truncated.chunks) == (0, 0, None, [(1, 1)])


@pytest.mark.parametrize("cell", CELLS)
def test_hello_is_learned(cell: str) -> None:
    """l is followed by l and by o: no network without memory can."""
    e = explain(cell=cell)
    assert e.training.learned
    assert e.training.correct == 4
    assert e.training.updates < 200
    assert [s.likeliest for s in e.timesteps] == list("ello")
    assert e.training.loss_after < 0.6 < 5 < e.training.loss_before
    assert e.sample.likeliest == "hello"
    assert e.backward.norm > 0.01


def test_what_was_not_learned_is_not_called_so() -> None:
    e = explain(steps=0)
    assert not e.training.learned
    assert e.training.correct == sum(s.likeliest == s.target for s in e.timesteps) < 4
    assert (e.training.updates, e.training.loss_before) == (0, e.training.loss_after)


def test_adam_is_adam() -> None:
    """PyTorch's, after its clipping."""
    draw = torch.Generator().manual_seed(1)
    mine = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((3, 4), (4,))]
    theirs = [torch.nn.Parameter(p.clone()) for p in mine]
    adam, reference = Adam(mine), torch.optim.Adam(theirs, lr=LEARNING_RATE)
    for scale in (1, 1e-3, 100, 0, 1):
        gradients = tuple(scale * torch.randn(p.shape, generator=draw, dtype=torch.float64) for p in mine)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(theirs, CLIP)
        reference.step()
        adam.step(gradients)
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-7)


def test_the_sample_follows_its_own_characters() -> None:
    e = explain("hello", seed=3)
    step, w, out = PUBLISHED["rnn"], torch_weights(e), tensors(e)
    state, token, written = (torch.zeros(1, 3, dtype=torch.float64),), 0, "h"
    for d in e.sample.draws:
        assert d.input == e.vocabulary[token]
        state = step(w, torch.eye(4, dtype=torch.float64)[token : token + 1], state)
        p = (state[0] @ out["W_hy"].T + out["b_y"]).softmax(-1)[0]
        close(d.softmax, p)
        assert 0 <= d.u < 1
        token = next(i for i in range(4) if sum(p[: i + 1]) > d.u)
        written += e.vocabulary[token]
        assert d.drawn == e.vocabulary[token]
    assert e.sample.text == written
    assert len(written) == 5


def test_a_seed_repeats_and_nothing_else_is_touched() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (explain(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first == again
    assert first.weights != other.weights
    assert [d.u for d in first.sample.draws] != [d.u for d in other.sample.draws]
    with torch.no_grad():
        assert explain(seed=1) == first
