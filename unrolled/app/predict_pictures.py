"""What `unrolled predict` does with pictures: a caption each."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unrolled.app.output import print_json
from unrolled.data.text_files import lines_of_standard_input
from unrolled.errors import InputError

TASKS = ("caption-image",)
"""Whose models read pictures."""
GROUP = 16
"""Pictures of a folder that are captioned together."""


def predict_pictures(
    name: Path, model: Any, inputs: tuple[str, ...], how: dict[str, Any], out: Path | None, json: bool
) -> int:
    """Print the path, a tab and the caption of each picture; draw where the model looked, if wanted."""
    if out is not None:
        return _drawn(name, model, inputs, how, out, json)
    rows: list[dict[str, Any]] = []
    for paths in _paths(inputs):
        for path, found in zip(paths, model.predict(paths, aligned=json, **how), strict=True):
            if json:
                rows.append({"picture": str(path), **found._asdict()})
            else:
                _say(path, found)
        sys.stdout.flush()
    if json:
        print_json({"model": str(name), "predictions": rows})
    return 0


def _say(path: Path, found: Any) -> None:
    print(f"{path}\t{' '.join(found.text.split())}")


def _drawn(name: Path, model: Any, inputs: tuple[str, ...], how: dict[str, Any], out: Path, json: bool) -> int:
    from unrolled.data.pictures import read_picture
    from unrolled.inspection import pictures
    from unrolled.inspection.caption_pictures import attention

    pictures.check(out)
    if len(inputs) != 1 or inputs[0] == "-":
        raise InputError("--picture draws one picture: name one")
    if model.options.image != "attention":
        raise InputError(f"{name} has no attention, so there is nothing to draw: train one with --image attention")
    read = read_picture(inputs[0])
    (found,) = model.predict([read], aligned=True, **how)
    pictures.save(attention(read, found, model.eye), out)
    if json:
        print_json({"model": str(name), "predictions": [{"picture": inputs[0], **found._asdict()}], "path": str(out)})
    else:
        _say(Path(inputs[0]), found)
    return 0


def _paths(inputs: tuple[str, ...]) -> Iterator[list[Path]]:
    """In groups: the pictures of a folder together, those that standard input names each as it comes."""
    from unrolled.data.pictures import picture_files

    for given in inputs or ("-",):
        if given == "-":
            yield from ([Path(line)] for line in lines_of_standard_input() if line.strip())
            continue
        path = Path(given)
        found = picture_files(path) if path.is_dir() else [path]
        yield from (found[at : at + GROUP] for at in range(0, len(found), GROUP))
