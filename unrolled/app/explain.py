"""`unrolled explain`: recurrent networks from their numbers, the lecture's example live. No torch before it runs."""

import dataclasses
import json as json_
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from unrolled.app.lesson import show

explain = App(
    name="explain",
    help="Every number of a tiny network that learns a word.",
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
)
explain.command("unrolled.app.memory:memory", name="memory", help="How far back a network remembers, measured.")
explain.command(
    "unrolled.app.prediction:prediction",
    name="prediction",
    help="Which words moved a classifier, where a translator looked.",
)


@explain.default
def lesson(
    text: str = "hello",
    *,
    cell: str = "rnn",
    hidden: int = 3,
    steps: int = 300,
    bptt: int | None = None,
    seed: int = 0,
    json: Annotated[bool, Parameter(help="Print one JSON object on standard output: every number.")] = False,
) -> int:
    """Train a tiny character-level network on a text and show every number: forward, backward, truncation, sampling.

    Parameters
    ----------
    text
        What it learns, 2 to 64 characters. One that begins with a dash or is a command's name: explain --text memory.
    cell
        rnn, rnn_relu, gru or lstm.
    hidden
        Hidden units.
    steps
        Updates of the training at most; it ends when the text is learned.
    bptt
        Timesteps of a chunk in the part on truncated backpropagation through time. Default: half of all.
    seed
        Of the first weights and of the sample.
    """
    from unrolled.inspection.explain import explain as compute

    explained = compute(text, cell=cell, hidden=hidden, steps=steps, bptt=bptt, seed=seed)
    if json:
        print(json_.dumps(dataclasses.asdict(explained), ensure_ascii=False))
    else:
        show(explained, Console(highlight=False))
    return 0
