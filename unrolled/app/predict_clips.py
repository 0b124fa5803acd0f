"""What `unrolled predict` does with clips: a label each, or the segments of each, or a label a frame as it comes."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unrolled.app.given import Skips
from unrolled.app.output import print_json, told
from unrolled.data.text_files import lines_of_standard_input
from unrolled.errors import InputError

TASKS = ("caption-video", "classify-video", "label-frames")
"""Whose models read clips."""
RECENT = 1000
"""Frames whose waiting time is remembered for the summary."""


def predict_clips(
    name: Path, model: Any, inputs: tuple[str, ...], how: dict[str, Any], skips: Skips, picture: Path | None, json: bool
) -> int:
    """Print what the model finds in these clips, and draw it if wanted; `how` a captioner searches."""
    if model.task == "caption-video":
        how = {**how, "aligned": json or picture is not None}
    if picture is not None:
        from unrolled.inspection import pictures
        from unrolled.training import files

        pictures.check(picture)
        if len(inputs) != 1 or inputs[0] == "-":
            raise InputError("--picture draws one clip: name one")
        read = Path(inputs[0])
        files.check_apart(picture, read.iterdir() if read.is_dir() else [read])
    from unrolled.data import containers
    from unrolled.data import pictures as stills

    containers.library()  # what is missing here is no fault of a file
    stills.library()
    rows: list[dict[str, Any]] = []
    for (clip,) in told(([clip] for clip in _clips(inputs)), inputs, json):
        found = None
        with skips.reading(clip):
            (found,) = model.predict([clip], **how)
        if found is None:
            continue
        if json:
            rows.append({"clip": clip, **_described(found)})
        else:
            _print(clip, found)
            sys.stdout.flush()
        if picture is not None:
            _draw(model, clip, found, picture)
    if json:
        print_json({"model": str(name), "predictions": rows, "skipped": skips.skipped})
    return skips.code


def _clips(inputs: tuple[str, ...]) -> Iterator[str]:
    """Files and folders of pictures, and the clips in other folders; standard input names one a line."""
    for given in inputs or ("-",):
        if given == "-":
            yield from (line.strip() for line in lines_of_standard_input() if line.strip())
        else:
            yield from _in_folder(Path(given)) if Path(given).is_dir() else [given]


def _in_folder(folder: Path) -> list[str]:
    """The folder itself where it has pictures, which are the frames of one clip; else the clips in it."""
    from unrolled.data.clips import NO_CLIPS
    from unrolled.data.pictures import is_picture_name, natural

    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    clips = [path for path in sorted(files, key=natural) if path.suffix.lower() not in NO_CLIPS]
    if not clips or any(map(is_picture_name, files)):
        return [str(folder)]
    return list(map(str, clips))


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


def is_live(model: Any, inputs: tuple[str, ...], follow: bool) -> bool:
    """Whether frames are to be labelled as they come."""
    if model.task != "label-frames":
        if follow:
            raise InputError(f"--follow is for labelers of frames, and this is a model for {model.task}: leave it out")
        return False
    return follow or inputs in ((), ("-",)) or (len(inputs) == 1 and Path(inputs[0]).is_char_device())


def label_live(model: Any, inputs: tuple[str, ...], follow: bool, json: bool) -> int:
    """Each frame with its label as it comes, and how long that took; at the end a summary on standard error."""
    from unrolled.data.feed import Feed

    if len(inputs) > 1:
        raise InputError("frames that come are those of one source: name one, or - for standard input")
    shape = model.shape
    source = inputs[0] if inputs else "-"
    feed = Feed(source, size=(shape.width, shape.height), grey=shape.grey, stride=shape.stride, follow=follow)
    waits, longest, count = deque[float](maxlen=RECENT), 0.0, 0
    try:
        for found in model.stream(feed):
            waits.append(1000 * (time.monotonic() - feed.arrived))
            longest, count = max(longest, waits[-1]), count + 1
            if json:
                print_json({**found._asdict(), "latency": waits[-1] / 1000})
            else:
                print(f"{found.frame}\t{found.label}\t{found.probability:.4f}\t{waits[-1]:.1f} ms")
            sys.stdout.flush()
    finally:  # a camera ends with Ctrl-C
        if count:
            usual = sorted(waits)[len(waits) // 2]
            lost = f", {feed.damaged:,} damaged ones left out" if feed.damaged else ""
            told = f"from arrival to label {usual:.1f} ms, at most {longest:.1f} ms"
            print(f"{count:,} frames{lost}; {told}", file=sys.stderr)
    return 0


def _draw(model: Any, clip: str, found: Any, picture: Path) -> None:
    """The frames with what the model says of them."""
    from unrolled.data import video
    from unrolled.inspection import clip_captions, pictures, timeline

    shape = model.shape
    fitting = timeline.fitting(shape.width, shape.height)

    def frames(count: int | None) -> list[Any]:
        return list(video.frames(clip, stride=shape.stride, count=count))

    if hasattr(found, "segments"):
        drawn = timeline.labelled(frames(min(fitting, len(found.labels))), found, model.labels)
    elif hasattr(found, "text"):
        read = frames(shape.count)
        numbers = model.looked_at(len(read))
        drawn = clip_captions.captioned([read[n] for n in numbers], found, numbers)
    else:
        drawn = timeline.classified(frames(min(fitting, shape.count)), found)
    pictures.save(drawn, picture)
    print(f"drawn: {picture}", file=sys.stderr)
