"""What `unrolled predict` does with pictures: a caption each."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unrolled.app.output import print_json

TASKS = ("caption-image",)
"""Whose models read pictures."""
GROUP = 16
"""Pictures of a folder that are captioned together."""


def predict_pictures(name: Path, model: Any, inputs: tuple[str, ...], how: dict[str, Any], json: bool) -> int:
    """Print the path, a tab and the caption of each picture."""
    rows: list[dict[str, Any]] = []
    for paths in _paths(inputs):
        for path, found in zip(paths, model.predict(paths, aligned=json, **how), strict=True):
            if json:
                rows.append({"picture": str(path), **found._asdict()})
            else:
                print(f"{path}\t{' '.join(found.text.split())}")
        sys.stdout.flush()
    if json:
        print_json({"model": str(name), "predictions": rows})
    return 0


def _paths(inputs: tuple[str, ...]) -> Iterator[list[Path]]:
    """In groups: the pictures of a folder together, those that standard input names each as it comes."""
    from unrolled.data.pictures import picture_files

    for given in inputs or ("-",):
        if given == "-":
            yield from ([Path(line.rstrip("\r\n"))] for line in sys.stdin if line.strip())
            continue
        path = Path(given)
        found = picture_files(path) if path.is_dir() else [path]
        yield from (found[at : at + GROUP] for at in range(0, len(found), GROUP))
