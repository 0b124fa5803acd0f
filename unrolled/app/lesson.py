"""What `unrolled explain` shows: six sections, from the network to a sample, each with its formula and its numbers."""

from collections.abc import Iterable, Sequence

from rich.console import Console

from unrolled.app.page import GRADIENT, INPUT, OUTPUT, STATE, Page, Row, magnitude, number, shown, visible
from unrolled.app.sketch import LEGEND, sketch
from unrolled.inspection.explanation import Draw, Explanation, Gradient

FORMULAS = {
    "rnn": ("h_t = tanh(W_xh x_t + W_hh h_{t−1} + b)",),
    "rnn_relu": ("h_t = max(0, W_xh x_t + W_hh h_{t−1} + b)",),
    "gru": (
        "r_t, z_t = σ(W_xh x_t + b_xh + W_hh h_{t−1} + b_hh)",
        "n_t = tanh(W_xh x_t + b_xh + r_t ⊙ (W_hh h_{t−1} + b_hh))",
        "h_t = (1 − z_t) ⊙ n_t + z_t ⊙ h_{t−1}",
    ),
    "lstm": (
        "i_t, f_t, o_t = σ(W_xh x_t + W_hh h_{t−1} + b)",
        "g_t = tanh(W_xh x_t + W_hh h_{t−1} + b)",
        "c_t = f_t ⊙ c_{t−1} + i_t ⊙ g_t",
        "h_t = o_t ⊙ tanh(c_t)",
    ),
}
READ_OUT = ("y_t = W_hy h_t + b_y", "p_t = softmax(y_t)", "L_t = −log p_t[target]", "L = Σ_t L_t")
DELTAS = {
    "rnn": "δ_t = (1 − h_t²) ⊙ (W_hyᵀ (p_t − target_t) + W_hhᵀ δ_{t+1})",
    "rnn_relu": "δ_t = [h_t > 0] ⊙ (W_hyᵀ (p_t − target_t) + W_hhᵀ δ_{t+1})",
    "gru": "δ_t = ∂L/∂(W_hh h_{t−1})",
    "lstm": "δ_t = ∂L/∂(W_hh h_{t−1})",
}
FEW_CHARACTERS, FEW_UNITS, FEW_STEPS = 8, 4, 8
"""Up to here vectors over the vocabulary, over the hidden units, and the terms of a sum are shown whole."""


def show(e: Explanation, console: Console) -> None:
    """The whole lesson."""
    page = Page(console)
    for section in (_network, _forward, _graph, _backward, _truncated, _sample):
        section(page, e)


def _timesteps(count: int) -> str:
    return "1 timestep" if count == 1 else f"{count} timesteps"


def _vectors(name: str, entries: Iterable[str], vectors: Sequence[Sequence[str]], style: str) -> list[Row]:
    """A row for each entry of the vectors, which are columns; the first row also bears their name."""
    names = [name, *[" " * len(name)] * len(vectors[0])]
    return [Row(f"{names[i]}  {entry}", [v[i] for v in vectors], style) for i, entry in enumerate(entries)]


def _numbers(vector: Sequence[float]) -> list[str]:
    return [number(x) for x in vector]


# --- 1. the network ---------------------------------------------------------------------------------------------------


def _network(page: Page, e: Explanation) -> None:
    steps = e.timesteps
    page.heading("1. A network that learns a text, character by character")
    page.say(
        f"At each of {_timesteps(len(steps))} it reads a character and predicts the next one. Its memory is the "
        "hidden state h_t. The weights W are the same at every timestep, so it can read a text of any length."
    )
    page.line()
    page.entry("text", shown(e.text))
    page.entry("vocabulary", " ".join(map(visible, e.vocabulary)), f"   (V = {len(e.vocabulary)})")
    page.entry("inputs", (" ".join(visible(s.input) for s in steps), INPUT))
    page.entry("targets", (" ".join(visible(s.target) for s in steps), OUTPUT), "   (what follows each input)")
    page.entry("cell", f"{e.cell}, hidden size H = {e.hidden}")
    shapes = {name: (len(w), len(w[0])) if isinstance(w[0], list) else (len(w),) for name, w in e.weights.items()}
    sizes = " + ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes.items())
    page.entry("parameters", f"{sizes} = {e.parameters:,}")
    done = e.training
    page.entry(
        "training",
        f"{done.updates} updates with Adam, seed {e.seed}: summed loss {number(done.loss_before)} → "
        f"{number(done.loss_after)}; the likeliest character is right at {done.correct} of {len(steps)}",
    )
    if not done.learned:
        page.entry(
            "",
            ("not learned", "bold"),
            ": what follows is true of this network, but it does not know the text. Try a larger --hidden, more "
            "--steps, another --seed or --cell.",
        )
    _weights(page, e)


def _weights(page: Page, e: Explanation) -> None:
    """The matrices themselves where they are small."""
    w = {name: [row if isinstance(row, list) else [row] for row in weight] for name, weight in e.weights.items()}
    if len(w["W_hh"]) > FEW_UNITS or len(e.vocabulary) > FEW_UNITS + 1:
        return
    b = [[x[0] + h[0]] for x, h in zip(w["b_xh"], w["b_hh"], strict=True)]
    page.line()
    page.matrices(
        [("W_xh", w["W_xh"]), ("W_hh", w["W_hh"]), ("b = b_xh + b_hh", b), ("W_hy", w["W_hy"]), ("b_y", w["b_y"])]
    )


# --- 2. forward -------------------------------------------------------------------------------------------------------


def _forward(page: Page, e: Explanation) -> None:
    page.heading("2. Forward")
    zero = "h_0 = c_0 = 0" if e.cell == "lstm" else "h_0 = 0"
    page.say(
        "A column is a timestep, read from top to bottom: the input, one-hot; the hidden state, made of the input and "
        f"of the state before ({zero}); a score for each character; the scores as probabilities; and the loss, which "
        "says how much the target surprises the network. The losses of all timesteps add up to L."
    )
    page.line()
    page.formulas(*FORMULAS[e.cell], *READ_OUT)
    page.line()
    page.columns([*_inputs(e), *_states(e), *_outputs(e)])
    page.line()
    few = len(e.timesteps) <= FEW_STEPS
    terms = " + ".join(number(s.loss) for s in e.timesteps) if few else "Σ_t L_t"
    page.say(
        f"L = {terms} = ",
        (number(e.loss), f"bold {OUTPUT}"),
        f" nats, on average {number(e.mean_loss)} nats a character.",
    )


def _inputs(e: Explanation) -> list[Row]:
    steps = e.timesteps
    rows = [Row("t", [str(s.t) for s in steps], "bold"), Row("input", [visible(s.input) for s in steps], INPUT)]
    if len(e.vocabulary) > FEW_CHARACTERS:
        return [*rows, Row("x_t: 1 at", [str(s.one_hot.index(1) + 1) for s in steps], INPUT)]
    return [*rows, *_vectors("x_t", map(visible, e.vocabulary), [[*map(str, s.one_hot)] for s in steps], INPUT)]


def _states(e: Explanation) -> list[Row]:
    """Of many units the first few."""
    units = range(min(e.hidden, FEW_UNITS))
    several = "" if len(units) == e.hidden else f" ({len(units)} of {e.hidden})"
    entries = [str(i + 1) for i in units]
    hidden = _vectors(f"h_t{several}", entries, [_numbers(s.hidden) for s in e.timesteps], STATE)
    cells = [_numbers(s.cell_state) for s in e.timesteps if s.cell_state is not None]
    return [*_vectors(f"c_t{several}", entries, cells, STATE), *hidden] if cells else hidden


def _outputs(e: Explanation) -> list[Row]:
    steps = e.timesteps
    scores, chances = [_numbers(s.scores) for s in steps], [_numbers(s.softmax) for s in steps]
    if len(e.vocabulary) <= FEW_CHARACTERS:
        names = [visible(c) for c in e.vocabulary]
        rows = [*_vectors("y_t", names, scores, OUTPUT), *_vectors("p_t", names, chances, OUTPUT)]
    else:  # the two characters that matter
        at = {"likeliest": [s.likeliest for s in steps], "target": [s.target for s in steps]}
        indices = [[e.vocabulary.index(at[name][t]) for name in at] for t in range(len(steps))]
        rows = [
            *_vectors("y_t", at, [[scores[t][i] for i in two] for t, two in enumerate(indices)], OUTPUT),
            *_vectors("p_t", at, [[chances[t][i] for i in two] for t, two in enumerate(indices)], OUTPUT),
        ]
    return [
        *rows,
        Row("likeliest", [visible(s.likeliest) for s in steps], OUTPUT),
        Row("target", [visible(s.target) for s in steps], OUTPUT),
        Row("L_t", [number(s.loss) for s in steps], f"bold {OUTPUT}"),
    ]


# --- 3. the graph -----------------------------------------------------------------------------------------------------


def _graph(page: Page, e: Explanation) -> None:
    page.heading("3. The unrolled graph")
    each = "timestep" if e.truncated.bptt == 1 else _timesteps(e.truncated.bptt)
    page.say(
        "The same network drawn once for each timestep, every W the same. The state goes to the right. The gradient "
        "of L comes back along the same arrows: this is backpropagation through time. Truncated, it stops where a "
        f"chunk begins, here after every {each}, while the state is carried on, detached."
        + (" (The state of an LSTM is h_t and c_t.)" if e.cell == "lstm" else "")
    )
    page.line()
    for line in sketch(e, page.width):
        page.line(line)
    page.line()
    page.say("  ", *LEGEND)


# --- 4. and 5. backward -----------------------------------------------------------------------------------------------


def _backward(page: Page, e: Explanation) -> None:
    back = e.backward
    page.heading("4. Backward: each timestep's part of the gradient of W_hh")
    page.say(
        "Every timestep uses the same W_hh, so its gradient is a sum over timesteps. δ_t is what comes back to "
        "timestep t: from its own loss, and through the states after it from all later losses. The first term is 0, "
        "since h_0 = 0 leaves nothing to multiply."
    )
    page.line()
    page.formulas("∂L/∂W_hh = Σ_t δ_t h_{t−1}ᵀ", DELTAS[e.cell])
    page.line()
    page.columns([_times(e), _norms("‖δ_t h_{t−1}ᵀ‖", back), _reach(e, back)])
    page.line()
    if _few(e):
        terms = [(f"{'+ ' if t else ''}t = {t + 1}", matrix) for t, matrix in enumerate(back.contributions)]
        page.matrices([*terms, ("= sum", back.total), ("autograd", back.autograd)], digits=3, style=GRADIENT)
        page.line()
    page.say(
        "The terms were told apart by giving each timestep a copy of W_hh of its own. Autograd's gradient of the one "
        f"W_hh that all share is their sum: no entry differs by more than {back.largest_difference:.0e}. Its norm is "
        f"{magnitude(back.norm)}.{'' if _few(e) else ' The matrices themselves: --json.'}"
    )
    page.line()
    page.say(
        f"How far back does the last loss reach? {_reached(e)} says it: each step back multiplies by the derivative "
        "of one timestep, so over many steps the gradient tends to vanish, or to explode."
    )


def _truncated(page: Page, e: Explanation) -> None:
    cut, full = e.truncated, e.backward
    page.heading(f"5. Truncated backpropagation through time: chunks of {_timesteps(cut.bptt)}")
    if len(cut.chunks) == 1:
        page.say(
            f"One chunk holds all {_timesteps(len(e.timesteps))}, so nothing is cut: this is full backpropagation "
            "through time. A smaller --bptt cuts."
        )
        return
    page.say(
        "A long text is read in chunks: forward and backward through one, then through the next, which begins with "
        "the last state, detached. Nothing comes back across the border, so δ_t knows only the losses of its own "
        "chunk. (A training updates the weights after each chunk; here they stay, to compare the gradients.)"
    )
    page.line()
    chunks = [str(i) for i, (first, last) in enumerate(cut.chunks, 1) for _ in range(first, last + 1)]
    page.columns([_times(e), Row("chunk", chunks), _norms("full", full), _norms("truncated", cut), _reach(e, cut)])
    page.line()
    if _few(e):
        lost = [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(full.total, cut.total, strict=True)]
        sums = [("full sum", full.total), ("− truncated sum", cut.total), ("= lost", lost)]
        page.matrices(sums, digits=3, style=GRADIENT)
        page.line()
    angle = "undefined (a gradient is 0)" if cut.cosine is None else number(cut.cosine, 3)
    page.say(
        f"The norm of the full gradient is {magnitude(full.norm)}, of the truncated one {magnitude(cut.norm)}, of "
        f"what was lost {magnitude(cut.lost)}; the cosine of the angle between the two is {angle}. The last chunk "
        "loses nothing, since nothing comes after it, and its loss reaches no further back than its first timestep."
    )


def _few(e: Explanation) -> bool:
    """Whether a matrix for each timestep can be shown."""
    return len(e.backward.total) < FEW_UNITS and len(e.timesteps) <= FEW_STEPS


def _times(e: Explanation) -> Row:
    return Row("t", [str(s.t) for s in e.timesteps], "bold")


def _norms(label: str, gradient: Gradient) -> Row:
    return Row(label, [magnitude(x) for x in gradient.norms], GRADIENT)


def _reached(e: Explanation) -> str:
    return f"‖∂L_{len(e.timesteps)}/∂{'c' if e.timesteps[0].cell_state else 'h'}_t‖"


def _reach(e: Explanation, gradient: Gradient) -> Row:
    return Row(_reached(e), [magnitude(x) for x in gradient.reach], GRADIENT)


# --- 6. a sample ------------------------------------------------------------------------------------------------------


def _sample(page: Page, e: Explanation) -> None:
    draws = e.sample.draws
    page.heading("6. Sampling, one character at a time")
    page.say(
        "In training every input was the true character. Now only the first one is given, and each character that is "
        "drawn is the next input. To draw, pick u at random between 0 and 1, add up the probabilities from the top, "
        "and take the first character at which they exceed u."
    )
    page.line()
    page.columns(
        [
            Row("step", [str(i) for i in range(1, len(draws) + 1)], "bold"),
            Row("input", [visible(d.input) for d in draws], INPUT),
            *_chances(e, draws),
            Row("u", [number(d.u, 3) for d in draws]),
            Row("drawn", [visible(d.drawn) for d in draws], f"bold {OUTPUT}"),
        ]
    )
    page.line()
    page.entry("drawn", (shown(e.sample.text), f"bold {OUTPUT}"), f"   (seed {e.seed})")
    page.entry(
        "likeliest", (shown(e.sample.likeliest), f"bold {OUTPUT}"), "   (temperature 0: the likeliest each time)"
    )
    page.line()
    page.say("On a real text: unrolled train language-model FILE, then unrolled sample.")


def _chances(e: Explanation, draws: Sequence[Draw]) -> list[Row]:
    if len(e.vocabulary) <= FEW_CHARACTERS:
        return _vectors("p", map(visible, e.vocabulary), [_numbers(d.softmax) for d in draws], OUTPUT)
    return [
        Row("p highest", [number(max(d.softmax)) for d in draws], OUTPUT),
        Row("p of drawn", [number(d.softmax[e.vocabulary.index(d.drawn)]) for d in draws], OUTPUT),
    ]
