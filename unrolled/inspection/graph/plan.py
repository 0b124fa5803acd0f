"""What a network is made of, read from the live network: all that its unrolled graph depends on."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from unrolled.cells import CELLS
from unrolled.errors import InputError
from unrolled.topologies import ManyToMany, ManyToOne, OneToOne

TOPOLOGIES = ("one_to_one", "one_to_many", "many_to_one", "many_to_many", "sequence_to_sequence")
MOST_LAYERS = 8
"""Layers that are drawn at most."""

Part = tuple[str, tuple[int, ...]]
"""A tensor of a weight: its symbol and its shape."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a network is made of: all that its graph depends on. What only a real network has is empty without one."""

    topology: str
    cell: str = "rnn"
    layers: int = 1
    bidirectional: bool = False
    pooling: str = "final"
    """many_to_one: what of the states becomes the one vector that the output sees (see `ManyToOne`)"""
    vocabulary: int | None = None
    embedding: int | None = None
    """Size of the vectors that tokens become; None where they enter one-hot"""
    hidden: int | None = None
    classes: int | None = None
    """Of a classifier"""
    chunk: int | None = None
    """Timesteps of truncated backpropagation; None for full backpropagation through time"""
    weights: dict[str, tuple[Part, ...]] = field(default_factory=dict)
    """The tensors of each weight, by the name of its node"""

    def __post_init__(self) -> None:
        if self.topology not in TOPOLOGIES:
            raise InputError(f"unknown topology {self.topology!r}: choose one of {', '.join(TOPOLOGIES)}")
        if self.cell not in CELLS:
            raise InputError(f"unknown cell {self.cell!r}: choose one of {', '.join(CELLS)}")
        if not 1 <= self.layers <= MOST_LAYERS:
            raise InputError(f"--layers is {self.layers}: from 1 to {MOST_LAYERS} layers can be drawn")
        if self.topology == "one_to_one" and (self.layers, self.cell, self.bidirectional) != (1, "rnn", False):
            raise InputError("one_to_one has no recurrent layer: leave --layers, --cell and --bidirectional away")
        if self.bidirectional and self.topology not in ("many_to_many", "many_to_one"):
            raise InputError(f"--bidirectional is for many_to_many and many_to_one: leave it away for {self.topology}")

    @property
    def of_model(self) -> bool:
        """Whether it is a real network."""
        return self.vocabulary is not None

    @property
    def predicts_next(self) -> bool:
        """Whether it is a language model: each token's target is the next one."""
        return self.of_model and self.classes is None

    @property
    def pools(self) -> bool:
        """Whether the output sees more than the last state."""
        return self.topology == "many_to_one" and (self.bidirectional or self.pooling != "final")

    @property
    def parameters(self) -> int:
        """Of all weights together."""
        return sum(map(count, self.weights.values()))


def count(parts: tuple[Part, ...]) -> int:
    """Numbers in a weight's tensors.

    >>> count((("W", (3, 4)), ("b", (3,))))
    15
    """
    total = 0
    for _, shape in parts:
        size = 1
        for n in shape:
            size *= n
        total += size
    return total


def plan_of(topology: nn.Module, table: Tensor | None = None, chunk: int | None = None) -> Plan:
    """What a live network is made of. table: the embedding (V, E), None where tokens enter one-hot.

    Raises `InputError` for a topology that cannot be drawn.
    """
    weights: dict[str, tuple[Part, ...]] = {}
    if table is not None:
        weights["W_e"] = (("W_e", tuple(table.shape)),)
    if isinstance(topology, ManyToMany | ManyToOne):
        recurrent = topology.recurrent
        for index in range(recurrent.num_layers * recurrent.directions):
            layer, direction = divmod(index, recurrent.directions)
            named = zip(("W_{xh}", "W_{hh}", "b_{xh}", "b_{hh}"), recurrent.weights(index), strict=True)
            name = at("W", layer + 1, direction == 1)
            weights[name] = tuple((symbol, tuple(w.shape)) for symbol, w in named if w is not None)
        shape: dict[str, Any] = {
            "topology": "many_to_many" if isinstance(topology, ManyToMany) else "many_to_one",
            "cell": next(key for key, cell in CELLS.items() if cell.name == recurrent.cell.name),
            "layers": recurrent.num_layers,
            "bidirectional": recurrent.bidirectional,
            "hidden": recurrent.hidden_size,
            "chunk": None if recurrent.bidirectional else chunk,
        }
    elif isinstance(topology, OneToOne):
        weights["W_xh"] = _linear("W_{xh}", "b_h", topology.hidden)
        shape = {"topology": "one_to_one", "hidden": topology.hidden.out_features}
    else:
        raise InputError(
            "a model of this kind cannot be drawn, but its topology can, such as unrolled graph sequence_to_sequence"
        )
    if isinstance(topology, ManyToOne):
        if topology.pooling == "attention":
            inner, outer = topology.attention.parameters()
            weights["W_a"] = (("W_a", tuple(inner.shape)), ("v", tuple(outer.shape)))
        shape |= {"pooling": topology.pooling, "classes": topology.output.out_features}
    weights["W_hy"] = _linear("W_{hy}", "b_y", topology.output)
    embedding = None if table is None else table.shape[1]
    vocabulary = topology.output.out_features if table is None else table.shape[0]
    return Plan(**shape, vocabulary=vocabulary, embedding=embedding, weights=weights)


def _linear(weight: str, bias: str, layer: nn.Linear) -> tuple[Part, ...]:
    return (weight, tuple(layer.weight.shape)), (bias, tuple(layer.bias.shape))


def at(letter: str, layer: int, reverse: bool = False, timestep: int | None = None) -> str:
    """The name of a node in a stack.

    >>> at("h", 2, True, 3), at("W", 1)
    ('h_3.layer2.reverse', 'W.layer1')
    """
    return f"{letter}{'' if timestep is None else f'_{timestep}'}.layer{layer}{'.reverse' if reverse else ''}"
