"""Text classification beside a TF-IDF logistic regression on the same split in the same run.

    python benchmarks/sentiment.py ../shared/data --seconds 300 --seeds 0 1 2 --sets mr sst2 nsmc

The best model is chosen on one part and measured on another. mr: rt-polarity, of each class a tenth is drawn with the
seed for test, then a tenth of the rest for validation; sst2 and nsmc (60,000 training reviews, characters): chosen on
dev, measured on test. The regression has words and pairs of words (nsmc: beside it characters, 1 to 3 in a row) of the
training part alone, and scikit-learn's defaults (C = 1). Prints a JSON line per training. Needs unrolled[bench].
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from parts import three_parts
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from unrolled.data.labelled import Labelled, read_labelled

SETS: dict[str, dict[str, Any]] = {
    "mr": {"path": "mr_polarity", "flags": ["--lower"]},
    "sst2": {"path": "sst2", "flags": ["--lower"]},
    "nsmc": {
        "path": "nsmc/ratings_train.tsv",
        "val": "nsmc/ratings_dev.tsv",
        "test": "nsmc/ratings_test.tsv",
        "flags": ["--tokens", "char", "--text-column", "document", "--label-column", "label"],
    },
}


def source(data: Path, name: str, seed: int, folder: Path) -> Path:
    """Where the set lies; mr, which has no parts, is written into the folder as a table with a split column."""
    path: Path = data / SETS[name]["path"]
    if name != "mr":
        return path
    read, table = read_labelled([path], encoding="latin-1"), folder / "mr.csv"
    with open(table, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label", "split"))
        splits = three_parts(len(read), strata=read.labels, seed=seed)
        writer.writerows(zip(read.texts, read.labels, splits, strict=True))
    return table


def parts(path: Path, test: Path | None) -> tuple[Labelled, Labelled]:
    """What `unrolled train classify-text` trains on, and what is measured."""
    columns = {"text_column": "document", "label_column": "label"} if test else {}
    read = read_labelled([path], **columns)
    if test:
        return read, read_labelled([test], **columns)
    split = np.array(read.splits)
    return read.take(np.flatnonzero(split == "train")), read.take(np.flatnonzero(split == "test"))


def regression(train: Labelled, test: Labelled, characters: bool) -> float:
    """Accuracy of TF-IDF and logistic regression."""
    how = {"analyzer": "char_wb", "ngram_range": (1, 3)} if characters else {"ngram_range": (1, 2)}
    vectors = TfidfVectorizer(sublinear_tf=True, min_df=2, **how)
    model = LogisticRegression(max_iter=1000).fit(vectors.fit_transform(train.texts), train.labels)
    return float(np.mean(model.predict(vectors.transform(test.texts)) == np.array(test.labels)))


def ours(path: Path, test: Path | None, flags: list[str], folder: Path) -> dict[str, Any]:
    run = str(folder / "run")
    summary = _unrolled("train", "classify-text", str(path), *flags, "--out", run)
    measured = _unrolled("evaluate", run, *([str(test)] if test else [str(path), "--split", "test"]))
    return {"accuracy": measured["accuracy"], "f1": measured["f1"], "summary": summary}


def _unrolled(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "unrolled", *arguments, "--json"], stdout=subprocess.PIPE, check=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(options: argparse.Namespace, name: str, seed: int, more: list[str], folder: Path) -> dict[str, Any]:
    given, path = SETS[name], source(options.data, name, seed, folder)
    val, test = (options.data / given[part] if part in given else None for part in ("val", "test"))
    train_part, test_part = parts(path, test)
    flags = [*given["flags"], *(["--val", str(val)] if val else [])]
    begun = time.time()
    found = ours(path, test, [*flags, "--seconds", str(options.seconds), "--seed", str(seed), *more], folder)
    wall, summary = round(time.time() - begun, 1), found.pop("summary")
    kept = ("seconds", "steps", "best_step", "parameters", "tokens_per_second", "train_loss", "accuracy")
    return {
        "set": name,
        "seed": seed,
        "train": len(train_part),
        "test": len(test_part),
        "regression_words": regression(train_part, test_part, characters=False),
        "regression_characters": regression(train_part, test_part, characters=True) if name == "nsmc" else None,
        **found,
        "wall": wall,
        "val": {key: summary[key] for key in kept},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.epilog = "What follows a -- are more flags of train classify-text."
    given, more = sys.argv[1:], []
    if "--" in given:  # argparse would not give them to the right place
        given, more = given[: given.index("--")], given[given.index("--") + 1 :]
    options = parser.parse_args(given)
    for name in options.sets:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                line = measure(options, name, seed, more, Path(folder))
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
