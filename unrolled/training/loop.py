"""The training loop: updates with carried state, validation, reports, checkpoints."""

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.errors import InputError, NonFiniteError, UnrolledError
from unrolled.training import checkpoint, model_file
from unrolled.training.averaging import EVERY, Average
from unrolled.training.observer import Observer, Progress
from unrolled.training.options import TrainingOptions
from unrolled.training.run import Run
from unrolled.training.schedule import Clock, Schedule
from unrolled.training.task import Evaluation, State, Task
from unrolled.training.truncated_bptt import update
from unrolled.training.validation import Validation, check_finite

REPORT_SECONDS = 5.0
CHECKPOINT_SECONDS = 60.0


@dataclass
class Result:
    """How a training ended."""

    finished: bool
    """False where it was stopped before its end; it can then be resumed."""
    steps: int
    seconds: float
    tokens_per_second: float
    train_loss: float
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the best model, on the validation data; empty where stopped."""
    best_step: int = 0
    validated: int = 0
    """How much validation data the metrics cover."""
    generated: int | None = None
    """For how many examples of it the model wrote something by itself; None where a task writes nothing."""


class Trainer:
    """Trains a task's model; the same numbers whether it is stopped and resumed on the way or not (under `steps`)."""

    def __init__(
        self,
        task: Task,
        options: TrainingOptions,
        *,
        learning_rate: float,
        device: torch.device,
        clock: Clock | None = None,
        observer: Observer | None = None,
        start: dict[str, Tensor] | None = None,
    ) -> None:
        self.task, self.options, self.observer = task, options, observer or Observer()
        self.run: Run | None = None
        """Where checkpoints, metrics and the best model go; None keeps all in memory."""
        self.device = device
        self.clock = clock or Clock()
        torch.manual_seed(options.seed)
        self.model: nn.Module = task.model().to(device)
        if start is not None:
            self.model.load_state_dict(start)
        self.average = Average(self.model, options.average) if options.average else None
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=learning_rate,
            betas=(0.9, 0.99),
            weight_decay=options.weight_decay,
            fused=True,
        )
        self.schedule = Schedule(
            learning_rate, options.warmup, steps=options.steps, seconds=options.seconds, clock=self.clock
        )
        self.stream = task.batches("train")
        self.validation = Validation(task, self.schedule, options.eval_every, self._keep_best)
        self.place: dict[str, Any] = {}
        """Engine, threads and device, for the checkpoint: resume sets them again."""
        self.step = 0
        self.tokens = 0
        self.state: State | None = None
        self.training_seconds = 0.0
        self._losses: list[float] = []
        self._train_loss = math.nan
        self._unlogged = False
        """Is there no log, because it cannot be written"""

    # --- one run ---------------------------------------------------------------------------------------------------

    def train(self) -> Result:
        """To the end of the schedule, or until stopped. Raises `NonFiniteError`, which says what is kept."""
        try:
            return self._train()
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}; {self._kept()}") from error

    def _train(self) -> Result:
        self._show()
        last_report = last_checkpoint = self.clock.elapsed()
        patience, norm = self.options.patience, math.nan
        while (fraction := self.schedule.fraction(self.step)) < 1:
            if self.observer.stop(self.step):  # no validation, no choice of a best model: the resumed training will
                self._checkpoint()
                return self._result(finished=False)
            begun = self.clock.elapsed()
            norm = self._update(fraction)
            now = self.clock.elapsed()
            self.training_seconds += now - begun
            self.observer.progress(self._progress(fraction, norm, now))
            if now - last_report >= REPORT_SECONDS:
                self._report_training(norm)
                self._show()
                last_report = self.clock.elapsed()
            if self.validation.due(self.step, now):
                self._validate()
                if patience and self.validation.since_progress() >= patience:
                    break
            if now - last_checkpoint >= CHECKPOINT_SECONDS:
                self._checkpoint()
                last_checkpoint = self.clock.elapsed()
        return self._finish(norm)

    def _update(self, fraction: float) -> float:
        """One update; returns the norm of the gradient before clipping."""
        batch = next(self.stream).to(self.device)
        rate = self.schedule.learning_rate(self.step, fraction)
        done = update(self.model, self.optimizer, batch, self.state, rate=rate, clip=self.options.clip)
        if not done.applied:
            raise NonFiniteError(
                f"the {'gradient' if math.isfinite(done.loss) else 'loss'} is not finite at step {self.step + 1}: "
                f"lower --lr (it was {rate:.2g}) or --clip"
            )
        self.state = done.state
        self.step += 1
        self.tokens += batch.targets.numel()
        self._losses.append(done.loss)
        if self.average and self.step % EVERY == 0:
            self.average.add(self.schedule.fraction(self.step))
        return done.gradient_norm

    def _finish(self, norm: float) -> Result:
        """Choose between the last model and the best before it, measure the choice, save."""
        if not self.step:
            raise InputError(
                f"--seconds {self.options.seconds:g} leaves no time for a single update: starting, reading the data "
                f"and building the network took {self.clock.elapsed():.1f} s, and validation and saving need "
                f"{self.schedule.reserve:.1f} s; give more seconds"
            )
        self._report_training(norm)
        if self.average:  # for good
            self.average.add(self.schedule.fraction(self.step))
            self.average.exchange()
        final = self.validation.final(self.model, self.step)
        if self.validation.at_end and self.validation.best_step != self.step:  # else the last line says it
            self._log({**self._when(), **self.validation.at_end})
        if self.run:
            self._save_model(final)
            self._checkpoint(done=True)
        generated = {} if final.generated is None else {"generated_examples": final.generated}
        self._log({**self._when(), **final.metrics, **generated, "best_step": self.validation.best_step})
        result = self._result(finished=True)
        result.metrics, result.validated, result.generated = final.metrics, final.size, final.generated
        result.best_step = self.validation.best_step
        return result

    # --- reports ---------------------------------------------------------------------------------------------------

    def _when(self) -> dict[str, Any]:
        return {"step": self.step, "seconds": round(self.clock.elapsed(), 2)}

    def _report_training(self, norm: float) -> None:
        if self._losses:
            self._train_loss = sum(self._losses) / len(self._losses)
            self._losses.clear()
        self._log(
            {
                **self._when(),
                "train_loss": self._train_loss,
                "gradient_norm": norm,
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "tokens_per_second": self._speed(),
            }
        )

    def _validate(self) -> None:
        if self.average:
            self.average.add(self.schedule.fraction(self.step))
        with self.average.in_place() if self.average else nullcontext():
            metrics = self.validation.interim(self.model, self.step)
        self._log({**self._when(), **metrics})

    def _log(self, line: dict[str, Any]) -> None:
        if self.run and not self._unlogged:
            try:
                self.run.log(line)
            except UnrolledError as error:  # a log never stops a training
                self._unlogged = True
                self.observer.report({"note": f"{error}; the training goes on without it"})
        self.observer.report(line)

    def _progress(self, fraction: float, norm: float, now: float) -> Progress:
        return Progress(
            step=self.step,
            fraction=fraction,
            elapsed=now,
            left=self.schedule.left(self.step, now, self.training_seconds),
            loss=self._losses[-1],
            gradient_norm=norm,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            tokens_per_second=self._speed(),
            unit=self.task.unit,
        )

    def _show(self) -> None:
        check_finite(self.model.state_dict(), self.step)
        self.observer.watch(self.task.public(self.model.eval()))
        self.model.train()

    def _speed(self) -> float:
        return self.tokens / self.training_seconds if self.training_seconds else 0.0

    def _result(self, finished: bool) -> Result:
        loss = sum(self._losses) / len(self._losses) if self._losses else self._train_loss
        return Result(finished, self.step, self.clock.elapsed(), self._speed(), loss)

    # --- what is kept ----------------------------------------------------------------------------------------------

    def _keep_best(self, best: Evaluation) -> None:
        if self.run:
            self._save_model(best)

    def _save_model(self, found: Evaluation) -> None:
        assert self.run is not None
        measured = {"metrics": found.metrics, "validated": found.size, "generated": found.generated}
        description = {**self.task.describe(), **measured, "step": self.validation.best_step}
        model_file.save(self.run.model, self.model.state_dict(), description)

    def _kept(self) -> str:
        """After a training that diverged."""
        if self.run and self.validation.best:
            return f"the best model until then, of step {self.validation.best_step:,}, is kept in {self.run.model}"
        if self.run and checkpoint.latest(self.run.folder):
            return f"the last checkpoint in {self.run.folder} is kept"
        return "no model is kept"

    def _checkpoint(self, done: bool = False) -> None:
        """Writing one changes no number of the training."""
        if not self.run:
            return
        check_finite(self.model.state_dict(), self.step)
        if not self.run.model.exists():  # before the first validation the newest weights stand in for the best
            description = {**self.task.describe(), "metrics": {}, "step": self.step}
            model_file.save(self.run.model, self.model.state_dict(), description)
        tensors = {
            **checkpoint.with_prefix("model", self.model.state_dict()),
            **checkpoint.with_prefix("optimizer", checkpoint.pack_optimizer(self.optimizer)),
            **checkpoint.with_prefix("state", {str(i): s for i, s in enumerate(self.state or ())}),
            **checkpoint.with_prefix("random", checkpoint.random_states()),
            **checkpoint.with_prefix("average", self.average.state() if self.average else {}),
        }
        description = {
            "step": self.step,
            "done": done,
            "tokens": self.tokens,
            "seconds": self.clock.elapsed(),
            "training_seconds": self.training_seconds,
            "begin": self.schedule.begin,
            "validated_at": self.validation.steps,
            "progress": self.validation.progress,
            "has_state": self.state is not None,
            "cursor": self.stream.cursor(),
            "averaged_until": self.average.until if self.average else None,
            **self.place,
        }
        checkpoint.save(self.run.folder, self.step, tensors, description)

    def restore(self, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
        """Continue from a checkpoint of the same task and options."""
        assert self.run is not None
        path = checkpoint.latest(self.run.folder) or self.run.folder
        try:
            self._restore(tensors, description)
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
            if isinstance(error, InputError) and str(self.run.folder) in str(error):  # it says which file already
                raise
            raise checkpoint.senseless(path, error) from error
        if lost := self.run.forget_after(self.step):
            self.observer.report({"note": lost})

    def _restore(self, tensors: dict[str, Tensor], description: dict[str, Any]) -> None:
        assert self.run is not None
        if self.schedule.seconds is not None and description["begin"] is None:
            raise ValueError("begin of training.json is None, under --seconds")
        try:
            self.model.load_state_dict(checkpoint.under("model", tensors))
        except RuntimeError as error:
            raise InputError(
                f"{self.run.folder} was begun by a version of unrolled whose networks for {self.task.name} were "
                "others: train it again, or install that version"
            ) from error
        checkpoint.unpack_optimizer(self.optimizer, checkpoint.under("optimizer", tensors))
        state = checkpoint.under("state", tensors)
        if not description["has_state"] and (state or description["step"]):
            raise ValueError("has_state of training.json is False after an update")
        if description["validated_at"] and None in description.get("progress", {}).values():
            raise ValueError("progress of training.json is None after a validation")
        if description["has_state"]:
            self.state = tuple(state[str(i)].to(self.device) for i in range(len(state)))
        if self.average:
            self.average.restore(checkpoint.under("average", tensors), description["averaged_until"])
        self.step, self.tokens = description["step"], description["tokens"]
        self.training_seconds = description["training_seconds"]
        self.clock.before, self.schedule.begin = description["seconds"], description["begin"]
        weights, kept = model_file.load(self.run.model)
        shapes = {name: tensor.shape for name, tensor in self.model.state_dict().items()}
        if shapes != {name: tensor.shape for name, tensor in weights.items()}:
            raise InputError(f"{self.run.model} is not a model of this run: train again from it with --start-from")
        for name in (self.task.monitor[0], "val_loss"):
            if kept["metrics"] and name not in kept["metrics"]:
                raise InputError(f"{self.run.model} says nothing of its {name}: train again from it")
        self.validation.remember(weights, kept, description)
        self.stream.seek(description["cursor"])
        checkpoint.restore_random_states(checkpoint.under("random", tensors))  # last: nothing may draw after it
