"""`unrolled graph`: the command. No torch is imported before it runs."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unrolled.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from unrolled.inspection.graph import Graph

SHEET = "topologies"
TOPOLOGIES_OF_CLIPS = {"classify-video": "many_to_one", "label-frames": "many_to_many"}
DRAWN = ("language-model", "classify-text")
"""The tasks whose models are drawn; of the others their topology is."""


def graph(
    what: Annotated[str, Parameter(name="MODEL|TOPOLOGY")],
    /,
    *,
    timesteps: int | None = None,
    cell: str | None = None,
    layers: int | None = None,
    bidirectional: bool = False,
    out: Path | None = None,
    overwrite: bool = False,
    json: Annotated[bool, Parameter(help="Print one JSON object on standard output: paths and graph.")] = False,
) -> int:
    """Draw the unrolled computational graph of a model or of a topology, as PNG and SVG.

    Parameters
    ----------
    what
        A model file or a run folder; or one_to_one, one_to_many, many_to_one, many_to_many, sequence_to_sequence; or
        topologies, all five on one sheet. A name wins over a file or folder that is called so: write ./many_to_many
        for that.
    timesteps
        Timesteps to draw, from 1 to 12; the last one stands for T. Default: 4 (sequence_to_sequence: 3 in each half).
    cell
        Of a topology named without a model: rnn, rnn_relu, lstm or gru. Default: rnn.
    layers
        Of a topology named without a model. Default: 1.
    bidirectional
        Both directions, of many_to_many or many_to_one named without a model.
    out
        The picture, .png or .svg. Default: graph-NAME.svg and graph-NAME.png in the current folder.
    overwrite
        Replace pictures that exist.
    """
    from unrolled.inspection import pictures

    shape = {k: v for k, v in (("cell", cell), ("layers", layers), ("bidirectional", bidirectional or None)) if v}
    if layers == 0:
        raise InputError("--layers is 0: it must be at least 1")
    paths = _paths(what, out, overwrite)
    figure, found = _sheet(timesteps, shape) if what == SHEET else _single(what, timesteps, shape)
    for path in paths:
        pictures.save(figure, path)
    if json:
        print(json_.dumps({"paths": [str(p) for p in paths], **found}, ensure_ascii=False))
    else:
        print("\n".join(map(str, paths)))
    return 0


def _paths(what: str, out: Path | None, overwrite: bool) -> list[Path]:
    """Where the pictures go, checked before anything is computed."""
    from unrolled.inspection import pictures

    model = Path(what).resolve()
    stem = model.name
    if model.is_file():  # the model file of a run is called by the run
        stem = model.parent.name if model.name == "model.safetensors" else model.stem
    paths = [out] if out else [Path(f"graph-{stem}{suffix}") for suffix in (".svg", ".png")]
    for path in paths:
        pictures.check(path)
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists already: name another picture with --out, or add --overwrite")
        if path.parent.exists() and not path.parent.is_dir():
            raise InputError(f"{path.parent} is not a folder: name another picture with --out")
    return paths


def _sheet(timesteps: int | None, shape: dict[str, Any]) -> "tuple[Figure, dict[str, Any]]":
    from unrolled.inspection.graph.sheet import SKETCHES, draw_sheet, sketched

    if timesteps is not None or shape:
        raise InputError(
            f"{SHEET} is one sheet with all five as the lecture draws them: leave --timesteps, --cell, --layers and "
            "--bidirectional away, or name one topology"
        )
    return draw_sheet(), {"graphs": [sketched(s).to_json() for s in SKETCHES]}


def _single(what: str, timesteps: int | None, shape: dict[str, Any]) -> "tuple[Figure, dict[str, Any]]":
    from unrolled.inspection.graph import draw, unroll

    drawn: Graph = unroll(_plan(what, shape), timesteps)
    return draw(drawn), {"graph": drawn.to_json()}


def _plan(what: str, shape: dict[str, Any]) -> Any:
    """Of a topology's name, or of the model there."""
    from unrolled.inspection.graph import TOPOLOGIES, Plan, plan_of

    if what in TOPOLOGIES:
        return Plan(topology=what, **shape)
    if not Path(what).exists():
        raise InputError(
            f"{what} is neither a model nor a topology: name a model file or a run folder, {', '.join(TOPOLOGIES)}, or "
            f"{SHEET} for all five on one sheet"
        )
    if shape:
        raise InputError(f"{what} is a model, which has its own --{next(iter(shape))}: leave it away")
    from unrolled.tasks.models import load

    model = load(what)
    if model.task not in DRAWN:
        raise InputError(
            f"{what} is a model for {model.task}, which cannot be drawn, but its topology can, such as "
            "unrolled graph sequence_to_sequence"
        )
    network = model.network
    if model.task in TOPOLOGIES_OF_CLIPS:
        raise InputError(
            f"a model for {model.task} cannot be drawn, but its topology can: unrolled graph "
            f"{TOPOLOGIES_OF_CLIPS[model.task]}"
        )
    return plan_of(network.topology, network.table, model.options.bptt_steps)
