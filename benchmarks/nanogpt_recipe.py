"""nanoGPT's own recipe for the CPU, from a checkout of it: its last validation loss and the wall time of the process.

    python benchmarks/nanogpt_recipe.py path/to/nanoGPT ../shared/data/tiny_shakespeare/input.txt

The checkout (https://github.com/karpathy/nanoGPT) is copied, its copy prepared with the given text, and the command of
its README run there. Prints one JSON object. The machine must be otherwise idle.
"""

import argparse
import json
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RECIPE = (
    "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 "
    "--batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0"
)


def prepare(folder: Path, text: Path) -> None:
    """What data/shakespeare_char/prepare.py writes, without its download."""
    characters = text.read_text(encoding="utf-8")
    vocabulary = sorted(set(characters))
    number = {c: i for i, c in enumerate(vocabulary)}
    ids = np.array([number[c] for c in characters], dtype=np.uint16)
    cut = int(len(ids) * 0.9)
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    meta = {"vocab_size": len(vocabulary), "itos": dict(enumerate(vocabulary)), "stoi": number}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))  # nanoGPT reads pickle; we only write it


def run(checkout: Path, text: Path, recipe: str = RECIPE) -> dict[str, Any]:
    """Train by the recipe in a copy of the checkout."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "nanoGPT"
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", "*.bin", "out*"))
        prepare(copy / "data" / "shakespeare_char", text)
        begun = time.monotonic()
        done = subprocess.run([sys.executable, "train.py", *recipe.split()], cwd=copy, capture_output=True, text=True)
        seconds = time.monotonic() - begun
    losses = re.findall(r"^step (\d+): train loss [\d.]+, val loss ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or not losses:
        sys.exit(
            f"nanoGPT failed with exit code {done.returncode}: {done.stderr.strip()[-500:] or 'it printed no loss'}"
        )
    step, loss = losses[-1]
    return {"val_loss": float(loss), "steps": int(step), "seconds": round(seconds, 1), "recipe": recipe}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("text", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.checkout, arguments.text)))


if __name__ == "__main__":
    main()
