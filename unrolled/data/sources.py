"""Finding and reading the text of language models: files and folders, block by block, with errors that say where.

A folder whose text lies in folders that are named after parts of the data (train, val, test and the like), training
among them, or in files that are (ptb.train.txt, ptb.valid.txt), says what is for what; the text beside them is left
out. So do several such folders that are given together.
"""

import copy
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from unrolled.data import text_files
from unrolled.data.folders import Aside, check_data, files_below, parts_of
from unrolled.data.layouts import ASIDE
from unrolled.errors import InputError

LONG = {"train": "training", "val": "validation", "test": "test"}
NUMBERS = (".feat",)
"""Suffixes of files that lie beside texts and hold what was counted in them."""


class Block(NamedTuple):
    """Some whole characters of one document."""

    document: int
    text: str


class TextSource:
    """The documents of a corpus, in order: each file is one; a folder gives its text files, sorted by path.

    `skipped` lists the files of a folder that do not look like text; what else is left out is in `notes`.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str]]) -> None:
        if not paths:
            raise InputError("no text is given: name a file or a folder")
        self.documents: list[Path] = []
        self.parts: list[str | None] = []
        """Of each document, "train", "val" or "test"; None where the data do not say it"""
        self.skipped: list[Path] = []
        self._aside = Aside()
        given = [Path(path) for path in paths]
        for path in given:
            check_data(path)
        together = _parts([path.resolve().name for path in given]) if all(path.is_dir() for path in given) else None
        for path, part in zip(given, together or itertools.repeat(None), strict=False):
            try:
                self._add(path, part)
            except OSError as error:
                raise InputError(f"cannot read {path}: {error.strerror}") from error
        self.bytes = sum(document.stat().st_size for document in self.documents)

    def _add(self, path: Path, part: str | None) -> None:
        """part: that the path is as one of several folders."""
        if path.is_dir():
            found = files_below(path, self._aside)
            numbers = [f for f in found if f.suffix.lower() in NUMBERS]
            self._aside.add(numbers)
            text = [f for f in found if f not in numbers and text_files.is_text(f)]
            if not text:
                raise InputError(f"no UTF-8 text files in the folder {path}: name a folder with text, or a file")
            self.skipped += sorted(set(found) - set(text) - set(numbers))
            parts = [part] * len(text) if part is not None else self._parts_in(path, text)
            kept = [(f, of) for f, of in zip(text, parts, strict=True) if of != ""]
            self._aside.add(f for f, of in zip(text, parts, strict=True) if of == "")
            self.documents += [f for f, _ in kept]
            self.parts += [of for _, of in kept]
        elif text_files.is_empty(path):
            raise InputError(f"{path} is empty: give a file with text")
        else:
            self.documents.append(path)
            self.parts.append(None)

    def _parts_in(self, folder: Path, text: list[Path]) -> list[str | None]:
        """Of each file of the folder; "" for what lies beside the parts."""
        tops = [f.relative_to(folder).parts for f in text]
        folders = sorted({names[0] for names in tops if len(names) > 1})
        if folders:
            of = dict(zip(folders, _parts(folders) or (), strict=False))
            return [of.get(names[0], "") for names in tops] if of else [None] * len(text)
        files = [f for f in text if f.stem.casefold() not in ASIDE]
        by_file = dict(zip(files, _parts([f.stem for f in files]) or (), strict=False))
        return [by_file.get(f, "") for f in text] if by_file else [None] * len(text)

    @property
    def name(self) -> str:
        """For messages: the file, or the number of documents."""
        if len(self.documents) == 1:
            return str(self.documents[0])
        return f"{len(self.documents)} documents"

    @property
    def notes(self) -> list[str]:
        """What people should know: what was left out."""
        count = len(self.skipped)
        skipped = [f"left out {count} files that are not UTF-8 text, such as {self.skipped[0]}"] if count else []
        return skipped + self._aside.notes()

    def of_part(self, part: str) -> "TextSource":
        """The documents of a part; those of which no part is said are for training. Perhaps none."""
        some = copy.copy(self)
        kept = [(f, of) for f, of in zip(self.documents, self.parts, strict=True) if (of or "train") == part]
        some.documents, some.parts = [f for f, _ in kept], [of for _, of in kept]
        some.bytes = sum(document.stat().st_size for document in some.documents)
        return some

    def blocks(self) -> Iterator[Block]:
        """The text, checked: raises `InputError` with file and byte where it is not UTF-8 or looks binary."""
        for number, path in enumerate(self.documents):
            for text in text_files.blocks(path, flag=False):
                yield Block(number, text)


def training_text(
    paths: Sequence[str | os.PathLike[str]], val: Sequence[str | os.PathLike[str]] | None
) -> tuple[TextSource, TextSource | None, list[str]]:
    """The text to train on, that to validate on (None: the end of the former), and what people should know of them."""
    whole = TextSource(paths)
    held = None if val is None else TextSource(val)
    notes = whole.notes + ([] if held is None else held.notes)
    if held is not None and "val" in held.parts:
        notes.append(_said(held, "val", held.parts.count("val"), "validated"))
        held = held.of_part("val")
    if not any(whole.parts):
        return whole, held, notes
    train = whole.of_part("train")
    notes.append(_said(whole, "train", len(train.documents), "trained"))
    if held is None and "val" in whole.parts:
        held = whole.of_part("val")
        notes.append(_said(whole, "val", len(held.documents), "validated"))
    unused = [part for part in ("val", "test") if part in whole.parts and (part == "test" or val is not None)]
    if unused:
        counts = (f"{_files(whole.parts.count(part))} of the part for {LONG[part]}" for part in unused)
        notes.append(f"left out of the training: {' and '.join(counts)}")
    return train, held, notes


def _said(source: TextSource, part: str, count: int, what: str) -> str:
    of = source.of_part(part)
    return f"{what} on the part for {LONG[part]}, as the names say: {_files(count)}, the first is {of.documents[0]}"


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _parts(names: Sequence[str]) -> list[str] | None:
    """As `parts_of`, where some are for training and some are not."""
    parts = parts_of(names)
    return parts if parts and "train" in parts and len(set(parts)) > 1 else None
