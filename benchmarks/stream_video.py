"""The memory of labelling the frames of a long film: it must stay that of a short one.

    python benchmarks/stream_video.py --minutes 1 10

Writes films of 1920×1080 pixels, 25 frames a second, in which a bright square goes from side to side; trains a labeler
of frames on small clips of the same (left, middle, right), once in both directions and once with --online; and labels
each film with `unrolled predict`, from the file, and online from a pipe. Beside them, the frames alone, in full size.
Prints a JSON line each: frames, seconds, the share of labels that are right, and the largest resident size of the
process, in MB. Needs unrolled[video].
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

RATE = 25
PERIOD = 500
"""Frames from one side to the other and back."""
LABELS = ("left", "middle", "right")
FRAMES_ALONE = """
import sys
from unrolled.data.video import frames
print(sum(1 for frame in frames(sys.argv[1]) if frame.shape == (1080, 1920, 3)))
"""


def place(number: int) -> float:
    """Where the square is in frame `number`: 0 at the left, 1 at the right."""
    return abs(number % PERIOD - PERIOD / 2) / (PERIOD / 2)


def label(number: int) -> str:
    return LABELS[min(2, int(3 * place(number)))]


def pictures(begin: int, count: int, width: int, height: int) -> Iterator[np.ndarray]:
    """Frames (1.5 H, W) of YUV 4:2:0."""
    side = height // 4
    for number in range(begin, begin + count):
        frame = np.full((height * 3 // 2, width), 128, np.uint8)
        frame[:height] = 50
        x = round(place(number) * (width - side))
        frame[height // 2 - side // 2 : height // 2 + side // 2, x : x + side] = 220
        yield frame


def write(path: Path, begin: int, count: int, width: int, height: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in pictures(begin, count, width, height):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "yuv420p")))
        container.mux(stream.encode(None))


def write_film(path: Path, count: int) -> None:
    """One period is encoded, and its packets are written as often as is needed."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 1920, 1080, "yuv420p"
    context.framerate, context.time_base = RATE, Fraction(1, RATE)
    context.options = {"preset": "ultrafast", "crf": "30"}  # ultrafast has no frames out of order
    packets = []
    for frame in pictures(0, PERIOD, 1920, 1080):
        packets += context.encode(av.VideoFrame.from_ndarray(frame, "yuv420p"))
    packets += context.encode(None)
    assert len(packets) == PERIOD
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        container.start_encoding()
        for number in range(count):
            packet = av.Packet(bytes(packets[number % PERIOD]))
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, RATE), stream
            packet.is_keyframe = packets[number % PERIOD].is_keyframe
            container.mux(packet)


def training_set(folder: Path) -> Path:
    """Clips of four seconds that begin at all places, and the label of each frame."""
    lines = ["path,frame,label,split"]
    for n in range(24):
        begin = n * PERIOD // 24
        write(folder / f"{n}.mp4", begin, 100, 128, 72)
        part = "val" if n % 6 == 5 else "train"
        lines += [f"{n}.mp4,{k},{label(begin + k)},{part}" for k in range(100)]
    (folder / "frames.csv").write_text("\n".join(lines) + "\n")
    return folder / "frames.csv"


def measured(command: list[str], film: Path | None = None) -> tuple[list[str], float, float]:
    """The lines that a command writes, its seconds, and its largest resident size in MB. film: is piped into it."""
    begun = time.monotonic()
    cat = None if film is None else subprocess.Popen(["cat", str(film)], stdout=subprocess.PIPE)
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdin=cat.stdout if cat else subprocess.DEVNULL, stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait again
        if cat is not None:
            cat.communicate()
        assert process.returncode == 0, command
        output.seek(0)
        return output.read().splitlines(), time.monotonic() - begun, usage.ru_maxrss / 1024


def report(what: str, film: Path, found: list[str] | int, seconds: float, megabytes: float) -> None:
    line: dict[str, Any] = {"what": what, "film": film.stem}
    if isinstance(found, int):
        line["frames"] = found
    else:
        right = sum(a == label(n) for n, a in enumerate(found)) / len(found)
        line |= {"frames": len(found), "right": round(right, 4)}
    print(json.dumps(line | {"seconds": round(seconds, 1), "peak_mb": round(megabytes)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", nargs="+", type=float, default=[1, 10])
    parser.add_argument("--seconds", type=float, default=15, help="of each training")
    arguments = parser.parse_args()
    unrolled = [sys.executable, "-m", "unrolled"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = training_set(folder)
        for model, flags in (("both", []), ("online", ["--online"])):
            train = ["train", "label-frames", str(table), "--seconds", str(arguments.seconds), *flags]
            subprocess.run([*unrolled, *train, "--out", str(folder / model)], check=True, stdout=sys.stderr)
        for minutes in arguments.minutes:
            film = folder / f"{minutes:g} minutes.mkv"
            write_film(film, round(minutes * 60 * RATE))
            lines, *cost = measured([sys.executable, "-c", FRAMES_ALONE, str(film)])
            report("frames alone, 1920x1080", film, int(lines[0]), *cost)
            lines, *cost = measured([*unrolled, "predict", str(folder / "both"), str(film), "--json"])
            report("predict, from the file", film, json.loads("\n".join(lines))["predictions"][0]["labels"], *cost)
            lines, *cost = measured([*unrolled, "predict", str(folder / "online"), "-"], film)
            report("predict --online, from a pipe", film, [line.split("\t")[1] for line in lines], *cost)
            film.unlink()


if __name__ == "__main__":
    main()
