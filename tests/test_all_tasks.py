"""What every task does alike: what its first line says, and that a model which diverged is never kept."""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Cli
from helpers import Listener, assert_one_sentence
from translate_helpers import pairs_file
from video_helpers import moving, write_clip
from vision_helpers import captioned

import unrolled
from unrolled.errors import InputError, NonFiniteError
from unrolled.tasks.fitting import Fitted, fit
from unrolled.tasks.kinds import KINDS
from unrolled.training import checkpoint, model_file
from unrolled.training.loop import Trainer

OPTIONS: dict[str, dict[str, Any]] = {
    "language-model": {"batch": 4, "bptt": 8},
    "classify-text": {"embedding": 4},
    "translate": {"tokens": "char", "embedding": 4},
    "caption-image": {"size": 16, "channels": "4,4", "features": 4, "embedding": 4, "min_count": 1},
    "caption-video": {"channels": "4,4", "features": 4, "embedding": 4, "min_count": 1, "val_fraction": 0.25},
    "classify-video": {"channels": "4,4", "features": 4},
    "label-frames": {"channels": "4,4", "features": 4},
}
CONVOLUTIONS = ["caption-image", "caption-video", "classify-video", "label-frames"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded frames go to a folder of the test's; the compiled kernels stay where they are."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unrolled.data.frame_store.cache_folder", lambda: folder)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_text: Path) -> dict[str, Path]:
    """A small data set for each task."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(3)
    texts = [f"{'good' if n % 2 else 'bad'} film {n}\t{'pos' if n % 2 else 'neg'}" for n in range(40)]
    (folder / "texts.tsv").write_text("\n".join(["text\tlabel", *texts]) + "\n")
    tables = {
        "clips.csv": ["path,label"],
        "captions.csv": ["path,caption"],
        "segments.csv": ["path,start_frame,end_frame,label"],
    }
    for number in range(12):
        name, way = f"{number:02}.mkv", ("left", "right")[number % 2]
        write_clip(folder / name, moving(draw, 1 if number % 2 else -1, 5))
        rows = f"{name},{way}", f"{name},a square goes {way}", f"{name},0,3,{way}"
        for lines, row in zip(tables.values(), rows, strict=True):
            lines.append(row)
    for file, lines in tables.items():
        (folder / file).write_text("\n".join(lines) + "\n")
    return {
        "language-model": tiny_text,
        "classify-text": folder / "texts.tsv",
        "translate": pairs_file(folder, 60),
        "caption-image": captioned(folder / "shapes", 2),
        "caption-video": folder / "captions.csv",
        "classify-video": folder / "clips.csv",
        "label-frames": folder / "segments.csv",
    }


Train = Callable[..., Fitted]


@pytest.fixture(scope="module")
def train(data: dict[str, Path]) -> Train:
    def run(task: str, out: Path | None = None, listener: Listener | None = None, **options: Any) -> Fitted:
        chosen = KINDS[task].options(**{"hidden": 4, "steps": 2, **OPTIONS[task], **options})
        return fit([data[task]], options=chosen, out=out, observer=listener)

    return run


@pytest.mark.parametrize("task", CONVOLUTIONS)
@pytest.mark.parametrize(("multiplies", "said"), [(True, "bfloat16"), (False, "float32")])
def test_the_first_line_says_what_convolutions_compute_in(
    train: Train, task: str, multiplies: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: multiplies)
    listener = Listener(stop_at=0)
    train(task, listener=listener)
    (line,) = [line["note"] for line in listener.lines if "convolutions" in line.get("note", "")]
    assert f" in {said}, " in line


# Divergence


@pytest.mark.parametrize("task", KINDS)
def test_a_model_that_the_last_update_has_spoilt_is_not_kept(train: Train, task: str, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="no model is kept") as raised:
        train(task, tmp_path / "run", steps=1, lr=1e38, clip=0.0)
    assert raised.value.exit_code == 3
    assert_one_sentence(str(raised.value).replace("; ", " "))
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], None]:
    """spoilt(step, value): after so many updates one weight is this."""

    def prepare(step: int, value: float) -> None:
        update = Trainer._update

        def poisoned(trainer: Trainer, fraction: float) -> float:
            norm = update(trainer, fraction)
            if trainer.step == step:
                with torch.no_grad():
                    next(trainer.model.parameters()).view(-1)[0] = value
            return norm

        monkeypatch.setattr(Trainer, "_update", poisoned)

    return prepare


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("average", [0.0, 0.5])
def test_the_last_good_model_is_kept_and_named(
    train: Train, task: str, average: float, tmp_path: Path, spoilt: Callable[[int, float], None]
) -> None:
    spoilt(4, float("inf"))  # a weight that the validation need not look at
    run = tmp_path / "run"
    with pytest.raises(NonFiniteError, match=rf"not finite after step 4.*of step 2, is kept in {run}"):
        train(task, run, steps=4, eval_every=2, average=average)
    assert unrolled.load(run).step == 2


def test_a_checkpoint_never_holds_weights_that_are_not_finite(
    train: Train, tmp_path: Path, spoilt: Callable[[int, float], None]
) -> None:
    spoilt(3, float("nan"))
    with pytest.raises(NonFiniteError, match="not finite after step 3.*best model until then, of step 2"):
        train("classify-text", tmp_path / "run", Listener(stop_at=3), steps=9, eval_every=2)
    assert checkpoint.latest(tmp_path / "run") is None


def test_a_model_whose_weights_are_not_finite_is_refused(train: Train, tmp_path: Path, quick_cli: Cli) -> None:
    """Older versions kept them."""
    fitted = train("classify-text", tmp_path / "run")
    weights, description = model_file.load(tmp_path / "run")
    weights["table"][0, 0] = float("nan")
    model_file.save(tmp_path / "run" / "model.safetensors", weights, description)
    with pytest.raises(InputError, match=r"not finite numbers \(table\)"):
        unrolled.load(tmp_path / "run")
    for command in (["predict", "run", "a film"], ["evaluate", "run", "texts.tsv"], ["sample", "run"]):
        done = quick_cli(*command, cwd=tmp_path)
        assert done.returncode == 2 and "not finite numbers" in done.stderr and not done.stdout
    assert fitted.result.finished


# Words


@pytest.mark.parametrize("task", ["language-model", "classify-text", "translate", "caption-image", "caption-video"])
def test_words_of_which_none_repeats_are_refused(
    train: Train, data: dict[str, Path], task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only unknown words would be left, and a model that can write nothing."""
    new = map("".join, itertools.product("abcdefgh", repeat=3))
    lines = "".join(f"{next(new)} {next(new)}.\n" for _ in range(60))
    table = data[task]
    options: dict[str, Any] = {"tokens": "word", "vocabulary": 100}
    if task == "language-model":
        (table := tmp_path / "text.txt").write_text(lines)
    elif task == "classify-text":
        (table := tmp_path / "texts.tsv").write_text(
            "text\tlabel\n" + "".join(f"{line}\t{'ab'[n % 2]}\n" for n, line in enumerate(lines.splitlines()))
        )
    elif task == "translate":
        (table := tmp_path / "pairs.tsv").write_text("".join(f"a b a\t{line}\n" for line in lines.splitlines()))
    else:
        options["min_count"] = 10**6
    monkeypatch.setitem(data, task, table)
    with pytest.raises(InputError, match=r"no word .* at least \d+ times.*choose --tokens char or bpe"):
        train(task, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_vocabulary_without_room_for_a_word_is_refused(train: Train) -> None:
    with pytest.raises(InputError, match="--vocabulary 3 has no room for a word"):
        train("language-model", tokens="word", vocabulary=3)
