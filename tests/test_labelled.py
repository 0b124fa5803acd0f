"""Labelled texts and translation pairs: every usual layout is read, and what is unusable is said with file and line."""

import csv
import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import assert_one_sentence
from unrolled.data.labelled import Classes, Labelled, read_labelled
from unrolled.data.pairs import read_pairs
from unrolled.data.splits import divide
from unrolled.errors import InputError


def write(folder: Path, contents: dict[str, str | bytes]) -> Path:
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def rows(found: Labelled) -> list[tuple[str, str]]:
    return list(zip(found.texts, found.labels, strict=True))


def read(folder: Path, name: str, data: str | bytes, **how: object) -> Labelled:
    return read_labelled([write(folder, {name: data}) / name], **how)


THREE = [("good film", "pos"), ("bad film", "neg"), ("a, b", "pos")]


@pytest.mark.parametrize(
    ("name", "data"),
    {
        "a.tsv": "text\tlabel\ngood film\tpos\nbad film\tneg\na, b\tpos\n",
        "order.tsv": "id\tLabel\tn\tSentence\n1\tpos\t5\tgood film\n2\tneg\t6\tbad film\n3\tpos\t7\ta, b",
        "crlf.tsv": "text\tlabel\r\ngood film\tpos\r\nbad film\tneg\r\na, b\tpos\r\n",
        "cr.tsv": "text\tlabel\rgood film\tpos\rbad film\tneg\ra, b\tpos\r",
        "bom.tsv": "\ufefftext\tlabel\ngood film\tpos\nbad film\tneg\na, b\tpos\n",
        "blank.tsv": "text\tlabel\n\ngood film\tpos\n  \nbad film \t neg\n\t\na, b\tpos\n\n",
        "bare.tsv": "good film\tpos\nbad film\tneg\na, b\tpos\n",
        "reversed.tsv": "pos\tgood film\nneg\tbad film\npos\ta, b\n",
        "tabs.txt": "document\tclass\ngood film\tpos\nbad film\tneg\na, b\tpos\n",
        "a.csv": 'review,sentiment\ngood film,pos\nbad film,neg\n"a, b",pos\n',
        "excel.csv": "\ufeffcomment;category\r\ngood film;pos\r\nbad film;neg\r\na, b;pos\r\n",
        "bare.csv": 'good film,pos\n"bad film",neg\n"a, b",pos\n',
        "r.tsv": '"text"\t"label"\n"good film"\t"pos"\n"bad film"\t"neg"\n"a, b"\t"pos"\n',
        "a.jsonl": '{"text": "good film", "label": "pos"}\n\n{"label": "neg", "text": "bad film", "id": 3}\n'
        '{"text": "a, b", "label": "pos"}\n',
    }.items(),
)
def test_every_usual_table_says_the_same(tmp_path: Path, name: str, data: str) -> None:
    assert rows(read(tmp_path, name, data)) == THREE


def test_columns_by_name_and_by_number(tmp_path: Path) -> None:
    table = "id\ttitle\tBody\tstars\n1\tx\tgood film\tpos\n2\ty\tbad film\tneg\n3\tz\ta, b\tpos\n"
    assert rows(read(tmp_path, "a.tsv", table, text_column="body", label_column="stars")) == THREE
    assert rows(read(tmp_path, "a.tsv", table, text_column="Body", label_column="4")) == THREE
    bare = table.split("\n", 1)[1]
    assert rows(read(tmp_path, "b.tsv", bare, text_column="3", label_column="4")) == THREE
    named = read(
        tmp_path, "a.tsv", table, text_column="3", label_column="4"
    )  # numbers alone say that there is no header
    assert rows(named) == [("Body", "stars"), *THREE]
    assert "its first row is an example: id | title | Body | stars" in named.notes[0]
    known = "id\tdocument\tlabel\n" + "".join(f"1\t{text}\t{label}\n" for text, label in THREE)
    assert rows(read(tmp_path, "c.tsv", known, text_column="2", label_column="3")) == THREE


def test_an_unknown_header_is_noticed(tmp_path: Path) -> None:
    more = THREE * 3
    table = "phrase\tpolarity\n" + "".join(f"{text}\t{label}\n" for text, label in more)
    with pytest.raises(InputError, match=r"choose --text-column and --label-column from 1 \(such as 'phrase'\)"):
        read(tmp_path, "a.tsv", table)
    found = read(tmp_path, "a.tsv", table, text_column="1", label_column="2")
    assert "a.tsv has no header, so its first row is an example: phrase | polarity; if it is a header" in found.notes[0]
    assert rows(read(tmp_path, "a.tsv", table, text_column="phrase")) == more


def test_quotes_in_tsv_are_text_unless_a_program_put_them(tmp_path: Path) -> None:
    texts = ['"quoted" at first', 'at last "quoted"', '"all of it"', '"', 'an "inner" one', "'single'", '"a" and "b"']
    plain = "".join(f"{text}\tx\n" for text in [*texts, "none"])
    assert read(tmp_path, "a.tsv", "text\tlabel\n" + plain).texts == [*texts, "none"]
    written = io.StringIO()
    csv.writer(written, delimiter="\t").writerows([("text", "label"), *((t, "x") for t in [*texts, "none"])])
    found = read(tmp_path, "b.tsv", written.getvalue()).texts
    assert found == [*texts, "none"]


@given(st.lists(st.tuples(st.text("a\"', é\n;\t", max_size=8), st.sampled_from(["1", "0"])), min_size=1))
def test_what_the_csv_module_writes_comes_back(tmp_path_factory: pytest.TempPathFactory, table: list) -> None:
    table = [(f"x{text}x", label) for text, label in table]  # white space around a text is not kept
    written = io.StringIO(newline="")
    csv.writer(written).writerows([("text", "label"), *table])
    folder = tmp_path_factory.getbasetemp()
    assert rows(read(folder, "a.csv", written.getvalue())) == table
    lines = "".join(json.dumps({"text": text, "label": int(label)}) + "\n" for text, label in table)
    assert rows(read(folder, "a.jsonl", lines)) == table


def test_line_ends_that_only_unicode_knows_end_no_line(tmp_path: Path) -> None:
    text = "a\x85b\u2028c\x0bd\x1ce"
    assert read(tmp_path, "a.tsv", f"text\tlabel\n{text}\tx\n").texts == [text]


def test_a_line_of_a_hundred_thousand_characters(tmp_path: Path) -> None:
    long = "word " * 40_000 + "end"
    for name, data in {"a.tsv": f"text\tlabel\n{long}\tx\n", "a.csv": f'text,label\n"{long}",x\n'}.items():
        assert read(tmp_path, name, data).texts == [long]


LAYOUTS: dict[str, dict[str, str | bytes]] = {
    "a folder a class": {"pos/1.txt": "good film\n", "pos/2.txt": "a, b", "neg/x": "bad film", "neg/.hidden": "x"},
    "a file a class": {"pos.txt": "good film\n\na, b\n", "neg.txt": "bad film\n", "README.md": "about"},
    "a suffix a class": {"film.pos": "good film \na, b", "film.neg": "bad film", "SOURCE.txt": "where from"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_classes_in_files_and_folders(tmp_path: Path, layout: str) -> None:
    found = read_labelled([write(tmp_path, LAYOUTS[layout])])
    assert sorted(rows(found)) == sorted(THREE)
    bad = found.texts.index("bad film")
    where = "x" if layout == "a folder a class" else "line 1"
    assert found.places.say(bad).endswith(where)
    entries = sorted(p for p in tmp_path.iterdir() if p.stem not in ("README", "SOURCE"))
    assert sorted(rows(read_labelled(entries))) == sorted(THREE)


def test_split_columns_and_names(tmp_path: Path) -> None:
    table = "text\tlabel\tsplit\na\tx\ttrain\nb\ty\tDev\nc\tx\ttest\nd\ty\tvalidation\n"
    assert read(tmp_path, "a.tsv", table).splits == ["train", "val", "test", "val"]
    with pytest.raises(InputError, match=r"a\.tsv, line 3: unknown split 'held-out'"):
        read(tmp_path, "a.tsv", table.replace("Dev", "held-out"))
    parts = {f"x_{name}.tsv": f"text\tlabel\n{name}\ty\n" for name in ("train", "dev", "test")}
    found = read_labelled([write(tmp_path / "named", parts)])
    assert dict(zip(found.texts, found.splits or [], strict=True)) == {"train": "train", "dev": "val", "test": "test"}


HEAD = "text\tlabel\n"
UNUSABLE: dict[str, tuple[str, str | bytes, str]] = {
    "latin-1": (
        "a.tsv",
        HEAD.encode() + b"fine\tx\ncaf\xe9\tx\n",
        r"not UTF-8 in line 3, at byte 21 .*0xe9.*--encoding",
    ),
    "utf-16 cut off": ("a.tsv", (HEAD + "a\tb").encode("utf-16")[:-1], "not UTF-16-LE in line 2.*mark says so"),
    "binary": ("a.tsv", b"text\tlabel\na\0\tx\n", "looks binary"),
    "too many": ("a.tsv", HEAD + "a\tx\nb\tc\ty\n", r"line 3 has 3 columns and line 1 has 2"),
    "too few": ("a.csv", "text,label\na,x\nb\n", r"line 3 has 1 columns and line 1 has 2.*or add what is missing"),
    "no label": ("a.tsv", HEAD + "a\tx\nb\t \n", r"a\.tsv, line 3 has no label in column 2"),
    "no key": ("a.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b"}\n', r"line 3 has no label"),
    "list": ("a.jsonl", '{"text": "a", "label": [1]}\n', r"line 1: column 2 is a list"),
    "no object": ("a.jsonl", '{"text": "a", "label": 1}\n[1]\n', "line 2 is not a JSON object"),
    "no json": ("a.jsonl", '{"text": "a", "label": 1}\n{"text": \n', "line 2 is not JSON"),
    "unclosed": ("a.csv", 'text,label\na,x\n"b,y\nc,x\n', r"line 3 is not CSV .*close its quotes"),
    "twins": ("a.tsv", "text\ttext\tlabel\na\tb\tx\n", r"several columns that --text-column could mean: .*2 'text'"),
    "two labels": ("a.tsv", "text\tclass\tlabel\na\tb\tx\n", r"several columns that --label-column could mean"),
    "unknown": ("a.tsv", "id\tbody\tlabel\n1\tb\tx\n", r"choose --text-column from 1 'id', 2 'body', 3 'label'"),
    "no header": ("a.csv", "1,good,x\n2,bad,y\n", r"choose --text-column from 1 \(such as '1'\), 2 \(such as 'good'\)"),
    "empty": ("a.tsv", "\n\n", "has no rows"),
    "header": ("a.tsv", HEAD, "a header and no rows"),
    "no text": ("a.tsv", HEAD + " \tx\n", "has no texts"),
    "plain": ("a.txt", "good\nbad\n", "texts without labels"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_is_unusable_is_one_sentence(tmp_path: Path, case: str) -> None:
    name, data, message = UNUSABLE[case]
    with pytest.raises(InputError, match=message) as raised:
        read(tmp_path, name, data)
    assert str(tmp_path / name) in str(raised.value)
    assert_one_sentence(str(raised.value).replace(str(tmp_path), ""))


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    twins = "a\ta\tlabel\n1\t2\tx\n3\t4\ty\n"
    with pytest.raises(InputError, match=r"2 columns called 'a': give --text-column a number"):
        read(tmp_path, "a.tsv", twins, text_column="a")
    assert read(tmp_path, "a.tsv", twins, text_column="2").texts == ["2", "4"]
    for asked in ("b", "0", "4", "²"):
        with pytest.raises(InputError, match=f"no column {asked}: choose --text-column from 1 'a', 2 'a', 3 'label'"):
            read(tmp_path, "a.tsv", twins, text_column=asked)
    with pytest.raises(InputError, match="are both column 3"):
        read(tmp_path, "a.tsv", twins, text_column="3")
    with pytest.raises(InputError, match="no table"):
        read_labelled([write(tmp_path / "c", {"a.x": "1", "a.y": "2"})], label_column="2")


def test_encodings(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16", "utf-8", "cp1252"):
        data = (HEAD + "café\tx\n").encode(encoding)
        assert read(tmp_path, "a.tsv", data, encoding=encoding).texts == ["café"]
    with pytest.raises(InputError, match="unknown --encoding 'klingon'"):
        read(tmp_path, "a.tsv", HEAD, encoding="klingon")
    for name in ("rot13", "", "a\0b"):
        with pytest.raises(InputError, match=f"unknown --encoding {re.escape(repr(name))}"):
            read(tmp_path, "a.tsv", HEAD, encoding=name)
    with pytest.raises(InputError, match=r"not ascii in line 2.*another --encoding"):
        read(tmp_path, "a.tsv", HEAD + "é\tx\n", encoding="ascii")


def test_empty_texts_are_left_out_and_counted_or_kept(tmp_path: Path) -> None:
    table = HEAD + "a\tx\n \ty\nb\ty\n\tx\n"
    found = read(tmp_path, "a.tsv", table)
    assert found.texts == ["a", "b"]
    assert found.notes[1:] == [f"left out 2 empty texts, the first of them in {tmp_path / 'a.tsv'}, line 3"]
    assert found.places.say(1).endswith("line 4")
    assert read(tmp_path, "a.tsv", table, keep_empty=True).texts == ["a", "", "b", ""]


def test_classes_are_those_of_the_training(tmp_path: Path) -> None:
    training = read(tmp_path, "a.tsv", HEAD + "a\t10\nb\t9\nc\t10\n")
    assert Classes.of(training).names == ["9", "10"]
    assert Classes.of(training).numbers(training).tolist() == [1, 0, 1]
    other = read(tmp_path, "b.tsv", HEAD + "a\t9\nb\t8\n")
    with pytest.raises(
        InputError, match=r"b\.tsv, line 3: the label '8' does not occur in the training data \('9', '10'\)"
    ):
        Classes.of(training).numbers(other)
    with pytest.raises(InputError, match="all 2 training texts of .* have the label 'x': give at least two"):
        Classes.of(read(tmp_path, "c.tsv", HEAD + "a\tx\nb\tx\n"))


# Splits


@given(
    st.lists(st.sampled_from("aabbbbbc"), min_size=4, max_size=60), st.sampled_from([0.1, 0.25, 0.5]), st.integers(0, 3)
)
def test_a_split_by_ratio_is_stratified_and_repeatable(labels: list[str], fraction: float, seed: int) -> None:
    if max(Counter(labels).values()) < 2:
        return
    found = divide(len(labels), strata=labels, fraction=fraction, seed=seed)
    assert sorted([*found.train, *found.val]) == list(range(len(labels)))
    for label, count in Counter(labels).items():
        kept = sum(labels[n] == label for n in found.val)
        assert abs(kept - fraction * count) <= 1
        assert kept < count
        assert kept >= (count > 1)
    again = divide(len(labels), strata=labels, fraction=fraction, seed=seed)
    assert again.val.tolist() == found.val.tolist()


def test_seeds_draw_differently_and_a_split_column_wins() -> None:
    one, two = (divide(1000, seed=seed) for seed in (0, 1))
    assert len(one.val) == len(two.val) == 100
    assert set(one.val) != set(two.val)
    told = divide(4, splits=["val", "train", "test", "train"], fraction=0.9)
    assert [told.train.tolist(), told.val.tolist(), told.test.tolist()] == [[1, 3], [0], [2]]
    partly = divide(100, splits=["train"] * 90 + ["test"] * 10)
    assert len(partly.val) == 9
    assert set(partly.test) == set(range(90, 100))
    with pytest.raises(InputError, match="no row for training"):
        divide(2, splits=["val", "test"])
    with pytest.raises(InputError, match="too few"):
        divide(1)


# Pairs


def test_two_aligned_files_and_one_table_say_the_same(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "a.de": "Hallo \nzwei Hunde\n\nnur hier\n",
            "a.en": "hello\ntwo dogs\r\n\n\n",
            "a.tsv": "Hallo\thello\nzwei Hunde\ttwo dogs\n\n",
            "named.csv": "n,target,source\n1,hello,Hallo\n2,two dogs,zwei Hunde\n",
            "a.jsonl": '{"en": "hello", "de": "Hallo"}\n{"en": "two dogs", "de": "zwei Hunde"}\n',
            "tatoeba.txt": "hello\tHallo\tCC-BY\ntwo dogs\tzwei Hunde\tCC-BY\n",
        },
    )
    expected = (["Hallo", "zwei Hunde"], ["hello", "two dogs"])
    aligned = read_pairs([tmp_path / "a.de", tmp_path / "a.en"])
    assert (aligned.sources, aligned.targets) == expected
    assert aligned.notes == [f"left out 2 pairs with an empty side, the first of them in {tmp_path / 'a.de'}, line 3"]
    kept = read_pairs([tmp_path / "a.de", tmp_path / "a.en"], keep_empty=True)
    assert (kept.sources[2:], kept.targets[2:]) == (["", "nur hier"], ["", ""])
    for name, columns in {
        "a.tsv": {},
        "named.csv": {},
        "a.jsonl": {"source_column": "de"},
        "tatoeba.txt": {"source_column": "2", "target_column": "1"},
    }.items():
        found = read_pairs([tmp_path / name], **columns)
        assert (found.sources, found.targets) == expected, name


def test_pairs_that_cannot_be(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1\n2\n3\n", "b": "1\n2\n", "c.tsv": "1\t2\t3\n", "d": "\n\n", "e": "x\n\n"})
    for names, message in {
        ("a", "b"): r"/a has 3 lines and .*/b has 2: line n of one",
        ("a", "b", "a"): "3 files are given",
        ("a",): "one file without a tab",
        ("c.tsv",): r"which column is the source: choose --source-column from 1 \(such as '1'\)",
        ("d", "e"): "no pair with both sides",
        ("nothing", "a"): "no such file or folder: .*nothing",
        (".", "a"): "is a folder",
    }.items():
        with pytest.raises(InputError, match=message):
            read_pairs([tmp_path / name for name in names])


# Real files


def test_mr_polarity(shared_data: Path) -> None:
    folder = shared_data / "mr_polarity"
    with pytest.raises(InputError, match=r"rt-polarity\.neg is not UTF-8 in line 32, .*\(0xe9\): .*--encoding cp1252"):
        read_labelled([folder])
    found = read_labelled([folder], encoding="latin-1")
    assert Counter(found.labels) == {"pos": 5331, "neg": 5331}
    assert found.texts[0] == "simplistic , silly and tedious ."
    named = read_labelled([folder / "rt-polarity.pos", folder / "rt-polarity.neg"], encoding="latin-1")
    assert sorted(rows(named)) == sorted(rows(found))
    division = divide(len(found), strata=found.labels, seed=0)
    assert Counter(found.take(division.val).labels) == {"pos": 533, "neg": 533}
    assert division.how == "validation: 1,066 of 10,662, 10% of each class, drawn with seed 0"


def test_sst2_and_nsmc(shared_data: Path) -> None:
    sst2 = read_labelled([shared_data / "sst2" / "train.tsv"])
    assert Counter(sst2.labels) == {"1": 3610, "0": 3310}
    assert "column 1 is taken for the text, column 2 for the label" in sst2.notes[0]
    by_number = read_labelled([shared_data / "sst2" / "dev.tsv"], text_column="1", label_column="2")
    assert len(by_number) == 872
    nsmc = read_labelled([shared_data / "nsmc"])
    assert Counter(nsmc.splits or []) == {"train": 60_000, "val": 6_000, "test": 10_000}
    lines = (shared_data / "nsmc" / "ratings_dev.tsv").read_text("utf-8").splitlines()
    assert len(lines) == 6_001
    first = nsmc.texts.index(lines[1].split("\t")[1])
    assert nsmc.places.say(first).endswith("ratings_dev.tsv, line 2")


def test_multi30k_and_dates(shared_data: Path) -> None:
    folder = shared_data / "multi30k"
    found = read_pairs([folder / "train.de", folder / "train.en"])
    assert len(found) == 29_000
    assert found.notes == []
    assert found.sources[-1] in (folder / "train.de").read_text("utf-8").split("\n")[28_999]
    with pytest.raises(InputError, match="29,000 lines and .* has 1,014"):
        read_pairs([folder / "train.de", folder / "val.en"])
    dates = read_pairs([shared_data / "date_normalisation" / "date.tsv"])
    assert len(dates) == 50_000
    assert (dates.sources[0], dates.targets[0]) == ("september 27, 1994", "1994-09-27")
    some = dates.take(np.array([4, 0]))
    assert some.targets == ["1984-09-25", "1994-09-27"]
    assert some.places.say(0).endswith("line 5")
