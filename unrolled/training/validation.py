"""When to validate, how much of the validation data, and which model is the best."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from unrolled.errors import NonFiniteError
from unrolled.training.model_file import not_finite
from unrolled.training.schedule import Schedule
from unrolled.training.task import Evaluation, Task

INTERIM = 1_000_000
"""Interim validations measure at most so many items."""
SHARE = 0.04
"""Under a clock, interim validations together take at most about this part of the time, and the final one twice that:
what does not fit is left to `unrolled evaluate`."""
LEAST = 20_000
"""Under a clock, a validation measures at least so many items, where there are as many."""
SAVING = 0.5
"""Seconds kept for writing the model and the last checkpoint."""


WRITTEN = 500
"""Examples that an interim validation lets the network write for, at most. The final one too under a clock."""
FEW = 30
"""With fewer examples to compare, equal models say nothing of each other, and the later one has learned longer."""


def advice(task: Task) -> list[str]:
    """What people should know of the choice of the best model."""
    count, name = task.examples("val"), task.monitor[0]
    if count is None or count >= FEW:
        return []
    return [
        f"the best model is chosen by the {name} of {count} validation example{'s' if count > 1 else ''}, which says "
        "little (of equally good models the later one is kept); --val or a larger --val-fraction gives more of them"
    ]


class Validation:
    """Interim validations at fixed steps (under --steps: repeatable) or when the clock allows, and the final one."""

    def __init__(
        self, task: Task, schedule: Schedule, every: int | None, on_best: Callable[[Evaluation], None]
    ) -> None:
        self.task, self.schedule, self.on_best = task, schedule, on_best
        self.every = every or (max(1, schedule.steps // 10) if schedule.steps is not None else None)
        self.best: Evaluation | None = None
        self.best_step = 0
        self.best_weights: dict[str, Tensor] = {}
        self.steps: list[int] = []
        """The steps at which there was a validation."""
        self.progress: dict[str, Any] = {"step": 0, "monitor": None, "val_loss": None}
        """The best monitor and the lowest loss so far, and the step of the last that was: patience counts from it."""
        self.at_end: dict[str, float] | None = None
        """What the final validation has found of the last model, which need not be the best"""
        self._all = task.size("val")
        self._interim, self._final = min(INTERIM, self._all), self._all
        self._written = WRITTEN if schedule.seconds is not None else None
        """Of the final validation"""
        self._few = (task.examples("val") or FEW) < FEW
        self._probed = schedule.seconds is None
        self._next: float | None = None

    def due(self, step: int, now: float) -> bool:
        """Is it time for an interim validation? Never at the very last step: the final one comes then."""
        if self.every is not None:
            return step % self.every == 0 and step != self.schedule.steps
        assert self.schedule.seconds is not None and self.schedule.begin is not None
        if self._next is None:
            self._next = self.schedule.begin + (self.schedule.seconds - self.schedule.begin) / 10
        return now >= self._next

    def interim(self, model: nn.Module, step: int) -> dict[str, float]:
        """Validate, keep the model if it is the best so far, and return the metrics. Raises `NonFiniteError`."""
        probed = None if self._probed else self._budget(model, step)
        result, took = probed or self._measure(model, self._interim, WRITTEN, step)
        self._measure_best_alike(model, result)
        self.steps.append(step)
        self._note_progress(result, step)
        if self._is_better(result, step):
            self.best, self.best_step = result, step
            self.best_weights = _copied(model)
            self.on_best(result)
        if self.schedule.seconds is not None:
            more = took * self._final / self._interim if self._final > self._interim else 0.0
            self.schedule.reserve = 1.1 * (took + more) + SAVING
            self._next = self.schedule.clock.elapsed() + max(self.schedule.seconds / 10, took / SHARE)
        return result.metrics

    def final(self, model: nn.Module, step: int) -> Evaluation:
        """Load the best model into `model` and measure it on all of the validation data (under a clock, on as
        much as the time allows)."""
        if not self.steps or self.steps[-1] != step:
            self.at_end = self.interim(model, step)
        assert self.best is not None
        model.load_state_dict(self.best_weights)
        if not self._probed:  # a resumed training that had nothing left to do
            self._budget(model, self.best_step)
        generated, examples = self.best.generated, self.task.examples("val")
        more = self._written is None and generated is not None and generated < (examples or 0)
        if more or self._final > self.best.size:
            self.best = self._measure(model, self._final, self._written, self.best_step)[0]
        return self.best

    def since_progress(self) -> int:
        """Validations since the last one at which the monitor or the loss was better than ever."""
        return sum(1 for step in self.steps if step > self.progress["step"])

    def remember(self, weights: dict[str, Tensor], kept: dict[str, Any], description: dict[str, Any]) -> None:
        """What an earlier session of the same run knew: its best model with what the model file says of it, and from
        the checkpoint when it validated. A model of a version that did not say what it was measured on is measured
        again."""
        self.steps = description["validated_at"]
        if kept["metrics"]:
            self.best = Evaluation(kept["metrics"], kept.get("validated", 0), kept.get("generated"))
            self.best_step, self.best_weights = kept["step"], weights
            self.progress = {"step": self.best_step, **self._measures(self.best)}
        self.progress = description.get("progress", self.progress)

    def _is_better(self, result: Evaluation, step: int) -> bool:
        """By the monitor. Of equals the lower loss; where the examples are few, the later model."""
        if self.best is None:
            return True
        new, old = self._measures(result), self._measures(self.best)
        if new["monitor"] != old["monitor"]:
            return new["monitor"] < old["monitor"]
        return step > self.best_step if self._few else new["val_loss"] < old["val_loss"]

    def _measures(self, result: Evaluation) -> dict[str, float]:
        """The monitor and the loss, both the less, the better."""
        name, sense = self.task.monitor
        value = result.metrics[name]
        return {"monitor": value if sense == "min" else -value, "val_loss": result.metrics["val_loss"]}

    def _note_progress(self, result: Evaluation, step: int) -> None:
        for name, value in self._measures(result).items():
            if self.progress[name] is None or value < self.progress[name]:
                self.progress[name], self.progress["step"] = value, step

    def _measure_best_alike(self, model: nn.Module, result: Evaluation) -> None:
        """Measure the best model of an earlier session on what this session measures, so that they can be compared."""
        if self.best is None or (self.best.size, self.best.generated) == (result.size, result.generated):
            return
        own = _copied(model)
        model.load_state_dict(self.best_weights)
        self.best = self._measure(model, self._interim, WRITTEN, self.best_step)[0]
        model.load_state_dict(own)

    def _measure(self, model: nn.Module, size: int, write: int | None, step: int) -> tuple[Evaluation, float]:
        check_finite(model.state_dict(), step)
        begun = self.schedule.clock.elapsed()
        result = self.task.evaluate(model, "val", None if size == self._all else size, write=write)
        for name, value in result.metrics.items():
            if not math.isfinite(value):  # the last update has spoilt the weights
                raise NonFiniteError(f"{name} is not finite at step {step:,}: lower --lr")
        return result, self.schedule.clock.elapsed() - begun

    def _budget(self, model: nn.Module, step: int) -> tuple[Evaluation, float] | None:
        """Under a clock: time a little, then choose how much the validations may measure. Where that is as little,
        return what it has found, and the time it took."""
        assert self.schedule.seconds is not None
        little = min(LEAST, self._all)
        result, took = self._measure(model, little, WRITTEN, step)
        per_second = result.size / took
        affordable = max(LEAST, int(SHARE * self.schedule.seconds * per_second))
        self._interim = min(INTERIM, self._all, affordable)
        self._final = min(self._all, 2 * affordable)
        self._probed = True
        return (result, took) if self._interim == little else None


def check_finite(weights: Mapping[str, Tensor], step: int) -> None:
    """Raise `NonFiniteError` where an update has made weights that are no numbers."""
    if name := not_finite(weights):
        raise NonFiniteError(f"the weights are not finite after step {step:,} ({name}): lower --lr")


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
