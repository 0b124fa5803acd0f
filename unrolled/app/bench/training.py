"""Training, side by side: whole steps from tokens to updated weights, and the recurrent layers alone.

A step is forward, cross-entropy over all timesteps, backward, gradient clipping, AdamW, and the state carried on. Ours
is the update of the product's own `Trainer`; the peers make the same one from the same weights on the same tokens.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import unrolled.nn as ours
from unrolled.app.bench.machine import matrix_products, peak_gflops
from unrolled.app.bench.measure import Contender, Effort, Timing, alternate, compare, geometric_mean
from unrolled.app.bench.peers import GATES, LAYERS, TorchModel, TorchTraining, compiled_training, with_weights_of
from unrolled.data.streams import Batch
from unrolled.errors import UnrolledError
from unrolled.tasks.language_model import Network, resolve
from unrolled.tasks.options import LanguageModelOptions
from unrolled.training.loop import Trainer
from unrolled.training.task import Evaluation

VOCABULARY = 65
OURS, EMBEDDING, ONE_HOT, COMPILED = "unrolled", "torch.nn", "torch.nn one-hot", "torch.compile"
CHUNKS = 8
"""Chunks of random tokens that come round again."""
Say = Callable[[str], None]
Row = dict[str, Any]


def training_sizes(effort: Effort) -> list[dict[str, int]]:
    if effort.quick:
        return [{"layers": 2, "hidden": 16, "batch": 3, "steps": 5}]
    return [{"layers": 2, "hidden": hidden, "batch": 64, "steps": 64} for hidden in (128, 256, 512)]


def small_sizes(effort: Effort) -> list[dict[str, int]]:
    if effort.quick:
        return [{"layers": 1, "hidden": 8, "batch": 1, "steps": 4}]
    return [
        {"layers": 1, "hidden": hidden, "batch": batch, "steps": steps}
        for batch in (1, 8)
        for steps in (25, 64)
        for hidden in (100, 128)
    ]


def training_suite(effort: Effort, engine: str, say: Say) -> dict[str, Any]:
    """Steps at the sizes of a real training, beside the machine's peak, and the layers alone."""
    sizes = training_sizes(effort)
    return {
        "training": _suite(lambda cell, size: training_row(cell, effort, engine, full=True, **size), sizes, say),
        "layers": _suite(lambda cell, size: layers_row(cell, effort, engine, **size), sizes, say),
    }


def small_suite(effort: Effort, engine: str, say: Say) -> dict[str, Any]:
    """Sizes at which the cost of a call matters more than that of its arithmetic."""
    sizes = small_sizes(effort)
    return {
        "small_training": _suite(lambda cell, size: training_row(cell, effort, engine, full=False, **size), sizes, say),
        "small_layers": _suite(lambda cell, size: layers_row(cell, effort, engine, **size), sizes, say),
    }


def _suite(measure: Callable[[str, dict[str, int]], Row], sizes: list[dict[str, int]], say: Say) -> dict[str, Any]:
    rows = []
    for cell in LAYERS:
        for size in sizes:
            rows.append(measure(cell, size))
            say(_progress(rows[-1]))
    means = {
        f"geometric_mean_{name}": geometric_mean(row[name] for row in rows)
        for name in ("ratio", "ratio_with_one_hot", "of_peak")
        if name in rows[0]
    }
    return {"rows": rows, **means}


def _progress(row: Row) -> str:
    times = ", ".join(f"{name} {1000 * found['seconds']:.2f} ms" for name, found in row["contenders"].items())
    size = f"{row['cell']} {row['layers']}×{row['hidden']}, {row['batch']} rows × {row['steps']}"
    return f"{size}: {times}; ratio {row['ratio']:.2f}"


# --- a whole step ----------------------------------------------------------------------------------------------------


class _Repeat(Iterator[Batch]):
    """The stream of the benchmark: the same chunks again and again, so that reading data costs nobody anything."""

    def __init__(self, chunks: list[Batch]) -> None:
        self.chunks, self.at = chunks, 0

    def __next__(self) -> Batch:
        self.at += 1
        return self.chunks[(self.at - 1) % len(self.chunks)]

    def cursor(self) -> dict[str, Any]:
        return {"at": self.at}

    def seek(self, cursor: dict[str, Any]) -> None:
        self.at = cursor["at"]


class _RandomTokens:
    """A task without a text."""

    name, monitor, unit = "bench", ("val_loss", "min"), "tokens"

    def __init__(self, options: LanguageModelOptions, chunks: list[Batch]) -> None:
        self.options, self.chunks = options, chunks

    def model(self) -> nn.Module:
        return Network(VOCABULARY, self.options)

    def batches(self, split: str) -> _Repeat:
        return _Repeat(self.chunks)

    def size(self, split: str) -> int:
        return 0

    def examples(self, split: str) -> None:
        """There are none to compare."""

    def evaluate(
        self, model: nn.Module, split: str, limit: int | None = None, *, write: int | None = None
    ) -> Evaluation:
        raise NotImplementedError("a benchmark validates nothing")

    def public(self, model: nn.Module) -> nn.Module:
        return model

    def describe(self) -> dict[str, Any]:
        return {}


def random_chunks(batch: int, steps: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(VOCABULARY, (CHUNKS * steps + 1, batch), generator=generator)
    carry = torch.ones(batch, dtype=torch.bool)
    return [
        Batch(tokens[at : at + steps].contiguous(), tokens[at + 1 : at + 1 + steps].contiguous(), None, carry)
        for at in range(0, CHUNKS * steps, steps)
    ]


def model_options(cell: str, layers: int, hidden: int, engine: str) -> LanguageModelOptions:
    """A language model without dropout whose embedding is as wide as its layers, as the peers have it."""
    return resolve(
        LanguageModelOptions(
            cell=cell,
            hidden=hidden,
            layers=layers,
            embedding=hidden,
            dropout=0.0,
            steps=2**40,
            engine=engine,
            device="cpu",
        )
    )


def trainer(cell: str, engine: str, chunks: list[Batch], layers: int, hidden: int) -> Trainer:
    """The product's own, on random tokens."""
    options = model_options(cell, layers, hidden, engine)
    task = _RandomTokens(options, chunks)
    return Trainer(task, options, learning_rate=1e-3, device=torch.device("cpu"))


def zero_state(cell: str, layers: int, batch: int, hidden: int) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(layers, batch, hidden) for _ in range(2 if cell == "lstm" else 1))


def training_row(
    cell: str, effort: Effort, engine: str, *, full: bool, layers: int, hidden: int, batch: int, steps: int
) -> Row:
    """One size and cell. `full`: beside eager PyTorch also one-hot input, torch.compile and the machine's peak."""
    chunks = random_chunks(batch, steps)
    mine, state = trainer(cell, engine, chunks, layers, hidden), zero_state(cell, layers, batch, hidden)
    network = mine.model
    assert isinstance(network, Network)
    peer, one_hot, to_compile = (
        with_weights_of(network, cell, VOCABULARY, one_hot=one_hot) for one_hot in (False, True, False)
    )
    _agree(network, peer, one_hot, chunks[0], state)

    def update(units: int) -> None:
        for _ in range(units):
            mine._update(0.0)  # what `unrolled train` repeats, and nothing of it left out

    contenders = [Contender(OURS, update), Contender(EMBEDDING, _train(peer, chunks, state))]
    missing: dict[str, str] = {}
    row: Row = {"cell": cell, "layers": layers, "hidden": hidden, "batch": batch, "steps": steps}
    if full:
        contenders.append(Contender(ONE_HOT, _train(one_hot, chunks, state)))
        contenders += matrix_products(((64, 64, 64),)) if effort.quick else matrix_products()
    if full and effort.quick:
        missing[COMPILED] = "--quick leaves it out, since compiling takes longer than all the rest"
    elif full:
        try:
            work, row["compile_seconds"] = compiled_training(to_compile, chunks, state)
            contenders.append(Contender(COMPILED, work))
        except Exception as error:  # noqa: BLE001 (whatever stops the compiler is told in the result)
            missing[COMPILED] = first_line(error)
    row |= {"engine": network.engine_name(), "not_measured": missing}
    return row | _speeds(row, alternate(contenders, effort), full)


def _speeds(row: Row, timings: dict[str, Timing], full: bool) -> Row:
    characters, hidden = row["batch"] * row["steps"], row["hidden"]
    product = row["layers"] * 2 * GATES[row["cell"]] * hidden * 2 * hidden + 2 * hidden * VOCABULARY
    flop = 3 * characters * product  # forward, and backward to inputs and to weights
    found = {
        name: {
            "seconds": timing.seconds,
            "characters_per_second": characters / timing.seconds,
            "gflops": flop / timing.seconds / 1e9,
            "rounds": timing.rounds,
        }
        for name, timing in timings.items()
        if not name.startswith("matrix")
    }
    speeds = {"flop": flop, "contenders": found, **compare(timings, OURS, (EMBEDDING, COMPILED))}
    if full:
        speeds["ratio_with_one_hot"] = compare(timings, OURS, (EMBEDDING, COMPILED, ONE_HOT))["ratio"]
        speeds["peak_gflops"] = peak_gflops(timings)
        speeds["of_peak"] = found[OURS]["gflops"] / speeds["peak_gflops"]
    return speeds


def _train(model: TorchModel, chunks: list[Batch], state: tuple[Tensor, ...]) -> TorchTraining:
    return TorchTraining(model, list(model.parameters()), chunks, state)


def first_line(error: Exception) -> str:
    return (f"{type(error).__name__}: {error}".strip().splitlines() or [type(error).__name__])[0]


def _agree(network: Network, peer: TorchModel, one_hot: TorchModel, batch: Batch, state: tuple[Tensor, ...]) -> None:
    """Raise where the contenders do not compute the same loss and gradient: then their times cannot be compared."""
    mine, _ = network(batch, None)
    mine.backward()
    for name, model in ((EMBEDDING, peer), (ONE_HOT, one_hot)):
        theirs, _ = model(batch.inputs, batch.targets, state)
        if abs(mine.item() - theirs.item()) > 1e-4:
            raise UnrolledError(f"our loss is {mine.item():.6f} where that of {name} is {theirs.item():.6f}")
        if model is peer:
            theirs.backward()
    ours_, theirs_ = (_gradient_norm(model) for model in (network, peer))
    if abs(ours_ - theirs_) > 1e-3 * theirs_:
        raise UnrolledError(f"the norm of our gradient is {ours_:.6f} where that of {EMBEDDING} is {theirs_:.6f}")
    network.zero_grad()
    peer.zero_grad()


def _gradient_norm(model: nn.Module) -> float:
    return nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]).item()


# --- the layers alone ------------------------------------------------------------------------------------------------


def layers_row(cell: str, effort: Effort, engine: str, *, layers: int, hidden: int, batch: int, steps: int) -> Row:
    """`unrolled.nn`'s drop-in layers beside `torch.nn`'s: floats in, gradients of the input and all weights out."""
    torch.manual_seed(2)
    theirs = LAYERS[cell](hidden, hidden, layers)
    mine = getattr(ours, cell.upper())(hidden, hidden, layers, engine=engine)
    mine.load_state_dict(theirs.state_dict())
    x, gradient = torch.randn(steps, batch, hidden), torch.randn(steps, batch, hidden)
    passes = {OURS: _Pass(mine, x, gradient), EMBEDDING: _Pass(theirs, x, gradient)}
    a, b = (each.results() for each in passes.values())
    if any(float((p - q).abs().max()) > 1e-4 * (1 + float(q.abs().max())) for p, q in zip(a, b, strict=True)):
        raise UnrolledError(f"{cell}: our layers and those of torch.nn give different outputs or gradients")
    timings = alternate((Contender(name, each) for name, each in passes.items()), effort)
    return {
        **{"cell": cell, "layers": layers, "hidden": hidden, "batch": batch, "steps": steps},
        "contenders": {n: {"seconds": t.seconds, "rounds": t.rounds} for n, t in timings.items()},
        **compare(timings, OURS, (EMBEDDING,)),
    }


class _Pass:
    """Forward and backward of a layer, with gradients written anew each time."""

    def __init__(self, layer: nn.Module, x: Tensor, gradient: Tensor) -> None:
        self.layer, self.x, self.gradient = layer, x.clone().requires_grad_(), gradient
        self.leaves = [self.x, *layer.parameters()]

    def __call__(self, units: int) -> None:
        for _ in range(units):
            for leaf in self.leaves:
                leaf.grad = None
            self.layer(self.x)[0].backward(self.gradient)

    def results(self) -> list[Tensor]:
        """Outputs and gradients."""
        self(1)
        return [self.layer(self.x)[0].detach(), *(leaf.grad for leaf in self.leaves if leaf.grad is not None)]
