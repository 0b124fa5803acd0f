"""What `unrolled predict` does with clips: a label each, or the segments of each, or a label a frame as it comes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unrolled.app.output import print_json
from unrolled.errors import InputError

TASKS = ("caption-video", "classify-video", "label-frames")
"""Whose models read clips."""


def predict_clips(
    name: Path, model: Any, inputs: tuple[str, ...], how: dict[str, Any], picture: Path | None, json: bool
) -> int:
    """Print what the model finds in these clips, and draw it if wanted; `how` a captioner searches."""
    if model.task == "caption-video":
        how = {**how, "aligned": json or picture is not None}
    if picture is not None:
        from unrolled.inspection import pictures

        pictures.check(picture)
        if len(inputs) != 1 or inputs[0] == "-":
            raise InputError("--picture draws one clip: name one")
    if model.task == "label-frames" and inputs in ((), ("-",)):
        return _live(model, json)
    rows: list[dict[str, Any]] = []
    for clip in _clips(inputs):
        (found,) = model.predict([clip], **how)
        if json:
            rows.append({"clip": clip, **_described(found)})
        else:
            _print(clip, found)
            sys.stdout.flush()
        if picture is not None:
            _draw(model, clip, found, picture)
    if json:
        print_json({"model": str(name), "predictions": rows})
    return 0


def _clips(inputs: tuple[str, ...]) -> Iterator[str]:
    """Files and folders of pictures; standard input names one a line."""
    for given in inputs or ("-",):
        if given == "-":
            yield from (line.strip() for line in sys.stdin if line.strip())
        else:
            yield given


def _described(found: Any) -> dict[str, Any]:
    if hasattr(found, "segments"):
        return {"segments": [s._asdict() for s in found.segments], "labels": found.labels}
    return dict(found._asdict())


def _print(clip: str, found: Any) -> None:
    if hasattr(found, "segments"):
        for s in found.segments:
            print(f"{clip}\t{s.begin}\t{s.end}\t{s.label}\t{s.probability:.4f}")
    elif hasattr(found, "text"):
        print(f"{clip}\t{' '.join(found.text.split())}")
    else:
        print(f"{found.label}\t{found.probability:.4f}\t{clip}")


def _live(model: Any, json: bool) -> int:
    """Frames from standard input, each with its label as it comes."""
    from unrolled.data import video

    shape = model.shape
    frames = video.stream("-", size=(shape.width, shape.height), grey=shape.grey, stride=shape.stride)
    for found in model.stream(frames):
        if json:
            print_json(found._asdict())
        else:
            print(f"{found.frame}\t{found.label}\t{found.probability:.4f}\t{1000 * found.seconds:.1f} ms")
        sys.stdout.flush()
    return 0


def _draw(model: Any, clip: str, found: Any, picture: Path) -> None:
    """The frames with what the model says of them."""
    from unrolled.data import video
    from unrolled.inspection import pictures, timeline

    frames = list(video.frames(clip, stride=model.shape.stride, count=model.shape.count))
    if hasattr(found, "segments"):
        drawn = timeline.labelled(frames, found, model.labels)
    else:
        drawn = timeline.classified(frames, found)
    pictures.save(drawn, picture)
    print(f"drawn: {picture}", file=sys.stderr)
