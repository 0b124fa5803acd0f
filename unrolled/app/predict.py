"""`unrolled predict`: the command. No torch is imported before it runs."""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unrolled.app import predict_clips, predict_pictures
from unrolled.app.output import DeviceFlag, JsonFlag, ModelArgument, print_json, say_what_takes_long
from unrolled.data.text_files import lines_of, lines_of_standard_input
from unrolled.errors import InputError
from unrolled.tasks.options import SearchOptions

GROUP = 1024
"""Lines of a file that are predicted together, those of similar length side by side."""
LINES: dict[str, Callable[[str, Any], str]] = {
    "classify-text": lambda text, found: f"{found.label}\t{found.probability:.4f}\t{text}",
    "translate": lambda text, found: " ".join(found.text.splitlines()),
}
"""What is printed of a text and what was found."""

WRITERS = ("translate", "caption-image", "caption-video")
"""Tasks whose models write, and search for what they write."""
SEARCH = "--beam, --length-penalty, --min-length, --max-length and --no-repeat-ngram"


def searched(search: SearchOptions | None) -> dict[str, Any]:
    """What was asked for, without what was not."""
    asked, usual = search or SearchOptions(), SearchOptions()
    chosen = {name: value for name, value in asdict(asked).items() if value != getattr(usual, name)}
    return {"beam": asked.beam, **chosen}


def predict(
    model: ModelArgument,
    *inputs: Annotated[str, Parameter(allow_leading_hyphen=True)],
    picture: Path | None = None,
    follow: bool = False,
    search: Annotated[SearchOptions | None, Parameter(name="*")] = None,
    encoding: Annotated[str | None, Parameter(help="Of files and of standard input. Default: utf-8.")] = None,
    device: DeviceFlag = None,
    json: JsonFlag = False,
) -> int:
    """Label or translate texts: a line each. A classifier gives the label, its probability and the text.

    Or label clips: for a classifier of clips as for texts; for a labeler of frames a line a segment, with clip, first
    frame, the frame after the last, label and probability. Or caption pictures or clips: path,
    a tab and the caption.

    Parameters
    ----------
    inputs
        Texts, or files of which each line is a text; - or nothing reads standard input, and answers line by line.
        For a model of clips: video files, or folders of pictures. For a labeler of frames that was trained with
        --online, - or nothing reads a video from standard input, and a camera (/dev/video0) is read as it sees: frame
        by frame number, label, probability, and the time from its arrival.
        For a captioner of pictures: pictures, or folders of them; - or nothing reads paths, one a line.
    picture
        For one clip: draw it with what the model says of it, as .png or .svg. For one picture: where a captioner with
        attention looks while it writes each word.
    follow
        For a labeler of frames: the file or folder goes on to grow; label what comes, until nothing comes for 5 s.
    """
    from unrolled.tasks.fitting import pick_device
    from unrolled.tasks.models import load

    if strange := [given for given in inputs if given.startswith("-") and given != "-"]:
        raise InputError(
            f"unknown option: {strange[0]}. See unrolled predict --help; a text that begins so, put into a file"
        )
    say_what_takes_long()
    loaded = load(model, pick_device(device))
    if loaded.task in predict_pictures.TASKS:
        return predict_pictures.predict_pictures(model, loaded, inputs, searched(search), picture, json)
    if predict_clips.is_live(loaded, inputs, follow):
        return predict_clips.label_live(loaded, inputs, follow, json)
    if loaded.task in predict_clips.TASKS:
        if search is not None and loaded.task not in WRITERS:
            raise InputError(f"{SEARCH} are for what writes, and {model} is a model for {loaded.task}: leave them out")
        how = searched(search) if loaded.task in WRITERS else {}
        return predict_clips.predict_clips(model, loaded, inputs, how, picture, json)
    if picture is not None:
        raise InputError(
            f"--picture is for models of clips and pictures, and {model} is a model for {loaded.task}: leave it out"
        )
    return _predict_texts(model, loaded, inputs, search, encoding, json)


def _predict_texts(
    model: Path, loaded: Any, inputs: tuple[str, ...], search: SearchOptions | None, encoding: str | None, json: bool
) -> int:
    if loaded.task not in LINES:
        raise InputError(f"{model} is a model for {loaded.task}, which predicts nothing of a text: see unrolled sample")
    if loaded.task == "translate":
        how = {**searched(search), "aligned": json}
    elif search is not None:
        raise InputError(f"{SEARCH} are for what writes, and {model} is a model for {loaded.task}: leave them out")
    else:
        how = {}
    rows: list[dict[str, Any]] = []
    for texts in _texts(inputs, encoding):
        for text, found in zip(texts, loaded.predict(texts, **how), strict=True):
            if json:
                rows.append({"text" if loaded.task == "classify-text" else "source": text, **found._asdict()})
            else:
                print(LINES[loaded.task](text, found))
        sys.stdout.flush()
    if json:
        print_json({"model": str(model), "predictions": rows})
    return 0


def _texts(inputs: tuple[str, ...], encoding: str | None) -> Iterator[list[str]]:
    """In groups: many lines of a file together, those of standard input each as it comes."""
    for given in inputs or ("-",):
        if given == "-":
            yield from ([line] for line in lines_of_standard_input(encoding))
        elif _is_file(given):
            lines = lines_of(Path(given), encoding)
            while group := list(itertools.islice(lines, GROUP)):
                yield group
        else:
            yield [given]


def _is_file(given: str) -> bool:
    if not given.strip():  # Path("") is the current folder
        return False
    try:
        path = Path(given)
        if path.is_dir():
            raise InputError(f"{given} is a folder: name a file, a line of which is a text")
        return path.is_file()
    except OSError:  # a text that is too long to be a name
        return False
