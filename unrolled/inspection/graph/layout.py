"""Where each part of an unrolled graph lies in its picture, in inches from the lower left corner.

Timesteps are columns, from left to right; inputs, layers, outputs and losses are rows, upwards. Every arrow runs along
the grid, from the edge of a box to the edge of a box; a weight reaches its timesteps along a line beneath their row.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from unrolled.inspection.graph import words
from unrolled.inspection.graph.nodes import Edge, Graph, Node

MARGIN = 0.35
TEXT, TEXT_SIZES = 2.9, 3.7
"""Width of the column of text on the left, without and with the sizes of a model."""
PITCH, PITCH_BOTH = 1.5, 1.9
"""From timestep to timestep, in one direction and in both."""
GAP = 0.75
"""Additional width where timesteps are left out."""
SIDE, PORT = 0.37, 0.2
"""In a bidirectional layer: how far boxes, and the arrows into and out of them, lie from the middle of the timestep."""
CELL_STATE = 0.18
"""How far an LSTM's h and c lie from the middle of their box."""
BOX, TWO_LINES = 0.46, 0.8
"""Height of a box with one line and with two."""
BUS = 0.28
"""From a box down to the line that brings its weight."""
POOLED = 0.55
"""From a pool down to the line that brings its states."""
TITLES = {"title": 0.33, "subtitle": 0.24}
HEIGHTS = {"row": 0.22, "formula": 0.3, "shapes": 0.21, "detail": 0.19}
"""Of lines of text."""

Point = tuple[float, float]


class Box(NamedTuple):
    """The middle and the size of a rectangle."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def top(self) -> float:
        return self.y + self.height / 2

    @property
    def bottom(self) -> float:
        return self.y - self.height / 2


class Arrow(NamedTuple):
    """A line along these points, with a head at the last one or without."""

    points: tuple[Point, ...]
    kind: str
    """That of its edge; carried (a state between chunks), boundary (of a chunk)"""
    head: bool = True
    edge: tuple[str, str] | None = None
    """What it joins, where it alone does so"""


class Note(NamedTuple):
    """Text outside the boxes. role: see `picture.ROLES`."""

    x: float
    y: float
    text: str
    role: str
    align: str = "left"


@dataclass
class Scene:
    """All there is to draw."""

    width: float = 0.0
    height: float = 0.0
    boxes: dict[str, Box] = field(default_factory=dict)
    arrows: list[Arrow] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def lay_out(graph: Graph) -> Scene:
    """The picture of a graph."""
    return _Layout(graph).scene


class _Layout:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.plan, self.scene = graph, graph.plan, Scene()
        self.two_states = any(len(n.label) > 1 for n in graph.nodes.values())
        self.pitch = PITCH_BOTH if self.plan.bidirectional else PITCH
        self.rows = self._rows()
        self.columns: dict[tuple[str, int], float] = {}
        self._columns()
        for node in graph.nodes.values():
            self.scene.boxes[node.name] = self._box(node)
        for edge in graph.edges:
            getattr(self, "_" + edge.kind)(edge)
        self._losses()
        self._pooled()
        self._weights()
        self._dots()
        self._chunk()
        self._words()

    # the grid

    def _rows(self) -> dict[str, float]:
        """The height of each row."""
        kinds = {words.row(n) for n in self.graph.nodes.values() if n.kind not in ("weight", "target", "start")}
        order = ["input", "embedding", "hidden"]
        for layer in range(1, self.plan.layers + 1):
            order += [f"state{layer}", f"state{layer}r", f"join{layer}"]
        y, rows, below = 1.3 if words.caption(self.graph) else 0.75, {}, ""
        for kind in [k for k in [*order, "pool", "output", "loss", "total"] if k in kinds]:
            if below:
                y += self._rise(kind)
            rows[kind] = y
            below = kind
        self.scene.height = y + 0.85 + sum(TITLES[line.role] for line in words.title(self.graph))
        return rows

    def _rise(self, kind: str) -> float:
        """From the row below up to one of this kind; where weights enter, their line needs room."""
        if kind in ("loss", "total"):
            return 0.9
        if kind == "pool":
            return 1.5 + 0.2 * self.two_states
        if kind.startswith("join"):
            return 1.1 if self.two_states else 0.95
        return 1.1 + (0.2 if self.two_states and kind != "embedding" else 0.0)

    def _columns(self) -> None:
        x = MARGIN + (TEXT_SIZES if self.plan.of_model or self.plan.bidirectional else TEXT) + 0.4
        self.weights = x
        has_start = any(n.kind == "start" for n in self.graph.nodes.values())
        x += 1.15 + 0.25 * (bool(self.plan.chunk) and self.graph.timesteps > 1) if has_start else 0.0
        self.start = x
        for part in ("encoder", "decoder") if self.plan.topology == "sequence_to_sequence" else ("",):
            for t in range(1, self.graph.timesteps + 1):
                x += self.pitch + GAP * (self.graph.elided and t == self.graph.timesteps)
                self.columns[part, t] = x
            if part == "encoder":
                x += self.pitch + 0.1
                self.context = x
        self.end = x + self.pitch
        over = self.end if self.plan.bidirectional else x
        cut = bool(self.plan.chunk) and self.graph.timesteps > 1
        self.scene.width = over + 0.4 + MARGIN + 0.75 * (cut or words.ends(self.graph))

    def _box(self, node: Node) -> Box:
        width, height = 0.66, BOX
        if node.kind == "weight":
            return self._weight_box(node)
        if node.kind == "total":
            xs = [x for (part, _), x in self.columns.items() if part != "encoder"]
            return Box((min(xs) + max(xs)) / 2, self.rows["total"], width, height)
        if node.kind == "target":
            return Box(self.columns[node.part, node.timestep] - 0.76, self.rows["loss"], 0.42, 0.3)
        if node.kind == "pool":
            width = 0.95
        if len(node.label) > 1:
            height = TWO_LINES
        y = self.rows[words.row(node)]
        if node.kind == "start":
            return Box(self.end - SIDE if node.reverse else self.start, y, width, height)
        if node.kind == "context":
            return Box(self.context, y, 0.86, 0.62 if self.two_states else height)
        x = self.columns[node.part, node.timestep]
        if node.kind == "state" and self.plan.bidirectional:
            x += SIDE if node.reverse else -SIDE
        return Box(x, y, width, 0.26 if node.kind == "join" else height)

    def _weight_box(self, node: Node) -> Box:
        head = next(e.head for e in self.graph.edges if e.tail == node.name)
        served = self.scene.boxes.get(head) or self._box(self.graph.nodes[head])
        decoder = node.part == "decoder"
        return Box(self.context if decoder else self.weights, served.bottom - BUS, 0.86 if node.part else 0.66, 0.34)

    # the arrows

    def _forward(self, edge: Edge) -> None:
        nodes, boxes = self.graph.nodes, self.scene.boxes
        tail, head = boxes[edge.tail], boxes[edge.head]
        if nodes[edge.head].kind in ("total", "pool"):
            return  # all of them together, below
        if nodes[edge.tail].kind == "target":
            self._arrow([(tail.right, tail.y), (head.left, head.y)], edge)
            return
        x = self._port(tail, nodes[edge.tail], nodes[edge.head])
        self._arrow([(x, tail.top), (x, head.bottom)], edge)

    def _port(self, tail: Box, *ends: Node) -> float:
        """Where the arrow between these nodes stands: with both directions, beside the middle of the timestep."""
        x = tail.x
        for node in ends if self.plan.bidirectional else ():
            if node.kind == "state":
                x = self.columns[node.part, node.timestep] + (PORT if node.reverse else -PORT)
        return x

    def _recurrent(self, edge: Edge) -> None:
        tail, head = self.scene.boxes[edge.tail], self.scene.boxes[edge.head]
        y = tail.y + CELL_STATE * (0 if not self.two_states else 1 if edge.carries == "c" else -1)
        leftwards = head.x < tail.x
        ends = (tail.left, head.right) if leftwards else (tail.right, head.left)
        self._across([(ends[0], y), (ends[1], y)], edge)

    def _feedback(self, edge: Edge) -> None:
        tail, head = self.scene.boxes[edge.tail], self.scene.boxes[edge.head]
        x = tail.right + (self.pitch - tail.width) / 2
        self._across([(tail.right, tail.y), (x, tail.y), (x, head.y), (head.left, head.y)], edge)

    def _weight(self, edge: Edge) -> None:
        node, head = self.graph.nodes[edge.head], self.scene.boxes[edge.head]
        side = -PORT
        if self.plan.bidirectional and node.kind == "state":  # beside the arrows
            side = 0.15 if node.reverse else -0.15
        if self.plan.topology == "many_to_many" and self.plan.bidirectional and node.kind == "output":
            side = 0.0  # between them
        self._arrow([(head.x + side, head.bottom - BUS), (head.x + side, head.bottom)], edge)

    def _across(self, points: list[Point], edge: Edge) -> None:
        """Along these points; where timesteps are left out, up to the dots and on from them."""
        middle = self._gap_between(edge)
        if middle is None:
            self._arrow(points, edge)
            return
        y, way = points[-1][1], 1 if points[-1][0] > points[-2][0] else -1
        before = [*points[:-1], (middle - way * 0.2, y)]
        self.scene.arrows.append(Arrow(tuple(before), edge.kind, head=False))
        self.scene.arrows.append(Arrow(((middle + way * 0.2, y), points[-1]), edge.kind, edge=(edge.tail, edge.head)))

    def _gap_between(self, edge: Edge) -> float | None:
        """The middle of the gap that an edge crosses."""
        tail, head = self.graph.nodes[edge.tail], self.graph.nodes[edge.head]
        steps = self.graph.timesteps
        if self.graph.elided and tail.part == head.part and {tail.timestep, head.timestep} == {steps - 1, steps}:
            return self._gap(tail)
        return None

    def _gap(self, node: Node) -> float:
        """The middle of the gap in a node's row: beside the target, where there is one."""
        steps = self.graph.timesteps
        middle = (self.columns[node.part, steps - 1] + self.columns[node.part, steps]) / 2
        if node.kind == "loss":
            return middle - 0.3
        return middle + (SIDE if node.reverse else -SIDE) * (self.plan.bidirectional and node.kind == "state")

    def _arrow(self, points: list[Point], edge: Edge) -> None:
        self.scene.arrows.append(Arrow(tuple(points), edge.kind, edge=(edge.tail, edge.head)))

    def _losses(self) -> None:
        """From every loss up to one line, and from there into their mean."""
        boxes = self.scene.boxes
        losses = [boxes[e.tail] for e in self.graph.edges if self.graph.nodes[e.head].kind == "total"]
        if not losses:
            return
        total = boxes["L"]
        if len(losses) == 1:
            self.scene.arrows.append(Arrow(((total.x, losses[0].top), (total.x, total.bottom)), "forward"))
            return
        y = (losses[0].top + total.bottom) / 2 - 0.05
        for box in losses:
            self.scene.arrows.append(Arrow(((box.x, box.top), (box.x, y)), "forward", head=False))
        self.scene.arrows.append(Arrow(((losses[0].x, y), (losses[-1].x, y)), "forward", head=False))
        self.scene.arrows.append(Arrow(((total.x, y), (total.x, total.bottom)), "forward"))

    def _pooled(self) -> None:
        """From every state that is pooled up to one line, and from there into the pool."""
        pool = self.scene.boxes.get("pool")
        if pool is None:
            return
        y, xs = pool.bottom - POOLED, [pool.x]
        for edge in self.graph.edges:
            if edge.head == "pool" and edge.kind == "forward":
                tail = self.scene.boxes[edge.tail]
                xs.append(self._port(tail, self.graph.nodes[edge.tail]))
                self.scene.arrows.append(Arrow(((xs[-1], tail.top), (xs[-1], y)), "forward", head=False))
        self.scene.arrows.append(Arrow(((min(xs), y), (max(xs), y)), "forward", head=False))
        self.scene.arrows.append(Arrow(((pool.x, y), (pool.x, pool.bottom)), "forward"))

    def _weights(self) -> None:
        """The line from each weight to the last box that it serves."""
        for node in self.graph.nodes.values():
            if node.kind == "weight":
                box = self.scene.boxes[node.name]
                ends = [a.points[0][0] for a in self.scene.arrows if a.edge and a.edge[0] == node.name]
                self.scene.arrows.append(Arrow(((box.right, box.y), (max(ends), box.y)), "weight", head=False))

    def _dots(self) -> None:
        """Where timesteps are left out, in every row that goes on."""
        if not self.graph.elided:
            return
        steps = self.graph.timesteps
        before = {(words.row(n), n.part) for n in self.graph.nodes.values() if n.timestep == steps - 1}
        for node in self.graph.nodes.values():
            row = words.row(node)
            if node.timestep == steps and (row, node.part) in before and node.kind not in ("join", "pool", "target"):
                self._note(self._gap(node), self.rows[row], r"$\cdots$", "dots", "center")

    def _chunk(self) -> None:
        """Where truncated backpropagation cuts the chain: the state goes on, the gradient does not."""
        if not self.plan.chunk or self.graph.timesteps == 1:
            return
        rows = [y for row, y in self.rows.items() if row.startswith("state")]
        bottom, top = min(rows) - 0.85, max(rows) + 0.55
        first, last = self.start - 0.62, self.columns["", self.graph.timesteps] + 0.62
        for x in (first, last):
            self.scene.arrows.append(Arrow(((x, bottom), (x, top)), "boundary", head=False))
        for layer in range(1, self.plan.layers + 1):
            y = self.rows[f"state{layer}"]
            for dy in (CELL_STATE, -CELL_STATE) if self.two_states else (0,):
                for x, edge in ((first, self.start - 0.33), (last, last + 0.29)):
                    self.scene.arrows.append(Arrow(((x - 0.29, y + dy), (edge, y + dy)), "carried"))

    def _words(self) -> None:
        """Titles above, what each row is on the left, what the dashed lines mean below."""
        y = self.scene.height - 0.3
        for role, text in words.title(self.graph):
            self._note(MARGIN, y - TITLES[role] / 2, text, role)
            y -= TITLES[role]
        for row, lines in words.beside(self.graph):
            y = self.rows[row] + sum(HEIGHTS[line.role] for line in lines) / 2
            for role, text in lines:
                self._note(MARGIN, y - HEIGHTS[role] / 2, text, role)
                y -= HEIGHTS[role]
        for role, text in words.caption(self.graph):
            self._note(MARGIN, 0.55, text, role)
        if words.ends(self.graph):
            last = self.scene.boxes[f"y_{self.graph.timesteps}"]
            self._note(last.right + 0.12, last.y, "end token", "note")

    def _note(self, x: float, y: float, text: str, role: str, align: str = "left") -> None:
        self.scene.notes.append(Note(x, y, text, role, align))
