"""Labelled texts in the layouts people keep them in.

* A table (TSV, CSV, JSON lines; see `tables.py`), or several with the same columns. The columns are named or numbered
  from 1; else the usual headers say which they are, and in a table of two columns without a header the one with fewer
  different cells is the label. A column `split` says what each row is for.
* A folder with tables: all of them, and where every name ends in train, val, dev or test, that is the split.
* A folder with a folder a class, each file in it one text; or several such folders.
* A folder with a file a class, one text a line; or several files. The label is the file's name without its suffix;
  where all have the same name and suffixes differ, the suffix (rt-polarity.pos, rt-polarity.neg).

Texts and labels are stripped of white space around them. Empty lines are no texts; a row with a label and an empty
text is left out and counted, or kept on request: an evaluation must not lose examples. A row without a label is an
error. Hidden files, and README, LICENSE and SOURCE beside the classes, are left out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unrolled.data.contents import check
from unrolled.data.examples import Places, check_paths, picked, splits_of
from unrolled.data.splits import part_of
from unrolled.data.tables import FORMATS, Table, looks_like_table, read_table, read_text, split_lines
from unrolled.errors import InputError

TEXT = ("text", "sentence", "document", "review", "comment")
LABEL = ("label", "class", "category", "sentiment")
ASIDE = ("readme", "license", "licence", "source")


@dataclass(frozen=True)
class Labelled:
    """N texts with a label each."""

    texts: list[str]
    labels: list[str]
    places: Places
    splits: list[str] | None = None
    """The part of each, "train", "val" or "test", where the data say so."""
    notes: list[str] = field(default_factory=list)
    """What people should know: choices made, and what was left out."""
    column: str = ""
    """Of a table: which one the labels are in, for messages"""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> "Labelled":
        """The examples with these numbers."""
        splits = picked(self.splits, rows)
        texts, labels = ([values[n] for n in rows] for values in (self.texts, self.labels))
        return Labelled(texts, labels, self.places.take(rows), splits, self.notes, self.column)


MANY = 20
"""So many labels can be looked at for what they are."""


def told_apart(examples: "HasLabels", what: str = "texts") -> list[str]:
    """The labels of examples. Raises `InputError` where most occur once: names or numbers of the examples, which no
    network can learn. what: the examples are."""
    counts = Counter(examples.labels)
    once = [label for label, count in counts.items() if count == 1]
    if len(examples) >= MANY and 2 * len(once) > len(examples):
        column = getattr(examples, "column", "") or "what is taken for the labels"
        advice = "choose another with --label-column" if hasattr(examples, "column") else "give labels that repeat"
        raise InputError(
            f"{column} of {examples.places.name} has {len(counts):,} labels for {len(examples):,} {what}, such as "
            f"{once[0][:40]!r} and {once[1][:40]!r}: that looks like a number or a name of each, and not like classes; "
            + advice
        )
    return examples.labels


def named(labels: Any) -> list[str]:
    """The labels that a model file keeps; raises `InputError` where they are none."""
    check(labels, list[str], "the list of its labels")
    if len(set(labels)) < max(2, len(labels)):
        raise InputError("the list of its labels has fewer than two, or one of them twice")
    return list(labels)


class HasLabels(Protocol):
    """N examples of any kind, with a label each."""

    @property
    def labels(self) -> list[str]: ...

    @property
    def places(self) -> Places: ...

    def __len__(self) -> int: ...


class Classes:
    """The labels of the training data, numbered: as numbers sort where all are, else as words.

    >>> Classes(["10", "9", "9"]).names
    ['9', '10']
    """

    def __init__(self, labels: Sequence[str]) -> None:
        found = set(labels)
        whole = all(label.removeprefix("-").isdecimal() for label in found)
        self.names = sorted(found, key=lambda label: (int(label), label)) if whole else sorted(found)
        self._numbers = {name: n for n, name in enumerate(self.names)}

    @classmethod
    def of(cls, training: "HasLabels", what: str = "texts") -> "Classes":
        """what: the examples are. Raises `InputError` where there is nothing to tell apart."""
        classes = cls(told_apart(training, what))
        if len(classes.names) < 2:
            raise InputError(
                f"all {len(training):,} training {what} of {training.places.name} have the label "
                f"{training.labels[0]!r}: give at least two classes"
            )
        return classes

    def numbers(self, examples: "HasLabels") -> np.ndarray:
        """(N,) int64. Raises `InputError` at a label that the training did not have."""
        try:
            return np.array([self._numbers[label] for label in examples.labels], dtype=np.int64)
        except KeyError as error:
            row = examples.labels.index(error.args[0])
            known = ", ".join(map(repr, self.names[:10])) + (", …" if len(self.names) > 10 else "")
            raise InputError(
                f"{examples.places.say(row)}: the label {error.args[0]!r} does not occur in the training data "
                f"({known}): correct it, or train with it"
            ) from None


def read_labelled(
    paths: Sequence[str | PathLike[str]],
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str | None = None,
    keep_empty: bool = False,
) -> Labelled:
    """Labelled texts; see the module's first lines. Raises `InputError` with file and line where they are unusable."""
    given = [Path(path) for path in paths]
    check_paths(given)
    folders = [path.is_dir() for path in given]
    if any(folders) and not all(folders):
        raise InputError(f"{given[0]} and the others are files and folders: give one kind")
    notes: list[str] = []
    tables, classes, whole = _layout(given, encoding, notes)
    if tables:
        found = _of_tables(tables, text_column, label_column, encoding, notes)
    else:
        if text_column is not None or label_column is not None:
            raise InputError(
                f"{given[0]} is no table, so there are no columns: leave --text-column and --label-column out"
            )
        found = _of_classes(classes, whole, encoding, notes)
    if not keep_empty:
        found = _without_empty(found)
    if not found.texts:
        raise InputError(f"{found.places.name} has no texts: give some")
    return found


def _layout(
    given: list[Path], encoding: str | None, notes: list[str]
) -> tuple[list[Path], dict[str, list[Path]], bool]:
    """The tables, or the files of each class and whether a whole file is one text."""
    if not given[0].is_dir():
        tables = [path.suffix.lower() in FORMATS for path in given]
        if all(tables) or (len(given) == 1 and looks_like_table(given[0], encoding)):
            return given, {}, False
        if any(tables) or len(given) == 1:
            raise InputError(
                f"{given[tables.index(False)]} has texts without labels: give a .tsv, .csv or .jsonl with a column of "
                "labels, or one file a class"
            )
        return [], _classes_of(given), False
    if len(given) > 1:
        return [], {path.name: _files_in(path) for path in given}, True
    entries = [p for p in sorted(given[0].iterdir()) if not p.name.startswith(".")]
    folders = [p for p in entries if p.is_dir()]
    tables_in = [p for p in entries if p.suffix.lower() in FORMATS and p.is_file()]
    files = [p for p in entries if p.is_file() and p.stem.casefold() not in ASIDE]
    chosen = tables_in or folders or files
    if not chosen:
        raise InputError(f"the folder {given[0]} is empty: give tables, or a folder or a file a class")
    aside = [p.name for p in entries if p not in chosen]
    if aside:
        notes.append(f"left out of {given[0]}: {', '.join(aside[:5])}{', …' if len(aside) > 5 else ''}")
    if tables_in:
        return tables_in, {}, False
    if folders:
        return [], {p.name: _files_in(p) for p in folders}, True
    if len(files) == 1:
        raise InputError(f"the folder {given[0]} has one file, {files[0].name}: give a file or a folder for each class")
    return [], _classes_of(files), False


def _classes_of(files: list[Path]) -> dict[str, list[Path]]:
    by_suffix = len({p.stem for p in files}) == 1
    classes: dict[str, list[Path]] = {}
    for path in files:
        classes.setdefault(path.suffix[1:] if by_suffix and path.suffix else path.stem, []).append(path)
    return classes


def _files_in(folder: Path) -> list[Path]:
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    if not files:
        raise InputError(f"the folder {folder} has no files: give it texts, one a file")
    return files


def _of_classes(classes: dict[str, list[Path]], whole: bool, encoding: str | None, notes: list[str]) -> Labelled:
    """From the files of each class. whole: a file is a text; else a line is."""
    texts: list[str] = []
    labels: list[str] = []
    places: list[tuple[Path, list[int]]] = []
    for label, files in classes.items():
        for path in files:
            text = read_text(path, encoding)
            lines = [text] if whole else split_lines(text)
            kept = [n for n, line in enumerate(lines) if whole or line.strip()]
            texts += [lines[n].strip() for n in kept]
            labels += [label] * len(kept)
            places.append((path, [0] if whole else [n + 1 for n in kept]))
    return Labelled(texts, labels, Places.join(places), None, notes)


def _of_tables(
    paths: list[Path], text_column: str | None, label_column: str | None, encoding: str | None, notes: list[str]
) -> Labelled:
    """From tables. Where every file's name says a part, that is the split."""
    named = [part_of(p.stem.replace("-", "_").replace(".", "_").rpartition("_")[2]) for p in paths]
    texts: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    places: list[tuple[Path, list[int]]] = []
    for path, part in zip(paths, named, strict=True):
        table = read_table(path, encoding=encoding, names=(*TEXT, *LABEL), columns=(text_column, label_column))
        text, label = _columns(table, text_column, label_column, notes)
        column = table.column(label)
        if "" in column:
            row = column.index("")
            raise InputError(f"{table.place(row)} has no label in column {label + 1}: add it, or remove the line")
        if table.header is None and label_column is not None and 1 == column.count(column[0]) < len(column) / 2:
            what = f"an example with the label {column[0]!r}, which occurs once"
            notes.append(f"{table.place(0)} is taken for {what}: if it is a header, name the columns")
        texts += table.column(text)
        labels += column
        places.append((path, table.lines))
        told = splits_of(table) or (None if None in named or len(paths) == 1 else [part or ""] * len(column))
        splits += told or []
    if 0 < len(splits) < len(texts):
        raise InputError(
            f"some of the {len(paths)} tables have a split column and some have none: give all of them one"
        )
    name = f" '{table.header[label]}'" if table.header is not None else ""
    return Labelled(texts, labels, Places.join(places), splits or None, notes, column=f"column {label + 1}{name}")


def _columns(table: Table, text: str | None, label: str | None, notes: list[str]) -> tuple[int, int]:
    """The numbers, from 0, of the columns of texts and of labels."""
    a = table.find(text, "--text-column") if text is not None else table.guess(TEXT, "--text-column")
    b = table.find(label, "--label-column") if label is not None else table.guess(LABEL, "--label-column")
    if table.width == 2 and a is None and b is None and table.header is None:
        a, b = _fewer_labels(table)
        note = f"no header: column {a + 1} is taken for the text, column {b + 1} for the label"
        if note not in notes:
            notes.append(note)
    elif table.width == 2 and (a is None) != (b is None):  # one of two is known
        a, b = (a, 1 - a) if a is not None else (1 - (b or 0), b)
    if a is None or b is None:
        missing = "--text-column" if a is None else "--label-column"
        raise InputError(f"{table.path} does not say which column is which: choose {missing} from {table.listed()}")
    if a == b:
        raise InputError(f"{table.path}: --text-column and --label-column are both column {a + 1}: choose two")
    return a, b


def _fewer_labels(table: Table) -> tuple[int, int]:
    """Of two columns the one with fewer different cells is the label; its cells repeat, the first one's too."""
    one, two = (Counter(table.column(at)) for at in (0, 1))
    text, label = (1, 0) if len(one) < len(two) else (0, 1)
    counts = (one, two)[label]
    # a header that is not known looks like a label that occurs once
    if len(one) == len(two) or counts[table.column(label)[0]] == 1:
        raise InputError(
            f"{table.path} does not say which column is the text and which the label: choose --text-column and "
            f"--label-column from {table.listed()}, by name where these are names, else by number"
        )
    return text, label


def _without_empty(found: Labelled) -> Labelled:
    kept = np.array([n for n, text in enumerate(found.texts) if text], dtype=np.int64)
    if len(kept) == len(found):
        return found
    first = found.places.say(found.texts.index(""))
    note = f"left out {len(found) - len(kept):,} empty texts, the first of them in {first}"
    shorter = found.take(kept)
    return replace(shorter, notes=[*found.notes, note])
