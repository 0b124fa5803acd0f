"""The text around an unrolled graph: a title, what each row computes with what sizes, what the dashed lines mean."""

from collections.abc import Iterator
from typing import NamedTuple

from unrolled.inspection.graph.nodes import Graph, Node, directed
from unrolled.inspection.graph.plan import Plan, at, count

TITLES = {
    "one_to_one": ("One to one", "no recurrence: each output from its own input alone"),
    "one_to_many": ("One to many", "one input, an output at every timestep"),
    "many_to_one": ("Many to one", "one output for the whole sequence"),
    "many_to_many": ("Many to many", "an output at every timestep"),
    "sequence_to_sequence": ("Sequence to sequence", "many to one, then one to many: an encoder, a context, a decoder"),
}
CELLS = {"rnn": "RNN", "rnn_relu": "RNN (relu)", "lstm": "LSTM", "gru": "GRU"}


class Line(NamedTuple):
    """One line of text. role: see `picture.ROLES`."""

    role: str
    text: str


def row(node: Node) -> str:
    """The row of the picture that a node lies in; a weight lies between rows."""
    if node.kind in ("state", "start", "context"):
        return f"state{node.layer}{'r' if node.reverse else ''}"
    if node.kind == "join":
        return f"join{node.layer}"
    return {"target": "loss", "weight": ""}.get(node.kind, node.kind)


def ends(graph: Graph) -> bool:
    """Whether the last output is the end token, as where a network writes until it says that it has done."""
    return any(edge.kind == "feedback" for edge in graph.edges) or graph.plan.topology in (
        "one_to_many",
        "sequence_to_sequence",
    )


def title(graph: Graph) -> list[Line]:
    plan = graph.plan
    name, what = TITLES[plan.topology]
    if plan.topology != "one_to_one":
        layers = f" of {plan.layers} layers" if plan.layers > 1 else ""
        name += f": {'bidirectional ' if plan.bidirectional else ''}{CELLS[plan.cell]}{layers}"
    if not plan.of_model:
        return [Line("title", name), Line("subtitle", what)]
    sizes = [f"{plan.parameters:,} parameters", f"V = {plan.vocabulary:,} tokens"]
    if plan.embedding:
        sizes.append(f"embedding E = {plan.embedding:,}")
    sizes.append(f"hidden H = {plan.hidden:,}")
    return [Line("title", name), Line("subtitle", what), Line("subtitle", " · ".join(sizes))]


def caption(graph: Graph) -> list[Line]:
    """What the dashed lines mean."""
    plan = graph.plan
    if plan.chunk and graph.timesteps > 1:
        last = "T = " if graph.elided else ""
        text = f"One chunk of {last}{plan.chunk:,} timesteps. Across the dashed lines the state is carried,\n"
        return [Line("caption", text + "and the gradient stops: truncated backpropagation through time.")]
    if plan.chunk:
        return [Line("caption", f"One of the {plan.chunk:,} timesteps of a chunk of truncated backpropagation.")]
    if any(edge.kind == "feedback" for edge in graph.edges):
        text = "Dashed: what it has written is its next input; in training the target takes its place."
        return [Line("caption", text)]
    if plan.of_model and plan.topology == "many_to_many":
        text = "Full backpropagation through time: the gradient flows through all timesteps."
        return [Line("caption", text)]
    return []


def beside(graph: Graph) -> Iterator[tuple[str, list[Line]]]:
    """Each row's name, and the lines on its left."""
    plan = graph.plan
    yield "input", _input(plan)
    if plan.embedding:
        yield "embedding", [Line("row", "embedding"), Line("formula", "$e_t = W_e[x_t]$"), *_sizes(plan, "W_e")]
    if plan.topology == "one_to_one":
        low = "_t" if plan.of_model else ""
        formula = rf"$h{low} = \tanh(W_{{xh}}\, {'e' if plan.embedding else 'x'}{low} + b_h)$"
        yield "hidden", [Line("row", "hidden layer"), Line("formula", formula), *_sizes(plan, "W_xh")]
    else:
        for layer in range(1, plan.layers + 1):
            for reverse in (False, True)[: 1 + plan.bidirectional]:
                yield f"state{layer}{'r' if reverse else ''}", _layer(plan, layer, reverse)
        for layer in range(1, plan.layers) if plan.bidirectional else ():
            both = ";\\; ".join(directed("h", r) + f"^{{({layer})}}_t" for r in (False, True))
            yield f"join{layer}", [Line("row", "both directions"), Line("formula", f"$h^{{({layer})}}_t = [{both}]$")]
    if plan.pools:
        yield "pool", [Line("row", "one vector of all"), Line("formula", _pool(plan)), *_sizes(plan, "W_a")]
    classes = [Line("detail", f"one of C = {plan.classes:,} classes")] if plan.classes else []
    yield "output", [Line("row", "output"), Line("formula", _output(plan)), *classes, *_sizes(plan, "W_hy")]
    yield "loss", [Line("row", "loss"), Line("formula", _loss(plan))]
    if any(n.kind == "total" for n in graph.nodes.values()):
        mean = r"$L = (L_1 + \cdots + L_T)\;/\;T$"
        yield "total", [Line("row", "loss of all timesteps"), Line("formula", mean)]


def _input(plan: Plan) -> list[Line]:
    if plan.topology == "one_to_many":
        return [Line("row", "input"), Line("formula", r"$x_1 = v,\;\; x_t = y_{t-1}$")]
    if plan.vocabulary is None:
        return [Line("row", "input")]
    how = "" if plan.embedding else ", one-hot"
    return [Line("row", "input"), Line("detail", f"a token, one of V = {plan.vocabulary:,}{how}")]


def _layer(plan: Plan, layer: int, reverse: bool) -> list[Line]:
    name = CELLS[plan.cell] if plan.layers == 1 else f"layer {layer}: {CELLS[plan.cell]}"
    if plan.bidirectional:
        name += ", backwards" if reverse else ", forwards"
    lines = [Line("row", name), Line("formula", _step(plan, layer, reverse))]
    if plan.topology == "sequence_to_sequence":
        lines[1:] = [Line("formula", _step(plan, layer, reverse, *which)) for which in (("h", "enc"), ("s", "dec"))]
    return [*lines, *_sizes(plan, at("W", layer, reverse))]


def _step(plan: Plan, layer: int, reverse: bool, letter: str = "h", part: str = "") -> str:
    """The recurrence: written out for the vanilla network of one layer, otherwise as the lecture's f_W."""

    def lettered(a: str, number: int) -> str:
        over = directed(a, reverse) if plan.bidirectional else a
        return over + (f"^{{({number})}}" if plan.layers > 1 else "")

    below = "e" if plan.embedding else "x" if part != "dec" else "y"
    low = "{t-1}" if part == "dec" else "t"
    entering = f"{below}_{low}" if layer == 1 else f"{letter}^{{({layer - 1})}}_t"
    h, w = lettered(letter, layer), lettered("W", layer) + (rf"_\mathrm{{{part}}}" if part else "")
    past = "_{t+1}" if reverse else "_{t-1}"
    if plan.cell in ("rnn", "rnn_relu") and plan.layers == 1 and not plan.bidirectional and not part:
        f = r"\tanh" if plan.cell == "rnn" else r"\mathrm{relu}"
        return rf"$h_t = {f}(W_{{hh}}\, h_{{t-1}} + W_{{xh}}\, {entering} + b)$"
    if plan.cell == "lstm":
        c = lettered("c" if letter == "h" else "m", layer)
        return f"${h}_t, {c}_t = f_{{{w}}}({h}{past}, {c}{past}, {entering})$"
    return f"${h}_t = f_{{{w}}}({h}{past}, {entering})$"


def _output(plan: Plan) -> str:
    low = "" if plan.topology == "many_to_one" or (plan.topology == "one_to_one" and not plan.of_model) else "_t"
    h = "s" if plan.topology == "sequence_to_sequence" else "h"
    number = f"^{{({plan.layers})}}" if plan.layers > 1 else ""
    if plan.pools:
        return r"$y = W_{hy}\, h + b_y$"
    if plan.topology == "many_to_one":
        return rf"$y = W_{{hy}}\, h{number}_T + b_y$"
    if plan.bidirectional:
        both = ";\\; ".join(directed("h", r) + f"{number}_t" for r in (False, True))
        return rf"$y_t = W_{{hy}}\, [{both}] + b_y$"
    return rf"$y{low} = W_{{hy}}\, {h}{number}{low} + b_y$"


def _pool(plan: Plan) -> str:
    """What becomes of the states; with both directions h_t is both of them, side by side."""
    number = f"^{{({plan.layers})}}" if plan.layers > 1 else ""
    if plan.pooling == "final":
        return rf"$h = [{directed('h', False)}{number}_T;\; {directed('h', True)}{number}_1]$"
    h = f"h{number}"
    return {
        "mean": rf"$h = ({h}_1 + \cdots + {h}_T)\;/\;T$",
        "max": rf"$h = \max({h}_1, \ldots, {h}_T)$",
        "attention": rf"$h = \sum_t\, \mathrm{{softmax}}_t(v\, \tanh(W_a {h}_t))\, {h}_t$",
    }[plan.pooling]


def _loss(plan: Plan) -> str:
    if plan.classes:
        return r"$L = -\log\, \mathrm{softmax}(y)[y^{\ast}]$"
    if plan.of_model:
        return r"$L_t = -\log\, \mathrm{softmax}(y_t)[x_{t+1}]$"
    low = "" if plan.topology in ("many_to_one", "one_to_one") else "_t"
    return rf"$L{low} = \ell(y{low},\, y^{{\ast}}{low})$"


def _sizes(plan: Plan, weight: str) -> list[Line]:
    """The shapes of a weight's tensors, and how many parameters they are."""
    parts = plan.weights.get(weight)
    if not parts:
        return []
    times = r" \times "
    shapes = [f"{symbol}: {times.join(map(str, shape))}" for symbol, shape in parts if len(shape) > 1]
    biases = [shape[0] for _, shape in parts if len(shape) == 1]
    shown = r",\;\; ".join(shapes)
    if biases:
        shown += rf",\;\; b: {' + '.join(map(str, biases))}"
    return [Line("shapes", f"${shown}$"), Line("detail", f"{count(parts):,} parameters")]
