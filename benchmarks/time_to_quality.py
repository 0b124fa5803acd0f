"""Validation loss of a language model after a given time, for each cell: three runs of the command line, in turn.

    python benchmarks/time_to_quality.py ../shared/data/tiny_shakespeare/input.txt --seconds 60

Prints a Markdown table of medians with the matrix peak measured before each run, and with --json FILE writes all
figures. The machine must be otherwise idle.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from unrolled.metrics.text import bigram_cross_entropy
from unrolled.tasks.fitting import prepare
from unrolled.tasks.options import LanguageModelOptions

RECIPES = {
    "lstm": ["--cell", "lstm", "--hidden", "256", "--layers", "1"],
    "gru": ["--cell", "gru", "--hidden", "256", "--layers", "1"],
    "rnn": ["--cell", "rnn", "--hidden", "256", "--layers", "1"],
    "one_to_one": ["--topology", "one_to_one", "--hidden", "256"],
}


def unrolled(*arguments: str) -> dict[str, Any]:
    """The JSON object that a command of ours prints."""
    command = [sys.executable, "-m", "unrolled", *arguments, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def counted_bigrams(text: Path) -> float:
    """Nats a character of the validation text under bigrams counted in the training text: what one_to_one can reach."""
    prepared = prepare([text], LanguageModelOptions())
    return bigram_cross_entropy(prepared.splits["train"].ids, prepared.splits["val"].ids, prepared.tokenizer.size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for run in range(arguments.runs):  # the recipes alternate, so that a slow minute hits them all
        for recipe in arguments.recipes:
            peak = unrolled("doctor")["matrix_gflops"]
            with tempfile.TemporaryDirectory() as folder:
                result = unrolled(
                    *("train", "language-model", str(arguments.text), *RECIPES[recipe]),
                    *("--seconds", str(arguments.seconds), "--seed", str(run), "--out", f"{folder}/run"),
                )
            rows.append({"recipe": recipe, "run": run, "matrix_gflops": peak, **result})
            print(f"{recipe} run {run}: val_loss {result['val_loss']:.4f}, peak {peak:.0f} GFLOP/s", file=sys.stderr)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    print(f"| {arguments.seconds:g} s | val_loss, median | of | seconds | steps | tokens/s | parameters | GFLOP/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for recipe in arguments.recipes:
        of = [row for row in rows if row["recipe"] == recipe]
        middle = {
            key: statistics.median(row[key] for row in of)
            for key in ("val_loss", "seconds", "steps", "tokens_per_second", "matrix_gflops")
        }
        losses = ", ".join(f"{row['val_loss']:.4f}" for row in of)
        print(
            f"| {recipe} | {middle['val_loss']:.4f} | {losses} | {middle['seconds']:.1f} | {middle['steps']:,.0f} | "
            f"{middle['tokens_per_second']:,.0f} | {of[0]['parameters']:,} | {middle['matrix_gflops']:.0f} |"
        )
    print(f"\nCounted bigrams on the same validation text: {counted_bigrams(arguments.text):.4f}")


if __name__ == "__main__":
    main()
