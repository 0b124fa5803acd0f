"""What a second busy process does to a training, with libgomp's own spin count and with the one our command sets.

    python benchmarks/contention.py ../shared/data/tiny_shakespeare/input.txt

Prints tokens a second of a short training, alone and beside as many busy processes as half the cores. Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SPINS = {"libgomp's default (300,000)": "300000", "ours (2,000)": "2000"}


def tokens_per_second(text: Path, spin: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "train",
            "language-model",
            str(text),
            "--steps",
            "12",
            "--eval-every",
            "100",
            "--val-fraction",
            ".01",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "unrolled", *command, "--out", f"{folder}/run", "--json"],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "GOMP_SPINCOUNT": spin},
        )
    return float(json.loads(done.stdout)["tokens_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    text = parser.parse_args().text
    print("| spin count | alone, tokens/s | beside a busy process, tokens/s |")
    print("| --- | --- | --- |")
    for name, spin in SPINS.items():
        alone = tokens_per_second(text, spin)
        busy = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(max(1, (os.cpu_count() or 2) // 2))
        ]
        try:
            beside = tokens_per_second(text, spin)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        print(f"| {name} | {alone:,.0f} | {beside:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
