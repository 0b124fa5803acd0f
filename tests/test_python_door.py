"""What a Python user meets first: `import unrolled`, `fit` that speaks and leaves the process alone, `repr`."""

import io
import os
import random
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Cli
from helpers import assert_one_sentence

import unrolled
from unrolled.tasks.arguments import texts_of
from unrolled.tasks.fitting import resume
from unrolled.tasks.models import LanguageModel

SMALL: dict[str, Any] = {"hidden": 8, "layers": 1, "steps": 3, "batch": 2, "bptt": 16}
WORDS = [f"--{name}={value}" for name, value in SMALL.items()]


def test_one_import_reaches_the_public_names_and_torch_comes_when_needed() -> None:
    code = """
import sys, unrolled
assert issubclass(unrolled.InputError, unrolled.UnrolledError) and issubclass(unrolled.NonFiniteError, Exception)
assert unrolled.errors.InputError is unrolled.InputError and set(unrolled.__all__) <= set(dir(unrolled))
assert not {"torch", "numpy"} & sys.modules.keys()
layer = unrolled.nn.LSTM(3, 4)
assert unrolled.cells.CELLS["lstm"].gates == 4 and "bptt" in unrolled.engines.ENGINES
assert unrolled.topologies.ManyToOne and unrolled.decoding.sampling.Sampling and unrolled.data.tokenizers.Tokenizer
for name in unrolled.__all__:
    getattr(unrolled, name)
from unrolled import nn, load, cells
try:
    unrolled.LSTM
except AttributeError as error:
    assert "LSTM" in str(error)
else:
    raise AssertionError
"""
    path = {**os.environ, "PYTHONPATH": str(Path(unrolled.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], env=path, check=True, timeout=60)


def state() -> dict[str, Any]:
    """What belongs to the process."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": (kind, keys.tolist(), rest),
        "python": random.getstate(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "warnings": list(warnings.filters),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "folder": Path.cwd(),
    }


def test_training_resuming_and_loading_leave_the_process_as_it_was(
    tiny_text: Path, tmp_path: Path, quick_cli: Cli
) -> None:
    torch.manual_seed(77)
    others = 1 if torch.get_num_threads() > 1 else 2
    LanguageModel.fit(tiny_text, **SMALL)  # what is imported at first use may add filters of its own
    before = state()
    model = LanguageModel.fit(tiny_text, threads=others, **SMALL)
    assert state() == before
    model.save(tmp_path / "model.safetensors")
    assert unrolled.load(tmp_path / "model.safetensors").step == model.step
    assert state() == before
    for wrong in ({"cell": "gru", "lr": 1e38, "clip": 0.0}, {"engine": "none"}):
        with pytest.raises(unrolled.UnrolledError):
            LanguageModel.fit(tiny_text, threads=others, **{**SMALL, "steps": 50, **wrong})
        assert state() == before
    with pytest.raises(unrolled.InputError):
        resume(tmp_path)
    assert state() == before


def test_the_numbers_do_not_depend_on_the_process_and_are_the_commands(
    tiny_text: Path, tmp_path: Path, quick_cli: Cli
) -> None:
    out = tmp_path / "run"
    assert quick_cli("train", "language-model", tiny_text, *WORDS, "--seed=5", f"--out={out}").returncode == 0
    expected = unrolled.load(out).network.state_dict()
    for seed in (1, 2):
        torch.manual_seed(seed)
        weights = LanguageModel.fit(tiny_text, seed=5, **SMALL).network.state_dict()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "progress", "speaks"), [
    (io.StringIO, None, False), (io.StringIO, True, True), (Terminal, None, True), (Terminal, False, False),
])  # fmt: skip
def test_fit_says_how_it_goes_on_a_terminal_or_when_asked(
    tiny_text: Path, monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], progress: bool | None, speaks: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", told := stream())
    LanguageModel.fit(tiny_text, progress=progress, **SMALL)
    written = told.getvalue()
    assert ("val_loss" in written and "parameters" in written and "\x1b" not in written) == speaks
    assert speaks or not written


def test_repr_says_what_the_model_is(make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    shown = repr(make_model())
    for part in ("LanguageModel", "lstm 1 × 8", "many_to_many", "tokens (char)", "parameters", "step 3", "2.2500"):
        assert part in shown
    assert len(shown) < 200 and "\n" not in shown
    table = tmp_path / "texts.tsv"
    table.write_text("text\tlabel\n" + "".join(f"word{i % 7} and more\t{'ab'[i % 2]}\n" for i in range(60)))
    classifier = unrolled.TextClassifier.fit(table, hidden=8, layers=1, steps=1, batch=2)
    assert "TextClassifier" in repr(classifier) and "2 labels" in repr(classifier) and "accuracy" in repr(classifier)


def test_arguments_of_other_types_are_refused_in_a_sentence(tiny_text: Path, make_model: Callable[..., Any]) -> None:
    fit, model = unrolled.LanguageModel.fit, make_model()
    small: dict[str, Any] = {"steps": 1, "hidden": 4, "batch": 2, "bptt": 4}
    assert fit([tiny_text], **{**small, "hidden": np.int64(4)}).step == 1  # a list of paths, a number of NumPy
    refused = (
        (lambda: fit(None, **small), "the data are given as None"),
        (lambda: fit(b"in.txt", **small), "the data are given as bytes"),
        (lambda: fit(tiny_text, **{**small, "hidden": "8"}), "hidden of the options is '8'"),
        (lambda: fit(tiny_text, **{**small, "lr": [0.1]}), "lr of the options is"),
        (lambda: fit(tiny_text, hiden=8), "no option hiden=: did you mean hidden="),
        (lambda: model.sample(None), "prompt of what is asked for is None"),
        (lambda: model.sample("a", length="5"), "length of what is asked for is '5'"),
        (lambda: model.sample("a", seed="x"), "seeds.0 of what is asked for is 'x'"),
        (lambda: model.sample("a", temperature="x"), "temperature of the options is 'x'"),
        (lambda: model.save(None), "the places to save to are given as None"),
        (lambda: unrolled.load(None), "are given as None"),
    )
    for call, sentence in refused:
        with pytest.raises(unrolled.InputError, match=sentence) as error:
            call()
        assert_one_sentence(str(error.value))


@pytest.mark.parametrize("given", [None, 5, {"a": 1}, [None], [b"a"], [float("nan")], Path("a.txt")])
def test_what_is_no_list_of_texts_is_refused(given: Any) -> None:
    with pytest.raises(unrolled.InputError, match="takes a list of texts"):
        texts_of(given)
    assert texts_of(np.array(["a", "b"])) == texts_of(("a", "b")) == ["a", "b"]
