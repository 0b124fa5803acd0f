"""Sizes that no machine has: one sentence before memory is taken, with the option or the column that asks for it."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Cli
from helpers import assert_one_sentence
from video_helpers import write_ways
from vision_helpers import captioned

from unrolled.data.labelled import Classes, read_labelled
from unrolled.data.splits import divide
from unrolled.errors import InputError
from unrolled.metrics import classification
from unrolled.tasks.fitting import fit
from unrolled.tasks.media_options import ImageCaptionerOptions, VideoClassifierOptions
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.options import LanguageModelOptions, SearchOptions, TextClassifierOptions, TranslateOptions
from unrolled.training import memory


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unrolled.data.frame_store.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_text: Path) -> dict[type, Path]:
    """Something to train on, by the options of its task."""
    folder = tmp_path_factory.mktemp("sizes")
    texts = [f"some text {n}\t{'ab'[n % 2]}" for n in range(60)]
    (folder / "texts.tsv").write_text("\n".join(["text\tlabel", *texts]))
    (folder / "pairs.tsv").write_text("\n".join(f"a b {n}\tc d {n}" for n in range(60)))
    return {
        LanguageModelOptions: tiny_text,
        TextClassifierOptions: folder / "texts.tsv",
        TranslateOptions: folder / "pairs.tsv",
        VideoClassifierOptions: write_ways(folder / "ways", count=8),
        ImageCaptionerOptions: captioned(folder / "pictures", 2),
    }


HUGE: list[tuple[type, str, Any]] = [
    (LanguageModelOptions, "hidden", 60_000),
    (LanguageModelOptions, "hidden", 10**15),
    (LanguageModelOptions, "embedding", 1_000_000_000),
    (LanguageModelOptions, "embedding", 10_000_000),
    (LanguageModelOptions, "layers", 1_000_000),
    (LanguageModelOptions, "threads", 40_000),
    (LanguageModelOptions, "vocabulary", 1_000_000_000),
    (LanguageModelOptions, "batch", 10**30),
    (TextClassifierOptions, "hidden", 60_000),
    (TextClassifierOptions, "embedding", 16_000_000),
    (TranslateOptions, "hidden", 60_000),
    (TranslateOptions, "embedding", 16_000_000),
    (VideoClassifierOptions, "features", 10_000_000),
    (VideoClassifierOptions, "hidden", 60_000),
    (VideoClassifierOptions, "channels", ",".join(["9999"] * 9)),
    (ImageCaptionerOptions, "size", 1_000_000),
    (ImageCaptionerOptions, "channels", ",".join(["9999"] * 9)),
    (ImageCaptionerOptions, "features", 10_000_000),
]


@pytest.mark.parametrize("kind, name, value", HUGE, ids=lambda value: str(getattr(value, "__name__", value))[:30])
def test_an_option_that_asks_for_more_memory_than_there_is_is_named_before_any_is_taken(
    data: dict[type, Path], kind: type, name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free", lambda device: 3 * 2**30)
    how = {"tokens": "bpe"} if name == "vocabulary" else {}
    with pytest.raises(InputError, match=f"^--{name} ") as raised:
        fit([data[kind]], options=kind(steps=1, **{name: value}, **how))
    assert_one_sentence(str(raised.value))


@pytest.mark.parametrize(
    "kind", [LanguageModelOptions, TextClassifierOptions, TranslateOptions, VideoClassifierOptions]
)
def test_what_a_training_needs_is_known_to_a_factor_and_changes_nothing(data: dict[type, Path], kind: type) -> None:
    how = {"batch": 64, "bptt": 64} if kind is LanguageModelOptions else {}
    options = kind(steps=1, hidden=32, engine="loop", **how)
    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "check", seen.append)
        before = fit([data[kind]], options=options).result.metrics
    assert fit([data[kind]], options=options).result.metrics == before
    (task,) = seen
    need = memory._need(task)
    model, saved = task.model(), 0
    assert need.weights >= 20 * sum(p.numel() for p in model.parameters())
    batches = [next(stream) for stream in [task.batches("train")] for _ in range(3)]

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += tensor.nbytes
        return tensor

    most = 0
    for batch in batches:
        saved = 0
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model(batch, None)
        most = max(most, saved)
    assert most / 12 < need.batch < 12 * most


def test_a_batch_that_does_not_fit_is_refused(data: dict[type, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free", lambda device: 2**25)
    options = LanguageModelOptions(steps=1, hidden=256, batch=10_000_000, bptt=64)
    with pytest.raises(InputError, match=r"^--batch is 10,000,000: such a training needs about 0\.\d GiB"):
        fit([data[LanguageModelOptions]], options=options)


def test_a_container_that_may_take_less_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = memory.free(torch.device("cpu"))
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("1000000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free(torch.device("cpu")) == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free(torch.device("cpu")) > everything // 2


# Classes


def test_a_column_that_numbers_the_rows_is_no_label(tmp_path: Path) -> None:
    table = tmp_path / "numbered.tsv"
    table.write_text("\n".join(["id\ttext\tlabel", *(f"{n}\tsome text {n % 7}\t{'ab'[n % 2]}" for n in range(9000))]))
    for how in ({}, {"val": table}):
        with pytest.raises(InputError, match=r"^column 1 'id' of .*numbered.tsv has 9,000 labels for 9,000") as raised:
            fit([table], options=TextClassifierOptions(steps=1, label_column="id"), **how)
        assert "--label-column" in str(raised.value)
    clips = write_ways(tmp_path / "ways", count=24)
    rows = (clips / "clips.csv").read_text().splitlines()
    names = [",".join([row.split(",")[0], f"clip {n}", "A"]) for n, row in enumerate(rows[1:])]
    (clips / "clips.csv").write_text("\n".join([rows[0], *names]))
    with pytest.raises(InputError, match="has 24 labels for 24 clips, such as 'clip 0'"):
        fit([clips], options=VideoClassifierOptions(steps=1))
    (tmp_path / "few.tsv").write_text("text\tlabel\na\tx\nb\ty\nc\tz\n")
    with pytest.raises(InputError, match="no label occurs twice in the 3 examples"):
        fit([tmp_path / "few.tsv"], options=TextClassifierOptions(steps=1))


def test_many_classes_take_memory_for_the_classes_and_not_for_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 classes: a confusion would be 3 GB, the probabilities of 20,000 texts as much."""
    monkeypatch.setattr(classification, "confusion", lambda *_: pytest.fail("it is counted who is taken for whom"))
    table = tmp_path / "many.tsv"
    table.write_text(
        "\n".join(["text\tlabel", *(f"w{n % 50} v{n % 20_000}\tclass {n % 20_000}" for n in range(40_000))])
    )
    found = divide(40_000, strata=read_labelled([table]).labels)
    assert len(found.val) == 20_000
    true, chances = np.arange(20_000), np.zeros((4, 20_000))
    chances[np.arange(4), [0, 1, 5, 3]] = 1.0
    outcomes = classification.Outcomes.of(true[:4], chances)
    assert outcomes.predicted.tolist() == [0, 1, 5, 3] and outcomes.rank.tolist() == [0, 0, 3, 0]
    details = classification.details(true[:4], outcomes.predicted, [str(n) for n in range(20_000)])
    assert details["confusion"] is None and "20,000 classes" in details["notes"][0] and len(details["report"]) == 20_000


def test_the_outcomes_of_predictions_are_those_of_their_confusion() -> None:
    random_ = np.random.Generator(np.random.PCG64(0))
    true, chances = random_.integers(0, 9, 300), random_.integers(0, 4, (300, 9)) / 9.0  # many of them equal
    found = classification.Outcomes.of(true, chances)
    counts = classification.confusion(true, chances.argmax(1), 9)
    tally = classification.Tally.of(true, found.predicted, 9)
    assert classification.scores(tally) == classification.scores(counts)
    assert classification.report(tally, "abcdefghi") == classification.report(counts, "abcdefghi")
    ranked = np.argsort(-chances, axis=1, kind="stable")
    assert (found.rank == (ranked == true[:, None]).argmax(1)).all()
    assert found.loss() == float(-np.log(np.maximum(chances[np.arange(300), true], 1e-30)).mean())
    assert classification.details(true, found.predicted, "abcdefghi")["confusion"] == counts.tolist()


def test_the_division_is_that_of_version_0_1_0() -> None:
    """By loops over all labels and all groups, as it was; now linear in the rows."""
    draw = random.Random(3)
    for seed in range(8):
        labels = [draw.choice(["é", "b", "aa", "ab", ""]) for _ in range(60)]
        groups = [str(draw.randrange(14)) for _ in range(60)]
        random_, kept = np.random.Generator(np.random.PCG64(seed)), []
        for label in np.unique(np.array(labels)):
            rows = np.flatnonzero(np.array(labels) == label)
            kept += random_.permutation(rows)[: min(max(1, round(0.2 * len(rows))), len(rows) - 1)].tolist()
        assert divide(60, strata=labels, fraction=0.2, seed=seed).val.tolist() == sorted(kept)
        names, strata, inside = np.array(groups), np.array(labels), np.zeros(60, dtype=bool)
        random_ = np.random.Generator(np.random.PCG64(seed))
        for name in random_.permutation(np.unique(names)):
            if inside.sum() >= 0.3 * 60:
                break
            with_it = inside | (names == name)
            if set(strata[~with_it]) == set(strata) and 2 * with_it.sum() <= 60:
                inside = with_it
        found = divide(60, strata=labels, groups=groups, fraction=0.3, seed=seed)
        assert found.val.tolist() == np.flatnonzero(inside).tolist()


def test_classes_of_a_training_are_told_apart_where_most_repeat() -> None:
    class Part:
        labels = ["a", "b"] * 9 + ["c", "d"]
        places: Any = None

        def __len__(self) -> int:
            return 20

    assert Classes.of(Part()).names == ["a", "b", "c", "d"]


# What is written


def test_as_many_samples_or_hypotheses_as_no_memory_holds_are_refused(
    make_model: Any, tmp_path: Path, quick_cli: Cli
) -> None:
    model: LanguageModel = make_model()
    model.save(tmp_path / "model.safetensors")
    for arguments, words in (
        (("--samples", 10**9), "texts of --length 500 needs about"),
        (("--length", 10**13, "--json"), "1 texts of --length 10,000,000,000,000 needs about"),
        (("--beam", 10**6), "--beam is 1,000,000: it must be at most 1,000"),
        (("--beam", 5, "--length", 10**12), "--length 1,000,000,000,000 with --beam 5 needs about"),
    ):
        done = quick_cli("sample", tmp_path / "model.safetensors", *arguments)
        assert done.returncode == 2 and words in done.stderr, (arguments, done.stderr)
    with pytest.raises(InputError, match="--beam"):
        SearchOptions(beam=10**6)
