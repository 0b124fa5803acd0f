"""Translation between German and English (Multi30k) and of dates, beside what others report.

    python benchmarks/translation.py ../shared/data --sets de-en en-de --attention none dot additive --seconds 900
    python benchmarks/translation.py ../shared/data --sets dates --seconds 175 --seeds 0 1 2

de-en, en-de: trained on the 29,000 pairs, the best model chosen on the validation pairs, measured on the 1,000 pairs of
the 2016 Flickr test with beam search: BLEU of detokenised text by sacrebleu, with its signature. For scale: a public
tutorial of a GRU with attention (20.5M parameters, ten passes on a GPU) reports 28.3 from German, without it 20.6.
dates: as people write them to YYYY-MM-DD, characters to characters; a tenth is drawn with the seed for test, then a
tenth of the rest to choose the best model on. Prints a JSON line a training. Needs unrolled[text].
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from parts import three_parts

from unrolled.data.pairs import read_pairs


def files(data: Path, name: str, seed: int, folder: Path) -> tuple[list[str], list[str], list[str]]:
    """What to train on, the flags that say what to validate on, and what to measure."""
    if name == "dates":
        pairs, table = read_pairs([data / "date_normalisation/date.tsv"]), folder / "dates.tsv"
        rows = zip(pairs.sources, pairs.targets, three_parts(len(pairs), seed=seed), strict=True)
        table.write_text("source\ttarget\tsplit\n" + "".join("\t".join(row) + "\n" for row in rows))
        return [str(table)], ["--tokens", "char"], [str(table), "--split", "test"]
    source, target = name.split("-")
    sides = [[str(data / f"multi30k/{part}.{side}") for side in (source, target)] for part in ("train", "val")]
    test = [str(data / f"multi30k/test_2016_flickr.{side}") for side in (source, target)]
    return sides[0], ["--val", *sides[1]], test


def measure(data: Path, name: str, seed: int, seconds: float, beam: int, more: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        train, val, test = files(data, name, seed, Path(folder))
        run = str(Path(folder) / "run")
        flags = ["--seconds", str(seconds), "--seed", str(seed), "--out", run, *more]
        summary = unrolled("train", "translate", *train, *val, *flags)
        kept = ("seconds", "steps", "best_step", "parameters", "tokens_per_second", "val_loss", "bleu", "exact")
        begun = time.time()
        measured = unrolled("evaluate", run, *test, "--beam", str(beam))
        return {
            "set": name,
            "seed": seed,
            "flags": more,
            "train": {key: summary[key] for key in kept},
            "test": measured,
            "evaluate_seconds": round(time.time() - begun, 1),
        }


def unrolled(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "unrolled", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=["de-en", "en-de", "dates"], default=["de-en"])
    parser.add_argument("--attention", nargs="+", choices=["none", "dot", "additive"], default=["additive"])
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--beam", type=int, default=5)
    parser.epilog = "What follows a -- are more flags of train translate."
    given, more = sys.argv[1:], []
    if "--" in given:  # argparse would not give them to the right place
        given, more = given[: given.index("--")], given[given.index("--") + 1 :]
    options = parser.parse_args(given)
    for name in options.sets:
        for attention in options.attention:
            for seed in options.seeds:
                flags = ["--attention", attention, *more]
                print(json.dumps(measure(options.data, name, seed, options.seconds, options.beam, flags)), flush=True)


if __name__ == "__main__":
    main()
