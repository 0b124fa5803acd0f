"""Validation loss of a language model after a given time: runs of the command line, in turn.

    python benchmarks/time_to_quality.py ../shared/data/tiny_shakespeare/input.txt --seconds 60
    python benchmarks/time_to_quality.py ../shared/data/tiny_shakespeare/input.txt --targets [--nanogpt path/to/nanoGPT]

The first compares cells of 256 units. The second runs `unrolled train language-model FILE --seconds N` as it is, with
no option that changes the model, against the losses to be reached on tiny Shakespeare, and measures each model under
nanoGPT's protocol too. Both run everything three times with seeds 0, 1 and 2.

Prints a Markdown table of medians with the matrix peak measured before each run, and with --json FILE writes all
figures. The machine must be otherwise idle.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nanogpt_recipe
from nanogpt_protocol import WINDOW, both

from unrolled.metrics.text import bigram_cross_entropy
from unrolled.tasks.options import LanguageModelOptions
from unrolled.tasks.prepare_language_model import prepare

RECIPES = {
    "lstm": ["--cell", "lstm", "--hidden", "256", "--layers", "1"],
    "gru": ["--cell", "gru", "--hidden", "256", "--layers", "1"],
    "rnn": ["--cell", "rnn", "--hidden", "256", "--layers", "1"],
    "one_to_one": ["--topology", "one_to_one", "--hidden", "256"],
}
TARGETS = {12.0: 1.8857, 45.0: 1.60, 300.0: 1.4697, 900.0: 1.44}
"""Seconds to nats a character on tiny Shakespeare. 1.8857 is nanoGPT's CPU recipe, 1.4697 its 10.7M-parameter model."""
Row = dict[str, Any]


def unrolled(*arguments: str) -> Row:
    """The JSON object that a command of ours prints."""
    command = [sys.executable, "-m", "unrolled", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def trained(text: Path, seconds: float, seed: int, options: list[str], protocol: bool = False) -> Row:
    """One training from start to end of its process; `wall` is what a clock on the wall says of it."""
    peak = unrolled("doctor")["matrix_gflops"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        begun = time.monotonic()
        bookkeeping = ("--seed", str(seed), "--out", str(out))
        result = unrolled("train", "language-model", str(text), *options, "--seconds", f"{seconds:g}", *bookkeeping)
        wall = time.monotonic() - begun
        more = both(out, text) if protocol else {}
    row = {"run": seed, "for_seconds": seconds, "matrix_gflops": peak, "wall": wall, **result, **more}
    print(
        f"{seconds:g} s {' '.join(options)} run {seed}: val_loss {row['val_loss']:.4f}, wall {wall:.1f} s, "
        f"peak {peak:.0f} GFLOP/s",
        file=sys.stderr,
        flush=True,
    )
    return row


def counted_bigrams(text: Path) -> float:
    """Nats a character of the validation text under bigrams counted in the training text: what one_to_one can reach."""
    prepared = prepare([text], LanguageModelOptions())
    return bigram_cross_entropy(prepared.splits["train"].ids, prepared.splits["val"].ids, prepared.tokenizer.size)


def cells(arguments: argparse.Namespace) -> list[Row]:
    """Each recipe at each time, three times; the table."""
    rows: list[Row] = []
    for seconds in arguments.seconds or [60.0]:
        for run in range(arguments.runs):  # the recipes alternate, so that a slow minute hits them all
            for recipe in arguments.recipes:
                rows.append({"recipe": recipe, **trained(arguments.text, seconds, run, RECIPES[recipe])})
        print(f"| {seconds:g} s | val_loss, median | of | seconds | steps | tokens/s | parameters | GFLOP/s |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for recipe in arguments.recipes:
            of = [row for row in rows if (row["recipe"], row["for_seconds"]) == (recipe, seconds)]
            print(
                f"| {recipe} | {middle(of, 'val_loss'):.4f} | {losses(of)} | {middle(of, 'seconds'):.1f} | "
                f"{middle(of, 'steps'):,.0f} | {middle(of, 'tokens_per_second'):,.0f} | {of[0]['parameters']:,} | "
                f"{middle(of, 'matrix_gflops'):.0f} |"
            )
    print(f"\nCounted bigrams on the same validation text: {counted_bigrams(arguments.text):.4f}")
    return rows


def targets(arguments: argparse.Namespace) -> list[Row]:
    """The command as it is, at each time, three times; the table."""
    rows: list[Row] = []
    print(
        f"| --seconds | target | val_loss, median | of | windows of {WINDOW} from zero | wall s | cell | parameters | "
        "tokens/s | GFLOP/s | reached |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for seconds in arguments.seconds or list(TARGETS):
        target, of = TARGETS.get(seconds), []
        for run in range(arguments.runs):
            of.append(
                {"recipe": "default", "target": target, **trained(arguments.text, seconds, run, [], protocol=True)}
            )
            keep(rows + of, arguments.json)
        loss = middle(of, "val_loss")
        print(
            f"| {seconds:g} | {'–' if target is None else target} | {loss:.4f} | {losses(of)} | "
            f"{middle(of, f'windows_of_{WINDOW}_from_zero'):.4f} | {middle(of, 'wall'):.1f} | {of[0]['cell']} | "
            f"{of[0]['parameters']:,} | {middle(of, 'tokens_per_second'):,.0f} | {middle(of, 'matrix_gflops'):.0f} | "
            f"{'–' if target is None else 'yes' if loss <= target else 'no'} |",
            flush=True,
        )
        rows += of
    if arguments.nanogpt:
        peak = unrolled("doctor")["matrix_gflops"]
        found = nanogpt_recipe.run(arguments.nanogpt, arguments.text)
        rows.append({"recipe": "nanogpt", "matrix_gflops": peak, **found})
        print(f"\nnanoGPT's CPU recipe: {found['val_loss']:.4f} after {found['seconds']:.1f} s, {peak:.0f} GFLOP/s")
    return rows


def keep(rows: list[Row], path: Path | None) -> None:
    """Write what there is so far: an hour of measurements should not hang on its last minute."""
    if path:
        path.write_text(json.dumps(rows, indent=1))


def middle(rows: list[Row], name: str) -> float:
    return statistics.median(row[name] for row in rows)


def losses(rows: list[Row]) -> str:
    return ", ".join(f"{row['val_loss']:.4f}" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seconds", type=float, nargs="+", help="default: 60, or 12 45 300 900 with --targets")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--targets", action="store_true", help="the command without options against losses to reach")
    parser.add_argument("--nanogpt", type=Path, metavar="FOLDER", help="with --targets: a checkout of nanoGPT to run")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.nanogpt and not (arguments.nanogpt / "train.py").exists():
        parser.error(f"{arguments.nanogpt} is no checkout of nanoGPT: it has no train.py")
    rows = targets(arguments) if arguments.targets else cells(arguments)
    keep(rows, arguments.json)


if __name__ == "__main__":
    main()
