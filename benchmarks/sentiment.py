"""Text classification beside a TF-IDF logistic regression on the same split in the same run.

    python benchmarks/sentiment.py ../shared/data --seconds 300 --seeds 0 1 2 --sets mr sst2 nsmc

mr: rt-polarity, a tenth of each class drawn with the seed, on which the best model is chosen and both are measured;
sst2: chosen on dev, measured on test; nsmc: 60,000 training reviews, characters, chosen on dev, measured on test. The
regression has words and pairs of words (nsmc: beside it characters, 1 to 3 in a row) of the training part alone, and
scikit-learn's defaults (C = 1). Prints a JSON line a training. Needs unrolled[bench].
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from unrolled.data.labelled import Labelled, read_labelled
from unrolled.data.splits import divide

SETS: dict[str, dict[str, Any]] = {
    "mr": {"path": "mr_polarity", "flags": ["--encoding", "latin-1", "--lower"]},
    "sst2": {"path": "sst2", "flags": ["--lower"]},
    "nsmc": {
        "path": "nsmc/ratings_train.tsv",
        "val": "nsmc/ratings_dev.tsv",
        "test": "nsmc/ratings_test.tsv",
        "flags": ["--tokens", "char", "--text-column", "document", "--label-column", "label"],
    },
}


def parts(data: Path, name: str, seed: int) -> tuple[Labelled, Labelled]:
    """What is trained on, and what is measured: the very split of `unrolled train classify-text`."""
    given = SETS[name]
    columns = {"text_column": "document", "label_column": "label"} if name == "nsmc" else {}
    read = read_labelled([data / given["path"]], encoding="latin-1" if name == "mr" else None, **columns)
    if "test" in given:
        return read, read_labelled([data / given["test"]], **columns)
    division = divide(len(read), splits=read.splits, strata=read.labels, fraction=0.1, seed=seed)
    return read.take(division.train), read.take(division.test if len(division.test) else division.val)


def regression(train: Labelled, test: Labelled, characters: bool) -> float:
    """Accuracy of TF-IDF and logistic regression."""
    how = {"analyzer": "char_wb", "ngram_range": (1, 3)} if characters else {"ngram_range": (1, 2)}
    vectors = TfidfVectorizer(sublinear_tf=True, min_df=2, **how)
    model = LogisticRegression(max_iter=1000).fit(vectors.fit_transform(train.texts), train.labels)
    return float(np.mean(model.predict(vectors.transform(test.texts)) == np.array(test.labels)))


def ours(data: Path, name: str, seed: int, seconds: float, more: list[str]) -> dict[str, Any]:
    given = SETS[name]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = ["train", "classify-text", str(data / given["path"]), *given["flags"], "--seconds", str(seconds)]
        command += ["--val", str(data / given["val"])] if "val" in given else []
        summary = _unrolled(*command, "--seed", str(seed), "--out", str(run), *more)
        if name == "mr":
            return {"accuracy": summary["accuracy"], "f1": summary["f1"], "summary": summary}
        where = [str(data / given["test"])] if "test" in given else [str(data / given["path"]), "--split", "test"]
        measured = _unrolled("evaluate", str(run), *where)
        return {"accuracy": measured["accuracy"], "f1": measured["f1"], "summary": summary}


def _unrolled(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "unrolled", *arguments, "--json"], stdout=subprocess.PIPE, check=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


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
            train, test = parts(options.data, name, seed)
            line = {
                "set": name,
                "seed": seed,
                "train": len(train),
                "test": len(test),
                "regression_words": regression(train, test, characters=False),
                "regression_characters": regression(train, test, characters=True) if name == "nsmc" else None,
            }
            begun = time.time()
            found = ours(options.data, name, seed, options.seconds, more)
            summary = found.pop("summary")
            kept = ("seconds", "steps", "best_step", "parameters", "tokens_per_second", "train_loss", "accuracy")
            print(
                json.dumps(
                    {**line, **found, "wall": round(time.time() - begun, 1), "val": {k: summary[k] for k in kept}}
                )
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
