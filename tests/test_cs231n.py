"""CS231n's own numbers for this lecture, through every engine.

The arrays are those that the assignment's notebooks print (assignment 3, `RNN_Captioning.ipynb` and
`LSTM_Captioning.ipynb`, 2018 to 2024; assignment 2 from 2025), and of EECS 498-007's A4 for attention, by the same
author. The notebooks print 8 digits; more digits are from a computation of the same formulas in NumPy float64.
"""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import unrolled.nn
from unrolled.cells import CELLS, Inputs, State, Weights
from unrolled.engines import ENGINES
from unrolled.nn import Recurrent
from unrolled.nn.attention import DotAttention
from unrolled.topologies.one_to_many import OneToMany

TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-6}
"""The largest relative error, as the assignment defines it."""

RUNS = [("loop", torch.float64), ("bptt", torch.float64), ("torch", torch.float64), ("fused", torch.float32)]
every_engine = pytest.mark.parametrize(("engine", "dtype"), RUNS, ids=[f"{e} {d}".split("torch.")[0] for e, d in RUNS])
"""Each engine in its most exact dtype."""


def line(first: float, last: float, *shape: int) -> Tensor:
    """The assignment's arrays: np.linspace(first, last, num=N·D).reshape(N, D)."""
    return torch.linspace(first, last, math.prod(shape), dtype=torch.float64).reshape(shape)


def order(cell: str, hidden: int) -> Tensor:
    """Columns of their i, f, o, g as the rows of our i, f, g, o."""
    blocks = torch.arange({"rnn": 1, "lstm": 4}[cell] * hidden).split(hidden)
    return torch.cat([blocks[i] for i in ((0,) if cell == "rnn" else (0, 1, 3, 2))])


def weights(cell: str, wx: Tensor, wh: Tensor, b: Tensor, dtype: torch.dtype) -> Weights:
    """Theirs, (D, G·H), (H, G·H) and one bias, as ours."""
    rows = order(cell, len(wh))
    ours = (wx.t()[rows], wh.t()[rows], b[rows], torch.zeros_like(b))
    return Weights(*(t.to(dtype).contiguous() for t in ours))


def assert_relative(ours: Tensor, expected: Tensor | list[Any], dtype: torch.dtype) -> None:
    """rel_error of the assignment: max |x - y| / max(1e-8, |x| + |y|)."""
    ours, expected = ours.detach().double(), torch.as_tensor(expected, dtype=torch.float64)
    assert ours.shape == expected.shape
    error = (ours - expected).abs() / (ours.abs() + expected.abs()).clamp(min=1e-8)
    assert error.max() < TOLERANCE[dtype]


def run(
    engine: str, cell: str, w: Weights, x: Tensor, state: State, constant: Tensor | None = None
) -> tuple[Tensor, State]:
    """x (N, T, D) to outputs (N, T, H) and the final state."""
    inputs = Inputs(x.transpose(0, 1).to(w.hh).contiguous(), None, None if constant is None else constant.to(w.hh))
    start = tuple(s.to(w.hh) for s in state)
    chosen, made = ENGINES[engine], CELLS[cell]
    if reason := chosen.refuses(made, w, inputs, start):
        pytest.skip(reason)
    outputs, final = chosen.unroll(made, w, inputs, start)
    return outputs.transpose(0, 1), final


# --- RNN -------------------------------------------------------------------------------------------------------------

NEXT_H = [
    [-0.5817208893609517, -0.5018203225582262, -0.4123277084675209, -0.3141009839529115],
    [0.6685469230196153, 0.7956237811573803, 0.8775555281383776, 0.9279596660825137],
    [0.9793450053666393, 0.9914421288454613, 0.9964669105248765, 0.9985435331697275],
]
RNN_H = [
    [
        [-0.420707494229366, -0.2727926123591627, -0.1107494519567417, 0.0574040860111775, 0.2223625069847028],
        [-0.3952580808226089, -0.2255466056441265, -0.0409453971061505, 0.146494119259049, 0.3239731602547246],
        [-0.4230511116354819, -0.2422372755115424, -0.0428702695006546, 0.1599704463400937, 0.3501452527123639],
    ],
    [
        [-0.5585747447392556, -0.3906582465800071, -0.1919818177467184, 0.0237840763237111, 0.2373567088405696],
        [-0.2715019860349064, -0.0708880427336676, 0.135629388661564, 0.3309972766931685, 0.5015876837699241],
        [-0.5101482461778555, -0.3052442858619658, -0.0675520165007145, 0.1780639205651804, 0.4033304299421946],
    ],
]


@every_engine
def test_rnn_step_forward(engine: str, dtype: torch.dtype) -> None:
    w = weights("rnn", line(-0.1, 0.9, 10, 4), line(-0.3, 0.7, 4, 4), line(-0.2, 0.4, 4), dtype)
    _, (h,) = run(engine, "rnn", w, line(-0.4, 0.7, 3, 1, 10), (line(-0.2, 0.5, 3, 4),))
    assert_relative(h, NEXT_H, dtype)


@every_engine
def test_rnn_forward(engine: str, dtype: torch.dtype) -> None:
    w = weights("rnn", line(-0.2, 0.4, 4, 5), line(-0.4, 0.1, 5, 5), line(-0.7, 0.1, 5), dtype)
    outputs, (h,) = run(engine, "rnn", w, line(-0.1, 0.3, 2, 3, 4), (line(-0.3, 0.1, 2, 5),))
    assert_relative(outputs, RNN_H, dtype)
    assert torch.equal(h, outputs[:, -1])


# --- LSTM ------------------------------------------------------------------------------------------------------------

LSTM_NEXT_H = [
    [0.246351571213056, 0.286108831020461, 0.3224046717698407, 0.3552580659462118, 0.384749036059799],
    [0.4922356330388874, 0.5561143066113929, 0.6150769568006216, 0.6684400284823045, 0.7159181044743833],
    [0.5673566412055159, 0.663101268715901, 0.7441926638979893, 0.8088966499118183, 0.858298997623819],
]
LSTM_NEXT_C = [
    [0.3298617631411131, 0.3914513854479588, 0.4515559995998391, 0.5101411614491791, 0.5671740736872734],
    [0.663822552463782, 0.7667400672312346, 0.8719599431928136, 0.979027094948747, 1.0875134523752903],
    [0.7419200783768545, 0.9059215066785871, 1.0771700614501034, 1.251202326175854, 1.4239567632592633],
]
LSTM_H = [
    [
        [0.0176400830378116, 0.0182323321675706, 0.0188267070450384, 0.0194232031624359],
        [0.1128749091966074, 0.1214622846397786, 0.1301844644282287, 0.1390293879084018],
        [0.3135876793272155, 0.3333862715638398, 0.3530445311295057, 0.3725097476682582],
    ],
    [
        [0.4576787865956007, 0.4761091991628703, 0.4936887023441314, 0.5104194522063021],
        [0.6704845009080801, 0.6935008904076979, 0.7148601377683881, 0.7346449026659514],
        [0.8173351139038457, 0.836778712496834, 0.8540375323364592, 0.8693531429947408],
    ],
]


def lstm_step(dtype: torch.dtype) -> tuple[Weights, Tensor, State]:
    """Weights, x (N, 1, D) and (h, c) of the step, to which the attention's step adds."""
    w = weights("lstm", line(-2.1, 1.3, 4, 20), line(-0.7, 2.2, 5, 20), line(0.3, 0.7, 20), dtype)
    return w, line(-0.4, 1.2, 3, 1, 4), (line(-0.3, 0.7, 3, 5), line(-0.4, 0.9, 3, 5))


def lstm_sequence(dtype: torch.dtype) -> tuple[Weights, Tensor]:
    w = weights("lstm", line(-0.2, 0.9, 5, 16), line(-0.3, 0.6, 4, 16), line(0.2, 0.7, 16), dtype)
    return w, line(-0.4, 0.6, 2, 3, 5)


@every_engine
def test_lstm_step_forward(engine: str, dtype: torch.dtype) -> None:
    _, (h, c) = run(engine, "lstm", *lstm_step(dtype))
    assert_relative(h, LSTM_NEXT_H, dtype)
    assert_relative(c, LSTM_NEXT_C, dtype)


@every_engine
def test_lstm_forward(engine: str, dtype: torch.dtype) -> None:
    h0 = line(-0.4, 0.8, 2, 4)
    outputs, _ = run(engine, "lstm", *lstm_sequence(dtype), (h0, torch.zeros_like(h0)))
    assert_relative(outputs, LSTM_H, dtype)


def test_both_sequences_through_the_layers_that_replace_torchs() -> None:
    for kind, w, x, h0, expected in (
        ("RNN", weights("rnn", line(-0.2, 0.4, 4, 5), line(-0.4, 0.1, 5, 5), line(-0.7, 0.1, 5), torch.float64),
         line(-0.1, 0.3, 2, 3, 4), line(-0.3, 0.1, 2, 5), RNN_H),
        ("LSTM", *lstm_sequence(torch.float64), line(-0.4, 0.8, 2, 4), LSTM_H),
    ):  # fmt: skip
        layer = getattr(unrolled.nn, kind)(x.shape[2], h0.shape[1], batch_first=True, dtype=torch.float64)
        layer.load_state_dict(dict(zip(layer.state_dict(), w, strict=True)))
        state = (h0[None], torch.zeros_like(h0)[None]) if kind == "LSTM" else h0[None]
        assert_relative(layer(x, state)[0], expected, torch.float64)


# --- CaptioningRNN.loss ----------------------------------------------------------------------------------------------

LOSS = {"rnn": 9.832355910027392, "lstm": 9.824459354432264}
"""The notebooks say 9.83235591003 and 9.82445935443."""
NORMS = {
    "rnn": {
        "W_embed": 0.07772488902377686, "Wx": 0.00588977880990958, "Wh": 0.04392252254561146,
        "W_vocab": 27.706537275282802, "b_vocab": 4.458016037752614, "W_proj": 0.31371550066186493,
    },
    "lstm": {
        "W_embed": 0.026306429122494878, "Wx": 0.006599118134101254, "Wh": 0.004137518734290165,
        "W_vocab": 27.718512534231202, "b_vocab": 4.511302394090833,
    },
}  # fmt: skip
"""The Euclidean norms of the gradients there, from PyTorch's autograd in float64; the course prints none."""


@pytest.mark.parametrize("cell", LOSS)
@every_engine
def test_the_loss_of_the_captioning_model(engine: str, dtype: torch.dtype, cell: str) -> None:
    rows, features, embedding, hidden, words, steps = 10, 20, 30, 40, 3, 13
    gates = CELLS[cell].gates
    model = OneToMany(
        Recurrent(CELLS[cell], embedding, hidden, engine=engine), words, features, use="initial"
    ).to(dtype)  # fmt: skip
    theirs = line(-1.4, 1.3, embedding, gates * hidden), line(-1.4, 1.3, hidden, gates * hidden)
    w = weights(cell, *theirs, line(-1.4, 1.3, gates * hidden), dtype)
    model.recurrent.load_state_dict(dict(zip(model.recurrent.state_dict(), w, strict=True)))
    model.output.load_state_dict({"weight": line(-1.4, 1.3, hidden, words).t(), "bias": line(-1.4, 1.3, words)})
    table = line(-1.4, 1.3, words, embedding).to(dtype).requires_grad_()
    projection = line(-1.4, 1.3, features, hidden).to(dtype).requires_grad_()
    v = line(*((-1.5, 0.3) if cell == "rnn" else (-0.5, 1.7)), rows, features).to(dtype)
    h0 = (v @ projection + line(-1.4, 1.3, hidden).to(dtype))[None]
    captions = (torch.arange(rows * steps) % words).reshape(rows, steps).t()

    scores, _ = model(Inputs(captions[:-1], table), v, state=(h0, torch.zeros_like(h0))[: CELLS[cell].states])
    loss = F.cross_entropy(scores.flatten(0, 1), captions[1:].flatten(), ignore_index=0)  # 0 is <NULL>
    counted = int((captions[1:] != 0).sum())
    assert counted == 80
    theirs_is = loss.double() * counted / rows  # theirs: the sum over time, divided by the rows
    assert abs(theirs_is.item() - LOSS[cell]) < (1e-10 if dtype == torch.float64 else 2e-6 * LOSS[cell])

    (loss * counted / rows).backward()
    named = dict(model.named_parameters())
    gradients = {
        "W_embed": table, "W_proj": projection, "Wx": named["recurrent.weight_ih_l0"],
        "Wh": named["recurrent.weight_hh_l0"], "W_vocab": named["output.weight"], "b_vocab": named["output.bias"],
    }  # fmt: skip
    for name, norm in NORMS[cell].items():
        tolerance = {torch.float64: 1e-8, torch.float32: 1e-3}[dtype]  # float32: sums of saturated, cancelling terms
        assert gradients[name].grad.norm().item() == pytest.approx(norm, rel=tolerance), name


# --- attention (EECS 498-007) ----------------------------------------------------------------------------------------

ATTN = [
    [-0.29784344, -0.07645979, 0.14492386, 0.36630751, 0.58769115],
    [0.81412643, 1.03551008, 1.25689373, 1.47827738, 1.69966103],
]
ATTN_WEIGHTS = [
    [
        0.06511126, 0.06475411, 0.06439892, 0.06404568, 0.06369438, 0.06334500, 0.06299754, 0.06265198,
        0.06230832, 0.06196655, 0.06162665, 0.06128861, 0.06095243, 0.06061809, 0.06028559, 0.05995491,
    ],
    [
        0.05717142, 0.05784357, 0.05852362, 0.05921167, 0.05990781, 0.06061213, 0.06132473, 0.06204571,
        0.06277517, 0.06351320, 0.06425991, 0.06501540, 0.06577977, 0.06655312, 0.06733557, 0.06812722,
    ],
]  # fmt: skip
ATTN_NEXT_H = [
    [0.53704256, 0.59980774, 0.65596820, 0.70569729, 0.74932626],
    [0.78729857, 0.82010653, 0.84828362, 0.87235677, 0.89283167],
    [0.91017981, 0.92483119, 0.93717126, 0.94754073, 0.95623746],
]
ATTN_NEXT_C = [
    [0.59999328, 0.69285041, 0.78570758, 0.87856479, 0.97142202],
    [1.06428558, 1.15714276, 1.24999992, 1.34285708, 1.43571424],
    [1.52857143, 1.62142857, 1.71428571, 1.80714286, 1.90000000],
]
ATTN_H = [
    [
        [0.56141729, 0.70274849, 0.80000386, 0.86349400],
        [0.89556391, 0.92856726, 0.94950579, 0.96281018],
        [0.96792077, 0.97535465, 0.98039623, 0.98392994],
    ],
    [
        [0.95065880, 0.97135490, 0.98344373, 0.99045552],
        [0.99317679, 0.99607466, 0.99774317, 0.99870293],
        [0.99907382, 0.99946784, 0.99969426, 0.99982435],
    ],
]
PRINTED = 1e-8
"""Half a unit of the last printed digit, and a little."""
with_constant = pytest.mark.parametrize(("engine", "dtype"), [r for r in RUNS if r[0] != "torch"])


def scaled_dot(hidden: int, dtype: torch.dtype) -> DotAttention:
    """Our dot attention is q · W k; theirs is q · k / √H, so W is I / √H."""
    attention = DotAttention(hidden, hidden).to(dtype)
    attention.weight.weight.data = torch.eye(hidden, dtype=dtype) / math.sqrt(hidden)
    return attention


def places(activations: Tensor) -> Tensor:
    """(N, H, 4, 4) to our keys (16, N, H)."""
    return activations.flatten(2).permute(2, 0, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dot_product_attention(dtype: torch.dtype) -> None:
    query, keys = line(-0.4, 0.6, 1, 2, 5).to(dtype), places(line(-0.4, 1.8, 2, 5, 4, 4)).to(dtype)
    contexts, fits = scaled_dot(5, dtype)(query, keys)
    for ours, printed in ((contexts, ATTN), (fits, ATTN_WEIGHTS)):
        tolerance = PRINTED if dtype == torch.float64 else 1e-6
        expected = torch.tensor([printed], dtype=torch.float64)
        torch.testing.assert_close(ours.detach().double(), expected, rtol=0, atol=tolerance)


@with_constant
def test_an_lstm_step_with_attention_is_one_with_a_constant(engine: str, dtype: torch.dtype) -> None:
    w, x, state = lstm_step(dtype)
    constant = (line(0.6, 1.8, 3, 5) @ line(1.3, 4.2, 5, 20))[:, order("lstm", 5)]
    _, final = run(engine, "lstm", w, x, state, constant)
    for ours, printed in zip(final, (ATTN_NEXT_H, ATTN_NEXT_C), strict=True):
        tolerance = PRINTED if dtype == torch.float64 else 1e-6
        torch.testing.assert_close(ours.double(), torch.tensor(printed, dtype=torch.float64), rtol=0, atol=tolerance)


@with_constant
def test_attention_forward_is_a_constant_for_each_timestep(engine: str, dtype: torch.dtype) -> None:
    (w, x), keys = lstm_sequence(dtype), places(line(-0.4, 1.8, 2, 4, 4, 4)).to(dtype)
    attention, into_gates = scaled_dot(4, dtype), line(1.3, 4.2, 4, 16)[:, order("lstm", 4)].to(dtype)
    state: State = (keys.mean(0), keys.mean(0))
    outputs = []
    with torch.no_grad():
        for t in range(x.shape[1]):
            (context,), _ = attention(state[0][None], keys)
            _, state = run(engine, "lstm", w, x[:, t : t + 1], state, context @ into_gates)
            outputs.append(state[0])
    tolerance = PRINTED if dtype == torch.float64 else 1e-6
    expected = torch.tensor(ATTN_H, dtype=torch.float64)
    torch.testing.assert_close(torch.stack(outputs, 1).double(), expected, rtol=0, atol=tolerance)
