"""When to validate, how much of the validation data, and which model is the best."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from unrolled.errors import NonFiniteError
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


class Validation:
    """Interim validations at fixed steps (under --steps: repeatable) or when the clock allows, and the final one."""

    def __init__(
        self, task: Task, schedule: Schedule, every: int | None, on_best: Callable[[dict[str, float]], None]
    ) -> None:
        self.task, self.schedule, self.on_best = task, schedule, on_best
        self.every = every or (max(1, schedule.steps // 10) if schedule.steps is not None else None)
        self.best: Evaluation | None = None
        self.best_step = 0
        self.best_weights: dict[str, Tensor] = {}
        self.steps: list[int] = []
        """The steps at which there was a validation."""
        self._all = task.size("val")
        self._interim, self._final = min(INTERIM, self._all), self._all
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
        """Validate, keep the model if it is the best so far, and return the metrics."""
        probed = None if self._probed else self._budget(model)
        result, took = probed or self._measure(model, self._interim)
        if not math.isfinite(result.metrics[self.task.monitor[0]]):  # the last update has spoilt the weights
            raise NonFiniteError(f"{self.task.monitor[0]} is not finite at step {step}: lower --lr")
        self.steps.append(step)
        if self._is_better(result):
            self.best, self.best_step = result, step
            self.best_weights = {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
            self.on_best(result.metrics)
        if self.schedule.seconds is not None:
            more = took * self._final / self._interim if self._final > self._interim else 0.0
            self.schedule.reserve = 1.1 * (took + more) + SAVING
            self._next = self.schedule.clock.elapsed() + max(self.schedule.seconds / 10, took / SHARE)
        return result.metrics

    def final(self, model: nn.Module, step: int) -> Evaluation:
        """Load the best model into `model` and measure it on all of the validation data (under a clock, on as
        much as the time allows)."""
        if not self.steps or self.steps[-1] != step:
            self.interim(model, step)
        assert self.best is not None
        model.load_state_dict(self.best_weights)
        if self._final > self.best.size:
            self.best = self._measure(model, self._final)[0]
        return self.best

    def since_best(self) -> int:
        """Validations since the best one."""
        return sum(1 for step in self.steps if step > self.best_step)

    def remember(self, weights: dict[str, Tensor], kept: dict[str, Any], steps: list[int]) -> None:
        """What an earlier session of the same run knew: its best model, and when it validated."""
        self.steps = steps
        if kept["metrics"]:
            self.best = Evaluation(kept["metrics"], self._interim)
            self.best_step, self.best_weights = kept["step"], weights

    def _is_better(self, result: Evaluation) -> bool:
        if self.best is None:
            return True
        name, sense = self.task.monitor
        new, old = result.metrics[name], self.best.metrics[name]
        return new < old if sense == "min" else new > old

    def _measure(self, model: nn.Module, size: int) -> tuple[Evaluation, float]:
        begun = self.schedule.clock.elapsed()
        result = self.task.evaluate(model, "val", None if size == self._all else size)
        return result, self.schedule.clock.elapsed() - begun

    def _budget(self, model: nn.Module) -> tuple[Evaluation, float] | None:
        """Under a clock: time a little, then choose how much the validations may measure. Where that is as little,
        return what it has found, and the time it took."""
        assert self.schedule.seconds is not None
        little = min(LEAST, self._all)
        result, took = self._measure(model, little)
        per_second = result.size / took
        affordable = max(LEAST, int(SHARE * self.schedule.seconds * per_second))
        self._interim = min(INTERIM, self._all, affordable)
        self._final = min(self._all, 2 * affordable)
        self._probed = True
        return (result, took) if self._interim == little else None
