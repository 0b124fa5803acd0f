"""Tables of all tasks: whether the first row is a header, what separates a CSV, and files that are none."""

import os
import socket
from pathlib import Path

import pytest

from tests.helpers import assert_one_sentence
from tests.media_helpers import make, refused
from unrolled.data.captioned import read_captions
from unrolled.data.clips import read_clips, read_segments
from unrolled.data.labelled import read_labelled
from unrolled.data.pairs import read_pairs
from unrolled.data.sources import TextSource
from unrolled.data.tables import header_notes, read_table
from unrolled.errors import InputError


def table(folder: Path, text: str, name: str = "a.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder / name


# The header

HEADERS = {
    "known": ("text,label\na,x\n", ["text", "label"]),
    "in any case, with spaces": (" Text , n\na,x\n", ["Text", "n"]),
    "quoted, behind a mark": ('\ufeff"Label","other"\na,x\n', ["Label", "other"]),
    "of another task": ("number,Caption\n1,x\n", ["number", "Caption"]),
    "an empty cell, as pandas writes": (",path\n0,a.mp4\n", ["", "path"]),
    "twice the same": ("text,text\na,x\n", ["text", "text"]),
    "asked for": ("body,stars\na,x\n", ["body", "stars"]),
    "none": ("body,grade\na,x\n", None),
    "a label that is a known name": ("a film,image\na song,audio\nanother film,image\n", None),
    "a text that is a known name": ("text,x\ntext,y\nb,y\n", None),
}


@pytest.mark.parametrize("case", HEADERS)
def test_one_rule_says_whether_there_is_a_header(tmp_path: Path, case: str) -> None:
    text, header = HEADERS[case]
    for name, content in (("a.csv", text), ("a.tsv", text.replace(",", "\t")), ("a.txt", text.replace(",", "\t"))):
        found = read_table(table(tmp_path, content, name), columns=("Stars", None, "2"))
        assert found.header == header
        assert len(found.rows) == content.count("\n") - (header is not None)
        (said,) = header_notes([found], "name the columns")
        if header is None:
            first = content.split("\n")[0].replace("\t", " | ").replace(",", " | ")
            assert said.endswith(
                f"has no header, so its first row is an example: {first}; if it is a header, name the columns"
            )
        else:
            assert f"is taken for a header: {' | '.join(header)}" in said


def test_every_task_says_what_the_first_row_was_taken_for(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "b.mp4")
    for read, text in (
        (read_labelled, "text,label\na,x\nb,y\n"),
        (read_pairs, "source,target\na,x\n"),
        (read_clips, "path,label\na.mp4,x\nb.mp4,y\n"),
        (read_segments, "path,start,end,label\na.mp4,0,1,x\n"),
        (read_captions, "path,caption\na.mp4,x\n"),
    ):
        (said,) = read([table(tmp_path, text)]).notes
        shown = text.split("\n")[0].replace(",", " | ")
        assert said == f"the first row of {tmp_path / 'a.csv'} is taken for a header: {shown}"
    for read, text in ((read_labelled, "a,x\nb,y\nc,x\n"), (read_pairs, "de,en\nHaus,house\n")):
        said = read([table(tmp_path, text)]).notes[-1]
        assert f"its first row is an example: {' | '.join(text[:5].split()[0].split(','))}" in said
        assert "if it is a header, name the columns with --" in said


def test_a_header_that_comes_again_is_no_example(tmp_path: Path) -> None:
    """As in tables that were written one behind the other."""
    said = refused(read_labelled, table(tmp_path, "text,label\na,x\n\ntext,label\nb,y\n"))
    assert "line 4 repeats the header: remove it" in said


def test_tables_without_a_header_agree_on_their_columns(tmp_path: Path) -> None:
    make(tmp_path, a_train__csv="a,x\nb,x\nc,y\n", a_test__csv="x,a\nx,b\ny,c\n")
    assert "another order than" in refused(read_labelled, tmp_path)
    assert read_labelled([tmp_path], text_column="1", label_column="2").texts == ["x", "x", "y", "a", "b", "c"]


# The separator

SEPARATED = {
    "a comma only in the header": ("text, all;label\na film;x\nb film;y\n", [["a film", "x"], ["b film", "y"]]),
    "commas in all texts": ("label;text\nx;a, b\ny;c, d\nx;e, f\n", [["x", "a, b"], ["y", "c, d"], ["x", "e, f"]]),
    "a tab": ("text\tlabel\na, b\tx\nc; d\ty\n", [["a, b", "x"], ["c; d", "y"]]),
    "a bar with spaces": ("image| n| text\na| 0| b , c\na| 1| d\n", [["a", "0", "b , c"], ["a", "1", "d"]]),
    "quotes hide others": ('text,label\n"a;b;c",x\n"d;e;f",y\n', [["a;b;c", "x"], ["d;e;f", "y"]]),
    "more columns": ("a,b;text;label\n1,2;x;y\n3,4;z;y\n", [["1,2", "x", "y"], ["3,4", "z", "y"]]),
    "as many": ("text,label;a\na,x;b\n", [["a", "x;b"]]),
    "said": ("sep=;\ntext;label\na,b;x\n", [["a,b", "x"]]),
    "said, behind a mark, against the look": ("\ufeffSEP=|\r\ntext|label,b\r\nc,d|e,f\r\n", [["c,d", "e,f"]]),
    "line ends in quotes": ('text;label\n"a\nb, c";x\n"d\r\n";y\n', [["a\nb, c", "x"], ["d", "y"]]),
}  # fmt: skip


@pytest.mark.parametrize("case", SEPARATED)
def test_what_divides_all_rows_alike_separates(tmp_path: Path, case: str) -> None:
    text, rows = SEPARATED[case]
    found = read_table(table(tmp_path, text))
    assert [[cell.strip() for cell in row if cell is not None] for row in found.rows] == rows


def test_a_tsv_with_commas_is_divided_by_tabs(tmp_path: Path) -> None:
    assert read_table(table(tmp_path, "text\tlabel\na, b\tx\n", "a.tsv")).rows == [["a, b", "x"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text;label\na, b;x\nc\nd, e;y\n", "line 3 has 1 columns and line 1 has 2"),
        ("sep=;\ntext;label\na;x\nb;y;z\n", "line 4 has 3 columns and line 2 has 2"),
        ('text;label\n"a\nb";x\n\nc;d;e\n', "line 5 has 3 columns and line 1 has 2"),
        ('text;label\na;x\n"b;y\nc;x\n', "line 3 is not CSV .*close its quotes"),
        ("text,label\na\rb,x\n", "line 2 is not CSV .*put a text with a line end in quotes"),
        ("text,label\n" + "a word here,x\n" * 90_000 + "b,y,z\n", "line 90,002 has 3 columns"),
    ],
)
def test_rows_that_are_wrong_are_said_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        read_table(table(tmp_path, text))
    assert_one_sentence(str(raised.value).replace(str(tmp_path), ""))


def test_the_advice_on_texts_of_several_lines_leads_out(tmp_path: Path) -> None:
    path = table(tmp_path, 'text\tlabel\n"one\ntwo, three"\tx\nfour\ty\n', "a.tsv")
    assert "line 2 has 1 columns and line 1 has 2, and a quote in it is not closed" in refused(read_labelled, path)
    assert read_labelled([path.rename(tmp_path / "a.csv")]).texts == ["one\ntwo, three", "four"]


def test_the_advice_where_no_label_comes_twice_names_the_column(tmp_path: Path) -> None:
    from unrolled.data.examples import train_and_val

    path = table(tmp_path, "text,label\n" + "".join(f"a{n},b{n}\n" for n in range(30)))
    with pytest.raises(InputError, match="no label occurs twice in the 30 examples.*another column of labels"):
        train_and_val(read_labelled, [path], None, fraction=0.1, seed=0, strata=lambda found: found.labels)


# Files that are none


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    make(tmp_path, "fine.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as opened:
        before = os.getcwd()
        os.chdir(tmp_path)  # the name of a socket may have 108 bytes
        try:
            opened.bind("socket.mp4")
        finally:
            os.chdir(before)
    return tmp_path


ODD = {
    "pipe.mp4": "pipe.mp4 is neither a file nor a folder but a pipe",
    "socket.mp4": "socket.mp4 is neither a file nor a folder but a socket",
    "/dev/zero": "/dev/zero is neither a file nor a folder but a device",
    "x" * 300 + ".mp4": "cannot read x{80}…: File name too long",
    "fine.mp4/a.mp4": "no such file: fine.mp4/a.mp4",
    "none.mp4": "no such file: none.mp4",
}


@pytest.mark.parametrize("name", ODD)
def test_what_a_table_names_is_not_opened_where_it_is_no_file(odd: Path, name: str) -> None:
    for read, text in (
        (read_clips, f"path,label\nfine.mp4,x\n{name},y\n"),
        (read_segments, f"path,frame,label\nfine.mp4,0,x\n{name},0,y\n"),
        (read_captions, f"path,caption\nfine.mp4,x\n{name},y\n"),
    ):
        path = table(odd, text)
        with pytest.raises(InputError, match=f"a.csv, line 3: {ODD[name]}; put the file there") as raised:
            read([path])
        assert_one_sentence(str(raised.value).replace(str(odd), ""))
        assert "left out: 1" in read([path], bad_files="skip").notes[-1]


def test_a_zero_byte_in_a_name_is_said(odd: Path) -> None:
    path = table(odd, '{"path": "fine.mp4", "label": "x"}\n{"path": "a\\u0000.mp4", "label": "y"}\n', "a.jsonl")
    assert "line 2: cannot read a\\x00.mp4: its name has a zero byte" in refused(read_clips, path)


@pytest.mark.parametrize("name", [name for name in ODD if "fine" not in name and name != "none.mp4"])
def test_data_that_are_no_file_are_refused_by_every_reader(odd: Path, name: str) -> None:
    for read in (TextSource, read_labelled, read_pairs, read_clips, read_segments, read_captions):
        with pytest.raises(InputError, match="is neither a file nor a folder but|cannot read .*…: File name"):
            read([odd / name])


def test_pipes_in_folders_are_left_out_and_said(odd: Path) -> None:
    for name in ("pos", "neg"):
        make(odd, **{f"texts/{name}/1__txt": name})
    os.mkfifo(odd / "texts" / "pos" / "pipe")
    found = read_labelled([odd / "texts"])
    assert found.texts == ["neg", "pos"] and f"left out of {odd / 'texts' / 'pos'}: pipe" in found.notes
    assert len(TextSource([odd / "texts"]).documents) == 2


def test_a_column_that_says_the_split_under_another_name_is_said(tmp_path: Path) -> None:
    rows = "".join(f"film {n},{n % 2},{'test' if n % 3 else 'Train'}\n" for n in range(6))
    for name, notes in {"set": 1, "split": 0}.items():
        (tmp_path / f"{name}.csv").write_text(f"text,label,{name}\n{rows}")
        found = header_notes([read_table(tmp_path / f"{name}.csv")], "name the columns")
        assert sum("if it is the split, call it split" in note for note in found) == notes


LABELLED = "id,text,label\n1,good film,pos\n2,bad film,neg\n3,fine film,pos\n"


def test_a_table_without_the_label_column_of_the_others_has_no_labels(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(LABELLED)
    (tmp_path / "test.csv").write_text("id,text\n7,poor film\n8,nice film\n")
    with pytest.raises(InputError, match=r"test\.csv has no column 'label', which is the label in .*train\.csv"):
        read_labelled([tmp_path])
    assert len(read_labelled([tmp_path / "test.csv"], label_column="id")) == 2


def test_tables_of_which_only_some_are_named_after_parts_are_said_to_be_read_alike(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text(LABELLED)
    assert not any("no name is heeded" in note for note in read_labelled([tmp_path]).notes)
    (tmp_path / "extra.csv").write_text(LABELLED)
    found = read_labelled([tmp_path])
    assert found.splits is None
    assert sum("no name is heeded" in note for note in found.notes) == 1
