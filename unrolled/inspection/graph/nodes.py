"""The unrolled computational graph as data: what a network computes, timestep by timestep, and what depends on what.

After CS231n's lecture on recurrent networks (Li, Johnson & Yeung, Stanford): one chain of states, the same weights at
every timestep, and five ways for inputs to enter it and for outputs to leave it.
"""

from dataclasses import asdict, dataclass
from typing import Any

from unrolled.cells import CELLS
from unrolled.errors import InputError
from unrolled.inspection.graph.plan import Plan, at, count

TIMESTEPS, MOST_TIMESTEPS = 4, 12
"""Timesteps that are drawn where nobody says how many, and at most."""


@dataclass(frozen=True)
class Node:
    """One value of the unrolled computation; timesteps and layers are counted from 1, 0 where there is none."""

    name: str
    kind: str
    """input, embedding, state, start (the state before the first timestep), hidden (of a network without a state),
    join (both directions, concatenated), pool (many states become one vector), context,
    output, target, loss, total, weight"""
    label: tuple[str, ...]
    """Lines in TeX's mathematics"""
    timestep: int = 0
    layer: int = 0
    reverse: bool = False
    part: str = ""
    """encoder or decoder"""


@dataclass(frozen=True)
class Edge:
    """`head` is computed from `tail`."""

    tail: str
    head: str
    kind: str
    """forward (upwards), recurrent (from timestep to timestep), weight, feedback (an output becomes the next input)"""
    carries: str = ""
    """What a recurrent edge hands on: h, or an LSTM's c"""


@dataclass(frozen=True)
class Graph:
    """An unrolled graph of so many timesteps. `elided`: the last one stands for timestep T, with more before it."""

    plan: Plan
    timesteps: int
    elided: bool
    nodes: dict[str, Node]
    edges: list[Edge]

    def sources(self, name: str) -> set[str]:
        """Every node from which a path leads to this one; an output that is written and fed back is no longer part of
        the differentiated computation, so feedback edges do not count."""
        found: set[str] = set()
        ahead = [name]
        while ahead:
            head = ahead.pop()
            new = {e.tail for e in self.edges if e.head == head and e.kind != "feedback"} - found
            found |= new
            ahead += new
        return found

    def to_json(self) -> dict[str, Any]:
        plan = {k: v for k, v in asdict(self.plan).items() if k != "weights"}
        weights = {
            name: {"shapes": dict(parts), "parameters": count(parts)} for name, parts in self.plan.weights.items()
        }
        nodes = [{**asdict(n), "label": ", ".join(n.label)} for n in self.nodes.values()]
        return {
            **plan,
            "timesteps": self.timesteps,
            "weights": weights,
            "nodes": nodes,
            "edges": [asdict(e) for e in self.edges],
        }


def unroll(plan: Plan, timesteps: int | None = None) -> Graph:
    """The graph of so many timesteps (each half of sequence to sequence has as many). Default: 4 (3 in
    each half), or as many as the chunk has if it is shorter. Raises `InputError` where they cannot be drawn."""
    most = min(MOST_TIMESTEPS, plan.chunk or MOST_TIMESTEPS)
    if plan.topology == "one_to_one":
        if timesteps not in (None, 1):
            raise InputError(f"--timesteps is {timesteps}, but one_to_one has a single one: leave it away")
        most = 1
    default = TIMESTEPS - 1 if plan.topology == "sequence_to_sequence" else TIMESTEPS
    steps = min(default, most) if timesteps is None else timesteps
    if not 1 <= steps <= most:
        why = "" if most == MOST_TIMESTEPS else ", the length of the chunks that the model was trained on"
        raise InputError(f"--timesteps is {steps}: it must be from 1 to {most}{why}")
    return _Builder(plan, steps).graph()


def directed(letter: str, reverse: bool) -> str:
    """A letter under the arrow of its direction; the empty group carries what stands above and below it."""
    return rf"\over{'left' if reverse else 'right'}arrow{{{letter}}}\,{{}}"


class _Builder:
    """Adds nodes and edges, from the inputs upwards."""

    def __init__(self, plan: Plan, steps: int) -> None:
        self.plan, self.steps = plan, steps
        self.elided = steps > 1 and plan.chunk != steps
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.part = ""
        self.any = plan.topology == "one_to_one" or (plan.topology == "many_to_many" and steps == 1)
        """One timestep, which stands for every one: t"""

    def graph(self) -> Graph:
        getattr(self, self.plan.topology)()
        return Graph(self.plan, self.steps, self.elided, self.nodes, self.edges)

    # the five topologies

    def one_to_one(self) -> None:
        below = self.inputs([1])
        hidden = self.add("h_1", "hidden", "h" + self.low(1), timestep=1)
        self.link(below[1], hidden)
        self.share("W_xh", "W_{xh}", [hidden])
        self.outputs({1: [hidden]}, mean=self.plan.of_model)

    def one_to_many(self) -> None:
        first = self.add("v", "input", "v", timestep=1)
        steps = range(1, self.steps + 1)
        below = {1: first} | {t: self.fed(f"fed_{t}", t) for t in steps[1:]}
        self.outputs(self.stack(below), mean=True)
        self.feed_back(below)

    def many_to_one(self) -> None:
        top = self.stack(self.inputs(range(1, self.steps + 1)))
        last = top[self.steps]
        if self.plan.pools:
            last = [self.pool(top)]
        self.outputs({self.steps: last}, single=True)

    def many_to_many(self) -> None:
        self.outputs(self.stack(self.inputs(range(1, self.steps + 1))), mean=True)

    def sequence_to_sequence(self) -> None:
        steps = range(1, self.steps + 1)
        self.part = "encoder"
        self.stack(self.inputs(steps))
        self.part = "decoder"
        contexts = []
        for layer in range(1, self.plan.layers + 1):
            context = self.add(f"context.layer{layer}", "context", r"\mathrm{context}", layer=layer)
            self.hand_on(at("h", layer, timestep=self.steps), context)
            contexts.append(context)
        below = {1: self.add("start", "input", r"\mathrm{start}", timestep=1)}
        below |= {t: self.fed(f"fed_{t}", t) for t in steps[1:]}
        self.outputs(self.stack(below, letter="s", starts=contexts), mean=True)
        self.feed_back(below)

    # their parts

    def inputs(self, steps: Any) -> dict[int, str]:
        """Inputs, and their embeddings where there are some: what enters the first layer."""
        below = {t: self.add(f"x_{t}", "input", "x" + self.low(t), timestep=t) for t in steps}
        if self.plan.embedding:
            tokens = below
            below = {t: self.add(f"e_{t}", "embedding", "e" + self.low(t), timestep=t) for t in steps}
            for t in steps:
                self.link(tokens[t], below[t])
            self.share("W_e", "W_e", list(below.values()))
        return below

    def fed(self, name: str, t: int) -> str:
        before = "T-1" if t == self.steps and self.elided else str(t - 1)
        return self.add(name, "input", f"y_{{{before}}}", timestep=t)

    def feed_back(self, below: dict[int, str]) -> None:
        for t in range(2, self.steps + 1):
            self.link(f"y_{t - 1}", below[t], "feedback")

    def stack(self, below: dict[int, str], letter: str = "h", starts: list[str] | None = None) -> dict[int, list[str]]:
        """Recurrent layers, one above the other. Returns the top layer's outputs of each timestep."""
        inner = {t: [name] for t, name in below.items()}
        top: dict[int, list[str]] = {}
        for layer in range(1, self.plan.layers + 1):
            top = {t: [] for t in below}
            for reverse in (False, True)[: 1 + self.plan.bidirectional]:
                start = starts[layer - 1] if starts else None
                for t, state in self.chain(inner, letter, layer, reverse, start).items():
                    top[t].append(state)
            inner = top
            if self.plan.bidirectional and layer < self.plan.layers:
                inner = {t: [self.join(top[t], t, layer)] for t in below}
        return top

    def chain(
        self, below: dict[int, list[str]], letter: str, layer: int, reverse: bool, start: str | None
    ) -> dict[int, str]:
        """One layer in one direction, from its start to its end."""
        where: dict[str, Any] = {"layer": layer, "reverse": reverse}
        before = start or self.add(
            at("h", layer, reverse, 0), "start", *self.symbols(letter, layer, reverse, None), **where
        )
        states = {}
        for t in reversed(below) if reverse else below:
            label = self.symbols(letter, layer, reverse, t)
            state = self.add(at(letter, layer, reverse, t), "state", *label, timestep=t, **where)
            for name in below[t]:
                self.link(name, state)
            self.hand_on(before, state)
            before = states[t] = state
        symbol = {"": "", "encoder": r"_\mathrm{enc}", "decoder": r"_\mathrm{dec}"}[self.part]
        weight = ("W" if not self.part else f"W_{self.part}", layer, reverse)
        self.share(at(*weight), self.lettered("W", layer, reverse) + symbol, list(states.values()), **where)
        return dict(sorted(states.items()))

    def pool(self, top: dict[int, list[str]]) -> str:
        """What the output sees of the top layer's states: of all, or of both ends."""
        how = self.plan.pooling
        name = self.add("pool", "pool", rf"\mathrm{{{'concat' if how == 'final' else how}}}", timestep=self.steps)
        ends = [top[self.steps][0], top[1][-1]]  # the last of each direction
        for state in ends if how == "final" else [state for states in top.values() for state in states]:
            self.link(state, name)
        if how == "attention":
            self.share("W_a", "W_a", [name])
        return name

    def join(self, both: list[str], t: int, layer: int) -> str:
        name = self.add(f"join_{t}.layer{layer}", "join", r"\mathrm{concat}", timestep=t, layer=layer)
        for state in both:
            self.link(state, name)
        return name

    def outputs(self, top: dict[int, list[str]], mean: bool = False, single: bool = False) -> None:
        """Outputs, targets and losses of these timesteps, and their mean."""
        names = []
        for t, states in top.items():
            low = "" if single else self.low(t)
            y = self.add(f"y_{t}", "output", "y" + low, timestep=t)
            loss = self.add(f"L_{t}", "loss", "L" + low, timestep=t)
            target = self.add(f"target_{t}", "target", self.target(t, low), timestep=t)
            for state in states:
                self.link(state, y)
            self.link(y, loss)
            self.link(target, loss)
            names.append((y, loss))
        self.share("W_hy", "W_{hy}", [y for y, _ in names])
        if mean:
            total = self.add("L", "total", "L")
            for _, loss in names:
                self.link(loss, total)

    def target(self, t: int, low: str) -> str:
        if not self.plan.predicts_next:
            return r"y^{\ast}" + low
        last = self.low(t)[2:-1]
        return f"x_{{{int(last) + 1 if last.isdigit() else last + '+1'}}}"

    def share(self, name: str, label: str, heads: list[str], layer: int = 0, reverse: bool = False) -> None:
        """One weight, the same for all of these."""
        self.add(name, "weight", label, layer=layer, reverse=reverse)
        for head in heads:
            self.link(name, head, "weight")

    def hand_on(self, before: str, state: str) -> None:
        for carried in ("h", "c")[: CELLS[self.plan.cell].states]:
            self.edges.append(Edge(before, state, "recurrent", carried))

    def link(self, tail: str, head: str, kind: str = "forward") -> None:
        self.edges.append(Edge(tail, head, kind))

    def add(self, name: str, kind: str, *label: str, timestep: int = 0, layer: int = 0, reverse: bool = False) -> str:
        self.nodes[name] = Node(name, kind, label, timestep, layer, reverse, self.part)
        return name

    # their labels

    def low(self, t: int) -> str:
        """The subscript of a timestep: its number, T for the last, t for any."""
        if self.any:
            return "_{t}" if self.plan.topology == "many_to_many" or self.plan.of_model else ""
        last = "S" if self.part == "encoder" else "T"
        return f"_{{{last if t == self.steps and self.elided else t}}}"

    def symbols(self, letter: str, layer: int, reverse: bool, t: int | None) -> tuple[str, ...]:
        """What a state is called, an LSTM's c first, as it lies higher; t None: before the first timestep."""
        low = self.low(t or 0) if t or not self.any else "_{t-1}"
        if t is None and reverse:
            low = "_{t+1}" if self.any else "_{T+1}" if self.elided else f"_{{{self.steps + 1}}}"
        letters = (letter, "c" if letter == "h" else "m")
        found = [self.lettered(a, layer, reverse) + low for a in letters[: CELLS[self.plan.cell].states]]
        return tuple(reversed(found))

    def lettered(self, letter: str, layer: int, reverse: bool) -> str:
        if self.plan.bidirectional:
            letter = directed(letter, reverse)
        return letter + (f"^{{({layer})}}" if self.plan.layers > 1 else "")
