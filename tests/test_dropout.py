"""The kinds of dropout, against computations by hand: which numbers are zero, and that nothing else has changed."""

import dataclasses
import random
from pathlib import Path

import pytest
import torch
from helpers import Listener
from torch import Tensor
from translate_helpers import TINY, pairs_file

from unrolled.cells import CELLS, Cell, Inputs, State
from unrolled.engines import ENGINES
from unrolled.errors import InputError
from unrolled.nn import Recurrent
from unrolled.nn.dropout import dropout, embedding_dropout
from unrolled.tasks import fitting
from unrolled.tasks.options import LanguageModelOptions, TextClassifierOptions, TranslateOptions
from unrolled.topologies import ManyToMany
from unrolled.training import model_file
from unrolled.training.options import TrainingOptions

STEPS, ROWS, INPUTS, HIDDEN = 7, 5, 6, 9


def test_locked_dropout_is_one_mask_for_all_timesteps() -> None:
    torch.manual_seed(1)
    x = torch.rand(40, 50, 60) + 1
    y = dropout(x, 0.3, True, locked=True)
    assert ((y == 0) == (y[0] == 0)).all()  # the same at every timestep
    assert ((y[0] == 0) != (y[0, :1] == 0)).any()  # and another one in every row
    kept = y != 0
    assert torch.allclose(y[kept], x[kept] / 0.7, rtol=1e-4)
    assert (y[0] == 0).float().mean().item() == pytest.approx(0.3, abs=0.04)
    assert dropout(x, 0.3, False, locked=True) is x


def test_embedding_dropout_leaves_whole_tokens_out() -> None:
    torch.manual_seed(1)
    table = (torch.rand(2000, 8) + 1).requires_grad_()
    dropped = embedding_dropout(table, 0.2, True)
    gone = (dropped == 0).all(1)
    assert ((dropped == 0).any(1) == gone).all() and gone.float().mean().item() == pytest.approx(0.2, abs=0.04)
    assert torch.allclose(dropped[~gone], table[~gone] / 0.8, rtol=1e-4)
    dropped.sum().backward()
    assert not table.grad[gone].any() and (table.grad[~gone] > 1).all()
    assert embedding_dropout(table, 0.2, False) is table


def stack_by_hand(layers: Recurrent, x: Tensor, p: float, drop: float) -> Tensor:
    """Two layers, cell by cell, with masks drawn in the order of the computation."""
    state: list[State] = [tuple(torch.zeros(ROWS, HIDDEN) for _ in range(layers.cell.states)) for _ in range(2)]
    below = list(x)
    for layer in range(2):
        w = layers.weights(layer)
        w = w._replace(hh=w.hh * dropout(torch.ones_like(w.hh), drop, True))
        above = []
        for x_t in below:
            state[layer] = layers.cell.step(w, Inputs(x_t), state[layer])
            above.append(state[layer][0])
        mask = dropout(torch.ones(1, ROWS, HIDDEN), p, True)[0] if layer == 0 else torch.ones(ROWS, HIDDEN)
        below = [h * mask for h in above]
    return torch.stack(below)


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
def test_a_stack_is_the_computation_by_hand(engine: str, cell: Cell) -> None:
    """Locked dropout and weight drop with every engine, outputs and gradients."""
    torch.manual_seed(5)
    layers = Recurrent(cell, INPUTS, HIDDEN, 2, dropout=0.4, locked=True, weight_drop=0.5, engine=engine)
    x, towards = torch.randn(STEPS, ROWS, INPUTS), torch.randn(STEPS, ROWS, HIDDEN)
    found = []
    for compute in (lambda: layers.unroll(Inputs(x))[0], lambda: stack_by_hand(layers, x, 0.4, 0.5)):
        torch.manual_seed(11)
        outputs = compute()
        layers.zero_grad()
        (outputs * towards).sum().backward()
        found.append([outputs.detach(), *(p.grad.clone() for p in layers.parameters())])
    for ours, by_hand in zip(*found, strict=True):
        assert torch.allclose(ours, by_hand, atol=2e-5), (ours - by_hand).abs().max()
    assert (layers.weight_hh_l0.grad == 0).float().mean().item() == pytest.approx(0.5, abs=0.2)
    layers.eval()
    assert torch.equal(layers.unroll(Inputs(x))[0], layers.unroll(Inputs(x))[0])


def test_the_output_layer_has_the_kind_of_its_layers() -> None:
    torch.manual_seed(0)
    for locked in (False, True):
        layers = Recurrent(CELLS["gru"], INPUTS, HIDDEN, locked=locked)
        topology = ManyToMany(layers, 3, dropout=0.5)
        seen: list[Tensor] = []
        topology.output.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        topology(Inputs(torch.randn(STEPS, ROWS, INPUTS)))
        assert bool(((seen[0] == 0) == (seen[0][0] == 0)).all()) == locked


KINDS = {"dropout": 0.3, "dropout_kind": "locked", "embedding_dropout": 0.2, "weight_drop": 0.4, "layers": 2}


def task(name: str, folder: Path, text: Path) -> tuple[Path, TrainingOptions]:
    """A small training of each task with all kinds of dropout."""
    small = {**KINDS, "hidden": 12, "embedding": 8, "batch": 4, "steps": 14, "eval_every": 5}
    if name == "language-model":
        return text, LanguageModelOptions(**small, bptt=8)
    if name == "translate":
        return pairs_file(folder, 40), TranslateOptions(**{**TINY, **small})
    table = folder / "labels.tsv"
    draw = random.Random(2)
    table.write_text("".join(f"{''.join(draw.choices('abcd', k=6))}\t{draw.choice('xy')}\n" for _ in range(40)))
    return table, TextClassifierOptions(**small, tokens="char")


@pytest.mark.parametrize("name", ["language-model", "classify-text", "translate"])
def test_each_task_resumes_to_the_same_bits(name: str, tiny_text: Path, tmp_path: Path) -> None:
    path, options = task(name, tmp_path, tiny_text)
    whole = fitting.fit([path], options=options, out=tmp_path / "whole")
    fitting.fit([path], options=options, out=tmp_path / "parts", observer=Listener(stop_at=6))
    torch.manual_seed(99)
    parts = fitting.resume(tmp_path / "parts")
    assert parts.result.metrics == whole.result.metrics
    hashes = {model_file.sha256(model_file.load(tmp_path / run)[0]) for run in ("whole", "parts")}
    assert len(hashes) == 1
    for kind in ("dropout_kind", "embedding_dropout", "weight_drop"):  # each of them takes part
        plain = dataclasses.replace(options, **{kind: "standard" if kind == "dropout_kind" else 0.0})
        other = fitting.fit([path], options=plain)
        assert other.result.train_loss != whole.result.train_loss, kind


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight_drop": 1.0}, "--weight-drop is"),
        ({"dropout_kind": "wild"}, "unknown dropout_kind 'wild'"),
        ({"embedding": 0, "embedding_dropout": 0.1}, "--embedding 0 has none"),
        ({"topology": "one_to_one", "weight_drop": 0.1}, "one_to_one has no recurrent layers"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        LanguageModelOptions(**options)
