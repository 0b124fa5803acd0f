"""Tables of text: TSV, CSV and JSON lines, with columns by name or number and errors that name file and line.

Whole files are read, since examples with labels or translations fit in memory; corpora of any size are `sources.py`'s.
What a text and its lines are, `text_files.py` says. What is done with what is not plain:

* Lines of nothing but white space are skipped. Every row must have as many cells as the first; another number is an
  error.
* The first row is a header where it has a column that is asked for by name, or one of the names that tasks know
  (`columns.py`), in any case; not where that name comes again below it in its column, since then it is a value. A note
  says which it was taken for. So a table without a header whose first row has such a word, once, loses an example: the
  other way round every table with a header would have a wrong one.
* TSV has no quoting, so quotes are text. Two exceptions read what spreadsheets and R write: a column whose every cell
  is in quotes, and a cell in quotes in which every quote is doubled. No cell of a TSV holds a line end or a tab.
* CSV is quoted as RFC 4180 says. A comma, semicolon, tab or | separates: the one that divides all rows alike, into most
  columns. A first line such as `sep=;`, as Excel has it, says it and is no row.
* JSON lines: an object a line, its keys are the columns; null and a missing key are empty cells.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from unrolled.data.columns import NAMES, SPLIT
from unrolled.data.splits import part_of
from unrolled.data.text_files import check_unicode, read_text, split_lines
from unrolled.errors import InputError

FORMATS = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
QUOTED = re.compile(r'"(?:[^"]|"")*"')
SEPARATORS = ",;\t|"
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
SAMPLE = 1 << 20
"""Characters that a separator must divide alike."""
Cell = str | None
"""None is a list or an object of JSON, which is neither text nor label."""


class NoColumn(InputError):
    """A column that is asked for is not there. asked: its name or number; None where there are no columns at all."""

    def __init__(self, message: str, asked: str | None = None) -> None:
        super().__init__(message)
        self.asked = asked


@dataclass(frozen=True)
class Table:
    path: Path
    header: list[str] | None
    rows: list[list[Cell]]
    lines: list[int]
    """The line each row begins at, from 1."""
    keyed: bool = False
    """Whether each row names its columns, as in JSON lines"""

    def place(self, row: int) -> str:
        """For messages: the file and the line."""
        return f"{self.path}, line {self.lines[row]:,}"

    @property
    def width(self) -> int:
        return len(self.header) if self.header is not None else len(self.rows[0])

    def listed(self) -> str:
        """The columns for messages, numbers first; without a header with what the first row has there."""
        if self.header is not None:
            return ", ".join(f"{n} '{name}'" for n, name in enumerate(self.header, 1))
        return ", ".join(f"{n} (such as {cell!r})" for n, cell in enumerate(_short(self.rows[0]), 1))

    def find(self, asked: str, flag: str) -> int:
        """The column that a user names or, counting from 1, numbers; `flag` is how it was asked for."""
        names = self.header or []
        for same in (str, str.casefold):
            found = [at for at, name in enumerate(names) if same(name) == same(asked)]
            if len(found) > 1:
                raise InputError(f"{self.path} has {len(found)} columns called {asked!r}: give {flag} a number instead")
            if found:
                return found[0]
        if is_number(asked) and 1 <= int(asked) <= self.width:
            return int(asked) - 1
        raise NoColumn(f"{self.path} has no column {asked}: choose {flag} from {self.listed()}", asked)

    def guess(self, names: Sequence[str], flag: str) -> int | None:
        """The column of the header whose name is one of these; None where there is none, an error if several are."""
        found = [at for at, name in enumerate(self.header or []) if name.casefold() in names]
        if len(found) > 1:
            raise InputError(f"{self.path} has several columns that {flag} could mean: choose it from {self.listed()}")
        return found[0] if found else None

    def column(self, at: int) -> list[str]:
        """The cells of a column, stripped of white space around them."""
        cells = [row[at] for row in self.rows]
        if None in cells:
            raise InputError(f"{self.place(cells.index(None))}: column {at + 1} is a list or an object, not a text")
        return [cell.strip() for cell in cells if cell is not None]


def header_notes(tables: Sequence[Table], names: str) -> list[str]:
    """What the first rows of these tables were taken for; `names`: what to do to name their columns."""
    same: dict[tuple[str, ...] | None, list[Table]] = {}
    for table in tables:
        if not table.keyed:
            same.setdefault(None if table.header is None else tuple(table.header), []).append(table)
    notes = []
    for header, some in same.items():
        more = f" (and of {len(some) - 1:,} more tables)" if len(some) > 1 else ""
        shown = " | ".join(_short(some[0].rows[0] if header is None else header))
        if header is None:
            notes.append(
                f"{some[0].path} has no header, so its first row is an example{more}: {shown}; if it is a header, "
                f"{names}"
            )
        else:
            sure = sum(name.casefold() in NAMES for name in header) > 1
            doubt = "" if sure else "; if it is an example, put a line with the names of the columns above it"
            notes.append(f"the first row of {some[0].path}{more} is taken for a header: {shown}{doubt}")
    return notes + _unheeded_splits(tables)


def _unheeded_splits(tables: Sequence[Table]) -> list[str]:
    """Notes on columns of another name that say train, val or test in every row: only a `split` is heeded."""
    notes = []
    for table in tables:
        names = [] if table.header is None else table.header
        for at, name in enumerate([] if {*SPLIT} & {name.casefold() for name in names} else names):
            if part_of(table.rows[0][at] or "") is None:  # nearly always: long texts are not looked through
                continue
            parts = {part_of(row[at] or "") for row in table.rows}
            if None not in parts and "train" in parts and len(parts) > 1:
                notes.append(
                    f"column {at + 1} {name!r} of {table.path} says train, val or test in every row, and is not "
                    "heeded: if it is the split, call it split"
                )
    return notes


def _short(cells: Iterable[Cell]) -> list[str]:
    shown = ["a list" if cell is None else cell if len(cell) <= 20 else cell[:19] + "…" for cell in cells]
    return shown if len(shown) <= 10 else [*shown[:9], "…"]


def is_number(column: str | None) -> bool:
    return column is not None and column.isascii() and column.isdigit()


def read_table(
    path: Path,
    *,
    encoding: str | None = None,
    columns: Sequence[str | None] = (),
    kind: Literal["tsv", "csv", "jsonl"] | None = None,
    flag: bool = True,
) -> Table:
    """A table, its format (`kind`) told by the file's name; any other name is a TSV.

    columns: those that the user asks for; flag: whether there is --encoding.
    """
    form, text = kind or FORMATS.get(path.suffix.lower(), "tsv"), read_text(path, encoding, flag=flag)
    if form == "jsonl":
        return _objects(path, text)
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, row in (_csv if form == "csv" else _tsv)(path, text):
        if rows and len(row) != len(rows[0]):
            raise _ragged(path, (lines[0], rows[0]), (line, row), form)
        rows.append(row)
        lines.append(line)
    if not rows:
        raise InputError(f"{path} has no rows: give a table with text")
    if form == "tsv":
        _unquote(rows)
    header = _header(rows, [asked.casefold() for asked in columns if asked is not None and not is_number(asked)])
    if header is not None:
        first = rows.pop(0)
        if not rows:
            raise InputError(f"{path} has a header and no rows: give a table with text")
        if first in rows:
            raise InputError(f"{path}, line {lines[rows.index(first) + 1]:,} repeats the header: remove it")
        del lines[0]
    return Table(path, header, [list[Cell](row) for row in rows], lines)


def _header(rows: list[list[str]], asked: Sequence[str]) -> list[str] | None:
    """The first row's cells where it is a header; see the module's first lines."""
    first = [cell.strip() for cell in rows[0]]
    if all(QUOTED.fullmatch(cell) for cell in first):  # over bare columns of a TSV
        first = [cell[1:-1].replace('""', '"') for cell in first]
    for at, name in enumerate(cell.casefold() for cell in first):
        if name in asked:
            return first
        if name in NAMES and not any(row[at].strip().casefold() == name and row != rows[0] for row in rows[1:]):
            return first
    return None


def _ragged(path: Path, first: tuple[int, list[str]], other: tuple[int, list[str]], form: str) -> InputError:
    """A row with another number of cells than the first one."""
    (line_of_first, cells_of_first), (line, cells) = first, other
    where = f"{path}, line {line:,} has {len(cells)} columns and line {line_of_first:,} has {len(cells_of_first)}"
    if form == "csv":
        what = "put texts that hold the separator in quotes"
    elif len(cells) < len(cells_of_first) and any(cell.startswith('"') and cell.count('"') % 2 for cell in cells):
        return InputError(
            f"{where}, and a quote in it is not closed: if texts in quotes have several lines, name the file .csv, "
            "which may separate by tabs too"
        )
    else:
        what = "write a space for a tab inside a text"
    return InputError(f"{where}: {what}" + (", or add what is missing" if len(cells) < len(cells_of_first) else ""))


def looks_like_table(path: Path, encoding: str | None = None) -> bool:
    """By its name, or since its first line has a tab."""
    if path.suffix.lower() in FORMATS:
        return True
    return "\t" in next(iter(split_lines(read_text(path, encoding))), "")


def _tsv(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    return ((n, line.split("\t")) for n, line in enumerate(split_lines(text), 1) if line.strip())


def _unquote(rows: list[list[str]]) -> None:
    """Take off the quotes of TSV cells that were quoted by a program; see the module's first lines."""
    for at in range(len(rows[0])):
        cells = [row[at] for row in rows]
        if not any(cell.startswith('"') for cell in cells):
            continue
        # a header may be bare over a quoted column
        whole = all(QUOTED.fullmatch(cell) or not cell for cell in cells[1:] or cells)
        for row in rows:
            if QUOTED.fullmatch(row[at]) and (whole or '""' in row[at][1:-1]):
                row[at] = row[at][1:-1].replace('""', '"')


def _csv(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # the module's own limit is 131,072 characters
    told = SEPARATOR_LINE.fullmatch(_first_line(text))
    separator = told[1] if told else _separator(text)
    rows = _csv_rows(text, separator)
    try:
        for line, row in islice(rows, 1, None) if told else rows:
            if any(cell.strip() for cell in row):
                yield line, row
    except _BadQuotes as error:
        bare = "new-line character" in str(error)
        what = "put a text with a line end in quotes" if bare else "close its quotes, and double quotes inside quotes"
        raise InputError(f"{path}, line {error.line:,} is not CSV ({error}): {what}") from None


class _BadQuotes(ValueError):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def _csv_rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows, each with the line that it begins at. Raises `_BadQuotes`."""
    end = "\n" if "\n" in text else "\r"
    reader = csv.reader((line + end for line in text.removesuffix(end).split(end)), delimiter=separator, strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _BadQuotes(begins, str(error)) from None
        yield begins, row


def _first_line(text: str) -> str:
    return text[: len(text) if (end := re.search(r"[\r\n]", text)) is None else end.start()]


def _separator(text: str) -> str:
    """What divides all rows of the beginning alike, into most columns; else what divides most of them alike."""
    sample, whole = text[:SAMPLE], len(text) <= SAMPLE
    best, chosen = (False, 0.0, 0), SEPARATORS[0]
    for separator in SEPARATORS:
        if separator not in sample:
            continue
        widths: list[int] = []
        sound = True
        try:
            for _, row in _csv_rows(sample, separator):
                if any(cell.strip() for cell in row):
                    widths.append(len(row))
        except _BadQuotes as error:
            sound = not whole and "end of data" in str(error)
        if not whole and len(widths) > 1:
            widths.pop()  # the sample ends inside a row
        usual, count = max(Counter(widths).items(), key=lambda item: item[::-1], default=(0, 0))
        found = (sound, count / max(1, len(widths)), usual)
        if usual > 1 and found > best:
            best, chosen = found, separator
    return chosen


def _objects(path: Path, text: str) -> Table:
    objects, lines = read_objects(path, text)
    header = list(dict.fromkeys(key for row in objects for key in row))
    return Table(path, header, [[_cell(row.get(key)) for key in header] for row in objects], lines, keyed=True)


def read_objects(path: Path, text: str) -> tuple[list[dict[str, Any]], list[int]]:
    """The objects of JSON lines, at least one, and the line of each."""
    objects: list[dict[str, Any]] = []
    lines = []
    for number, line in enumerate(split_lines(text), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number:,} is not JSON ({error}): give one object a line") from None
        if not isinstance(found, dict):
            raise InputError(f"{path}, line {number:,} is not a JSON object: give one object a line")
        check_json(line, found, f"{path}, line {number:,}")
        objects.append(found)
        lines.append(number)
    if not objects:
        raise InputError(f"{path} has no rows: give a table with text")
    return objects, lines


def check_json(text: str, found: Any, where: str) -> None:
    """Raises `InputError` where what was found in a JSON text has half a character: only escapes can write one."""
    if "\\ud" in text or "\\uD" in text:
        check_unicode(json.dumps(found, ensure_ascii=False), where)


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return None
    return "" if value is None else json.dumps(value)
