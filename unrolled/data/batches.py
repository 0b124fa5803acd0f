"""Batches for tasks with one example a row: examples of similar length together, so that little of a batch is padding.

For training each pass shuffles all examples, sorts pools of a hundred batches by length, cuts the pools into batches
and shuffles those (as fairseq and JoeyNMT do). An example is in exactly one batch of a pass, its company changes from
pass to pass, and pass X"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.data.contents import check
from unrolled.data.frames import Frames
from unrolled.data.streams import IGNORED

POOL = 100
"""Batches that are sorted together."""
STRIPS = 10
"""Of a pool of pairs: the square root of `POOL`, so that both sides get the same share of the sorting."""
NOISE = 0.05
"""Lengths are compared after a factor from 1 to this much more, so that the same examples do not meet every pass."""
CHUNK = 1 << 16
"""Token arrays that are put together at a time."""


@dataclass(frozen=True)
class Sequences:
    """N token sequences in one flat array."""

    ids: np.ndarray
    """All tokens, one sequence after the other; the smallest unsigned type that holds them"""
    offsets: np.ndarray
    """(N + 1,) int64: sequence n is ids[offsets[n] : offsets[n + 1]]"""

    @classmethod
    def pack(cls, sequences: Iterable[np.ndarray], size: int) -> "Sequences":
        """size: how many different tokens there are. The sequences may come from a generator."""
        kind = np.min_scalar_type(max(0, size - 1))
        chunks, waiting, lengths = [], [], [0]
        for sequence in sequences:
            waiting.append(sequence.astype(kind))
            lengths.append(len(sequence))
            if len(waiting) == CHUNK:
                chunks.append(np.concatenate(waiting))
                waiting = []
        ids = np.concatenate([np.zeros(0, dtype=kind), *chunks, *waiting])
        return cls(ids, np.cumsum(lengths, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.ids[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64"""
        return np.diff(self.offsets)

    def padded(self, rows: np.ndarray, padding: int) -> tuple[Tensor, Tensor]:
        """The sequences of these rows: (T, B) int64, padded on the right; their lengths (B,) int64."""
        lengths = self.lengths_of(rows)
        time = np.arange(lengths.max(initial=0))[:, None]
        inside = time < lengths
        tokens = np.full(inside.shape, padding, dtype=np.int64)
        tokens[inside] = self.ids[(self.offsets[rows] + time)[inside]]
        return torch.from_numpy(tokens), torch.from_numpy(lengths)

    def lengths_of(self, rows: np.ndarray) -> np.ndarray:
        return self.offsets[rows + 1] - self.offsets[rows]


@dataclass(frozen=True)
class Several:
    """Of each of N examples one sequence or more, such as the captions of a clip."""

    sequences: Sequences
    """All of them, those of an example side by side"""
    offsets: np.ndarray
    """(N + 1,) int64: those of example n are number offsets[n] to offsets[n + 1] - 1"""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """(N,) int64, of each example's longest."""
        return np.maximum.reduceat(self.sequences.lengths, self.offsets[:-1])

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of these examples' sequences (M,), and which of `rows` each belongs to (M,)."""
        counts = self.offsets[rows + 1] - self.offsets[rows]
        owners = np.repeat(np.arange(len(rows)), counts)
        first = np.cumsum(counts) - counts
        return (self.offsets[rows] - first)[owners] + np.arange(counts.sum()), owners


class ExampleBatch(NamedTuple):
    """B examples."""

    inputs: Tensor
    """(T, B) tokens or (T, B, ...) frames, time first, padded on the right"""
    lengths: Tensor
    """(B,)"""
    targets: Tensor
    """(B,) labels, or (T', B) tokens, padded on the right with `IGNORED`; (T', M) where examples have several"""
    target_lengths: Tensor | None
    """(B,) or (M,), where targets are tokens"""
    rows: Tensor
    """(B,) which examples these are: results of batches are put back in order with it"""
    owners: Tensor | None = None
    """(M,) which of the B examples each target belongs to, where examples have several"""

    def to(self, device: torch.device) -> "ExampleBatch":
        moved = {name: t.to(device) for name, t in self._asdict().items() if t is not None}
        return self._replace(**moved)


@dataclass(frozen=True)
class Examples:
    """N examples: a sequence each, and a label, a second sequence or several."""

    sources: Sequences | Frames
    targets: Sequences | Several | np.ndarray
    """np.ndarray: (N,) labels"""
    padding: int = 0
    """What fills up inputs. Lengths say where it begins, so any token will do."""

    def __post_init__(self) -> None:
        assert len(self.sources) == len(self.targets)

    def __len__(self) -> int:
        return len(self.sources)

    def sizes(self) -> np.ndarray:
        """(N, 1 or 2) lengths."""
        columns = [self.sources.lengths]
        if not isinstance(self.targets, np.ndarray):
            columns.append(self.targets.lengths)
        return np.stack(columns, 1)

    def batch(self, rows: np.ndarray) -> ExampleBatch:
        inputs, lengths = self.sources.padded(rows, self.padding)
        numbers = torch.from_numpy(rows)
        if isinstance(self.targets, np.ndarray):
            labels = torch.from_numpy(self.targets[rows].astype(np.int64))
            return ExampleBatch(inputs, lengths, labels, None, numbers)
        if isinstance(self.targets, Sequences):
            return ExampleBatch(inputs, lengths, *self.targets.padded(rows, IGNORED), numbers)
        which, owners = self.targets.of(rows)
        padded = self.targets.sequences.padded(which, IGNORED)
        return ExampleBatch(inputs, lengths, *padded, numbers, torch.from_numpy(owners))


@dataclass(frozen=True)
class Limit:
    """How large a batch is: at most `rows` examples; with `tokens`, at most so many timesteps times rows of the longer
    side, padding included. An example that is larger than that is a batch of its own."""

    rows: int
    tokens: int | None = None

    def shared(self, copies: int) -> "Limit":
        """The same for batches whose rows become `copies` rows each: at most as many rows as ten copies make."""
        return replace(self, rows=max(1, min(self.rows, 10 * self.rows // copies)))

    def cut(self, longest: np.ndarray) -> np.ndarray:
        """Where batches begin, in examples of these lengths (N,), which are about sorted; and N at the end."""
        if self.tokens is None:
            return np.append(np.arange(0, len(longest), self.rows), len(longest))
        edges, begin, widest = [0], 0, 0
        for at, length in enumerate(longest.tolist()):
            widest = max(widest, length)
            if at > begin and (at - begin == self.rows or (at - begin + 1) * widest > self.tokens):
                edges.append(at)
                begin, widest = at, length
        return np.array([*edges, len(longest)], dtype=np.int64)


class Plan(NamedTuple):
    """The batches of a pass."""

    order: np.ndarray
    """(N,) example numbers"""
    edges: np.ndarray
    """(batches, 2): batch k holds order[edges[k, 0] : edges[k, 1]]"""


class BucketStream(Iterator[ExampleBatch]):
    """Endless batches for training; see the module's first lines.

    noise: how much lengths are blurred before they are sorted; with much of it a batch has examples of any length.
    """

    def __init__(self, examples: Examples, limit: Limit, seed: int, noise: float = NOISE) -> None:
        assert len(examples)
        self.examples, self.limit, self.seed, self.noise = examples, limit, seed, noise
        self._pass = self._batch = 0
        self._plan = self._make_plan(0)

    @property
    def batches_a_pass(self) -> int:
        """Of the present pass; where tokens limit them, passes may differ a little."""
        return len(self._plan.edges)

    def largest(self) -> tuple[int, ...]:
        """Timesteps times rows of a batch, at most: of inputs and, where there are such, of target sequences."""
        rows, longest = min(self.limit.rows, len(self.examples)), self.examples.sizes().max(0).tolist()
        most = self.limit.tokens
        return tuple(rows * length if most is None else min(rows * length, max(most, length)) for length in longest)

    def __next__(self) -> ExampleBatch:
        if self._batch == len(self._plan.edges):
            self._pass, self._batch = self._pass + 1, 0
            self._plan = self._make_plan(self._pass)
        begin, end = self._plan.edges[self._batch]
        self._batch += 1
        return self.examples.batch(self._plan.order[begin:end])

    def _make_plan(self, number: int) -> Plan:
        sizes = self.examples.sizes()
        random = np.random.Generator(np.random.PCG64([self.seed, number]))
        order, edges = random.permutation(len(sizes)), []
        noisy = sizes * (1 + self.noise * random.random(sizes.shape))
        pool = POOL * self._usual_rows(sizes)
        for begin in range(0, len(order), pool):
            rows = _sorted(order[begin : begin + pool], noisy)
            order[begin : begin + pool] = rows
            cuts = begin + self.limit.cut(sizes[rows].max(1))
            edges.append(np.stack([cuts[:-1], cuts[1:]], 1))
        together = np.concatenate(edges)
        return Plan(order, together[random.permutation(len(together))])

    def _usual_rows(self, sizes: np.ndarray) -> int:
        """Examples of a usual batch."""
        if self.limit.tokens is None:
            return self.limit.rows
        return max(1, min(self.limit.rows, int(self.limit.tokens / max(1.0, sizes.max(1).mean()))))

    def cursor(self) -> dict[str, Any]:
        """Where the stream stands, for a checkpoint."""
        return {"pass": self._pass, "batch": self._batch}

    def seek(self, cursor: dict[str, Any]) -> None:
        """Go on from a cursor of a stream over the same examples with the same limit and seed."""
        check(cursor, dict[str, int], "the place in the data")
        self._pass, self._batch = cursor["pass"], cursor["batch"]
        self._plan = self._make_plan(self._pass)
        if not 0 <= self._batch <= len(self._plan.edges):
            raise ValueError(f"a pass has {len(self._plan.edges)} batches, and not {self._batch}")


def _sorted(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The rows of a pool, neighbours alike in length (N, 1 or 2)."""
    rows = rows[np.argsort(lengths[rows, 0], kind="stable")]
    if lengths.shape[1] == 1:
        return rows
    strip = np.arange(len(rows)) * STRIPS // len(rows)
    return rows[np.lexsort((lengths[rows, 1], strip))]


def in_order_of_length(examples: Examples, limit: Limit, most: int | None = None) -> Iterator[ExampleBatch]:
    """One pass for evaluation, the longest first, so that what does not fit in memory is known at once.

    most: only so many examples, always the same ones, drawn from all of them: the first ones of a file may all be of
    one class.
    """
    chosen = np.arange(len(examples))
    if most is not None and most < len(examples):
        chosen = np.sort(np.random.Generator(np.random.PCG64(0)).permutation(len(examples))[:most])
    sizes = examples.sizes()[chosen]
    order = np.lexsort((chosen, -sizes[:, -1], -sizes[:, 0]))
    chosen = chosen[order]
    edges = limit.cut(sizes[order].max(1))
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        yield examples.batch(chosen[begin:end])


def shifted(targets: Tensor, begin: int, padding: int = 0) -> Tensor:
    """What a decoder reads while it learns to write `targets` (T, B): `begin`, then each target but the last.

    >>> shifted(torch.tensor([[5, 6], [7, IGNORED]]), begin=1).tolist()
    [[1, 1], [5, 6]]
    """
    first = torch.full_like(targets[:1], begin)
    return torch.cat([first, targets[:-1].masked_fill(targets[:-1] == IGNORED, padding)])
