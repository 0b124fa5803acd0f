"""Pictures or clips with captions, several each, in the layouts people keep them in.

* A table (CSV, TSV, JSON lines; also CSV called .txt, as Kaggle has Flickr8k) with the columns `image`, `path` or
  `file_name`, and `caption` or `text`; a row a caption; where there is such, `split`.
* `metadata.jsonl` as in an image folder: an object a line, `file_name`, and `text`, `caption` or `captions`, one or a
  list of them.
* `*.token.txt` as Flickr8k came: lines of `name.jpg#0`, a tab, a caption. Which picture is for what, the lists of names
  beside it say (Flickr_8k.trainImages.txt, …devImages.txt, …testImages.txt); pictures in no list are left out.
* One JSON: of COCO (images, annotations), of Karpathy's splits (images, each with its sentences and split; restval is
  for training), or a list of objects as in `metadata.jsonl`, the file called `id` if need be. It must be named.
* A folder with one of these tables, called captions, metadata or the like; or with folders train, val and test (by
  their usual names), each with one.

Pictures lie where `media_files.py` looks. Captions are stripped of white space around them. Empty ones are left out and
counted, and so are files that have no other. All captions of a file are for the same part of the data.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.data.columns import CAPTION, GROUP, PATH
from unrolled.data.examples import Places, check_paths, picked
from unrolled.data.folders import Aside, entries
from unrolled.data.media_files import (
    BadFiles,
    Row,
    groups_of_rows,
    located,
    of_each_file,
    part_of_name,
    places_of,
    rows_of_table,
    splits_of_rows,
    tables_in,
)
from unrolled.data.splits import part_of
from unrolled.data.tables import FORMATS, check_json, header_notes, read_objects, read_table
from unrolled.data.text_files import read_text, split_lines
from unrolled.errors import InputError

TOKENS = ".token.txt"
NUMBERED = re.compile(r"(.+)#[0-9]+")
"""A picture's name with the number of a caption."""
LIST = re.compile(r"(train|dev|val|test)_?images\.txt$", re.IGNORECASE)


@dataclass(frozen=True)
class Captioned:
    """N pictures or clips with captions."""

    paths: list[Path]
    captions: list[list[str]]
    """Of each at least one, in the order of the table"""
    places: Places
    """Of each one's first caption"""
    groups: list[str] | None = None
    splits: list[str] | None = None
    """The part of each, "train", "val" or "test", where the data say so."""
    notes: list[str] = field(default_factory=list)
    """What people should know: what was left out."""

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> "Captioned":
        """The files with these numbers."""
        paths, captions = [self.paths[n] for n in rows], [self.captions[n] for n in rows]
        groups, splits = picked(self.groups, rows), picked(self.splits, rows)
        return Captioned(paths, captions, self.places.take(rows), groups, splits, self.notes)


def read_captions(
    paths: Sequence[str | PathLike[str]], *, encoding: str | None = None, bad_files: BadFiles = "stop"
) -> Captioned:
    """Pictures or clips with captions; see the module's first lines. Raises `InputError` with file and line."""
    given, notes = [Path(path) for path in paths], list[str]()
    check_paths(given)
    tables = [table for path in given for table in (_tables_of(path) if path.is_dir() else [(path, None)])]
    rows = [row for path, part in tables for row in _rows(path, part, encoding, notes)]
    empty = [row for row in rows if not row.cells[0]]
    if empty:
        notes.append(f"left out {len(empty):,} empty captions, the first of them in {empty[0].place}")
        rows = [row for row in rows if row.cells[0]]
    if not rows:
        raise InputError(f"{given[0]} has no captions: give some")
    files = of_each_file(located(rows, bad_files, notes))
    firsts = [file[0] for file in files]
    captions = [[row.cells[0] for row in file] for file in files]
    groups, splits = groups_of_rows(firsts), splits_of_rows(firsts)
    return Captioned([row.path for row in firsts], captions, places_of(firsts), groups, splits, notes)


def _tables_of(folder: Path) -> list[tuple[Path, str | None]]:
    """The tables of a folder, each with the part of the data that its name or its folder's says."""
    tables = _token_files(folder) or tables_in(folder, ("captions", "metadata"), (*FORMATS, ".txt"))
    if tables:
        return [(path, part_of_name(path) if len(tables) > 1 else None) for path in tables]
    parts = [p for p in entries(folder, Aside()) if p.is_dir() and part_of(p.name)]
    found = [(table, part_of(p.name)) for p in parts for table, _ in _tables_of(p)]
    if not found:
        raise InputError(
            f"the folder {folder} has no captions: give it a captions.csv (image, caption), a metadata.jsonl or a "
            f"*{TOKENS}, or name the table"
        )
    return found


def _token_files(folder: Path) -> list[Path]:
    found = [p for p in entries(folder, Aside()) if p.name.lower().endswith(TOKENS)]
    plain = [p for p in found if "lemma" not in p.name]  # Flickr8k has captions of lemmas too
    if len(plain) > 1:
        raise InputError(f"the folder {folder} has {' and '.join(p.name for p in sorted(plain))}: name the one to read")
    return plain


def _rows(path: Path, part: str | None, encoding: str | None, notes: list[str]) -> list[Row]:
    """A row a caption."""
    suffix = path.suffix.lower()
    if FORMATS.get(suffix) == "jsonl":
        objects, lines = read_objects(path, read_text(path, encoding))
        return [row for found, line in zip(objects, lines, strict=True) for row in _of_object(path, line, found, part)]
    if suffix == ".json":
        return [row for found in _json(path, encoding) for row in _of_object(path, 0, found, part)]
    if suffix == ".txt":
        first = next(iter(split_lines(read_text(path, encoding))), "")
        if NUMBERED.fullmatch(first.partition("\t")[0].strip()):
            return _of_tokens(path, encoding, notes)
    kind: Any = "csv" if suffix == ".txt" and "\t" not in first else None
    table = read_table(path, encoding=encoding, kind=kind)
    notes += header_notes([table], "name the columns in it")
    return rows_of_table(table, (CAPTION,), part)


def _of_object(path: Path, line: int, found: dict[str, Any], part: str | None) -> Iterator[Row]:
    """A row for each caption of an object of JSON. line: 0 where the file is one JSON."""
    cells = {key.casefold(): value for key, value in found.items()}
    name, caption, split, group = (
        next((cells[key] for key in keys if cells.get(key) is not None), None)
        for keys in (PATH if line else (*PATH, "id"), CAPTION, ("split",), GROUP)
    )
    place = f"{path}, line {line:,}" if line else f"{path}, at {str(name)!r}"
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{place} names no file: give each object a file_name")
    captions = [caption] if isinstance(caption, str) else caption
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise InputError(f"{place} has no caption: give it `text` or `caption`, a text or a list of texts")
    of = part if split is None else part_of(str(split))
    if split is not None and of is None:
        raise InputError(f"{place}: unknown split {split!r}: choose train, val (or dev) or test")
    for text in captions or [""]:
        yield Row(path, line, Path(name.strip()), (text.strip(),), of, None if group is None else str(group))


def _json(path: Path, encoding: str | None) -> list[dict[str, Any]]:
    """The objects of one JSON, each with the keys of `metadata.jsonl`."""
    try:
        text = read_text(path, encoding)
        found = json.loads(text)
        check_json(text, found, str(path))
        if isinstance(found, dict) and "annotations" in found:
            captions: dict[Any, list[str]] = {}
            for one in found["annotations"]:
                captions.setdefault(one["image_id"], []).append(one["caption"])
            return [
                {"file_name": image["file_name"], "captions": captions[image["id"]]}
                for image in found["images"]
                if image["id"] in captions
            ]
        if isinstance(found, dict):
            return [
                {
                    "file_name": image["filename"],
                    "captions": [sentence["raw"] for sentence in image["sentences"]],
                    "split": {"restval": "train"}.get(image.get("split"), image.get("split")),
                }
                for image in found["images"]
            ]
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} is not captions in JSON as COCO or Karpathy have them ({what}): correct it") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(f"{path} is neither a list of objects nor COCO's captions: give it one of these forms")
    return found


def _of_tokens(path: Path, encoding: str | None, notes: list[str]) -> list[Row]:
    """Flickr8k's form."""
    splits = _listed(path, encoding)
    rows, aside = [], set()
    for line, text in enumerate(split_lines(read_text(path, encoding)), 1):
        name, tab, caption = text.partition("\t")
        found = NUMBERED.fullmatch(name.strip())
        if not text.strip():
            continue
        if not found or not tab:
            raise InputError(f"{path}, line {line:,} is not a picture's name with #0, a tab and a caption: correct it")
        if splits and found[1] not in splits:
            aside.add(found[1])
        else:
            rows.append(Row(path, line, Path(found[1]), (caption.strip(),), splits.get(found[1])))
    if aside:
        notes.append(f"pictures of {path.name} in none of the lists beside it, left out: {len(aside):,}")
    return rows


def _listed(path: Path, encoding: str | None) -> dict[str, str]:
    """The part of each picture that the lists of names beside a file of captions say."""
    splits: dict[str, str] = {}
    for file in entries(path.parent, Aside()):
        if named := LIST.search(file.name):
            part = part_of(named[1]) or ""
            for line, name in enumerate(split_lines(read_text(file, encoding)), 1):
                if name.strip() and splits.setdefault(name.strip(), part) != part:
                    raise InputError(f"{file}, line {line:,}: {name.strip()} is in another list too: keep it in one")
    return splits
