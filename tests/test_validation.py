"""Which model is the best, when a training stops early, and what a validation has measured."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Listener
from torch import nn
from translate_helpers import TINY, pairs_file

from unrolled.tasks import fitting
from unrolled.tasks.fitting import fit, resume
from unrolled.tasks.language_model import LanguageModelTask
from unrolled.tasks.options import LanguageModelOptions, TextClassifierOptions, TranslateOptions
from unrolled.training import model_file
from unrolled.training.schedule import Clock, Schedule
from unrolled.training.task import Evaluation
from unrolled.training.validation import Validation, advice


class Scripted:
    """A task whose validations find these figures, one after the other."""

    monitor = ("accuracy", "max")

    def __init__(self, figures: list[tuple[float, float]], examples: int) -> None:
        self.figures, self.count = iter(figures), examples

    def size(self, split: str) -> int:
        return self.count

    def examples(self, split: str) -> int:
        return self.count

    def evaluate(self, *_: object, **how: object) -> Evaluation:
        accuracy, loss = next(self.figures)
        return Evaluation({"accuracy": accuracy, "val_loss": loss}, self.count)


def validated(figures: list[tuple[float, float]], examples: int) -> Validation:
    """After a validation at each of the steps 1, 2, …"""
    schedule = Schedule(1.0, 0, steps=100, seconds=None, clock=Clock())
    task: Any = Scripted(figures, examples)
    found = Validation(task, schedule, 1, lambda best: None)
    for step in range(1, len(figures) + 1):
        found.interim(nn.Linear(1, 1), step)
    return found


TIED = [(0.0, 3.0), (0.5, 1.0), (0.5, 0.7), (0.5, 0.9), (0.4, 0.1)]


def test_of_equal_models_the_one_with_the_lower_loss_is_kept() -> None:
    assert validated(TIED, 30).best_step == 3
    assert validated([(0.0, 3.0), (0.0, 2.0), (0.0, 1.0)], 400).best_step == 3


def test_with_fewer_than_30_examples_the_later_of_equal_models_is_kept_and_a_note_says_why() -> None:
    assert validated(TIED, 29).best_step == 4
    few: Any = Scripted([], 29)
    assert "29 validation examples" in advice(few)[0]
    assert advice(Scripted([], 30)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("examples", [2, 100])
def test_patience_counts_from_the_last_better_monitor_or_loss(examples: int) -> None:
    assert validated([(0.0, 3.0), (0.0, 2.0), (0.0, 1.0)], examples).since_progress() == 0
    assert validated(TIED, examples).since_progress() == 0  # the loss has never been lower
    assert validated([*TIED, (0.5, 0.2), (0.5, 0.2), (0.5, 0.2)], examples).since_progress() == 3  # a tie for ever


def test_a_training_whose_monitor_ties_keeps_the_model_that_has_learned_most(tmp_path: Path) -> None:
    """Pairs whose targets are not to be learned from their sources: exact and BLEU say nothing, the loss falls."""
    draw = random.Random(5)
    rows = ["".join(draw.choices("abcdef", k=6)) + "\t" + " ".join(draw.choices("uvwxyz", k=6)) for _ in range(200)]
    (tmp_path / "pairs.tsv").write_text("\n".join(rows) + "\n")
    options = TranslateOptions(**TINY, steps=12, eval_every=3, patience=1, val_fraction=0.15)
    listener = Listener()
    fitted = fit([tmp_path / "pairs.tsv"], options=options, observer=listener)
    assert fitted.result.steps == 12  # --patience 1 did not end it at the first tie
    best = max((line["bleu"], -line["val_loss"]) for line in listener.lines if "bleu" in line)
    assert fitted.result.best_step > 3
    assert (fitted.result.metrics["bleu"], -fitted.result.metrics["val_loss"]) == best


def test_few_texts_are_noted_once_at_the_start(tmp_path: Path) -> None:
    rows = [f"{'good' if n % 2 else 'bad'} film {n}\t{'pos' if n % 2 else 'neg'}" for n in range(20)]
    (tmp_path / "texts.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    listener = Listener(stop_at=1)
    options = TextClassifierOptions(hidden=4, embedding=4, steps=4, eval_every=1)
    fit([tmp_path / "texts.tsv"], options=options, out=tmp_path / "run", observer=listener)
    resume(tmp_path / "run", observer=listener)
    noted = [line["note"] for line in listener.lines if "note" in line and "validation example" in line["note"]]
    assert len(noted) == 1 and noted[0].startswith("the best model is chosen by the accuracy of 2 ")


# What was measured


class Ticking(Clock):
    """A clock that goes on only when it is looked at, so that a timed training is the same on any machine."""

    def elapsed(self) -> float:
        self.looked = getattr(self, "looked", 0) + 1
        return self.before + 0.01 * self.looked


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """How much each validation of a language model measures: a clock leaves time for a part of the text."""
    limits: list[int | None] = []
    evaluate = LanguageModelTask.evaluate

    def noting(self: Any, model: Any, split: str, limit: int | None = None, **how: Any) -> Evaluation:
        limits.append(limit)
        return evaluate(self, model, split, limit, **how)

    monkeypatch.setattr(LanguageModelTask, "evaluate", noting)
    monkeypatch.setattr("unrolled.training.validation.LEAST", 10)
    monkeypatch.setattr("unrolled.tasks.recipe.measure_flops", lambda *_: 1e9)
    return limits


@pytest.mark.parametrize("told", [True, False])
def test_a_resumed_timed_training_measures_its_best_model_again(
    tiny_text: Path, tmp_path: Path, measured: list[int | None], told: bool
) -> None:
    """It took the best model of its first part for one that was measured on all of the text, and did not measure it.
    told: the model file says on how much its model was measured, which older ones do not."""
    seconds, run = 4.0, tmp_path / "run"
    options = LanguageModelOptions(hidden=16, batch=4, bptt=8, lr=1e-9, seconds=seconds, cell="gru", dropout=0.0)
    whole = fit([tiny_text], options=options, clock=Ticking())
    assert measured[-1] == whole.result.validated and 20 < whole.result.validated < 600
    fit([tiny_text], options=options, out=run, clock=Ticking(), observer=Listener(stop_at=60))
    weights, description = model_file.load(run)
    assert description["metrics"] and description["validated"] == measured[-1]
    if not told:
        del description["validated"], description["generated"]
    # so good that no later model is better: what is measured of it at the end is what counts
    model_file.save(run / "model.safetensors", weights, {**description, "metrics": {"val_loss": 0.0}})
    measured.clear()
    parts = resume(run, clock=Ticking())
    assert parts.result.finished and parts.result.metrics["val_loss"] > 1
    assert parts.result.validated == measured[-1] and 20 < parts.result.validated < 600


def test_an_old_run_under_steps_resumes_to_the_same_numbers(tiny_text: Path, tmp_path: Path) -> None:
    options = LanguageModelOptions(hidden=8, batch=4, bptt=8, lr=1e-2, steps=30, eval_every=10)
    whole = fit([tiny_text], options=options)
    fit([tiny_text], options=options, out=tmp_path / "run", observer=Listener(stop_at=25))
    weights, description = model_file.load(tmp_path / "run")
    del description["validated"], description["generated"]
    model_file.save(tmp_path / "run" / "model.safetensors", weights, description)
    parts = resume(tmp_path / "run")
    assert (parts.result.metrics, parts.result.best_step) == (whole.result.metrics, whole.result.best_step)
    assert parts.result.validated == whole.result.validated > 500


def test_the_final_validation_under_steps_writes_for_all_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unrolled.training.validation.WRITTEN", 5)
    path = pairs_file(tmp_path, 60)
    options = TranslateOptions(**TINY, steps=4, eval_every=2, val_fraction=0.2)
    listener = Listener()
    fitted = fit([path], options=options, out=tmp_path / "run", observer=listener)
    assert fitted.result.generated == 12 and listener.lines[-1]["generated_examples"] == 12
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["generated_examples"] == 12
    timed = TranslateOptions(**TINY, seconds=2.0, val_fraction=0.2)
    assert fitting.fit([path], options=timed, clock=Ticking()).result.generated == 5
    language_model = LanguageModelOptions(hidden=4, batch=2, bptt=4, steps=1)
    assert fit([path], options=language_model).result.generated is None
    torch.manual_seed(0)


def test_the_last_step_has_its_own_figures_beside_those_of_the_best(tiny_text: Path) -> None:
    """The last line of a training is about the kept model; a curve must not jump to it."""
    listener = Listener()
    options = LanguageModelOptions(steps=6, eval_every=2, lr=10.0, clip=0, hidden=8, batch=2, bptt=8, threads=1)
    result = fit([tiny_text], options=options, observer=listener).result
    rows = [line for line in listener.lines if "val_loss" in line]
    assert result.best_step < 6, "the learning rate is meant to be too high"
    assert [row["step"] for row in rows] == [2, 4, 6, 6] and "best_step" not in rows[2]
    assert rows[3]["best_step"] == result.best_step and rows[3]["val_loss"] == result.metrics["val_loss"]
    assert rows[2]["val_loss"] > rows[3]["val_loss"]
