"""What recurrence costs and what it brings, measured on models trained for it: how far back gradients reach, any length
in constant memory, and what more layers are worth.

The complaints and praises are those of the CS231n lecture on recurrent networks: they are slow, since every timestep
waits for the one before it, and forget what lies far back; they take a text of any length with the same weights and the
same memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.data.sources import training_text
from unrolled.data.splits import FRACTION
from unrolled.errors import InputError
from unrolled.inspection import gradient_flow
from unrolled.inspection.depth import parameters, width_with
from unrolled.inspection.long_run import measure_long_run
from unrolled.tasks import recipe
from unrolled.tasks.fitting import Fitted, fit, pick_device
from unrolled.tasks.language_model import LanguageModelTask, evaluate, resolve
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions
from unrolled.tasks.prepare_language_model import Prepared, prepare
from unrolled.training.schedule import RESERVE, FromFirstLook

COMPARED = ("rnn", "gru", "lstm")
"""Cells whose gradients are followed."""
DEEP = "lstm"
"""The cell that is stacked, and whose long run is measured."""
LEAST_WINDOWS = 8
SHORTEST = 1.0
"""Seconds of a training, at least: in less, hardly anything is learned."""
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how long the models are trained for it."""

    seconds: float = 20.0
    """Of each training, its reading and validation included"""
    steps: int | None = None
    """Updates of each training, instead of seconds: repeatable bit for bit"""
    seed: int = 0
    hidden: int = 256
    """The same for all cells, so that they are comparable: what `train` takes under --steps"""
    lags: int = 200
    """Timesteps back that gradients are followed"""
    warm_up: int = 100
    """Timesteps before those, for the state"""
    windows: int = 64
    """Stretches of validation text, each with one loss at its end"""
    lengths: tuple[int, ...] = (10, 100, 1_000, 10_000, 100_000)
    """Timesteps of a long run"""
    trained_lengths: tuple[int, ...] = (10, 100, 1_000, 10_000)
    """Timesteps of full backpropagation through time"""
    depths: tuple[int, ...] = (1, 2, 3)
    validated: int = 200_000
    """Tokens of the validation text that models are measured on, at most: the same for all"""

    @property
    def trainings(self) -> int:
        return len(COMPARED) + 2 * (len(self.depths) - 1)


def measure_memory(paths: Sequence[Path], settings: Settings, say: Say = lambda line: None) -> dict[str, Any]:
    """All of it: what `memory.json` holds. `say` is told what goes on.

    Raises `InputError` where the text is too short or the time is, and `NonFiniteError` where a training diverges.
    """
    lesson = Lesson(paths, settings, say)
    say(lesson.introduction())
    models: dict[str, LanguageModel] = {}
    records: dict[str, dict[str, Any]] = {}
    for cell in COMPARED:
        models[cell], records[cell] = lesson.train(cell)
    depth = lesson.depth(records[DEEP])
    say("following the gradients back …")
    gradients = {cell: lesson.gradients(cell, models[cell]) for cell in COMPARED}
    say("reading and writing long texts …")
    val = lesson.prepared.splits["val"].ids
    long_run = measure_long_run(models[DEEP], val, settings.lengths, settings.trained_lengths)
    return {
        "text": lesson.text(),
        "settings": asdict(settings),
        "training": lesson.training,
        "models": records,
        "gradients": {"windows": lesson.windows.shape[1], **gradients},
        "long_run": long_run,
        "depth": depth,
    }


class Lesson:
    """A text, and what is trained and measured on it. Raises `InputError` where the text is too short for it."""

    def __init__(self, paths: Sequence[Path], settings: Settings, say: Say) -> None:
        if settings.steps is None and not settings.seconds >= SHORTEST:
            raise InputError(f"--seconds is {settings.seconds:g}: give each training at least {SHORTEST:g}")
        self.paths, self.settings, self.say, self.trained = paths, settings, say, 0
        self.source, own, _ = training_text(paths, None)
        self.held = "a tenth for validation" if own is None else f"{own.name} for validation"
        self.training: dict[str, Any] = {}
        """Options that all trainings share"""
        options = self.options(DEEP)
        self.prepared: Prepared = prepare(paths, options)
        self.windows: Tensor = self._windows()
        self.training = self._recipe(options)

    def options(self, cell: str, layers: int = 1, hidden: int | None = None) -> LanguageModelOptions:
        settings = self.settings
        return LanguageModelOptions(
            cell=cell,
            layers=layers,
            hidden=hidden or settings.hidden,
            embedding=min(settings.hidden, 64),
            seconds=None if settings.steps else settings.seconds,
            steps=settings.steps,
            seed=settings.seed,
            **self.training,
        )

    def _recipe(self, options: LanguageModelOptions) -> dict[str, Any]:
        """Batch, chunk length and dropout: what the recipe says for one layer, and the same for all."""
        if options.seconds is not None:
            flops = recipe.measure_flops(pick_device(options.device), options.engine)  # compiles kernels, if need be
            tokens, vocabulary = self.prepared.splits["train"].predictions, self.prepared.tokenizer.size
            budget = recipe.Budget((1 - RESERVE) * options.seconds, flops, tokens, vocabulary)
            options, _ = recipe.choose(options, budget)
        chosen = resolve(options)
        return {name: getattr(chosen, name) for name in ("batch", "bptt", "dropout")}

    def _windows(self) -> Tensor:
        """(timesteps, rows) of validation text."""
        settings, val = self.settings, self.prepared.splits["val"]
        length = settings.warm_up + settings.lags + 2
        windows = gradient_flow.windows(val, length, settings.windows)
        if windows.shape[1] < LEAST_WINDOWS:
            need = round(LEAST_WINDOWS * length / FRACTION)
            raise InputError(
                f"{self.source.name} is too short: gradients are followed through at least {LEAST_WINDOWS} stretches "
                f"of {length} characters, each within one document, and the last {100 * FRACTION:g} %, kept for "
                f"validation, hold {windows.shape[1]}; give at least {need:,} characters, in documents longer than "
                f"that (there are {self.prepared.scans[0].characters:,})"
            )
        return windows

    def introduction(self) -> str:
        settings = self.settings
        each = f"{settings.steps} updates" if settings.steps else f"{settings.seconds:g} s"
        how = "batch {batch}, chunks of {bptt}, dropout {dropout:g}".format(**self.training)
        total = "" if settings.steps else f": about {self.minutes():.1f} minutes in all"
        return (
            f"{self.source.name}, {self.prepared.scans[0].characters:,} characters, {self.held}. "
            f"{settings.trainings} models are trained for {each} each ({settings.hidden} units unless said otherwise, "
            f"{how}), then about half a minute is measured{total}"
        )

    def minutes(self) -> float:
        return (self.settings.trainings * self.settings.seconds + 30) / 60

    def text(self) -> dict[str, Any]:
        return {
            "name": self.source.name,
            "paths": [str(path) for path in self.paths],
            "characters": self.prepared.scans[0].characters,
            "sha256": self.prepared.scans[0].sha256,
            "vocabulary": self.prepared.tokenizer.size,
        }

    def train(self, cell: str, layers: int = 1, hidden: int | None = None) -> tuple[LanguageModel, dict[str, Any]]:
        """A model, and what there is to say of it. It is measured on the CPU, wherever it was trained."""
        self.trained += 1
        options = self.options(cell, layers, hidden)
        self.say(f"{self.trained} of {self.settings.trainings}: {cell} {layers} × {options.hidden}")
        fitted = fit(self.paths, options=options, clock=FromFirstLook())
        fitted.model.to("cpu")
        record = self._record(fitted)
        self.say(f"       {record['bits_per_character']:.3f} bits a character after {record['steps']:,} updates")
        return fitted.model, record

    def _record(self, fitted: Fitted) -> dict[str, Any]:
        model, used = fitted.model, fitted.model.options
        val = self.prepared.splits["val"]
        # what the training has measured depends on the time it had left
        found = evaluate(model.network, model.tokenizer, val, torch.device("cpu"), self.settings.validated)
        return {
            **{name: getattr(used, name) for name in ("cell", "layers", "hidden", "batch", "bptt", "dropout", "lr")},
            "parameters": sum(p.numel() for p in model.network.parameters()),
            "engine": fitted.engine,
            "steps": fitted.result.steps,
            "seconds": fitted.result.seconds,
            "tokens_per_second": fitted.result.tokens_per_second,
            **found.metrics,
        }

    def untrained(self, cell: str) -> LanguageModel:
        """The very model that a training of this cell begins with."""
        options = resolve(self.options(cell))
        task = LanguageModelTask(options, self.prepared.tokenizer, self.prepared.splits, torch.device("cpu"))
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            return LanguageModel(task.model(), self.prepared.tokenizer, options)

    def gradients(self, cell: str, trained: LanguageModel) -> dict[str, Any]:
        """Summaries of ‖∂L_t/∂h_{t-k}‖ (and for an LSTM by c) after training and before it."""

        def followed(model: LanguageModel) -> dict[str, Any]:
            norms = gradient_flow.gradient_norms(model.network, self.windows, self.settings.lags)
            return {node: gradient_flow.summary(values) for node, values in norms.items()}

        return {"trained": followed(trained), "untrained": followed(self.untrained(cell))}

    def depth(self, shallow: dict[str, Any]) -> dict[str, Any]:
        """Records of one layer (given), two, three …: with the same width, and with as many parameters as one layer."""
        settings, size = self.settings, self.prepared.tokenizer.size
        embedding = self.options(DEEP).embedding or 0
        target = parameters(DEEP, settings.hidden, 1, size, embedding)
        same_width, same_parameters = [shallow], [shallow]
        for layers in settings.depths[1:]:
            same_width.append(self.train(DEEP, layers)[1])
            narrow = width_with(target, DEEP, layers, size, embedding)
            same_parameters.append(self.train(DEEP, layers, narrow)[1])
        return {"same_width": same_width, "same_parameters": same_parameters}
