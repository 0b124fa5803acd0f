"""The lecture's five topologies on one sheet: inputs below, states in the middle, outputs above.

After the figure of CS231n's lecture on recurrent networks, drawn first by Andrej Karpathy ("The Unreasonable
Effectiveness of Recurrent Neural Networks", 2015).
"""

from typing import TYPE_CHECKING, NamedTuple

from unrolled.inspection.graph.layout import Arrow, Box, Note
from unrolled.inspection.graph.nodes import Edge, Graph, Node
from unrolled.inspection.graph.picture import FILLS, canvas, draw_arrow, rectangle, write
from unrolled.inspection.graph.plan import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT, PITCH, NARROWEST, MARGIN = 0.48, 0.84, 0.84, 1.75, 1.2
"""Of a box, from box to box, of a topology with one column, and on the left; in inches."""
ROWS = {"input": 1.75, "state": 3.0, "output": 4.25}


class Sketch(NamedTuple):
    """One of the five."""

    topology: str
    title: str
    detail: str
    examples: tuple[str, ...]
    """In lines"""
    states: int
    inputs: tuple[int, ...]
    """The timesteps with an input"""
    outputs: tuple[int, ...]


SKETCHES = (
    Sketch("one_to_one", "one to one", "no recurrence", ("vanilla network",), 1, (1,), (1,)),
    Sketch("one_to_many", "one to many", "one input", ("image captioning",), 3, (1,), (1, 2, 3)),
    Sketch("many_to_one", "many to one", "one output", ("action recognition,", "sentiment"), 3, (1, 2, 3), (3,)),
    Sketch(
        "sequence_to_sequence",
        "many to many",
        "unaligned: sequence to sequence",
        ("machine translation,", "video captioning"),
        5,
        (1, 2, 3),
        (3, 4, 5),
    ),
    Sketch(
        "many_to_many",
        "many to many",
        "an output at every step",
        ("a label for every frame,", "language model"),
        3,
        (1, 2, 3),
        (1, 2, 3),
    ),
)


def sketched(sketch: Sketch) -> Graph:
    """Its graph, which has inputs, states and outputs alone."""
    nodes: dict[str, Node] = {}
    for kind, letter, steps in (
        ("input", "x", sketch.inputs),
        ("state", "h", range(1, sketch.states + 1)),
        ("output", "y", sketch.outputs),
    ):
        for t in steps:
            nodes[f"{letter}_{t}"] = Node(f"{letter}_{t}", kind, (), timestep=t)
    edges = [Edge(f"x_{t}", f"h_{t}", "forward") for t in sketch.inputs]
    edges += [Edge(f"h_{t}", f"h_{t + 1}", "recurrent", "h") for t in range(1, sketch.states)]
    edges += [Edge(f"h_{t}", f"y_{t}", "forward") for t in sketch.outputs]
    return Graph(Plan(topology=sketch.topology), sketch.states, False, nodes, edges)


def draw_sheet() -> "Figure":
    """The figure of all five."""
    slots = [max(NARROWEST, s.states * PITCH) for s in SKETCHES]
    gap = 0.55
    figure, axes = canvas(MARGIN + sum(slots) + gap * len(slots), 5.95)
    for row, y in ROWS.items():
        write(axes, Note(0.4, y, {"input": "inputs", "state": "states", "output": "outputs"}[row], "subtitle"))
    left = MARGIN + gap / 2
    for sketch, slot in zip(SKETCHES, slots, strict=True):
        middle = left + slot / 2
        graph = sketched(sketch)
        first = middle - (sketch.states - 1) / 2 * PITCH
        boxes = {
            n.name: Box(first + (n.timestep - 1) * PITCH, ROWS[n.kind], WIDTH, HEIGHT) for n in graph.nodes.values()
        }
        for edge in graph.edges:
            tail, head = boxes[edge.tail], boxes[edge.head]
            ends = (
                ((tail.right, tail.y), (head.left, head.y))
                if edge.kind == "recurrent"
                else ((tail.x, tail.top), (head.x, head.bottom))
            )
            draw_arrow(axes, Arrow(ends, edge.kind))
        for name, box in boxes.items():
            rectangle(axes, box, FILLS[graph.nodes[name].kind])
        write(axes, Note(middle, 5.5, sketch.title, "heading", "center"))
        write(axes, Note(middle, 5.17, sketch.detail, "subtitle", "center"))
        for line, example in enumerate(sketch.examples):
            write(axes, Note(middle, 0.9 - 0.26 * line, example, "example", "center"))
        left += slot + gap
    return figure
