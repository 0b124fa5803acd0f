"""Pictures or clips with captions, several each, in the layouts people keep them in.

* A table (CSV, TSV, JSON lines; also CSV called .txt, as Kaggle has Flickr8k) with the columns `image`, `path` or
  `file_name`, and `caption` or `text`; a row a caption; where there is such, `split`.
* `metadata.jsonl` as in an image folder: an object a line, `file_name`, and `text`, `caption` or `captions`, one or a
  list of them.
* `*.token.txt` as Flickr8k came: lines of `name.jpg#0`, a tab, a caption. Which picture is for what, the lists of names
  beside it say (Flickr_8k.trainImages.txt, …devImages.txt, …testImages.txt); pictures in no list are left out.
* results.csv as Flickr30k came: image_name| comment_number| comment.
* One JSON: of COCO (images, annotations; captions_train2014.json names pictures of the folder train2014), of Karpathy's
  splits (images, each with its folder, its sentences and split; restval is for training), of MSR-VTT (videos,
  sentences), or a list of objects as in `metadata.jsonl`, the file called `id` if need be. It must be named, but for
  COCO's captions_*.json and Karpathy's dataset_*.json, which are found in a folder and in annotations/ of it.
* A folder with one of these tables, called captions, metadata or the like; or with folders train, val and test (by
  their usual names), each with one.

Of several files that are all named after parts (captions_train2014.json, captions_val2014.json) each is that part.

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
from unrolled.data.examples import RULES, BadFiles, Places, Skipped, check_paths, picked
from unrolled.data.folders import Aside, entries
from unrolled.data.media_files import (
    Row,
    groups_of_rows,
    located,
    of_each_file,
    parts_of_names,
    places_of,
    rows_of_table,
    splits_of_rows,
    tables_in,
)
from unrolled.data.splits import part_of
from unrolled.data.tables import FORMATS, check_json, header_notes, read_objects, read_table
from unrolled.data.text_files import read_text, split_lines
from unrolled.errors import InputError

TOKENS = (".token.txt", ".token")
COMMENTS = re.compile(r"\s*image_name\s*\|\s*comment_number\s*\|\s*comment\s*", re.IGNORECASE)
"""The first line of Flickr30k's results.csv."""
COMMENT = re.compile(r"([^|]+)\|\s*[0-9]+(?:\s*(\|)|\s+)(.*)")
"""The others; one of the original lacks its second |."""
JSON_NAME = re.compile(r"(captions|dataset)_(\w+)\.json", re.IGNORECASE)
"""Of COCO and of Karpathy, with the part or the data set"""
SPLITS = {"restval": "train", "validate": "val"}
"""Words for parts that only Karpathy and MSR-VTT have."""
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
    skipped: list[Skipped] = field(default_factory=list)
    """Files that could not be read, where these are left out"""

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: np.ndarray) -> "Captioned":
        """The files with these numbers."""
        paths, captions = [self.paths[n] for n in rows], [self.captions[n] for n in rows]
        groups, splits = picked(self.groups, rows), picked(self.splits, rows)
        return Captioned(paths, captions, self.places.take(rows), groups, splits, self.notes, self.skipped)

    def keys(self) -> list[Path]:
        return [path.resolve() for path in self.paths]

    def columns(self) -> tuple[list[str], ...]:
        return [path.name for path in self.paths], ["\n".join(several) for several in self.captions]


def read_captions(
    paths: Sequence[str | PathLike[str]], *, encoding: str | None = None, bad_files: BadFiles = "stop"
) -> Captioned:
    """Pictures or clips with captions; see the module's first lines. Raises `InputError` with file and line."""
    given, notes, skipped = [Path(path) for path in paths], list[str](), list[Skipped]()
    check_paths(given, bad_files)
    tables = [table for path in given for table in (_tables_of(path) if path.is_dir() else [(path, None)])]
    if RULES.get() >= 2 and not any(path.is_dir() for path in given):
        tables = list(zip(given, parts_of_names(given), strict=True))
    rows = [row for path, part in tables for row in _rows(path, part, encoding, notes)]
    empty = [row for row in rows if not row.cells[0]]
    if empty:
        notes.append(f"left out {len(empty):,} empty captions, the first of them in {empty[0].place}")
        rows = [row for row in rows if row.cells[0]]
    if not rows:
        raise InputError(f"{given[0]} has no captions: give some")
    of_each = of_each_file(located(rows, bad_files, notes, skipped))
    firsts = [several[0] for several in of_each]
    captions = [[row.cells[0] for row in several] for several in of_each]
    groups, splits = groups_of_rows(firsts, notes), splits_of_rows(firsts)
    return Captioned([row.path for row in firsts], captions, places_of(firsts), groups, splits, notes, skipped)


def _tables_of(folder: Path) -> list[tuple[Path, str | None]]:
    """The tables of a folder, each with the part of the data that its name or its folder's says."""
    tables = (
        _token_files(folder) or tables_in(folder, ("captions", "metadata"), (*FORMATS, ".txt")) or _known_json(folder)
    )
    if tables:
        return list(zip(tables, parts_of_names(tables), strict=True))
    parts = [p for p in entries(folder, Aside()) if p.is_dir() and part_of(p.name)]
    found = [(table, part_of(p.name)) for p in parts for table, _ in _tables_of(p)]
    if not found:
        raise InputError(
            f"the folder {folder} has no captions: give it a captions.csv (image, caption), a metadata.jsonl or a "
            f"*{TOKENS[0]}, or name the table"
        )
    return found


def _token_files(folder: Path) -> list[Path]:
    found = [p for p in entries(folder, Aside()) if p.name.lower().endswith(TOKENS)]
    plain = [p for p in found if "lemma" not in p.name]  # Flickr8k has captions of lemmas too
    if len(plain) > 1:
        raise InputError(f"the folder {folder} has {' and '.join(p.name for p in sorted(plain))}: name the one to read")
    return plain


def _known_json(folder: Path) -> list[Path]:
    """COCO's or Karpathy's, in a folder or in its annotations."""
    inside = [p for f in (folder, folder / "annotations") if f.is_dir() for p in sorted(f.iterdir())]
    found = [p for p in inside if JSON_NAME.fullmatch(p.name)]
    parts = parts_of_names(found)
    if len(found) > 1 and (None in parts or len(set(parts)) < len(parts)):
        raise InputError(f"the folder {folder} has {' and '.join(p.name for p in found)}: name the one to read")
    return found


def _rows(path: Path, part: str | None, encoding: str | None, notes: list[str]) -> list[Row]:
    """A row a caption."""
    suffix = path.suffix.lower()
    if FORMATS.get(suffix) == "jsonl":
        objects, lines = read_objects(path, read_text(path, encoding))
        return [row for found, line in zip(objects, lines, strict=True) for row in _of_object(path, line, found, part)]
    if suffix == ".json":
        return [row for found in _json(path, encoding) for row in _of_object(path, 0, found, part)]
    first = next(iter(split_lines(read_text(path, encoding))), "")
    if COMMENTS.fullmatch(first):
        return _of_comments(path, encoding, part, notes)
    if suffix in (".txt", ".token") and NUMBERED.fullmatch(first.partition("\t")[0].strip()):
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
    folder = None if line else cells.get("filepath")  # as Karpathy's splits have it
    file = Path(folder, name.strip()) if isinstance(folder, str) and folder else Path(name.strip())
    for text in captions or [""]:
        yield Row(path, line, file, (text.strip(),), of, None if group is None else str(group), flat=bool(folder))


def _json(path: Path, encoding: str | None) -> list[dict[str, Any]]:
    """The objects of one JSON, each with the keys of `metadata.jsonl`."""
    try:
        text = read_text(path, encoding)
        found = json.loads(text)
        check_json(text, found, str(path))
        if isinstance(found, dict) and "annotations" in found:
            captions = _of_each(found["annotations"], "image_id")
            named = JSON_NAME.fullmatch(path.name)
            folder = named[2] if named and named[1].casefold() == "captions" else None
            return [
                {"file_name": image["file_name"], "filepath": folder, "captions": captions[image["id"]]}
                for image in found["images"]
                if image["id"] in captions
            ]
        if isinstance(found, dict) and "videos" in found:
            captions = _of_each(found["sentences"], "video_id")
            return [
                {
                    "file_name": f"{video['video_id']}.mp4",
                    "captions": captions[video["video_id"]],
                    "split": SPLITS.get(video.get("split"), video.get("split")),
                }
                for video in found["videos"]
                if video["video_id"] in captions
            ]
        if isinstance(found, dict):
            return [
                {
                    "file_name": image["filename"],
                    "filepath": image.get("filepath"),
                    "captions": [sentence["raw"] for sentence in image["sentences"]],
                    "split": SPLITS.get(image.get("split"), image.get("split")),
                }
                for image in found["images"]
            ]
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{path} is not captions in JSON as COCO, Karpathy or MSR-VTT have them ({what}): correct it"
        ) from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(f"{path} is neither a list of objects nor COCO's captions: give it one of these forms")
    return found


def _of_each(captions: list[dict[str, Any]], key: str) -> dict[Any, list[str]]:
    """The captions of each picture or clip."""
    found: dict[Any, list[str]] = {}
    for one in captions:
        found.setdefault(one[key], []).append(one["caption"])
    return found


def _of_comments(path: Path, encoding: str | None, part: str | None, notes: list[str]) -> list[Row]:
    """Flickr30k's form."""
    rows, lacking = [], []
    for line, text in enumerate(split_lines(read_text(path, encoding)), 1):
        if line == 1 or not text.strip():
            continue
        found = COMMENT.fullmatch(text)
        if not found:
            raise InputError(
                f"{path}, line {line:,} is not a picture's name, a number and a caption with | between them: correct it"
            )
        if not found[2]:
            lacking.append(line)
        rows.append(Row(path, line, Path(found[1].strip()), (found[3].strip(),), part))
    if lacking:
        notes.append(
            f"lines of {path} that lack their second | and are read all the same: {len(lacking):,}, the first of them "
            f"line {lacking[0]:,}"
        )
    return rows


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
