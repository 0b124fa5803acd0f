"""The graph of a classifier: many to one with pooling, its edges against autograd, and of trained models."""

import json
from pathlib import Path

import pytest
import torch
from conftest import Cli
from helpers import assert_one_sentence, svg_text
from test_graph import HIDDEN, OUTPUTS, STEPS, Live
from translate_helpers import make

from unrolled.inspection.graph import plan_of, unroll
from unrolled.inspection.graph.plan import at
from unrolled.tasks.text_classifier import TextClassifier
from unrolled.topologies import ManyToOne


@pytest.mark.parametrize(
    ("pooling", "bidirectional"), [("final", True), ("mean", False), ("mean", True), ("attention", True)]
)
def test_a_pooled_many_to_one_has_the_edges_of_autograd(pooling: str, bidirectional: bool) -> None:
    live = Live("lstm", 2, bidirectional)
    topology = ManyToOne(live.recurrent, OUTPUTS, pooling).double()
    target = torch.randn(1, OUTPUTS, dtype=torch.float64, requires_grad=True)
    if pooling == "final":
        pooled = torch.cat([live.top[-1, :, :HIDDEN], live.top[0, :, HIDDEN:]], -1)
    elif pooling == "mean":
        pooled = live.top.mean(0)
    else:
        pooled = (topology.attention(live.top).softmax(0) * live.top).sum(0)
        live.leaves["W_a"] = list(topology.attention.parameters())
    y = topology.output(pooled)
    live.leaves |= {"W_hy": [topology.output.weight], f"target_{STEPS}": [target]}
    live.values |= {"pool": pooled, f"y_{STEPS}": y, f"L_{STEPS}": (y - target).square().sum()}
    graph = unroll(plan_of(topology), STEPS)
    live.assert_same(graph)
    # all paths would be there with fewer arrows, since a state is seen through the next one: so each is asked itself
    (gradient,) = torch.autograd.grad(pooled.sum(), live.top, retain_graph=True)
    direct = gradient[:, 0].reshape(STEPS, -1, HIDDEN).abs().amax(-1) > 0
    seen = {at("h", 2, direction == 1, t + 1) for t, direction in direct.nonzero().tolist()}
    assert {e.tail for e in graph.edges if e.head == "pool" and e.kind == "forward"} == seen
    assert set(graph.nodes) == set(live.leaves) | set(live.values)


@pytest.mark.parametrize("pooling", ["final", "mean", "max", "attention"])
@pytest.mark.parametrize("one_directional", [True, False])
def test_a_trained_classifier(pooling: str, one_directional: bool, tmp_path: Path, quick_cli: Cli) -> None:
    (tmp_path / "table.tsv").write_text("text\tlabel\n" + "abc\tx\nbca\ty\nxa\tz\n" * 9)
    how = {"pooling": pooling, "one_directional": one_directional, "layers": 2, "tokens": "char"}
    model = TextClassifier.fit(tmp_path / "table.tsv", steps=1, hidden=8, embedding=6, **how)
    model.save(tmp_path / "mine.safetensors")
    told = quick_cli("graph", "mine.safetensors", "--json", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    graph = json.loads(told.stdout)["graph"]
    # the vector of hidden tokens is there for the training alone
    parameters = sum(p.numel() for p in model.network.parameters()) - model.network.hidden_token.numel()
    assert sum(w["parameters"] for w in graph["weights"].values()) == parameters
    assert set(graph["weights"]) == {n["name"] for n in graph["nodes"] if n["kind"] == "weight"}
    assert (graph["topology"], graph["bidirectional"], graph["pooling"]) == (
        "many_to_one",
        not one_directional,
        pooling,
    )
    assert (graph["vocabulary"], graph["classes"], graph["chunk"]) == (model.tokenizer.size, 3, None)
    pooled = [e["tail"] for e in graph["edges"] if e["head"] == "pool" and e["kind"] == "forward"]
    ends = 0 if one_directional else 2
    assert len(pooled) == (ends if pooling == "final" else graph["timesteps"] * (2 - one_directional))
    shown = svg_text(tmp_path / "graph-mine.svg")
    assert "C = 3 classes" in shown and f"{parameters:,} parameters" in shown


def test_a_translator_is_drawn_by_its_topology(tmp_path: Path, quick_cli: Cli) -> None:
    make().save(tmp_path / "t.safetensors")
    told = quick_cli("graph", "t.safetensors", cwd=tmp_path)
    assert told.returncode == 2 and "is a model for translate, which cannot be drawn" in told.stderr
    assert_one_sentence(told.stderr.strip().removeprefix("unrolled: "))
