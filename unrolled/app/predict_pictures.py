"""What `unrolled predict` does with pictures: a caption each."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unrolled.app.given import Skips
from unrolled.app.output import print_json, told
from unrolled.data.text_files import lines_of_standard_input
from unrolled.errors import InputError

TASKS = ("caption-image",)
"""Whose models read pictures."""
GROUP = 16
"""Pictures of a folder that are captioned together."""


def predict_pictures(
    name: Path, model: Any, inputs: tuple[str, ...], how: dict[str, Any], skips: Skips, out: Path | None, json: bool
) -> int:
    """Print the path, a tab and the caption of each picture; draw where the model looked, if wanted."""
    from unrolled.data.pictures import library, read_picture

    library()  # where it is missing, that is no fault of a file
    if out is not None:
        return _drawn(name, model, inputs, how, skips, out, json)
    rows: list[dict[str, Any]] = []
    for paths in told(_paths(inputs, skips), inputs, json):
        read = []
        for path in paths:
            with skips.reading(path):
                read.append((path, read_picture(path)))
        found = model.predict([array for _, array in read], aligned=json, **how)
        for (path, _), caption in zip(read, found, strict=True):
            if json:
                rows.append({"picture": str(path), **caption._asdict()})
            else:
                _say(path, caption)
        sys.stdout.flush()
    if json:
        print_json({"model": str(name), "predictions": rows, "skipped": skips.skipped})
    return skips.code


def _say(path: Path, found: Any) -> None:
    print(f"{path}\t{' '.join(found.text.split())}")


def _drawn(
    name: Path, model: Any, inputs: tuple[str, ...], how: dict[str, Any], skips: Skips, out: Path, json: bool
) -> int:
    from unrolled.data.pictures import read_picture
    from unrolled.inspection import pictures
    from unrolled.inspection.caption_pictures import attention
    from unrolled.training import files

    pictures.check(out)
    if len(inputs) != 1 or inputs[0] == "-":
        raise InputError("--picture draws one picture: name one")
    files.check_apart(out, inputs)
    if model.options.image != "attention":
        raise InputError(f"{name} has no attention, so there is nothing to draw: train one with --image attention")
    rows = []
    with skips.reading(inputs[0]):
        read = read_picture(inputs[0])
        (found,) = model.predict([read], aligned=True, **how)
        pictures.save(attention(read, found, model.eye), out)
        rows.append({"picture": inputs[0], **found._asdict()})
        if not json:
            _say(Path(inputs[0]), found)
    if json:
        print_json({"model": str(name), "predictions": rows, "skipped": skips.skipped, "path": str(out)})
    return skips.code


def _paths(inputs: tuple[str, ...], skips: Skips) -> Iterator[list[Path]]:
    """In groups: the pictures of a folder together, those that standard input names each as it comes."""
    from unrolled.data.pictures import picture_files

    for given in inputs or ("-",):
        if given == "-":
            yield from ([Path(line)] for line in lines_of_standard_input() if line.strip())
            continue
        path = Path(given)
        found = [path]
        if path.is_dir():
            found = []
            with skips.reading(path):
                found = picture_files(path)
        yield from (found[at : at + GROUP] for at in range(0, len(found), GROUP))
