"""Moving digits: a set of clips with captions, labels of frames and actions, for a machine without data.

Real images of handwritten digits (scikit-learn's `load_digits`: Alpaydin & Kaynak 1998, CC BY 4.0) move over 64×64
pixels, after the Moving MNIST of Srivastava et al. 2015 (arXiv:1502.04681), and are encoded as MP4 files. In a clip one
digit moves in one way or in one after the other, or two digits move one after the other, so at each frame there is one
right answer. Training, validation and test show different images.
"""

import csv
import importlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unrolled.errors import InputError

SIZE = 64
"""Pixels of a side."""
RATE = 10
"""Frames a second."""
DIGIT = {1: (20.0, 28.0), 2: (16.0, 20.0)}
"""Pixels of a digit's side, where so many digits are in a clip."""
FRAMES = (8, 12)
"""Of one motion."""
TRAVEL = (12.0, 22.0)
"""Pixels of one motion, along each axis that it has."""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHEETS = {"train": 12, "val": 3, "test": 3}
"""Groups of digit images per part of the data; the digits of a clip all come from one group."""
SHARES = (6 / 8, 7 / 8)
"""Where validation and test begin among the images."""


class Motion(NamedTuple):
    label: str
    x: int
    y: int
    moves: str
    """After "a three"."""
    goes: str
    """After "the digit three"."""


MOTIONS = (
    Motion("left", -1, 0, "moves to the left", "goes left"),
    Motion("right", 1, 0, "moves to the right", "goes right"),
    Motion("up", 0, -1, "moves up", "rises"),
    Motion("down", 0, 1, "moves down", "falls"),
    Motion("up-left", -1, -1, "moves up and to the left", "rises to the left"),
    Motion("up-right", 1, -1, "moves up and to the right", "rises to the right"),
    Motion("down-left", -1, 1, "moves down and to the left", "falls to the left"),
    Motion("down-right", 1, 1, "moves down and to the right", "falls to the right"),
    Motion("bounce", 0, 0, "bounces", "jumps up and down"),
)


@dataclass(frozen=True)
class Clip:
    """What happens in a clip."""

    frames: np.ndarray
    """(T, 64, 64) uint8"""
    captions: tuple[str, str]
    segments: list[tuple[int, int, str]]
    """First frame, the frame after the last, motion"""
    digits: int


def write(
    folder: str | os.PathLike[str],
    *,
    train: int = 3000,
    val: int = 200,
    test: int = 200,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Write a new folder with this many clips per part: the same frames, captions and labels for the same seed.

        clips/train_0000.mp4, …   64×64 pixels, 10 frames a second
        captions.csv              path,caption,split: two captions a clip
        segments.csv              path,start_frame,end_frame,label,split: the motion of each frame
        clips.csv                 path,label,group,split: the action of the clips that have one; groups share no digits

    progress: called with clips written and clips altogether. Raises `InputError` where the folder is there already, or
    a library is missing.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} is there already: name a new folder")
    counts = {"train": train, "val": val, "test": test}
    for split, count in counts.items():
        least = 0 if split == "test" else 1
        if count < least:
            raise InputError(f"--{split} is {count}: it must be at least {least}")
    images, digits = _digit_images()
    av = _library("av", "clips are encoded with PyAV: pip install 'unrolled[video]'")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        tables = _Tables(building)
        sheets = _divide(len(images), np.random.Generator(np.random.PCG64(seed)))
        done = itertools.count(1)
        for part, (split, count) in enumerate(counts.items()):
            for number in range(count):
                # a generator of its own: clip n is the same however many there are
                random = np.random.Generator(np.random.PCG64([seed, part, number]))
                sheet = random.integers(SHEETS[split])
                group = f"{split}-{sheet}"
                clip = compose(images, digits, sheets[group], random)
                path = f"clips/{split}_{number:04}.mp4"
                encode(av, building / path, clip.frames)
                tables.add(path, clip, group, split)
                progress(next(done), sum(counts.values()))
        tables.save()
        (building / "SOURCE.txt").write_text(f"{__doc__}Made with unrolled, seed {seed}.\n", encoding="utf-8")
        building.chmod(0o755)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building)
        raise


def compose(images: np.ndarray, digits: np.ndarray, sheet: np.ndarray, random: np.random.Generator) -> Clip:
    """A clip of digits whose images (N, 8, 8) are among the rows `sheet`."""
    kind = random.choice(["one motion", "two motions", "two digits"], p=[0.4, 0.3, 0.3])
    actors = 2 if kind == "two digits" else 1
    rows = random.choice(sheet, actors, replace=False)
    motions = [MOTIONS[n] for n in random.choice(len(MOTIONS), 1 if kind == "one motion" else 2, replace=False)]
    lengths = random.integers(FRAMES[0], FRAMES[1] + 1, len(motions))
    sizes, places = _places(motions, lengths, actors, random)
    brightness, ground = random.uniform(200, 255, actors), random.uniform(0, 50)
    frames = np.full((lengths.sum(), SIZE, SIZE), ground)
    for actor, row in enumerate(rows):
        for frame, place in zip(frames, places[actor], strict=True):
            ink = _paint(images[row], place, sizes[actor])
            frame += ink * (brightness[actor] - frame)
    ends = np.cumsum(lengths)
    begins = ends - lengths
    segments = [(int(b), int(e), m.label) for b, e, m in zip(begins, ends, motions, strict=True)]
    found = [int(digits[row]) for row in rows]
    return Clip(np.rint(frames).astype(np.uint8), _captions(found, motions), segments, actors)


def _captions(digits: list[int], motions: list[Motion]) -> tuple[str, str]:
    names, first = [NAMES[digit] for digit in digits], motions[0]
    ones = [f"an {name}" if name == "eight" else f"a {name}" for name in names]
    long, short = f"{ones[0]} {first.moves}", f"the digit {names[0]} {first.goes}"
    if len(motions) == 1:
        return long, short
    second = motions[1]
    if len(digits) == 1:
        return f"{long} and then {second.moves}", f"{short} and then {second.goes}"
    return f"{long} and then {ones[1]} {second.moves}", f"{short} and then the digit {names[1]} {second.goes}"


def _places(
    motions: list[Motion], lengths: np.ndarray, actors: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The sides of the digits (actors,), and where the middle of each is at each frame: (actors, T, 2), x and y. All of
    a digit is always inside, and two digits do not touch: drawn until that is so."""
    while True:
        sizes = random.uniform(*DIGIT[actors], actors)
        steps = np.zeros((actors, lengths.sum(), 2))
        begin = 0
        for number, (motion, length) in enumerate(zip(motions, lengths, strict=True)):
            steps[number % actors, begin : begin + length] = _steps(motion, length, random)
            begin += length
        paths = steps.cumsum(1)
        low, high = paths.min(1), paths.max(1)
        room = SIZE - sizes[:, None] - (high - low)
        if (room < 0).any():
            continue
        places = paths + (sizes[:, None] / 2 - low + room * random.random(room.shape))[:, None]
        if actors == 1 or np.abs(places[0] - places[1]).max(-1).min() > sizes.mean():
            return sizes, places


def _steps(motion: Motion, length: int, random: np.random.Generator) -> np.ndarray:
    """How far a digit moves at each frame: (length, 2)."""
    travel = random.uniform(*TRAVEL, 2)
    if motion.label == "bounce":
        height = -travel[1] * np.abs(np.sin(2 * np.pi * np.arange(length + 1) / length))
        return np.stack([np.zeros(length), np.diff(height)], 1)
    return np.tile(travel / length * (motion.x, motion.y), (length, 1))


def _paint(image: np.ndarray, place: np.ndarray, size: float) -> np.ndarray:
    """An image (8, 8) enlarged to `size` pixels around a place, as (64, 64) ink from 0 to 1: linear in between."""
    pixels = np.arange(SIZE) + 0.5
    x, y = ((pixels - (middle - size / 2)) / size * len(image) - 0.5 for middle in place)
    across, down = (np.maximum(0, 1 - np.abs(axis[:, None] - np.arange(len(image)))) for axis in (x, y))
    return down @ image @ across.T


def encode(av: Any, path: Path, frames: np.ndarray) -> None:
    """Frames (T, H, W) uint8 as an MP4 file of H.264."""
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "18", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        stream.time_base = Fraction(1, RATE)
        for frame in frames:
            shown = av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuv420p")
            container.mux(stream.encode(shown))
        container.mux(stream.encode())


class _Tables:
    """The three tables that go with the clips."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, list[tuple[Any, ...]]] = {
            "captions.csv": [("path", "caption", "split")],
            "segments.csv": [("path", "start_frame", "end_frame", "label", "split")],
            "clips.csv": [("path", "label", "group", "split")],
        }

    def add(self, path: str, clip: Clip, group: str, split: str) -> None:
        self.rows["captions.csv"] += [(path, caption, split) for caption in clip.captions]
        self.rows["segments.csv"] += [(path, *segment, split) for segment in clip.segments]
        if len(clip.segments) == 1:
            self.rows["clips.csv"].append((path, clip.segments[0][2], group, split))

    def save(self) -> None:
        for name, rows in self.rows.items():
            with open(self.folder / name, "w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)


def _divide(count: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Which of `count` images belong to each group."""
    order = random.permutation(count)
    parts = np.split(order, [int(share * count) for share in SHARES])
    return {
        f"{split}-{n}": sheet
        for (split, sheets), part in zip(SHEETS.items(), parts, strict=True)
        for n, sheet in enumerate(np.array_split(part, sheets))
    }


def _digit_images() -> tuple[np.ndarray, np.ndarray]:
    """(N, 8, 8) ink from 0 to 1, and which digits (N,) these are."""
    found = _library("sklearn.datasets", "the digits are scikit-learn's: pip install 'unrolled[video]'").load_digits()
    return found.images / 16.0, found.target


def _library(name: str, missing: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(missing) from error
