"""The topologies with one or many inputs and outputs, and attention, against plain loops and torch.nn."""

from collections.abc import Callable

import pytest
import torch
from helpers import assert_one_sentence
from torch import Tensor, nn

from unrolled.cells import CELLS, Inputs
from unrolled.errors import InputError
from unrolled.nn import Recurrent, attention
from unrolled.nn.attention import ATTENTIONS
from unrolled.topologies import Decoder, ManyToOne, Memory, OneToMany, SequenceToSequence
from unrolled.topologies.many_to_one import POOLINGS
from unrolled.topologies.one_to_many import USES

FEATURES, HIDDEN, OUTPUTS, WORDS, CONTEXT = 3, 4, 5, 7, 6
LENGTHS = torch.tensor([4, 0, 6, 1])
BATCH, STEPS = len(LENGTHS), int(LENGTHS.max())
TARGET_LENGTHS = torch.tensor([3, 5, 1, 0])
cells = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(2)


def recurrent(cell: str, size: int = FEATURES, layers: int = 2, bidirectional: bool = False) -> Recurrent:
    stack = Recurrent(CELLS[cell], size, HIDDEN, layers, bidirectional=bidirectional, dtype=torch.float64)
    if cell == "rnn_relu":  # so few units would all be off in many a timestep
        with torch.no_grad():
            for name, parameter in stack.named_parameters():
                parameter.add_(0.5 if "bias" in name else 0)
    return stack


def decided(model: nn.Module) -> nn.Module:
    """In float64, with weights large enough that nothing is close to zero or to linear."""
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.mul_(2)
    return model.eval()


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def tokens(steps: int = STEPS, batch: int = BATCH) -> Tensor:
    return torch.randint(WORDS, (steps, batch))


def assert_gradients_everywhere(model: nn.Module, loss: Tensor) -> None:
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
        assert parameter.grad.abs().max() > 0, name


# many to one


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
@cells
def test_many_to_one_never_sees_padding(cell: str, pooling: str, bidirectional: bool) -> None:
    model = decided(ManyToOne(recurrent(cell, bidirectional=bidirectional), OUTPUTS, pooling))
    x = random(STEPS, BATCH, FEATURES)
    scores, (_, shares) = model(Inputs(x), LENGTHS), model.pool(Inputs(x), LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = Inputs(x[:length, row : row + 1])  # without padding and without lengths
        torch.testing.assert_close(scores[row], model(alone)[0])
        torch.testing.assert_close(shares[row, :length], model.pool(alone)[1][0])
        assert not shares[row, length:].any()
    torch.testing.assert_close(shares.sum(1), (LENGTHS > 0).double())
    torch.testing.assert_close(scores[1], model.output.bias.detach())  # without timesteps: a pooled vector of zeros
    assert_gradients_everywhere(model, scores.square().sum())


@pytest.mark.parametrize("pooling", POOLINGS)
def test_many_to_one_pools_as_it_says(pooling: str) -> None:
    model = decided(ManyToOne(recurrent("lstm", bidirectional=True), OUTPUTS, pooling))
    x = Inputs(random(STEPS, BATCH, FEATURES))
    hidden, _ = model.recurrent.unroll(x, None, LENGTHS)
    pooled, shares = model.pool(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        if not length:
            continue
        h = hidden[:length, row]
        if pooling == "attention":
            w, _, v = model.attention
            fits = torch.stack([v.weight[0] @ torch.tanh(w.weight @ h[t]) for t in range(length)]).exp()
            expected = sum(fits[t] / fits.sum() * h[t] for t in range(length))
        elif pooling == "final":
            expected = torch.cat([h[-1, :HIDDEN], h[0, HIDDEN:]])
        else:
            expected = h.mean(0) if pooling == "mean" else h.amax(0)
        torch.testing.assert_close(pooled[row], expected)
        if pooling == "max":  # who a feature comes from
            assert shares[row].tolist() == pytest.approx(
                [float((h[t] == h.amax(0)).double().mean()) for t in range(length)] + [0] * (STEPS - length)
            )
        elif pooling == "final":
            expected = torch.zeros(STEPS).double()
            expected[0] += 0.5
            expected[length - 1] += 0.5
            torch.testing.assert_close(shares[row], expected)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_many_to_one_of_no_timesteps_at_all(pooling: str) -> None:
    model = decided(ManyToOne(recurrent("gru"), OUTPUTS, pooling))
    for lengths in (None, torch.zeros(2, dtype=torch.long)):
        scores = model(Inputs(random(0, 2, FEATURES)), lengths)
        torch.testing.assert_close(scores, model.output.bias.expand(2, -1))


# one to many


@pytest.mark.parametrize("use", USES)
@cells
def test_one_to_many(cell: str, use: str) -> None:
    """Mixed lengths are one row at a time; a sequence is its chunks, and repeated steps."""
    model = decided(OneToMany(recurrent(cell), OUTPUTS, CONTEXT, use))
    x, v = random(STEPS, BATCH, FEATURES), random(BATCH, CONTEXT)
    scores, final = model(Inputs(x), v, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, end = model(Inputs(x[:length, row : row + 1]), v[row : row + 1])
        torch.testing.assert_close(scores[:length, row], alone[:, 0])
        for ours, its in zip(final, end, strict=True):
            torch.testing.assert_close(ours[:, row], its[:, 0])
    whole, final = model(Inputs(x), v)
    first, state = model(Inputs(x[:2]), v)
    second, end = model(Inputs(x[2:]), v, state)
    torch.testing.assert_close(torch.cat([first, second]), whole)
    torch.testing.assert_close(end, final)
    memory = model.start(v)
    state = memory.start
    for t in range(STEPS):
        step, state = model.step(Inputs(x[t]), state, memory)
        torch.testing.assert_close(step, whole[t])
    assert_gradients_everywhere(model, scores.square().sum())


@pytest.mark.parametrize("layer", [nn.RNN, nn.LSTM, nn.GRU])
def test_every_step_is_v_beside_every_input(layer: type[nn.RNNBase]) -> None:
    cell = {nn.RNN: "rnn", nn.LSTM: "lstm", nn.GRU: "gru"}[layer]
    model = decided(OneToMany(recurrent(cell, layers=2), OUTPUTS, CONTEXT, "every-step"))
    peer = layer(FEATURES + CONTEXT, HIDDEN, 2).double()
    weights = dict(model.recurrent.state_dict())
    assert model.bridge.every_step is not None
    weights["weight_ih_l0"] = torch.cat([weights["weight_ih_l0"], model.bridge.every_step.weight], 1)
    peer.load_state_dict(weights)
    x, v = random(STEPS, BATCH, FEATURES), random(BATCH, CONTEXT)
    outputs, _ = peer(torch.cat([x, v.expand(STEPS, -1, -1)], -1))
    torch.testing.assert_close(model(Inputs(x), v)[0], model.output(outputs))


@pytest.mark.parametrize("engine", ["auto", "loop"])
@cells
def test_the_initial_state_is_a_layer_of_v(cell: str, engine: str) -> None:
    model = decided(OneToMany(recurrent(cell), OUTPUTS, CONTEXT, "initial"))
    model.recurrent.engine = engine
    x, v = random(STEPS, BATCH, FEATURES), random(BATCH, CONTEXT)
    linear = model.bridge.initial
    assert linear is not None
    parts = iter((v @ linear.weight.t() + linear.bias).split(HIDDEN, 1))
    start = [[next(parts) for _ in range(2)] for _ in range(CELLS[cell].states)]
    state = (torch.stack(start[0]).tanh(), *(torch.stack(c) for c in start[1:]))
    hidden, _ = model.recurrent.unroll(Inputs(x), state)
    torch.testing.assert_close(model(Inputs(x), v)[0], model.output(hidden))
    narrow = model.float()  # on the compiled kernels, where there are some
    torch.testing.assert_close(narrow(Inputs(x.float()), v.float())[0], model.output(hidden.float()), atol=1e-4, rtol=0)


# attention


def by_hand(kind: str, layer: nn.Module, q: Tensor, k: Tensor) -> Tensor:
    """The score of one query and one key, by the published formula."""
    if kind == "dot":
        return q @ (layer.weight.weight @ k)
    hidden = torch.tanh(layer.query.weight @ q + layer.key.weight @ k + layer.key.bias)
    return layer.score.weight[0] @ hidden


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_is_a_plain_loop(kind: str) -> None:
    layer = decided(ATTENTIONS[kind](HIDDEN, FEATURES))
    queries, keys = random(3, BATCH, HIDDEN), random(STEPS, BATCH, FEATURES)
    context, weights = layer(queries, keys, LENGTHS)
    assert context.shape == (3, BATCH, FEATURES) and weights.shape == (3, BATCH, STEPS)
    for t in range(3):
        for b, length in enumerate(LENGTHS.tolist()):
            fits = [by_hand(kind, layer, queries[t, b], keys[s, b]).exp() for s in range(length)]
            expected = [f / sum(fits) for f in fits] + [torch.zeros(()).double()] * (STEPS - length)
            torch.testing.assert_close(weights[t, b], torch.stack(expected))
            mean = sum((w * k for w, k in zip(expected, keys[:, b], strict=True)), torch.zeros(FEATURES).double())
            torch.testing.assert_close(context[t, b], mean)
    every, _ = layer(queries, keys)
    torch.testing.assert_close(every[:, 2], context[:, 2])  # the row that fills the batch
    torch.testing.assert_close(layer(queries, keys, LENGTHS, layer.project(keys))[0], context)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_over_nothing(kind: str) -> None:
    """Zeros, and gradients that are numbers."""
    layer = decided(ATTENTIONS[kind](HIDDEN, FEATURES))
    for steps in (0, 2):
        queries, keys = random(3, 2, HIDDEN).requires_grad_(), random(steps, 2, FEATURES).requires_grad_()
        context, weights = layer(queries, keys, torch.zeros(2, dtype=torch.long))
        assert not context.any() and not weights.any() and weights.shape == (3, 2, steps)
        for gradient in torch.autograd.grad(context.sum(), (queries, keys)):
            assert not gradient.any()


def test_additive_attention_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = decided(attention.AdditiveAttention(HIDDEN, FEATURES, 8))
    queries, keys = random(7, BATCH, HIDDEN).requires_grad_(), random(STEPS, BATCH, FEATURES).requires_grad_()
    leaves = [queries, keys, *layer.parameters()]
    sizes: list[int] = []
    scored = layer._score

    def watch(asked: Tensor, projected: Tensor) -> Tensor:
        sizes.append(len(asked))
        return scored(asked, projected)

    layer._score = watch  # type: ignore[method-assign]
    results = []
    for chunk in (1 << 30, 2 * STEPS * BATCH * 8, 1):
        monkeypatch.setattr(attention, "CHUNK", chunk)
        sizes.clear()
        context, _ = layer(queries, keys, LENGTHS)
        results.append((context, *torch.autograd.grad(context.square().sum(), leaves)))
        with torch.inference_mode():
            torch.testing.assert_close(layer(queries, keys, LENGTHS)[0], context)
        assert max(sizes) == {1 << 30: 7, 1: 1}.get(chunk, 2)  # queries at once
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


# sequence to sequence


def translator(cell: str, kind: str, bidirectional: bool = True, **options: object) -> SequenceToSequence:
    encoder = recurrent(cell, bidirectional=bidirectional)
    return decided(SequenceToSequence(encoder, recurrent(cell), WORDS, attention=kind, **options))


kinds = pytest.mark.parametrize("kind", ["none", *ATTENTIONS])


@pytest.mark.parametrize("options", [{}, {"use": "every-step"}, {"tied": True}, {"bidirectional": False}], ids=str)
@kinds
@cells
def test_sequence_to_sequence(cell: str, kind: str, options: dict) -> None:
    """Mixed lengths are one row at a time; a sequence is repeated steps; nothing is left without a gradient."""
    model = translator(cell, kind, **options)
    sources, targets = (random(WORDS, FEATURES).requires_grad_() for _ in range(2))
    source, target = tokens(), tokens(5)
    scores = model(Inputs(source, sources), LENGTHS, Inputs(target, targets), TARGET_LENGTHS)
    assert scores.shape == (5, BATCH, WORDS)
    for row, (length, written) in enumerate(zip(LENGTHS.tolist(), TARGET_LENGTHS.tolist(), strict=True)):
        alone = Inputs(source[:length, row : row + 1], sources), Inputs(target[:written, row : row + 1], targets)
        torch.testing.assert_close(scores[:written, row], model(alone[0], None, alone[1])[:, 0])
    memory = model.encode(Inputs(source, sources), LENGTHS)
    readouts, all_weights = model.decode(Inputs(target, targets), memory)
    torch.testing.assert_close(scores[:3, 0], model.score(readouts[:3, 0], targets))
    state = memory.start
    for t in range(5):
        step, state, weights = model.step(Inputs(target[t], targets), state, memory)
        torch.testing.assert_close(step, model.score(readouts[t], targets))
        assert (weights is None) == (all_weights is None) == (kind == "none")
        if weights is not None and all_weights is not None:
            torch.testing.assert_close(weights, all_weights[t])
    real = torch.arange(5)[:, None] < TARGET_LENGTHS
    assert_gradients_everywhere(model, scores[real].square().sum())
    assert bool(sources.grad.abs().max() > 0) and bool(targets.grad.abs().max() > 0)  # type: ignore[union-attr]


@kinds
def test_hypotheses_share_the_memory_of_their_sentence(kind: str) -> None:
    model, table = translator("lstm", kind, use="both"), random(WORDS, FEATURES)
    memory = model.encode(Inputs(tokens(), table), LENGTHS)
    rows = torch.tensor([2, 2, 2, 0, 0, 0])
    x, apart = tokens(1, 6)[0], memory.select(rows)
    state = tuple(s + random(*s.shape) for s in apart.start)
    scores, new, weights = model.step(Inputs(x, table), state, memory.select(torch.tensor([2, 0])))
    expected = model.step(Inputs(x, table), state, apart)
    torch.testing.assert_close((scores, new), expected[:2])
    if weights is not None:
        torch.testing.assert_close(weights, expected[2])


def test_the_context_reaches_every_timestep_without_attention() -> None:
    """Through the constant, as well as through the state."""
    model, table = translator("gru", "none"), random(WORDS, FEATURES)
    memory = model.encode(Inputs(tokens(), table))
    target = Inputs(tokens(5), table)
    assert memory.constant is not None and memory.keys is None
    constant = memory.constant.detach().requires_grad_()
    start = tuple(s.detach() for s in memory.start)
    for lost in (Memory(start, memory.constant * 0), Memory(tuple(s * 0 for s in start), memory.constant)):
        assert not torch.isclose(model.decode(target, lost)[0], model.decode(target, memory)[0]).all(-1).any()
    (gradient,) = torch.autograd.grad(model.decode(target, Memory(start, constant))[0].sum(), constant)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("use", ["initial", "every-step", "both"])
@kinds
def test_a_decoder_writes_from_a_vector_and_values_of_any_kind(kind: str, use: str) -> None:
    """No encoder in front: a picture's vector and its regions. All timesteps at once are repeated steps, alone or with
    several hypotheses; everything has a gradient."""
    model = decided(Decoder(recurrent("gru"), WORDS, CONTEXT, 5, attention=kind, use=use, tied=True))
    context, values, table = (random(*s).requires_grad_() for s in ((BATCH, CONTEXT), (7, BATCH, 5), (WORDS, FEATURES)))
    lengths = torch.tensor([7, 1, 5, 2][:BATCH])
    memory = model.remember(context, values, lengths)
    target = tokens(5)
    readouts, all_weights = model.decode(Inputs(target, table), memory)
    state = memory.start
    for t in range(5):
        scores, state, weights = model.step(Inputs(target[t], table), state, memory)
        torch.testing.assert_close(scores, model.score(readouts[t], table))
        if kind != "none":
            assert weights is not None and bool((weights[1, 1:] == 0).all())
            torch.testing.assert_close(weights, all_weights[t])
    assert_gradients_everywhere(model, model.score(readouts, table).square().sum())
    assert context.grad is not None and bool(context.grad.abs().max() > 0)
    assert (values.grad is not None) == (kind != "none")
    if kind != "none":
        with pytest.raises(InputError, match="values"):
            model.remember(context)


def test_dropout_acts_in_training_alone() -> None:
    table = random(WORDS, FEATURES)
    source, target, v = Inputs(tokens(), table), Inputs(tokens(5), table), random(BATCH, CONTEXT)
    calls: list[tuple[nn.Module, Callable[[nn.Module], Tensor]]] = [
        (translator("gru", "dot", dropout=0.5), lambda m: m(source, LENGTHS, target)),
        (decided(ManyToOne(recurrent("gru"), OUTPUTS, dropout=0.5)), lambda m: m(source)),
        (decided(OneToMany(recurrent("gru"), OUTPUTS, CONTEXT, dropout=0.5)), lambda m: m(source, v)[0]),
    ]
    for model, call in calls:
        torch.testing.assert_close(call(model), call(model), rtol=0, atol=0)
        model.train()
        assert not torch.equal(call(model), call(model))


def test_what_cannot_be_built() -> None:
    both = recurrent("gru", bidirectional=True)
    one, tied = recurrent("gru"), translator("gru", "dot", tied=True)
    for call in (
        lambda: ManyToOne(one, OUTPUTS, "sum"),
        lambda: OneToMany(one, OUTPUTS, CONTEXT, "never"),
        lambda: OneToMany(both, OUTPUTS, CONTEXT),
        lambda: SequenceToSequence(one, both, WORDS),
        lambda: SequenceToSequence(one, one, WORDS, attention="local"),
        lambda: tied(Inputs(random(2, 1, FEATURES)), None, Inputs(random(2, 1, FEATURES))),
    ):
        with pytest.raises(InputError) as error:
            call()
        assert_one_sentence(str(error.value))
