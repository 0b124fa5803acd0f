"""Tables of text: TSV, CSV and JSON lines, with columns by name or number and errors that name file and line.

Whole files are read, since examples with labels or translations fit in memory; corpora of any size are `sources.py`'s.

What is done with what is not plain:

* Line ends may be LF, CRLF or CR, and a byte-order mark is left out. Lines of nothing but white space are skipped.
* Every row must have as many cells as the first line; another number is an error.
* TSV has no quoting, so quotes are text. Two exceptions read what spreadsheets and R write: a column whose every cell
  is in quotes, and a cell in quotes in which every quote is doubled. No cell of a TSV holds a line end or a tab.
* CSV is quoted as RFC 4180 says. Where its first line has no comma, a semicolon or a tab separates.
* JSON lines: an object a line, its keys are the columns; null and a missing key are empty cells.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unrolled.errors import InputError

FORMATS = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
QUOTED = re.compile(r'"(?:[^"]|"")*"')
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
        shown = (cell if cell is None or len(cell) <= 20 else cell[:19] + "…" for cell in self.rows[0])
        return ", ".join(f"{n} (such as {cell!r})" for n, cell in enumerate(shown, 1))

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


def is_number(column: str | None) -> bool:
    return column is not None and column.isascii() and column.isdigit()


def read_table(
    path: Path,
    *,
    encoding: str | None = None,
    names: Collection[str] = (),
    columns: Sequence[str | None] = (),
    kind: Literal["tsv", "csv", "jsonl"] | None = None,
) -> Table:
    """A table, its format (`kind`) told by the file's name; any other name is a TSV.

    The first line is a header where one of `columns`, which the user asks for, is a name, or where one of its cells
    is one of `names`, in any case.
    """
    form, text = kind or FORMATS.get(path.suffix.lower(), "tsv"), read_text(path, encoding)
    if form == "jsonl":
        return _objects(path, text)
    rows: list[list[str]] = []
    lines: list[int] = []
    for line, row in (_csv if form == "csv" else _tsv)(path, text):
        if rows and len(row) != len(rows[0]):
            raise InputError(
                f"{path}, line {line:,} has {len(row)} columns and line {lines[0]:,} has {len(rows[0])}: "
                + ("put texts that hold the separator in quotes" if form == "csv" else "remove the tab inside a text")
                + (" or add what is missing" if len(row) < len(rows[0]) else "")
            )
        rows.append(row)
        lines.append(line)
    if not rows:
        raise InputError(f"{path} has no rows: give a table with text")
    if form == "tsv":
        _unquote(rows)
    first = [cell.strip() for cell in rows[0]]
    by_name = any(column is not None and not is_number(column) for column in columns)
    header = first if by_name or any(cell.casefold() in names for cell in first) else None
    if header is not None:
        del rows[0], lines[0]
        if not rows:
            raise InputError(f"{path} has a header and no rows: give a table with text")
    return Table(path, header, [list[Cell](row) for row in rows], lines)


def read_text(path: Path, encoding: str | None = None) -> str:
    """A whole file as text, without a byte-order mark. encoding: as Python knows it; None is UTF-8.

    Raises `InputError` where it cannot be read or is not in that encoding, with line and byte.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    name = encoding or "utf-8"
    try:
        text = data.decode(name)
    except LookupError:
        raise InputError(
            f"unknown --encoding {name!r}: choose for example utf-8, latin-1, cp1252, cp949 or utf-16"
        ) from None
    except UnicodeDecodeError as error:
        raise _not_encoded(path, data, error, encoding) from None
    except UnicodeError as error:  # UTF-16 without a byte-order mark, for one
        raise InputError(f"{path} is not {name} ({error}): give its --encoding") from None
    if "\0" in text:
        raise InputError(f"{path} looks binary (it has a zero byte): give a text file, or its --encoding")
    return text.removeprefix("\ufeff")


def _not_encoded(path: Path, data: bytes, error: UnicodeDecodeError, encoding: str | None) -> InputError:
    if encoding is None and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return InputError(f"{path} is not UTF-8 but UTF-16: add --encoding utf-16")
    line = data.count(b"\n", 0, error.start) + 1
    advice = "name its encoding, for example --encoding latin-1" if encoding is None else "give another --encoding"
    return InputError(
        f"{path} is not {encoding or 'UTF-8'} in line {line:,}, at byte {error.start:,} of the file "
        f"(0x{data[error.start]:02x}): {advice}"
    )


def split_lines(text: str) -> list[str]:
    """The lines, without their ends. Only LF and CRLF end one (or CR where there is no LF): texts in Latin-1 and text
    from the web hold other characters that Unicode calls line ends."""
    lines = text.split("\n" if "\n" in text else "\r")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


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
    first = text.lstrip().split("\n", 1)[0]
    separator = next((s for s in ",;\t" if s in first), ",")
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # the module's own limit is 131,072 characters
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        begins = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{path}, line {begins:,} is not CSV ({error}): close its quotes, and double quotes inside quotes"
            ) from None
        if any(cell.strip() for cell in row):
            yield begins, row


def _objects(path: Path, text: str) -> Table:
    objects, lines = read_objects(path, text)
    header = list(dict.fromkeys(key for row in objects for key in row))
    return Table(path, header, [[_cell(row.get(key)) for key in header] for row in objects], lines)


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
        objects.append(found)
        lines.append(number)
    if not objects:
        raise InputError(f"{path} has no rows: give a table with text")
    return objects, lines


def _cell(value: Any) -> Cell:
    if isinstance(value, str):
        return value
    if isinstance(value, list | dict):
        return None
    return "" if value is None else json.dumps(value)
