"""Memory of a training on a large text: anonymous memory at its peak, and when the first update is done.

    python benchmarks/large_file.py ../shared/data/tiny_shakespeare/input.txt --gigabytes 2

Repeats the given text until the file is large enough (in the system's temporary folder, deleted at the end), trains on
it from the command line, and watches the process. Linux only: it reads /proc.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def anonymous_bytes(process: int) -> int:
    """RssAnon: memory that is the process's own, not pages of files."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def watch(process: "subprocess.Popen[str]", peaks: list[int]) -> None:
    """Collect the anonymous memory ten times a second until the process ends."""
    while process.poll() is None:
        with contextlib.suppress(StopIteration, FileNotFoundError, ProcessLookupError):  # it has just ended
            peaks.append(anonymous_bytes(process.pid))
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--seconds", type=float, default=120)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.txt"
        block = arguments.text.read_bytes()
        with large.open("wb") as file:
            while file.tell() < arguments.gigabytes * 2**30:
                file.write(block)
        run = Path(folder) / "run"
        command = [
            "train",
            "language-model",
            str(large),
            "--seconds",
            str(arguments.seconds),
            "--out",
            str(run),
            "--json",
        ]
        begun, first, peaks = time.monotonic(), None, [0]
        process = subprocess.Popen(
            [sys.executable, "-m", "unrolled", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout and process.stderr
        watcher = threading.Thread(target=watch, args=(process, peaks))
        watcher.start()
        for line in process.stderr:
            print(f"{time.monotonic() - begun:6.1f} s  {line}", end="", file=sys.stderr)
            if line.startswith("step") and first is None:
                first = time.monotonic() - begun
        result = json.loads(process.stdout.read())
        process.wait()
        watcher.join()
        print(
            json.dumps(
                {
                    "file_gib": large.stat().st_size / 2**30,
                    "peak_anonymous_gib": round(max(peaks) / 2**30, 3),
                    "first_report_seconds": round(first or 0, 1),
                    "seconds": round(result["seconds"], 1),
                    "steps": result["steps"],
                    "val_loss": result["val_loss"],
                    "validated_tokens": result["validated_tokens"],
                }
            )
        )


if __name__ == "__main__":
    main()
