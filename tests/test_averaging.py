"""The average of the newest weights: what it is, and that a training with it resumes to the same bits."""

import math
from pathlib import Path

import pytest
import torch
from helpers import Listener
from torch import nn
from translate_helpers import TINY, pairs_file

import unrolled
from unrolled.errors import InputError
from unrolled.tasks import fitting
from unrolled.tasks.fitting import Fitted
from unrolled.tasks.options import LanguageModelOptions, TranslateOptions
from unrolled.training import checkpoint, model_file
from unrolled.training.averaging import Average


def test_it_is_the_mean_at_first_and_then_exponential() -> None:
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, 0.5)
    values, expected = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0], 0.0
    for n, value in enumerate(values, 1):
        with torch.no_grad():
            model.weight.fill_(value)
        average.add(n / 8)
        weight = max(1 / n, 1 / 4)  # half of the training is four entries
        expected += weight * (value - expected)
        assert average.tensors[0].item() == pytest.approx(expected, abs=1e-6)
        if n <= 4:
            assert expected == pytest.approx(sum(values[:n]) / n)
    average.add(1.0)  # no time has passed
    assert average.tensors[0].item() == pytest.approx(expected, abs=1e-6)


def test_the_network_has_it_inside_and_its_own_weights_outside() -> None:
    model = nn.Linear(3, 2)
    before = [p.detach().clone() for p in model.parameters()]
    average = Average(model, 0.5)
    for tensor in average.tensors:
        tensor.zero_()
    with pytest.raises(KeyError), average.in_place():
        assert all(not p.any() for p in model.state_dict().values())
        raise KeyError
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    model(torch.ones(1, 3)).sum().backward()
    torch.optim.SGD(model.parameters(), 1.0).step()
    assert torch.allclose(model.weight, before[0] - 1) and not any(bool(t.any()) for t in average.tensors)


def train(text: Path, out: Path | None = None, stop_at: int | None = None, **options: object) -> Fitted:
    small = {"hidden": 16, "batch": 4, "bptt": 8, "lr": 1e-2, "steps": 60, "dropout": 0.3, "eval_every": 17}
    return fitting.fit(
        [text], options=LanguageModelOptions(**{**small, **options}), out=out, observer=Listener(stop_at)
    )


@pytest.mark.parametrize("stops", [[30], [1, 17, 46]])
def test_a_resumed_training_equals_one_that_never_stopped(tiny_text: Path, tmp_path: Path, stops: list[int]) -> None:
    whole = train(tiny_text, tmp_path / "whole", average=0.2)
    train(tiny_text, tmp_path / "parts", stops[0], average=0.2)
    for stop_at in [*stops[1:], None]:
        torch.manual_seed(999)
        last = fitting.resume(tmp_path / "parts", observer=Listener(stop_at))
    assert last.result.finished and last.result.metrics == whole.result.metrics
    models, newest = (
        [load(tmp_path / name)[0] for name in ("whole", "parts")]
        for load in (model_file.load, lambda folder: checkpoint.load(checkpoint.latest(folder)))
    )
    assert model_file.sha256(models[0]) == model_file.sha256(models[1])
    assert model_file.sha256(newest[0]) == model_file.sha256(newest[1])
    assert any(name.startswith("average/") for name in newest[0])


def test_checkpoints_and_validations_change_no_number(
    tiny_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(tiny_text, average=0.2)
    monkeypatch.setattr("unrolled.training.loop.CHECKPOINT_SECONDS", 0.0)
    kept = train(tiny_text, tmp_path / "kept", average=0.2)
    hashes = [model_file.sha256(f.model.network.state_dict()) for f in (plain, kept)]
    assert hashes[0] == hashes[1]


def test_the_training_is_the_same_and_the_model_another(tiny_text: Path, tmp_path: Path) -> None:
    """The average changes what is measured and kept, not what is trained."""
    losses = []
    for share in (0.0, 0.2):
        fitted = train(tiny_text, tmp_path / str(share), average=share, eval_every=60)
        losses.append(fitted.result.train_loss)
    assert losses[0] == losses[1]
    plain, averaged = (unrolled.load(tmp_path / name) for name in ("0.0", "0.2"))
    assert not torch.equal(plain.network.table, averaged.network.table)
    assert averaged.evaluate(tiny_text, split="val")["val_loss"] == pytest.approx(averaged.metrics["val_loss"])
    assert averaged.metrics["val_loss"] != plain.metrics["val_loss"] and math.isfinite(averaged.metrics["val_loss"])


def test_a_translator_resumes_with_it_too(tmp_path: Path) -> None:
    path = pairs_file(tmp_path, 60)
    options = TranslateOptions(**TINY, steps=24, eval_every=5, average=0.3)
    whole = fitting.fit([path], options=options, out=tmp_path / "whole")
    fitting.fit([path], options=options, out=tmp_path / "parts", observer=Listener(stop_at=7))
    parts = fitting.resume(tmp_path / "parts")
    assert parts.result.metrics == whole.result.metrics
    for name, tensor in whole.model.network.state_dict().items():
        assert torch.equal(tensor, parts.model.network.state_dict()[name]), name


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_cannot_be(share: float) -> None:
    with pytest.raises(InputError, match="--average is"):
        LanguageModelOptions(average=share)


def test_statistics_of_batch_normalisation_are_averaged_too() -> None:
    model = nn.BatchNorm1d(2)
    average, means = Average(model, 1.0), []
    for n in range(1, 4):
        model(torch.full((4, 2), float(n)))
        means.append(model.running_mean.clone())
        average.add(n / 3)
    with average.in_place():
        assert torch.allclose(model.running_mean, torch.stack(means).mean(0))
    assert torch.equal(model.running_mean, means[-1])


def test_what_is_frozen_is_not_averaged() -> None:
    def part() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    model = nn.Sequential(part(), part())
    model[0].requires_grad_(False)
    average = Average(model, 0.5)
    learns = {"1.0.weight", "1.0.bias", "1.1.weight", "1.1.bias", "1.1.running_mean", "1.1.running_var"}
    assert set(average.state()) == learns
    model(torch.randn(4, 2))  # the statistics of the frozen part go on, as those of a network in training mode do
    mean = model[0][1].running_mean.clone()
    with average.in_place():
        assert torch.equal(model[0][1].running_mean, mean) and not torch.equal(model[1][1].running_mean, mean)


def test_a_checkpoint_that_numbers_the_averages_resumes_to_the_same_bits(tiny_text: Path, tmp_path: Path) -> None:
    """As all did until they were kept by name."""
    whole = train(tiny_text, average=0.2)
    train(tiny_text, tmp_path / "parts", 30, average=0.2)
    newest = checkpoint.latest(tmp_path / "parts")
    assert newest is not None
    tensors, description = checkpoint.load(newest)
    names = [f"average/{name}" for name, _ in whole.model.network.named_parameters()]
    numbered = {f"average/{at}": tensors.pop(name) for at, name in enumerate(names)}
    del description["progress"]
    checkpoint.save(tmp_path / "parts", 30, {**tensors, **numbered}, description)
    last = fitting.resume(tmp_path / "parts")
    hashes = [model_file.sha256(f.model.network.state_dict()) for f in (whole, last)]
    assert hashes[0] == hashes[1] and last.result.metrics == whole.result.metrics
