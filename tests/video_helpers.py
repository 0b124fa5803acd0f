"""Small clips for tests: a bright square that moves over a dark ground, in real video files, without loss."""

import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIDE = 16


def write_clip(path: Path, frames: Sequence[np.ndarray], codec: str = "ffv1") -> Path:
    """frames: (H, W, 3) uint8 each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def picture(x: int, light: int, colour: Sequence[float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """A square of 4 pixels whose left side is at x, around the frame's ends."""
    frame = np.full((SIDE, SIDE, 3), 20, dtype=np.uint8)
    columns = np.arange(x, x + 4) % SIDE
    frame[6:10, columns] = (light * np.array(colour)).astype(np.uint8)
    return frame


def moving(draw: random.Random, way: int, length: int, x: int | None = None) -> list[np.ndarray]:
    """way: -1, 0 or 1, so many pixels a frame."""
    at, light = draw.randrange(SIDE) if x is None else x, draw.randrange(150, 250)
    return [picture(at + 2 * way * t, light) for t in range(length)]


def write_ways(folder: Path, count: int = 40, seed: int = 1) -> Path:
    """Clips that move left or right, a folder each, and clips.csv with four groups: nothing but the order of the frames
    tells the classes apart."""
    draw = random.Random(seed)
    rows = ["path,label,group"]
    for number in range(count):
        label = ("left", "right")[number % 2]
        name = f"{label}/{number:02}.mkv"
        write_clip(folder / name, moving(draw, 1 if label == "right" else -1, draw.randint(4, 7)))
        rows.append(f"{name},{label},{'ABCD'[number // 2 % 4]}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_turns(folder: Path, count: int = 24, seed: int = 2) -> Path:
    """Clips that go left, right or stand still for a while each, and segments.csv without the standing."""
    draw = random.Random(seed)
    rows = ["path,start_frame,end_frame,label,split"]
    for number in range(count):
        frames: list[np.ndarray] = []
        x, name = draw.randrange(SIDE), f"clips/{number:02}.mkv"
        for way in draw.sample((-1, 0, 1), 3):
            length, begin = draw.randint(4, 7), len(frames)
            frames += moving(draw, way, length, x)
            x += 2 * way * (length - 1)
            if way:
                label = "right" if way > 0 else "left"
                rows.append(f"{name},{begin},{len(frames)},{label},{'val' if number % 4 == 0 else 'train'}")
        write_clip(folder / name, frames)
    (folder / "segments.csv").write_text("\n".join(rows) + "\n")
    return folder
