"""`unrolled graph`: its edges against autograd on the real network, and the command."""

import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_one_sentence, svg_text
from torch import Tensor, nn

from unrolled.cells import CELLS, Inputs
from unrolled.errors import InputError
from unrolled.inspection.graph import TOPOLOGIES, Graph, Plan, plan_of, unroll
from unrolled.inspection.graph.plan import at
from unrolled.inspection.graph.sheet import SKETCHES
from unrolled.nn import Recurrent
from unrolled.tasks.models import LanguageModel
from unrolled.topologies import ManyToMany, OneToOne

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
STEPS, FEATURES, HIDDEN, OUTPUTS = 4, 3, 5, 2


# the graph against the network


class Live:
    """Recurrent layers that run, every node of theirs a tensor: `leaves` that gradients can be asked of, `values` that
    depend on them. Between layers autograd is watched where dropout would act."""

    def __init__(self, cell: str, layers: int, bidirectional: bool) -> None:
        torch.manual_seed(3)
        self.recurrent = Recurrent(
            CELLS[cell], FEATURES, HIDDEN, layers, bidirectional=bidirectional, engine="loop", dtype=torch.float64
        )
        x = [torch.randn(1, FEATURES, dtype=torch.float64, requires_grad=True) for _ in range(STEPS)]
        directions = self.recurrent.directions
        places = [divmod(i, directions) for i in range(layers * directions)]
        starts = [
            [torch.randn(1, HIDDEN, dtype=torch.float64, requires_grad=True) for _ in places]
            for _ in range(CELLS[cell].states)
        ]
        self.leaves: dict[str, list[Tensor]] = {f"x_{t + 1}": [x[t]] for t in range(STEPS)}
        for index, (layer, direction) in enumerate(places):
            reverse = direction == 1
            self.leaves[at("h", layer + 1, reverse, 0)] = [kind[index] for kind in starts]
            self.leaves[at("W", layer + 1, reverse)] = list(self.recurrent.weights(index)[:2])  # type: ignore[arg-type]
        between: list[Tensor] = []
        joined: list[Tensor] = []

        def watch(outputs: Tensor) -> Tensor:
            between.append(outputs)
            joined.append(outputs.clone())  # what enters the next layer, apart from what leaves this one
            return joined[-1]

        self.recurrent.dropout, self.recurrent._drop = 0.5, watch  # type: ignore[method-assign]
        top, self.final = self.recurrent.unroll(Inputs(torch.stack(x)), tuple(torch.stack(s) for s in starts))
        self.values: dict[str, Tensor] = {}
        for layer, outputs in enumerate([*between, top], start=1):
            for t in range(STEPS):
                for direction, h in enumerate(outputs[t].split(HIDDEN, -1)):
                    self.values[at("h", layer, direction == 1, t + 1)] = h
        self.top, self.joins = top, joined if bidirectional else []
        for layer, outputs in enumerate(self.joins, start=1):
            self.values |= {f"join_{t + 1}.layer{layer}": outputs[t] for t in range(STEPS)}

    def assert_same(self, graph: Graph) -> None:
        assert self.dependences() == self.paths(graph)

    def dependences(self) -> set[tuple[str, str]]:
        """(leaf, value) wherever the value's gradient in any of the leaf's tensors is not zero."""
        found = set()
        for value, tensor in self.values.items():
            tensors = list(itertools.chain.from_iterable(self.leaves.values()))
            weights = torch.randn(tensor.shape, dtype=torch.float64)
            gradients = iter(
                torch.autograd.grad((tensor * weights).sum(), tensors, retain_graph=True, allow_unused=True)
            )
            for leaf, parts in self.leaves.items():
                touched = [g is not None and bool(g.abs().max() > 0) for g in itertools.islice(gradients, len(parts))]
                assert len(set(touched)) == 1 or leaf.startswith("h_0"), (leaf, value)
                if any(touched):
                    found.add((leaf, value))
            found |= {(join, value) for join in self._joins_of(tensor) if join != value}
        return found

    def _joins_of(self, value: Tensor) -> set[str]:
        found = set()
        for layer, outputs in enumerate(self.joins, start=1):
            (gradient,) = torch.autograd.grad(value.sum(), outputs, retain_graph=True, allow_unused=True)
            for t in range(STEPS):
                if gradient is not None and bool(gradient[t].abs().max() > 0):
                    found.add(f"join_{t + 1}.layer{layer}")
        return found

    def paths(self, graph: Graph) -> set[tuple[str, str]]:
        known = set(self.leaves) | {name for name in self.values if name.startswith("join")}
        return {(leaf, v) for v in self.values for leaf in graph.sources(v) & known}

    def assert_no_edge_to_spare(self, graph: Graph) -> None:
        """Without any one of its arrows between values, the graph no longer says what autograd says."""
        true = self.dependences()
        known = set(self.values) | set(self.leaves)
        for pair in {(e.tail, e.head) for e in graph.edges if e.kind != "weight"}:
            if set(pair) <= known:
                less = replace(graph, edges=[e for e in graph.edges if (e.tail, e.head) != pair])
                assert self.paths(less) != true, pair


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_many_to_many_has_the_edges_of_autograd(cell: str, layers: int, bidirectional: bool) -> None:
    live = Live(cell, layers, bidirectional)
    topology = ManyToMany(live.recurrent, OUTPUTS).double()
    scores = topology.output(live.top)
    total = torch.zeros((), dtype=torch.float64)
    live.leaves["W_hy"] = [topology.output.weight]
    for t in range(STEPS):
        target = torch.randn(1, OUTPUTS, dtype=torch.float64, requires_grad=True)
        loss = (scores[t] - target).square().sum()
        total = total + loss / STEPS
        live.leaves[f"target_{t + 1}"] = [target]
        live.values |= {f"y_{t + 1}": scores[t], f"L_{t + 1}": loss}
    live.values["L"] = total
    graph = unroll(plan_of(topology), STEPS)
    live.assert_same(graph)
    live.assert_no_edge_to_spare(graph)
    named = {n.name for n in graph.nodes.values()}
    assert named == set(live.leaves) | set(live.values)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_many_to_one_has_the_edges_of_autograd(cell: str) -> None:
    live = Live(cell, 2, False)
    output = nn.Linear(HIDDEN, OUTPUTS).double()
    target = torch.randn(1, OUTPUTS, dtype=torch.float64, requires_grad=True)
    y = output(live.final[0][-1])  # the last state of the top layer
    live.leaves |= {"W_hy": [output.weight], f"target_{STEPS}": [target]}
    live.values |= {f"y_{STEPS}": y, f"L_{STEPS}": (y - target).square().sum()}
    graph = unroll(Plan(topology="many_to_one", cell=cell, layers=2), STEPS)
    live.assert_same(graph)
    live.assert_no_edge_to_spare(graph)
    assert set(graph.nodes) == set(live.leaves) | set(live.values)


def test_one_to_one_has_the_edges_of_autograd() -> None:
    """Each output depends on its own input alone, so one column is the whole graph."""
    torch.manual_seed(1)
    topology = OneToOne(FEATURES, HIDDEN, OUTPUTS)
    x = torch.randn(3, 1, FEATURES, requires_grad=True)
    scores, _ = topology(Inputs(x))
    for t in range(3):
        (gradient,) = torch.autograd.grad(scores[t].sum(), x, retain_graph=True)
        assert gradient.flatten(1).abs().max(1).values.gt(0).tolist() == [t == s for s in range(3)]
    graph = unroll(plan_of(topology))
    assert graph.sources("y_1") == {"x_1", "h_1", "W_xh", "W_hy"}
    assert graph.sources("h_1") == {"x_1", "W_xh"}
    assert not [e for e in graph.edges if e.kind == "recurrent"]


@pytest.mark.parametrize("cell", list(CELLS))
def test_a_state_hands_on_as_many_tensors_as_the_cell_has(cell: str) -> None:
    graph = unroll(Plan(topology="many_to_many", cell=cell), 3)
    carried = [e.carries for e in graph.edges if e.head == "h_2.layer1" and e.kind == "recurrent"]
    assert carried == ["h", "c"][: len(Recurrent(CELLS[cell], 1, 1).initial_state(1))]


@pytest.mark.parametrize("topology", TOPOLOGIES[1:])
def test_a_weight_is_one_node_that_reaches_every_timestep(topology: str) -> None:
    graph = unroll(Plan(topology=topology, layers=2, cell="lstm"), 4)
    for node in graph.nodes.values():
        if node.kind in ("state", "output"):
            (weight,) = [e.tail for e in graph.edges if e.head == node.name and e.kind == "weight"]
            assert graph.nodes[weight].layer == node.layer
    weights = [n.name for n in graph.nodes.values() if n.kind == "weight"]
    assert len(weights) == (5 if topology == "sequence_to_sequence" else 3)


def test_what_is_written_is_the_next_input() -> None:
    for topology in ("one_to_many", "sequence_to_sequence"):
        graph = unroll(Plan(topology=topology), 3)
        assert [(e.tail, e.head) for e in graph.edges if e.kind == "feedback"] == [("y_1", "fed_2"), ("y_2", "fed_3")]
    assert "x_1" in graph.sources("y_1")  # the decoder sees the whole text, through the context alone
    without = replace(graph, edges=[e for e in graph.edges if e.tail != "context.layer1"])
    assert "x_1" not in without.sources("y_3")


def test_timesteps_are_named_as_in_a_textbook() -> None:
    def labels(plan: Plan, steps: int, kind: str) -> list[str]:
        return [n.label[-1] for n in unroll(plan, steps).nodes.values() if n.kind == kind]

    plan = Plan(topology="many_to_many", vocabulary=9, hidden=4, chunk=64)
    assert labels(plan, 4, "input") == ["x_{1}", "x_{2}", "x_{3}", "x_{T}"]
    assert labels(plan, 4, "target") == ["x_{2}", "x_{3}", "x_{4}", "x_{T+1}"]
    assert labels(replace(plan, chunk=3), 3, "input") == ["x_{1}", "x_{2}", "x_{3}"]  # nothing is left out
    assert labels(plan, 1, "start") + labels(plan, 1, "state") == ["h_{t-1}", "h_{t}"]
    both = Plan(topology="many_to_many", bidirectional=True)
    assert labels(both, 3, "start")[1].endswith("_{T+1}")


# from a real model


@pytest.mark.parametrize(
    ("options"),
    [
        {"cell": "rnn", "layers": 1, "embedding": 0},
        {"cell": "lstm", "layers": 2, "embedding": 4},
        {"cell": "gru", "layers": 3, "embedding": 0},
        {"cell": "rnn_relu", "layers": 1, "embedding": 4, "bptt": "full"},
        {"topology": "one_to_one", "embedding": 4},
    ],
)
def test_a_trained_model(options: dict[str, Any], tiny_text: Path, tmp_path: Path, quick_cli: Cli) -> None:
    model = LanguageModel.fit(tiny_text, **{"steps": 3, "hidden": 8, "batch": 2, "bptt": 8, **options})
    model.save(tmp_path / "mine.safetensors")
    told = quick_cli("graph", "mine.safetensors", "--json", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    answer = json.loads(told.stdout)
    assert answer["paths"] == ["graph-mine.svg", "graph-mine.png"]
    graph, network = answer["graph"], model.network
    parameters = sum(p.numel() for p in network.parameters())
    assert sum(w["parameters"] for w in graph["weights"].values()) == parameters
    assert set(graph["weights"]) == {n["name"] for n in graph["nodes"] if n["kind"] == "weight"}
    assert graph["vocabulary"] == model.tokenizer.size
    assert graph["embedding"] == (options["embedding"] or None)
    recurrent = options.get("topology") != "one_to_one"
    expected = ("many_to_many", options.get("cell"), options.get("layers")) if recurrent else ("one_to_one", "rnn", 1)
    assert (graph["topology"], graph["cell"], graph["layers"]) == expected
    assert graph["chunk"] == (8 if recurrent and "bptt" not in options else None)
    shown = svg_text(tmp_path / "graph-mine.svg")
    assert f"{parameters:,} parameters" in shown
    assert ("truncated backpropagation" in shown) == (graph["chunk"] is not None)
    assert ("Full backpropagation" in shown) == ("bptt" in options)
    assert ("one-hot" in shown) == (not options["embedding"])


def test_a_chunk_has_an_end(tiny_text: Path) -> None:
    plan = Plan(topology="many_to_many", vocabulary=9, hidden=4, chunk=2)
    assert unroll(plan).timesteps == 2
    with pytest.raises(InputError, match="from 1 to 2, the length of the chunks"):
        unroll(plan, 3)


# the command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_model: Callable[..., LanguageModel]) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    (folder / "run").mkdir()
    make_model(bptt=16).save(folder / "run" / "model.safetensors")
    data = bytearray((folder / "run" / "model.safetensors").read_bytes())
    data[-9] ^= 4
    (folder / "damaged.safetensors").write_bytes(data)
    (folder / "text.txt").write_text("no model")
    (folder / "taken.png").write_text("precious")
    (folder / "graph-many_to_one.png").write_text("precious")
    return folder


WRONG = {
    "unknown name": (2, "neither a model nor a topology.*model file.*one_to_one.*topologies", "many_to_mny"),
    "no name": (2, "requires an argument", ""),
    "no timestep": (2, "--timesteps is 0: it must be from 1 to 12", "many_to_many --timesteps 0"),
    "too many timesteps": (2, "--timesteps is 13: it must be from 1 to 12", "many_to_many --timesteps 13"),
    "more than the chunk": (2, "--timesteps is 13", "run --timesteps 13"),
    "timesteps without recurrence": (2, "single one: leave it away", "one_to_one --timesteps 3"),
    "timesteps of the sheet": (2, "leave --timesteps", "topologies --timesteps 3"),
    "layers of the sheet": (2, "leave --timesteps, --cell, --layers", "topologies --layers 2"),
    "no layer": (2, "--layers is 0", "many_to_many --layers 0"),
    "too many layers": (2, "--layers is 9: from 1 to 8", "many_to_many --layers 9"),
    "unknown cell": (2, "unknown cell 'ltsm'", "many_to_many --cell ltsm"),
    "layers without recurrence": (2, "one_to_one has no recurrent layer", "one_to_one --layers 2"),
    "both directions": (2, "--bidirectional is for many_to_many and many_to_one", "one_to_many --bidirectional"),
    "layers of a model": (2, "run is a model, which has its own --layers", "run --layers 2"),
    "damaged": (2, "damaged.safetensors is damaged", "damaged.safetensors"),
    "no model file": (2, "text.txt is damaged or no model file", "text.txt"),
    "no model in the folder": (2, "no model at", "."),
    "taken": (2, "taken.png exists already: name another", "many_to_many --out taken.png"),
    "one of two is taken": (2, "graph-many_to_one.png exists already", "many_to_one"),
    "no picture": (2, "neither .png nor .svg", "many_to_many --out a.pdf"),
    "a folder": (2, "run is neither|run is a folder", "many_to_many --out run"),
    "within a file": (2, "text.txt is not a folder", "many_to_many --out text.txt/a.png"),
    "far within a file": (1, "Not a directory", "many_to_many --out text.txt/b/a.png"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong(case: str, place: Path, tmp_path: Path, quick_cli: Cli) -> None:
    code, message, command = WRONG[case]
    here = shutil.copytree(place, tmp_path / "here")
    before = {p.name: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    told = quick_cli("graph", *command.split(), cwd=here)
    assert (told.returncode, told.stdout) == (code, ""), told.stderr
    assert told.stderr.startswith("unrolled: ") and told.stderr.count("\n") == 1
    assert re.search(message, told.stderr), told.stderr
    if code == 2 and "See unrolled" not in told.stderr:
        assert_one_sentence(told.stderr.strip())
    assert {p.name: p.read_bytes() for p in here.rglob("*") if p.is_file()} == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path, quick_cli: Cli) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    told = quick_cli("graph", "many_to_many", "--out", "closed/a.png", cwd=tmp_path)
    assert told.returncode == 1 and told.stderr.count("\n") == 1


def test_right(place: Path, tmp_path: Path, quick_cli: Cli) -> None:
    here = shutil.copytree(place, tmp_path / "here")
    told = quick_cli("graph", "run/model.safetensors", "--timesteps", 2, cwd=here)
    assert (told.returncode, told.stdout, told.stderr) == (0, "graph-run.svg\ngraph-run.png\n", "")
    assert (here / "graph-run.png").read_bytes()[:4] == b"\x89PNG"
    again = quick_cli("graph", "run", "--timesteps", 2, "--out", "new/a.svg", cwd=here)
    assert again.stdout == "new/a.svg\n"
    assert (here / "new" / "a.svg").read_bytes() == (here / "graph-run.svg").read_bytes()
    replaced = quick_cli("graph", "many_to_one", "--overwrite", cwd=here)
    assert replaced.returncode == 0 and (here / "graph-many_to_one.png").read_bytes()[:4] == b"\x89PNG"
    (here / "topologies").mkdir()  # a name wins over a folder that is called so
    told = quick_cli("graph", "topologies", "--json", cwd=here)
    answer = json.loads(told.stdout)
    assert answer["paths"] == ["graph-topologies.svg", "graph-topologies.png"]
    assert [g["topology"] for g in answer["graphs"]] == [s.topology for s in SKETCHES]
    assert quick_cli("graph", "./topologies", cwd=here).returncode == 2


def test_options_of_a_topology(tmp_path: Path, quick_cli: Cli) -> None:
    options = "--layers 2 --cell lstm --bidirectional --timesteps 2 --out a.svg --json"
    told = quick_cli("graph", "many_to_many", *options.split(), cwd=tmp_path)
    graph = json.loads(told.stdout)["graph"]
    assert (graph["layers"], graph["cell"], graph["bidirectional"], graph["timesteps"]) == (2, "lstm", True, 2)
    assert sum(n["kind"] == "state" for n in graph["nodes"]) == 2 * 2 * 2
    assert "bidirectional LSTM of 2 layers" in svg_text(tmp_path / "a.svg")
