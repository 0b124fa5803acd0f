"""Labelled texts in the layouts people keep them in.

* A table (TSV, CSV, JSON lines; see `tables.py`), or several with the same columns. The columns are named or numbered
  from 1; else the usual headers say which they are, and in a table of two columns without a header the one with fewer
  different cells is the label. A column `split` says what each row is for.
* A folder with tables: all of them, and where every name ends in train, val, dev or test, that is the split.
* A folder with a folder a class, each file in it, also in folders below it, one text; or several such folders.
* A folder with a file a class, one text a line; or several files. The label is the file's name without its suffix;
  where all have the same name and suffixes differ, the suffix (rt-polarity.pos, rt-polarity.neg).
* A folder with folders that are all named train, val, dev, test or the like, each as above; or these folders.

Texts and labels are stripped of white space around them. Empty lines are no texts; a row with a label and an empty
text is left out and counted, or kept on request: an evaluation must not lose examples. A row without a label is an
error. Left out, and said, are README, LICENSE and SOURCE beside the classes, folders of texts without a label (unsup),
what lies beside folders of classes or of parts, and what `folders.py` says.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unrolled.data.columns import LABEL, TEXT
from unrolled.data.contents import check
from unrolled.data.examples import BadFiles, Places, Skipped, check_paths, picked, splits_of
from unrolled.data.layouts import Found, find_texts
from unrolled.data.splits import part_at_the_end
from unrolled.data.tables import NoColumn, Table, header_notes, read_table
from unrolled.data.text_files import check_unicode, read_text, split_lines
from unrolled.errors import InputError


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
    skipped: list[Skipped] = field(default_factory=list)
    """Files that could not be read, where these are left out"""
    column: str = ""
    """Of a table: which one the labels are in, for messages"""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> "Labelled":
        """The examples with these numbers."""
        splits = picked(self.splits, rows)
        texts, labels = ([values[n] for n in rows] for values in (self.texts, self.labels))
        return Labelled(texts, labels, self.places.take(rows), splits, self.notes, self.skipped, self.column)

    def keys(self) -> list[tuple[str, str]]:
        return list(zip(self.texts, self.labels, strict=True))

    def columns(self) -> tuple[list[str], ...]:
        return self.texts, self.labels


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


def listed(labels: Sequence[str]) -> str:
    """For people, who see here that "Pos" and "pos" are two.

    >>> listed(["Pos", "neg", "pos"])
    "3 classes ('Pos', 'neg', 'pos')"
    """
    return f"{len(labels):,} classes ({', '.join(map(repr, labels[:10]))}{', …' if len(labels) > 10 else ''})"


def read_labelled(
    paths: Sequence[str | PathLike[str]],
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str | None = None,
    bad_files: BadFiles = "stop",
    keep_empty: bool = False,
) -> Labelled:
    """Labelled texts; see the module's first lines. Raises `InputError` with file and line where they are unusable.

    bad_files: whether a file that cannot be decoded ends it, or is left out and noted, where there are others.
    """
    given = [Path(path) for path in paths]
    check_paths(given, bad_files)
    notes: list[str] = []
    files = find_texts(given, encoding, notes)
    if len({found.label is None for found in files}) > 1:
        raise InputError(f"{given[0]} has tables in one part and classes in another: give one kind")
    if files[0].label is None:
        found = _of_tables(files, text_column, label_column, encoding, notes)
    else:
        if text_column is not None or label_column is not None:
            raise NoColumn(
                f"{given[0]} is no table, so there are no columns: leave --text-column and --label-column out"
            )
        found = _of_classes(files, encoding, notes, bad_files)
    if not keep_empty:
        found = _without_empty(found)
    if not found.texts:
        raise InputError(f"{found.places.name} has no texts: give some")
    return found


def _of_classes(files: Sequence[Found], encoding: str | None, notes: list[str], bad_files: BadFiles) -> Labelled:
    """From files of which each has the texts of one class."""
    skipped: list[Skipped] = []
    texts: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    places: list[tuple[Path, list[int]]] = []
    for path, label, whole, part in files:
        assert label is not None
        check_unicode(label, f"the name of {path}")
        try:
            text = read_text(path, encoding)
        except InputError as error:
            if bad_files == "stop":
                raise
            skipped.append(Skipped(str(path), str(error)))
            continue
        lines = [text] if whole else split_lines(text)
        kept = [n for n, line in enumerate(lines) if whole or line.strip()]
        texts += [lines[n].strip() for n in kept]
        labels += [label] * len(kept)
        splits += [part] * len(kept) if part is not None else []
        places.append((path, [0] if whole else [n + 1 for n in kept]))
    if skipped:
        if not places:
            raise InputError(skipped[0].reason)
        listed = "; ".join(one.reason for one in skipped)
        notes.append(f"bad files left out: {len(skipped):,} of {len(files):,} ({listed})")
    return Labelled(texts, labels, Places.join(places), splits or None, notes, skipped)


def _of_tables(
    files: Sequence[Found], text_column: str | None, label_column: str | None, encoding: str | None, notes: list[str]
) -> Labelled:
    """From tables. A column says what each row is for, else the table's folder, else the names of all tables."""
    named = [part_at_the_end(found.path.stem)[1] for found in files]
    told = None not in named and len(files) > 1
    notes += _unheeded_names(files, named)
    texts: list[str] = []
    labels: list[str] = []
    splits: list[str] = []
    places: list[tuple[Path, list[int]]] = []
    tables = [read_table(f.path, encoding=encoding, columns=(text_column, label_column)) for f in files]
    bare: dict[tuple[int, int], Path] = {}
    for table, found, by_name in zip(tables, files, named, strict=True):
        text, label = _columns(table, text_column, label_column, notes)
        if table.header is None and {*bare, (text, label)} != {(text, label)}:
            other = next(path for columns, path in bare.items() if columns != (text, label))
            raise InputError(
                f"{table.path} seems to have its columns in another order than {other}: choose --text-column and "
                "--label-column"
            )
        if table.header is None:
            bare[text, label] = table.path
        if label_column is None:
            _check_same(table, tables, label)
        column = table.column(label)
        if "" in column:
            row = column.index("")
            raise InputError(f"{table.place(row)} has no label in column {label + 1}: add it, or remove the line")
        texts += table.column(text)
        labels += column
        places.append((table.path, table.lines))
        part = found.part or (by_name if told else None)
        splits += splits_of(table) or ([] if part is None else [part] * len(column))
    notes += header_notes(tables, "name the columns with --text-column and --label-column")
    if 0 < len(splits) < len(texts):
        raise InputError(
            f"some of the {len(files)} tables have a split column and some have none: give all of them one"
        )
    name = f" '{table.header[label]}'" if table.header is not None else ""
    return Labelled(texts, labels, Places.join(places), splits or None, notes, column=f"column {label + 1}{name}")


def _unheeded_names(files: Sequence[Found], named: Sequence[str | None]) -> list[str]:
    """A note where some tables are named after parts of the data and others are not: then no name counts."""
    if None not in named or len({*named} - {None}) < 2 or any(found.part for found in files):
        return []
    known = next(found.path for found, part in zip(files, named, strict=True) if part)
    return [
        f"{known} is named after a part of the data and {files[named.index(None)].path} is not, so no name is heeded "
        "and all tables are read alike: move the others away, or name those to train on and, with --val, those to "
        "validate on"
    ]


def _check_same(table: Table, tables: Sequence[Table], label: int) -> None:
    """Raises `InputError` where other tables call a column the label and this one has none that is called so: what is
    left beside its texts is something else, such as the number of each."""
    if table.header is None or table.header[label].casefold() in LABEL:
        return
    for other in tables:
        at = other.guess(LABEL, "--label-column")
        if at is not None and other.header is not None:
            raise InputError(
                f"{table.path} has no column {other.header[at]!r}, which is the label in {other.path}; its columns are "
                f"{table.listed()}: move it away if its texts have no labels, or choose --label-column"
            )


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
