"""The picture of `unrolled graph`: nothing overlaps, arrows touch what they join, files are sound and repeatable."""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import torch
from helpers import svg_text
from matplotlib.backends.backend_agg import FigureCanvasAgg

from unrolled.cells import CELLS
from unrolled.inspection import pictures
from unrolled.inspection.graph import TOPOLOGIES, Graph, Plan, draw, plan_of, unroll
from unrolled.inspection.graph.layout import Scene, lay_out
from unrolled.inspection.graph.sheet import SKETCHES, draw_sheet, sketched
from unrolled.nn import Recurrent
from unrolled.topologies import ManyToMany, ManyToOne, OneToOne


def lived_in(cell: str, layers: int, embedding: int, chunk: int | None, **more: Any) -> Plan:
    recurrent = Recurrent(CELLS[cell], embedding or 65, 1024, layers, **more)
    return plan_of(ManyToMany(recurrent, 65), torch.zeros(65, embedding) if embedding else None, chunk)


def classifier(cell: str, pooling: str, **more: Any) -> Plan:
    recurrent = Recurrent(CELLS[cell], 128, 1024, **more)
    return plan_of(ManyToOne(recurrent, 11, pooling), torch.zeros(20_000, 128))


PICTURES: dict[str, Callable[[], Graph]] = {
    **{t: lambda t=t: unroll(Plan(topology=t)) for t in TOPOLOGIES},
    **{f"{t}, 2 LSTM": lambda t=t: unroll(Plan(topology=t, cell="lstm", layers=2)) for t in TOPOLOGIES[1:]},
    **{f"{t}, T=1": lambda t=t: unroll(Plan(topology=t), 1) for t in TOPOLOGIES[1:]},
    **{f"{t}, T=2": lambda t=t: unroll(Plan(topology=t), 2) for t in TOPOLOGIES[1:]},
    "LSTM": lambda: unroll(lived_in("lstm", 2, 64, 96)),
    "GRU": lambda: unroll(lived_in("gru", 1, 0, 64)),
    "T=1": lambda: unroll(lived_in("rnn", 1, 64, 64), 1),
    "T=12": lambda: unroll(lived_in("lstm", 3, 64, 64), 12),
    "full": lambda: unroll(lived_in("rnn_relu", 1, 64, None)),
    "all of the chunk": lambda: unroll(lived_in("rnn", 1, 64, 4), 4),
    "bidirectional": lambda: unroll(lived_in("lstm", 2, 64, None, bidirectional=True)),
    "bidirectional GRU": lambda: unroll(lived_in("gru", 3, 0, None, bidirectional=True)),
    "bidirectional, T=1": lambda: unroll(Plan(topology="many_to_many", bidirectional=True), 1),
    "classifier": lambda: unroll(classifier("gru", "attention")),
    "classifier, T=1": lambda: unroll(classifier("lstm", "max"), 1),
    "classifier, bidirectional": lambda: unroll(classifier("gru", "attention", bidirectional=True)),
    "classifier, 2 bidirectional": lambda: unroll(classifier("lstm", "final", num_layers=2, bidirectional=True)),
    "model without memory": lambda: unroll(plan_of(OneToOne(64, 512, 65), torch.zeros(65, 64), 32)),
}


Extent = tuple[float, ...]


def texts_of(figure: Any) -> list[tuple[str, Extent]]:
    """Every text and its extent in inches: left, bottom, right, top."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    found = []
    for text in figure.axes[0].texts:
        extent = text.get_window_extent(renderer)
        found.append((text.get_text(), tuple(v / figure.dpi for v in (extent.x0, extent.y0, extent.x1, extent.y1))))
    return found


def meet(a: Extent, b: Extent, room: float = 0.0) -> bool:
    return a[0] < b[2] + room and b[0] < a[2] + room and a[1] < b[3] + room and b[1] < a[3] + room


@functools.cache
def drawn(name: str) -> tuple[Graph, Scene, list[tuple[str, Extent]]]:
    """Drawn once for all tests, since measuring text takes long."""
    graph = PICTURES[name]()
    return graph, lay_out(graph), texts_of(draw(graph))


ALL = [
    pytest.param(name, marks=pytest.mark.slow) if any(w in name for w in ("12", "bidirectional", "=2", "2 L")) else name
    for name in PICTURES
]


@pytest.mark.parametrize("name", ALL)
def test_nothing_overlaps(name: str) -> None:
    graph, scene, texts = drawn(name)
    for (a, one), (b, other) in itertools.combinations(texts, 2):
        assert not meet(one, other, -0.015), (a, b)  # an extent has a hair of air
    boxes = {n: (b.left, b.bottom, b.right, b.top) for n, b in scene.boxes.items()}
    for (a, one), (b, other) in itertools.combinations(boxes.items(), 2):
        assert not meet(one, other, 0.04), (a, b)
    lines = len([label for node in graph.nodes.values() for label in node.label])
    inside, around = texts[:lines], texts[lines:]
    labels = iter(inside)
    for node_name in scene.boxes:
        for _ in graph.nodes[node_name].label:
            text, (left, bottom, right, top) = next(labels)
            box = boxes[node_name]
            assert box[0] + 0.02 < left and right < box[2] - 0.02 and box[1] - 0.02 < bottom < top < box[3] + 0.02, text
    for text, extent in around:
        assert extent[0] > 0.2 and extent[1] > 0.1 and extent[2] < scene.width - 0.15, text
        assert extent[3] < scene.height - 0.15, text
        for node_name, box in boxes.items():
            assert not meet(extent, box, 0.02), (text, node_name)


@pytest.mark.parametrize("name", ALL)
def test_arrows_go_from_box_to_box_and_cross_no_text(name: str) -> None:
    graph, scene, texts = drawn(name)

    def on_the_edge(point: tuple[float, float], box: Any) -> bool:
        across = abs(abs(point[0] - box.x) - box.width / 2) < 1e-9 and abs(point[1] - box.y) < box.height / 2
        upright = abs(abs(point[1] - box.y) - box.height / 2) < 1e-9 and abs(point[0] - box.x) < box.width / 2
        return across or upright

    joined = [a.edge for a in scene.arrows if a.edge]
    together = [e for e in graph.edges if graph.nodes[e.head].kind in ("total", "pool") and e.kind == "forward"]
    for edge in together:  # they begin at their box, and end on one line into the other
        tail = scene.boxes[edge.tail]
        assert any(a.points[0][1] == tail.top and abs(a.points[0][0] - tail.x) < tail.width / 2 for a in scene.arrows)
    wanted = [(e.tail, e.head) for e in graph.edges if e not in together]
    assert sorted(joined) == sorted(wanted)
    buses = [a for a in scene.arrows if a.kind == "weight" and not a.head]
    for arrow in scene.arrows:
        if arrow.edge:
            tail, head = (scene.boxes[n] for n in arrow.edge)
            assert on_the_edge(arrow.points[-1], head), arrow
            if arrow.kind == "weight":  # begins on the line that begins at the weight
                assert any(
                    on_the_edge(bus.points[0], tail)
                    and bus.points[0][1] == arrow.points[0][1]
                    and bus.points[0][0] < arrow.points[0][0] <= bus.points[1][0]
                    for bus in buses
                ), arrow
            elif not on_the_edge(arrow.points[0], tail):  # begins at the dots, and a line leads up to them
                assert graph.elided
                assert any(on_the_edge(a.points[0], tail) and not a.head for a in scene.arrows), arrow
        for one, two in itertools.pairwise(arrow.points):
            assert one[0] == two[0] or one[1] == two[1], arrow  # along the grid
            line = (min(one[0], two[0]), min(one[1], two[1]), max(one[0], two[0]), max(one[1], two[1]))
            for text, extent in texts:
                assert not meet(line, extent), (arrow, text)
            for box_name, box in scene.boxes.items():
                within = (box.left + 1e-6, box.bottom + 1e-6, box.right - 1e-6, box.top - 1e-6)
                assert not meet(line, within), (arrow, box_name)


@pytest.mark.parametrize("name", ["sheet", "one_to_many", pytest.param("bidirectional", marks=pytest.mark.slow)])
def test_the_file(name: str, tmp_path: Path) -> None:
    def figure() -> Any:
        return draw_sheet() if name == "sheet" else draw(PICTURES[name]())

    for suffix in (".png", ".svg"):
        for number in (1, 2):
            pictures.save(figure(), tmp_path / f"{number}{suffix}")
        assert (tmp_path / f"1{suffix}").read_bytes() == (tmp_path / f"2{suffix}").read_bytes()
    pixels = matplotlib.image.imread(tmp_path / "1.png")[:, :, :3]
    inches = figure().get_size_inches()
    assert pixels.shape[:2] == tuple(int(v * 160) for v in reversed(inches))
    assert 5 < inches[0] < 30 and 4 < inches[1] < 25
    for border in (pixels[:24], pixels[-16:], pixels[:, :24], pixels[:, -24:]):
        assert np.all(border == 1)
    root = ElementTree.parse(tmp_path / "1.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    styles = [e.get("style", "") for e in root.iter() if "font-family" in e.get("style", "")]
    assert styles and all("serif" in style for style in styles)  # a fallback where the font is missing


def test_labels_in_the_svg(tmp_path: Path) -> None:
    pictures.save(draw(unroll(lived_in("lstm", 1, 64, 96))), tmp_path / "a.svg")
    shown = svg_text(tmp_path / "a.svg").splitlines()
    for label in ("x1", "x3", "xT", "e1", "h0", "c0", "hT", "cT", "y2", "L3", "LT", "L", "xT+1", "W", "Why", "We"):
        assert label in shown, label
    assert shown.count("h1") == 1 and "x4" in shown and "h4" not in shown
    assert "Many to many: LSTM" in shown and "One chunk of T = 96 timesteps." in " ".join(shown)
    assert f"{4 * 1024 * (64 + 1024) + 2 * 4 * 1024:,} parameters" in shown  # those of the layer


def test_the_sheet_is_the_lecture_s() -> None:
    assert [s.topology for s in SKETCHES] == [*TOPOLOGIES[:3], "sequence_to_sequence", "many_to_many"]
    counts = [
        [sum(n.kind == k for n in sketched(s).nodes.values()) for k in ("input", "state", "output")] for s in SKETCHES
    ]
    assert counts == [[1, 1, 1], [1, 3, 3], [3, 3, 1], [3, 5, 3], [3, 3, 3]]
    texts = texts_of(draw_sheet())
    for (a, one), (b, other) in itertools.combinations(texts, 2):
        assert not meet(one, other, 0.02), (a, b)
    titles = [text for text, _ in texts]
    assert [t for t in titles if t in ("one to one", "one to many", "many to one", "many to many")] == [
        "one to one", "one to many", "many to one", "many to many", "many to many"
    ]  # fmt: skip
    assert {"image captioning", "language model", "machine translation,", "sentiment"} <= set(titles)
