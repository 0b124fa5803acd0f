"""`unrolled.nn.RNN`, `LSTM` and `GRU` against `torch.nn`'s: the same numbers, names, attributes and warnings."""

import copy
import pickle
import random
from itertools import chain, product
from typing import Any

import pytest
import torch
from helpers import assert_one_sentence
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import unrolled.nn
from unrolled.cells import CELLS, Inputs
from unrolled.errors import InputError
from unrolled.nn import Recurrent

KINDS = ("RNN", "LSTM", "GRU")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
SEEDS = 70  # x 3 kinds x 2 dtypes = 420 configurations
ENGINE_NAMES = ("auto", "loop", "bptt", "torch")
FORMS = ("plain", "unbatched", "packed sorted", "packed unsorted", "lengths")
kinds = pytest.mark.parametrize("kind", KINDS)


def pair(kind: str, *args: Any, engine: str = "auto", **options: Any) -> tuple[Recurrent, torch.nn.RNNBase]:
    """Our layer and PyTorch's with the same weights; `state_dict` goes both ways, strictly."""
    torch.manual_seed(0)
    ours = getattr(unrolled.nn, kind)(*args, engine=engine, **options)
    theirs = getattr(torch.nn, kind)(*args, **options)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def as_tuple(hx: Any) -> tuple[Tensor, ...]:
    return hx if isinstance(hx, tuple) else (hx,)


def assert_close(what: str, ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    """The largest absolute difference, relative to the largest absolute value of PyTorch's tensor."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype == dtype, what
    if theirs.numel():
        difference, scale = (ours - theirs).abs().max().item(), theirs.abs().max().item()
        assert difference <= {torch.float32: 1e-5, torch.float64: 1e-10}[dtype] * scale, what


# Drawn configurations


def draw_configuration(kind: str, seed: int, dtype: str) -> dict[str, Any]:
    r = random.Random(f"{kind} {seed} {dtype}")
    steps, batch = r.randint(1, 9), r.randint(1, 5)
    form = r.choice(FORMS)
    lengths = [r.randint(0 if form == "lengths" else 1, steps) for _ in range(batch)]
    if form.startswith("packed"):
        lengths[r.randrange(batch)] = steps
    options = {name: r.random() < 0.5 for name in ("bias", "batch_first", "bidirectional")}
    if kind == "RNN":
        options["nonlinearity"] = r.choice(["tanh", "relu"])
    return {
        "form": form,
        "engine": r.choice(ENGINE_NAMES),
        "args": (r.choice([1, 2, 5, 8]), r.choice([1, 3, 4, 7]), r.randint(1, 3)),
        "options": options,
        "steps": steps,
        "batch": batch,
        "lengths": sorted(lengths, reverse=True) if form == "packed sorted" else lengths,
        "with_state": r.random() < 0.5,
    }


def call_ours(layer: Recurrent, c: dict[str, Any], x: Tensor, hx: Any) -> tuple[Any, Any]:
    lengths, batch_first = torch.tensor(c["lengths"]), c["options"]["batch_first"]
    if c["form"] == "lengths":
        return layer(x, hx, lengths=lengths)
    if c["form"].startswith("packed"):
        x = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=c["form"] == "packed sorted")
    return layer(x, hx)


def call_theirs(layer: torch.nn.RNNBase, c: dict[str, Any], x: Tensor, hx: Any) -> tuple[Any, Any]:
    if c["form"] != "lengths":
        return call_ours(layer, c, x, hx)  # type: ignore[arg-type]
    # row by row, each cut to its length; a row of length 0 gives zero outputs and its initial state
    rows = x if c["options"]["batch_first"] else x.transpose(0, 1)
    directions = 2 if layer.bidirectional else 1
    shape = (layer.num_layers * directions, len(rows), layer.hidden_size)
    start = (x.new_zeros(shape),) * (2 if layer.mode == "LSTM" else 1) if hx is None else as_tuple(hx)
    outputs, states = [], []
    for row, length in enumerate(c["lengths"]):
        state = tuple(s[:, row] for s in start)
        padding = x.new_zeros(c["steps"] - length, directions * layer.hidden_size)
        if length:
            output, state = layer(rows[row, :length], state if layer.mode == "LSTM" else state[0])
            padding = torch.cat([output, padding])
        outputs.append(padding)
        states.append(as_tuple(state))
    final = tuple(torch.stack(parts, 1) for parts in zip(*states, strict=True))
    outputs = torch.stack(outputs, 0 if c["options"]["batch_first"] else 1)
    return outputs, final if layer.mode == "LSTM" else final[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(SEEDS))
@kinds
def test_outputs_states_and_gradients_are_torchs(kind: str, seed: int, dtype: str) -> None:
    c = draw_configuration(kind, seed, dtype)
    ours, theirs = pair(kind, *c["args"], engine=c["engine"], dtype=DTYPES[dtype], **c["options"])
    (features, hidden, layers), options = c["args"], c["options"]
    generator = torch.Generator().manual_seed(seed)
    batch = () if c["form"] == "unbatched" else (c["batch"],)
    time_first = not options["batch_first"] or not batch
    shape = (c["steps"], *batch, features) if time_first else (*batch, c["steps"], features)
    state_shape = (layers * (2 if options["bidirectional"] else 1), *batch, hidden)

    def leaves() -> list[Tensor]:
        generator.manual_seed(seed)
        shapes = [shape] + [state_shape] * (c["with_state"] * ours.cell.states)
        drawn = (torch.randn(s, generator=generator, dtype=DTYPES[dtype]) for s in shapes)
        return [t.requires_grad_() for t in drawn]

    results = []
    for layer, call in ((ours, call_ours), (theirs, call_theirs)):
        x, *hx = entering = leaves()
        outputs, state = call(layer, c, x, None if not hx else tuple(hx) if kind == "LSTM" else hx[0])
        assert isinstance(state, tuple) == (kind == "LSTM")
        data = outputs.data if isinstance(outputs, PackedSequence) else outputs
        named = {"outputs": data} | {f"state {i}": s for i, s in enumerate(as_tuple(state))}
        # weights of one sign, so that sums do not cancel and a difference relative to their size means something
        loss = sum((t * torch.rand(t.shape, generator=generator, dtype=t.dtype)).sum() for t in named.values())
        untouched = sum(0 * t.sum() for t in chain(entering, layer.parameters()))  # where all lengths are 0
        (loss + untouched).backward()
        named |= {f"gradient of input {i}": t.grad for i, t in enumerate(entering)}
        named |= {f"gradient of {name}": p.grad for name, p in layer.named_parameters()}
        results.append((outputs, named))
    (packed, one), (their_packed, other) = results
    assert one.keys() == other.keys()
    for what in one:
        assert_close(f"{what} of {c}", one[what], other[what], DTYPES[dtype])
    assert isinstance(packed, PackedSequence) == c["form"].startswith("packed")
    if isinstance(packed, PackedSequence):
        for field in ("batch_sizes", "sorted_indices", "unsorted_indices"):
            mine, expected = getattr(packed, field), getattr(their_packed, field)
            assert mine is expected is None or torch.equal(mine, expected), field


@kinds
def test_the_drawn_configurations_cover_what_matters(kind: str) -> None:
    drawn = [draw_configuration(kind, seed, dtype) for seed in range(SEEDS) for dtype in DTYPES]
    assert {(c["form"], c["engine"]) for c in drawn} == set(product(FORMS, ENGINE_NAMES))
    assert {(c["args"][2], c["options"]["bidirectional"]) for c in drawn} == set(product((1, 2, 3), (False, True)))
    for option in ("bias", "batch_first"):
        assert {(c["form"], c["options"][option]) for c in drawn} == set(product(FORMS, (False, True)))
    assert {(c["form"], c["with_state"]) for c in drawn} == set(product(FORMS, (False, True)))
    assert any(0 in c["lengths"] and any(c["lengths"]) for c in drawn)
    for sizes in ([c["args"][0] for c in drawn], [c["args"][1] for c in drawn], [c["batch"] for c in drawn]):
        assert {1} < set(sizes)


ARGUMENTS: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    ((3, 4), {"batch_first": True}),
    ((3, 4), {"bias": False}),
    ((3, 4), {"bidirectional": True, "num_layers": 3, "dropout": 0.5}),
    ((3, 4, 2, False, True, 0.25, True), {}),  # an RNN has its nonlinearity in between
)


@pytest.mark.parametrize(("args", "options"), ARGUMENTS)
@kinds
def test_names_shapes_order_and_attributes_are_torchs(kind: str, args: Any, options: dict[str, Any]) -> None:
    positional = (*args[:3], "relu", *args[3:]) if kind == "RNN" and len(args) > 3 else args
    ours, theirs = pair(kind, *positional, **options)
    mine, expected = ([(n, p.shape) for n, p in layer.named_parameters()] for layer in (ours, theirs))
    assert mine == expected and list(ours.state_dict()) == list(theirs.state_dict())
    shapes = ([[w.shape for w in each] for each in layer.all_weights] for layer in (ours, theirs))
    assert next(shapes) == next(shapes)
    assert all(isinstance(w, torch.nn.Parameter) for each in ours.all_weights for w in each)
    read = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"]
    for name in (*read, *["nonlinearity"] * (kind == "RNN")):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.flatten_parameters() is None
    x = torch.randn(2, 5, 3)
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x)[0])


@kinds
def test_parameters_start_uniform_within_one_over_root_hidden(kind: str) -> None:
    torch.manual_seed(0)
    layer, bound = getattr(unrolled.nn, kind)(20, 64, 2), 1 / 8
    first = layer.weight_hh_l0.detach().clone()
    layer.reset_parameters()
    assert not torch.equal(first, layer.weight_hh_l0)
    for p in (first, *layer.parameters()):
        assert 0.8 * bound < p.max() <= bound and 0.8 * bound < -p.min() <= bound
    assert layer.weight_hh_l1.abs().max() > 0.995 * bound  # at least 4096 numbers
    assert layer.weight_hh_l1.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("value", [1.0, 0.0, -2.5])
def test_forget_bias_is_the_sum_of_the_two_biases(value: float) -> None:
    layer = unrolled.nn.LSTM(3, 4, 2, bidirectional=True, forget_bias=value)
    for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
        both = getattr(layer, f"bias_ih_{suffix}") + getattr(layer, f"bias_hh_{suffix}")
        assert both[4:8].tolist() == [value] * 4  # the order of gates is i, f, g, o
        assert both[:4].abs().min() > 0 and both[:4].abs().max() <= 1 and both[8:].abs().max() <= 1


@kinds
def test_copies_and_saved_weights_give_the_same_numbers(kind: str) -> None:
    layer, loaded = (getattr(unrolled.nn, kind)(3, 4, 2, bidirectional=True) for _ in range(2))
    x = torch.randn(5, 2, 3)
    saved = pickle.dumps({name: t.numpy() for name, t in layer.state_dict().items()})
    state = {name: torch.from_numpy(array) for name, array in pickle.loads(saved).items()}
    loaded.load_state_dict(state, strict=True)
    copied = copy.deepcopy(layer)
    before = layer(x)[0]
    assert torch.equal(copied(x)[0], before) and torch.equal(loaded(x)[0], before)
    with torch.no_grad():
        layer.weight_hh_l0.zero_()
    assert torch.equal(copied(x)[0], before) and not torch.equal(layer(x)[0], before)


# Dropout between layers


@pytest.mark.parametrize("engine", ENGINE_NAMES)
@kinds
def test_dropout_of_everything_feeds_zeros_to_the_upper_layer(kind: str, engine: str) -> None:
    ours, theirs = pair(kind, 3, 4, 2, dropout=1.0, engine=engine, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    trained = ours(x)[0]
    for one, other in zip(ours(x), theirs(x), strict=True):
        for mine, expected in zip(as_tuple(one), as_tuple(other), strict=True):
            assert_close("with dropout", mine, expected, torch.float64)
    with torch.no_grad():
        ours.weight_ih_l1.zero_()
    assert torch.equal(ours(x)[0], trained)  # nothing came through W_ih of the upper layer
    ours.load_state_dict(theirs.state_dict())
    evaluated = ours.eval()(x)[0]
    assert_close("in evaluation", evaluated, theirs.eval()(x)[0], torch.float64)
    assert not torch.allclose(evaluated, trained)


@pytest.mark.parametrize("engine", ENGINE_NAMES)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["", "bidirectional"])
@kinds
def test_dropout_drops_what_torchs_drops_from_the_same_seed(kind: str, bidirectional: bool, engine: str) -> None:
    options = {"dropout": 0.5, "bidirectional": bidirectional, "dtype": torch.float64}
    ours, theirs = pair(kind, 3, 8, 3, engine=engine, **options)
    x, results = torch.randn(5, 2, 3, dtype=torch.float64), []
    for layer in (ours, theirs):
        torch.manual_seed(1)
        results.append((layer(x)[0], layer(x)[0]))
    for one, other in zip(*results, strict=True):
        assert_close("with dropout", one, other, torch.float64)
    assert not torch.allclose(*results[0])


@kinds
def test_dropout_with_one_layer_warns_as_torch_does(kind: str) -> None:
    for package in (unrolled.nn, torch.nn):
        with pytest.warns(UserWarning, match="dropout") as caught:
            getattr(package, kind)(3, 4, dropout=0.5)
        assert len(caught) == 1
        assert package is torch.nn or caught[0].filename == __file__  # ours points at the caller's line


# Lengths, steps and refusals


@pytest.mark.parametrize("engine", ENGINE_NAMES)
@pytest.mark.parametrize("directions", [1, 2])
@kinds
def test_rows_without_a_timestep_keep_their_state(kind: str, directions: int, engine: str) -> None:
    layer = getattr(unrolled.nn, kind)(3, 4, 2, bidirectional=directions == 2, engine=engine)
    hx = tuple(torch.randn(2 * directions, 3, 4) for _ in range(layer.cell.states))
    zeros, int32 = torch.zeros(3, dtype=torch.long), torch.tensor([5, 0, 2], dtype=torch.int32)
    for steps, lengths in ((5, [5, 0, 2]), (5, int32), (5, zeros), (0, zeros), (0, None)):
        lives = (zeros if lengths is None else torch.as_tensor(lengths)) > 0
        outputs, state = layer(torch.randn(steps, 3, 3), hx if kind == "LSTM" else hx[0], lengths=lengths)
        assert outputs.shape == (steps, 3, 4 * directions)
        assert not outputs[:, ~lives].any() and (outputs[:1, lives] != 0).any(-1).all()
        for start, end in zip(hx, as_tuple(state), strict=True):
            assert torch.equal(start[:, ~lives], end[:, ~lives]) and (start != end).any((0, 2)).equal(lives)


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_a_stack_is_its_steps_and_takes_tokens_and_a_constant(cell: Any) -> None:
    torch.manual_seed(0)
    stack = Recurrent(cell, 3, 4, 2, dtype=torch.float64)
    table, tokens = torch.randn(7, 3, dtype=torch.float64), torch.randint(7, (5, 2))
    inputs = Inputs(tokens, table, torch.randn(2, cell.gates * 4, dtype=torch.float64))
    outputs, final = stack.unroll(inputs)
    state = stack.initial_state(2)
    for t in range(5):
        out, state = stack.step(inputs.at(t), state)
        assert_close("output", out, outputs[t], torch.float64)
    for one, other in zip(state, final, strict=True):
        assert_close("state", one, other, torch.float64)


X, LSTM_STATE = torch.zeros(5, 2, 3), (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4))
PACKED = pack_padded_sequence(X, torch.tensor([5, 2]))
REFUSED: dict[str, tuple[str, tuple[Any, ...], dict[str, Any], str]] = {  # kind, call, keywords, what the message names
    "features": ("GRU", (torch.zeros(5, 2, 7),), {}, "7"),
    "features, unbatched": ("GRU", (torch.zeros(5, 7),), {}, "7"),
    "features, packed": ("LSTM", (pack_padded_sequence(X[..., :2], torch.tensor([5, 2])),), {}, "2"),
    "dimensions": ("RNN", (torch.zeros(5, 2, 3, 1),), {}, "4"),
    "integers": ("GRU", (torch.zeros(5, 2, 3, dtype=torch.long),), {}, "int"),
    "state of another batch": ("RNN", (X, torch.zeros(1, 3, 4)), {}, r"\(1, 3, 4\)"),
    "state of another size": ("GRU", (X, torch.zeros(1, 2, 5)), {}, r"\(1, 2, 5\)"),
    "state of more layers": ("GRU", (X, torch.zeros(2, 2, 4)), {}, r"\(2, 2, 4\)"),
    "state without a batch": ("GRU", (X, torch.zeros(1, 4)), {}, r"\(1, 4\)"),
    "state with a batch, unbatched": ("GRU", (X[:, 0], torch.zeros(1, 2, 4)), {}, "state"),
    "state for a packed batch": ("GRU", (PACKED, torch.zeros(1, 3, 4)), {}, r"\(1, 3, 4\)"),
    "cell state of another size": ("LSTM", (X, (torch.zeros(1, 2, 4), torch.zeros(1, 2, 5))), {}, r"\(1, 2, 5\)"),
    "h without c": ("LSTM", (X, torch.zeros(1, 2, 4)), {}, "state"),
    "three states": ("LSTM", (X, (*LSTM_STATE, torch.zeros(1, 2, 4))), {}, "state"),
    "a tuple for a GRU": ("GRU", (X, (torch.zeros(1, 2, 4),)), {}, "state"),
    "lengths too few": ("RNN", (X,), {"lengths": [5]}, "lengths"),
    "lengths too many": ("RNN", (X,), {"lengths": [5, 5, 5]}, "lengths"),
    "lengths too long": ("RNN", (X,), {"lengths": [6, 1]}, "between 0 and 5"),
    "lengths negative": ("RNN", (X,), {"lengths": [5, -1]}, "between 0 and 5"),
    "lengths fractional": ("RNN", (X,), {"lengths": [2.5, 1.0]}, "lengths"),
    "lengths beside packed": ("RNN", (PACKED,), {"lengths": [5, 2]}, "lengths"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_call_is_refused_in_one_sentence(case: str) -> None:
    kind, call, keywords, names = REFUSED[case]
    with pytest.raises(InputError, match=names) as raised:
        getattr(unrolled.nn, kind)(3, 4)(*call, **keywords)
    assert isinstance(raised.value, ValueError)
    assert_one_sentence(str(raised.value))


WRONG = [("GRU", "input_size", -1), ("GRU", "hidden_size", 0), ("RNN", "num_layers", 0), ("LSTM", "proj_size", 2)]
WRONG += [("LSTM", "dropout", 1.5), ("LSTM", "dropout", -0.5), ("RNN", "nonlinearity", "sigmoid")]


@pytest.mark.parametrize(("kind", "option", "value"), WRONG)
def test_a_wrong_option_is_refused_in_one_sentence(kind: str, option: str, value: Any) -> None:
    with pytest.raises(InputError, match=option) as raised:
        getattr(unrolled.nn, kind)(**{"input_size": 3, "hidden_size": 4, "num_layers": 2} | {option: value})
    assert_one_sentence(str(raised.value))
