"""`unrolled report`: the command. No torch is imported before it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrolled.app.given import BadFiles, say
from unrolled.app.output import DeviceFlag, JsonFlag, ModelArgument, print_json, say_what_takes_long
from unrolled.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from unrolled.data.captioned import Captioned

SHEET, PAGE = 12, 60
"""Pictures or clips on a sheet and in a report, where no number is asked for."""
SIDE = 320
"""Longest side of a clip's frames, in pixels."""


def report(
    model: ModelArgument,
    *data: Path,
    out: Path = Path("report.html"),
    split: str | None = None,
    pictures: int | None = None,
    beam: int = 5,
    encoding: str | None = None,
    bad_files: BadFiles = "stop",
    overwrite: bool = False,
    device: DeviceFlag = None,
    json: JsonFlag = False,
) -> int:
    """Pictures or clips with the captions that a model writes and those that people wrote, and how good they are. Of a
    clip six frames are shown.

    Parameters
    ----------
    data
        Captioned pictures or clips, as a training takes them.
    out
        .html: a report in one file, in which a word that is pointed at shows where the model looked, where it has
        attention. .png or .svg: a contact sheet.
    split
        train or val: the part that the training used so, divided again as it did; test where the data say so. Default:
        all.
    encoding
        Of the table of captions, such as latin-1. Default: utf-8.
    bad_files
        What a file means that is missing, damaged or empty: stop, or skip (it is left out and named).
    pictures
        How many are shown, from all of them evenly; all are measured. Default: 60, on a sheet 12.
    beam
        Hypotheses that the captioner follows; 1 takes the likeliest token each time.
    overwrite
        Replace a file that exists.
    """
    from unrolled.tasks.fitting import pick_device
    from unrolled.tasks.models import load
    from unrolled.training import files

    as_page = _is_page(out, overwrite)
    count = pictures if pictures is not None else PAGE if as_page else SHEET
    if count < 1:
        raise InputError(f"--pictures is {count}: it must be at least 1")
    files.check_apart(out, data)
    say_what_takes_long()
    loaded = load(model, pick_device(device))
    if loaded.task not in ("caption-image", "caption-video"):
        raise InputError(f"{model} is a model for {loaded.task}, and a report is on captions: name a captioner")
    part, metrics = loaded.measured(*data, split=split, beam=beam, encoding=encoding, bad_files=bad_files)
    files.check_apart(out, [*part.places.files, *part.paths])
    say(metrics["notes"])
    chosen = part.take(_evenly(len(part), count))
    (_page if as_page else _sheet)(loaded, model, chosen, metrics, out)
    if json:
        print_json({"model": str(model), "path": str(out), **metrics})
    else:
        print(out)
    return 0


def _is_page(out: Path, overwrite: bool) -> bool:
    """Whether this is a page, not a sheet. Raises `InputError` where it cannot be written."""
    from unrolled.inspection import pictures

    as_page = out.suffix.lower() in (".html", ".htm")
    if not as_page:
        if out.suffix.lower() not in pictures.SUFFIXES:
            raise InputError(f"{out} is neither .html nor .png nor .svg: name a file of one of these kinds")
        pictures.check(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists already: name another file with --out, or add --overwrite")
    return as_page


def _evenly(count: int, most: int) -> Any:
    import numpy as np

    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _still(loaded: Any, path: Path) -> "np.ndarray":
    """What is shown of it."""
    from unrolled.data import pictures, video
    from unrolled.inspection.clip_captions import Still

    if loaded.task == "caption-image":
        return pictures.read_picture(path)
    about = video.probe(path)
    scale = min(1.0, SIDE / max(about.width, about.height))
    size = (max(1, round(scale * about.width)), max(1, round(scale * about.height)))
    frames = list(video.frames(path, size=size, stride=loaded.shape.stride, count=loaded.shape.count))
    return Still().picture([frames[n] for n in loaded.looked_at(len(frames))])


def _sheet(loaded: Any, model: Path, part: "Captioned", metrics: dict[str, Any], out: Path) -> None:
    from unrolled.inspection import pictures
    from unrolled.inspection.caption_pictures import Shown, sheet

    written = loaded.caption(part.paths, metrics["beam"])
    shown = [Shown(_still(loaded, path), *of) for path, *of in zip(part.paths, written, part.captions, strict=True)]
    pictures.save(sheet(shown), out)


def _page(loaded: Any, model: Path, part: "Captioned", metrics: dict[str, Any], out: Path) -> None:
    from unrolled.inspection.caption_report import Entry, page
    from unrolled.inspection.clip_captions import Still
    from unrolled.training import files

    found, eye, kind = loaded.predict(part.paths, metrics["beam"], aligned=True), Still(), "clips"
    if loaded.task == "caption-image":
        eye, kind = loaded.eye, "pictures"
    else:
        found = [f._replace(attention=f.attention and [eye.light(word) for word in f.attention]) for f in found]
    read = [_still(loaded, path) for path in part.paths]
    names = [path.name for path in part.paths]
    entries = [Entry(*four) for four in zip(names, read, found, part.captions, strict=True)]
    figures = {name: value for name, value in metrics.items() if isinstance(value, float)}
    how = (
        f"{metrics[kind]:,} {kind} measured against {metrics['captions']:,} captions, beam {metrics['beam']}; "
        f"{len(entries):,} of them below."
    )
    text = page(f"Captions by {model}", how, figures, entries, eye)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write(out, text.encode())
