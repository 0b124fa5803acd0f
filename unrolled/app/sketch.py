"""The unrolled graph of an explained text, in box-drawing characters.

From below: the input, the hidden state in a box, the probability of the target, the loss; from left to right the state
on its way forward and the gradient on its way back, which stops at the borders of chunks.
"""

from rich.cells import cell_len
from rich.text import Text

from unrolled.app.page import GRADIENT, INPUT, OUTPUT, STATE, number, visible
from unrolled.inspection.explanation import Explanation, Timestep

MOST_VALUES = 4
"""Hidden units whose values fit into a box."""
MOST_BOXES = 12
"""Timesteps up to which the boxes hold values."""
SHORTEST_LINK, LONGEST_LINK = 6, 11
MARGIN, TRAIL = 2, 4
"""Cells to the right of the last box of a row: for an arrow's name, for the arrow to the next row."""
LEGEND = (
    ("──→", STATE),
    " the state, forward    ",
    ("←╌╌", GRADIENT),
    " the gradient, back    ",
    ("╳", GRADIENT),
    " detached: it stops here",
)


def sketch(e: Explanation, width: int) -> list[Text]:
    """Lines of at most `width` cells; timesteps that do not fit beside each other follow below."""
    values = min(e.hidden, MOST_VALUES) if len(e.timesteps) <= MOST_BOXES else 0
    box = max(_needed(e, step, values) for step in e.timesteps)
    box += (box + 1) % 2  # odd, so that it has a middle
    width -= MARGIN if len(e.timesteps) * (box + SHORTEST_LINK) + MARGIN <= width else TRAIL  # one row, or several
    fit = max(1, width // (box + SHORTEST_LINK))
    fit = -(-len(e.timesteps) // -(-len(e.timesteps) // fit))  # rows of about the same length
    link = max(SHORTEST_LINK, min(LONGEST_LINK, width // fit - box))
    lines: list[Text] = []
    for first in range(0, len(e.timesteps), fit):
        part = _Part(e, e.timesteps[first : first + fit], box, link, values)
        lines += [*([Text()] if first else []), *part.lines()]
    return lines


def _needed(e: Explanation, step: Timestep, values: int) -> int:
    """How wide a timestep's box has to be for what stands in it and over it."""
    inside = [f"h_{step.t}", *(number(h) for h in step.hidden[:values])]
    return max(*(len(text) + 4 for text in inside), len(_loss(step)), cell_len(_chance(e, step)))


def _loss(step: Timestep) -> str:
    return f"L_{step.t} {number(step.loss)}"


def _chance(e: Explanation, step: Timestep) -> str:
    return f"p({visible(step.target)}) {number(step.softmax[e.vocabulary.index(step.target)])}"


class _Part:
    """The timesteps that are drawn beside each other."""

    def __init__(self, e: Explanation, steps: list[Timestep], box: int, link: int, values: int) -> None:
        self.e, self.steps, self.box, self.link, self.values = e, steps, box, link, values
        self.starts = {first for first, _ in e.truncated.chunks}
        self.more = steps[-1].t < len(e.timesteps)

    def lines(self) -> list[Text]:
        losses = [self._over(_loss(s), OUTPUT) for s in self.steps]
        chances = [self._over(_chance(self.e, s), OUTPUT) for s in self.steps]
        inputs = [self._over(visible(s.input), f"bold {INPUT}") for s in self.steps]
        edge = "─" * (self.box - 2)
        drawn = [
            *self._sum(),
            self._row(losses),
            self._row(chances),
            self._arrows("↑ W_hy", OUTPUT),
            self._row([Text(f"┌{edge}┐", STATE)] * len(self.steps), self._names()),
            self._row([self._inside(f"h_{s.t}") for s in self.steps], self._forward(), "──→" if self.more else ""),
        ]
        wide = max((len(number(h)) for s in self.steps for h in s.hidden[: self.values]), default=0)
        for i in range(max(1, self.values)):
            inside = [self._inside(number(s.hidden[i]).rjust(wide) if self.values else "") for s in self.steps]
            drawn.append(self._row(inside, self._back() if i == 0 else None, "", self.more and i == 0))
        drawn += [
            self._row([Text(f"└{edge}┘", STATE)] * len(self.steps)),
            self._arrows("↑ W_xh", INPUT),
            self._row(inputs),
            self._chunks(),
        ]
        for line in drawn:
            line.rstrip()
        return drawn

    def _row(
        self, boxes: list[Text], links: list[Text] | None = None, trail: str = "", gradient_trail: bool = False
    ) -> Text:
        """One line: a link before each box."""
        line = Text()
        for i, text in enumerate(boxes):
            line.append_text(links[i] if links else Text(" " * self.link)).append_text(text)
        if gradient_trail:
            return line.append("←╌╌" if self.steps[-1].t + 1 not in self.starts else "╳", GRADIENT)
        return line.append(trail, STATE)

    def _over(self, text: str, style: str) -> Text:
        """In the middle of a box's width."""
        before = (self.box - cell_len(text)) // 2
        return Text(" " * before).append(text, style).append(" " * (self.box - before - cell_len(text)))

    def _arrows(self, text: str, style: str) -> Text:
        """An arrow into the middle of each box, its name beside it, which may reach under the next link."""
        first = self.link + self.box // 2
        return Text(" " * first).append(text.ljust(self.link + self.box) * len(self.steps), style)

    def _inside(self, text: str) -> Text:
        return Text.assemble(("│", STATE), self._over(text, STATE)[1:-1], ("│", STATE))

    # --- the links ----------------------------------------------------------------------------------------------------

    def _names(self) -> list[Text]:
        return [Text(("h_0=0" if s.t == 1 else "W_hh").center(self.link), STATE) for s in self.steps]

    def _forward(self) -> list[Text]:
        return [Text("─" * (self.link - 1) + "→", STATE)] * len(self.steps)

    def _back(self) -> list[Text]:
        """Into the initial state, a constant, no gradient flows; into the chunk before neither."""
        links = []
        for step in self.steps:
            if step.t == 1:
                link = ""
            elif step.t in self.starts:
                link = "╳ detach" if self.link > 8 else "╳ stop"
            else:
                link = "←" + "╌" * (self.link - 1)
            links.append(Text(link.center(self.link) if "╳" in link else link.ljust(self.link), GRADIENT))
        return links

    # --- above and below ----------------------------------------------------------------------------------------------

    def _middles(self) -> list[int]:
        return [i * (self.link + self.box) + self.link + self.box // 2 for i in range(len(self.steps))]

    def _sum(self) -> list[Text]:
        """The losses run together into L."""
        first, last, middles = self.steps[0].t, self.steps[-1].t, self._middles()
        terms = [f"L_{t}" for t in range(first, last + 1)]
        shown = " + ".join(terms if len(terms) <= 4 else [terms[0], "…", terms[-1]])
        total = number(sum(s.loss for s in self.steps))
        name = f"L = {shown} = {total}" if len(self.steps) == len(self.e.timesteps) else f"{shown} = {total}"
        if first > 1 and not self.more:
            name += f"    in all L = {number(self.e.loss)}"
        join = [" "] * (middles[-1] + 1)
        join[middles[0] :] = "─" * (len(join) - middles[0])
        for m in middles:
            join[m] = "┬"
        join[middles[0]], join[-1] = "┌", "┐"
        top = (middles[0] + middles[-1]) // 2
        join[top] = {"┬": "┼", "─": "┴"}.get(join[top], "│")
        return [Text(" " * max(0, top - len(name) // 2)).append(name, f"bold {OUTPUT}"), Text("".join(join), OUTPUT)]

    def _chunks(self) -> Text:
        """A bar under each chunk, open where the chunk goes on in another row."""
        line, chunks = Text(), self.e.truncated.chunks
        for i, (first, last) in enumerate(chunks, 1):
            inside = [s.t for s in self.steps if first <= s.t <= last]
            if not inside:
                continue
            width = len(inside) * (self.box + self.link) - self.link
            names = ["one chunk: nothing is cut", "one chunk"] if len(chunks) == 1 else [f"chunk {i}", str(i)]
            name = next((n for n in names if len(n) <= width - 2), "")
            bar = (f" {name} " if len(name) <= width - 4 else name).center(width - 2, "─")
            begin, end = "├" if inside[0] == first else "─", "┤" if inside[-1] == last else "─"
            line.append(" " * self.link).append(begin + bar + end, GRADIENT)
        return line
