"""`unrolled predict`: the command. No torch is imported before it runs."""

import itertools
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unrolled.app import predict_clips, predict_pictures
from unrolled.app.given import (
    SEARCH,
    BadFiles,
    Skips,
    looks_like_a_file,
    refuse_a_name,
    refuse_an_option,
    searched,
)
from unrolled.app.output import DeviceFlag, JsonFlag, ModelArgument, print_json, say_what_takes_long
from unrolled.data.text_files import blocks, check_encoding, lines_of, lines_of_standard_input
from unrolled.errors import InputError
from unrolled.tasks.options import SearchOptions

GROUP = 1024
"""Lines of a file that are predicted together, those of similar length side by side."""
KEPT = 1 << 20
"""Probabilities that are kept at a time."""
LINES: dict[str, Callable[[str, Any], str]] = {
    "classify-text": lambda text, found: f"{found.label}\t{found.probability:.4f}\t{text}",
    "translate": lambda text, found: " ".join(found.text.splitlines()),
}
"""What is printed of a text and what was found."""


def predict(
    model: ModelArgument,
    *inputs: Annotated[str, Parameter(allow_leading_hyphen=True)],
    picture: Path | None = None,
    follow: bool = False,
    search: Annotated[SearchOptions | None, Parameter(name="*")] = None,
    encoding: Annotated[str | None, Parameter(help="Of files of texts and of standard input. Default: utf-8.")] = None,
    bad_files: BadFiles | None = None,
    device: DeviceFlag = None,
    json: JsonFlag = False,
) -> int:
    """Label or translate texts: a line each. A classifier gives the label, its probability and the text.

    Or label clips: for a classifier of clips as for texts; for a labeler of frames a line a segment, with clip, first
    frame, the frame after the last, label and probability. Or caption pictures or clips: path, a tab and the caption.
    Files that cannot be read are left out and named, and the exit code is 1; with --bad-files stop the first one ends
    it.

    Parameters
    ----------
    inputs
        Texts, or files of which each line is a text; - or nothing reads standard input, and answers line by line. One
        word with a / in it, or with a suffix (.txt), is the name of a file, and refused where there is none; numbers,
        dates and web addresses are texts, and standard input takes any.
        For a model of clips: video files, or folders of pictures. For a labeler of frames that was trained with
        --online, - or nothing reads a video from standard input, and a camera (/dev/video0) is read as it sees: frame
        by frame number, label, probability, and the time from its arrival.
        For a captioner of pictures: pictures, or folders of them; - or nothing reads paths, one a line.
    bad_files
        What a file means that is missing, damaged or empty: skip (it is left out and named) or stop. Default: skip.
    picture
        For one clip: draw it with what the model says of it, as .png or .svg. For one picture: where a captioner with
        attention looks while it writes each word.
    follow
        For a labeler of frames: the file or folder goes on to grow; label what comes, until nothing comes for 5 s.
    """
    from unrolled.tasks.fitting import pick_device
    from unrolled.tasks.models import load

    refuse_an_option(inputs, "predict")
    say_what_takes_long()
    loaded, skips = load(model, pick_device(device)), Skips(bad_files)
    if loaded.task not in LINES and encoding is not None:
        raise InputError(f"--encoding is for texts, and {model} is a model for {loaded.task}: leave it out")
    if predict_clips.is_live(loaded, inputs, follow):
        if search is not None or picture is not None or bad_files is not None:
            raise InputError(f"frames are labelled as they come: leave --picture, --bad-files, {SEARCH} out")
        return predict_clips.label_live(loaded, inputs, follow, json)
    how = searched(search, loaded, model)
    if loaded.task in predict_pictures.TASKS:
        return predict_pictures.predict_pictures(model, loaded, inputs, how, skips, picture, json)
    if loaded.task in predict_clips.TASKS:
        return predict_clips.predict_clips(model, loaded, inputs, how, skips, picture, json)
    if picture is not None:
        raise InputError(
            f"--picture is for models of clips and pictures, and {model} is a model for {loaded.task}: leave it out"
        )
    return _predict_texts(model, loaded, inputs, how, skips, encoding, json)


def _predict_texts(
    model: Path,
    loaded: Any,
    inputs: tuple[str, ...],
    how: dict[str, Any],
    skips: Skips,
    encoding: str | None,
    json: bool,
) -> int:
    if loaded.task not in LINES:
        raise InputError(f"{model} is a model for {loaded.task}, which predicts nothing of a text: see unrolled sample")
    _check(inputs, encoding)
    how = {**how, "aligned": json} if loaded.task == "translate" else how
    rows: list[dict[str, Any]] = []
    # of each text the probabilities of all labels are kept
    group = max(1, min(GROUP, KEPT // max(1, len(getattr(loaded, "labels", ())))))
    for texts in _texts(inputs, encoding, group, skips):
        for text, found in zip(texts, loaded.predict(texts, **how), strict=True):
            if json:
                rows.append({"text" if loaded.task == "classify-text" else "source": text, **found._asdict()})
            else:
                print(LINES[loaded.task](text, found))
        sys.stdout.flush()
    if json:
        print_json({"model": str(model), "predictions": rows, "skipped": skips.skipped})
    return skips.code


def _check(inputs: tuple[str, ...], encoding: str | None) -> None:
    """Before anything is predicted: the encoding, and names of files that are not there. Beside files that are, these
    are files that cannot be read; alone, a mistyped name would become a text."""
    check_encoding(encoding)
    if not any(map(_is_file, inputs)):
        for given in inputs:
            refuse_a_name(given, f"give it on standard input: echo {shlex.quote(given)} | unrolled predict MODEL")


def _texts(inputs: tuple[str, ...], encoding: str | None, size: int, skips: Skips) -> Iterator[list[str]]:
    """In groups: many lines of a file together, those of standard input each as it comes."""
    for given in inputs or ("-",):
        if given == "-":
            yield from ([line] for line in lines_of_standard_input(encoding))
        elif _is_file(given) or looks_like_a_file(given):
            with skips.reading(given):
                _read_through(Path(given), encoding)
                lines = lines_of(Path(given), encoding)
                while group := list(itertools.islice(lines, size)):
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
        return path.is_file() or path.is_fifo()
    except (OSError, ValueError):  # a text that is too long to be a name
        return False


def _read_through(path: Path, encoding: str | None) -> None:
    """Raises `InputError` where a file cannot be read to its end: then none of its lines is predicted."""
    from unrolled.data.pictures import check_file

    check_file(path)
    if path.is_file():  # a pipe is read once
        for _ in blocks(path, encoding):
            pass
