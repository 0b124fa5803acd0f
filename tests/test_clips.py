"""Tables of clips and segments: every usual layout is read, and what is unusable is said with file and line.

The clips themselves are not opened here, so the files are empty.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import assert_one_sentence
from tests.media_helpers import make, refused
from unrolled.data.clips import Clips, Segmented, read_clips, read_segments
from unrolled.data.labelled import Classes
from unrolled.data.splits import divide
from unrolled.errors import InputError


def rows(found: Clips, folder: Path) -> list[tuple[str, str]]:
    return [(str(p.relative_to(folder)), label) for p, label in zip(found.paths, found.labels, strict=True)]


TWO = [("a.mp4", "wave"), ("b.mp4", "nod")]


@pytest.mark.parametrize(
    ("name", "text"),
    {
        "clips.csv": "path,label\na.mp4,wave\nb.mp4,nod\n",
        "clips.tsv": "label\tfile\nwave\ta.mp4\nnod\tb.mp4\n",
        "excel.csv": "\ufefffilename;class\r\na.mp4;wave\r\nb.mp4;nod\r\n",
        "metadata.jsonl": '{"file_name": "a.mp4", "label": "wave"}\n{"file_name": "b.mp4", "label": "nod"}\n',
    }.items(),
)
def test_every_usual_table_and_the_folder_it_is_in(tmp_path: Path, name: str, text: str) -> None:
    make(tmp_path, "a.mp4", "b.mp4", **{name.replace(".", "__"): text})
    for path in (tmp_path / name, tmp_path):
        found = read_clips([path])
        assert rows(found, tmp_path) == TWO and found.groups is None and found.splits is None
        assert all("is taken for a header" in note for note in found.notes)
        assert found.places.say(1).startswith(f"{tmp_path / name}, line ")


def test_groups_and_splits_and_files_below_clips(tmp_path: Path) -> None:
    table = "path,label,group,split\na.mp4,wave,ann,train\nb.mp4,nod,bob,dev\nc,nod,bob,test\n"
    make(tmp_path, "clips/a.mp4", "b.mp4", "clips/c/1.png", clips__csv=table)
    found = read_clips([tmp_path])
    assert rows(found, tmp_path) == [("clips/a.mp4", "wave"), ("b.mp4", "nod"), ("clips/c", "nod")]
    assert found.groups == ["ann", "bob", "bob"] and found.splits == ["train", "val", "test"]
    part = found.take(np.array([2, 0]))
    assert part.labels == ["nod", "wave"] and part.groups == ["bob", "ann"] and part.splits == ["test", "train"]
    assert part.places.say(0) == f"{tmp_path / 'clips.csv'}, line 4"


def test_several_tables_named_after_their_parts(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "b.mp4", train__csv="path,label\na.mp4,wave\n", my_val__csv="path,label\nb.mp4,nod\n")
    found = read_clips([tmp_path])
    assert sorted(zip(found.labels, found.splits or [], strict=True)) == [("nod", "val"), ("wave", "train")]


def test_a_folder_a_class(tmp_path: Path) -> None:
    make(tmp_path, "wave/c10.mp4", "wave/c9.avi", "nod/x/1.png", "nod/notes.txt", "nod/.hidden.mp4", "README.md")
    found = read_clips([tmp_path])
    assert rows(found, tmp_path) == [("nod/x", "nod"), ("wave/c9.avi", "wave"), ("wave/c10.mp4", "wave")]
    left_out = [f"left out of {tmp_path}: README.md", f"left out of {tmp_path / 'nod'}: notes.txt"]
    assert found.notes[:2] == left_out and "hidden or of the system: 1" in found.notes[2] and found.splits is None
    assert found.places.say(1) == str(tmp_path / "wave/c9.avi")


def test_parts_with_a_folder_a_class(tmp_path: Path) -> None:
    make(tmp_path, "train/wave/a.mp4", "train/nod/b.mp4", "valid/nod/c.mp4")
    found = read_clips([tmp_path])
    assert list(zip(found.labels, found.splits or [], strict=True)) == [
        ("nod", "train"),
        ("wave", "train"),
        ("nod", "val"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.mp4,wave\nnone.mp4,nod\ngone.mp4,nod\n", "line 3: no such file: none.mp4 (and 1 other file"),
        ("path,label\na.mp4,wave\na.mp4,nod\n", "line 3: .*a.mp4 is in line 2 already"),
        ("path,label\na.mp4,wave\nb.mp4,\n", "line 3 has no label"),
        ("path,label\na.mp4,wave\n,nod\n", "line 3 names no file"),
        ("path,label,label\na.mp4,wave,nod\n", "has 2 columns called 'label'"),
        ("path,label,split\na.mp4,wave,training\nb.mp4,nod,holdout\n", "line 3: unknown split 'holdout'"),
        ("path,label,group\na.mp4,wave,ann\nb.mp4,nod,\n", "line 3 has no group"),
        ("path,what\na.mp4,wave\n", "has no column called label"),
        ("a.mp4,wave\nb.mp4,nod\n", "it has no header, its first row is 1"),
        ("path,label\na.mp4,wave,nod\n", "line 2 has 3 columns and line 1 has 2"),
        ("", "has no rows"),
    ],
)
def test_what_is_wrong_with_a_table_of_clips(tmp_path: Path, text: str, message: str) -> None:
    make(tmp_path, "a.mp4", "b.mp4", clips__csv=text)
    said = refused(read_clips, tmp_path)
    assert str(tmp_path / "clips.csv") in said
    assert re.search(message.replace("(", r"\("), said), said


def test_missing_files_are_left_out_on_request(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", clips__csv="path,label\na.mp4,wave\nnone.mp4,nod\n")
    found = read_clips([tmp_path], bad_files="skip")
    assert rows(found, tmp_path) == TWO[:1] and found.notes[1:] == ["missing files left out: 1 (none.mp4)"]
    (tmp_path / "a.mp4").unlink()
    assert "no such file: a.mp4" in refused(read_clips, tmp_path, bad_files="skip")  # nothing would be left


def test_what_is_wrong_with_folders_of_clips(tmp_path: Path) -> None:
    assert "neither a table of clips nor folders" in refused(read_clips, tmp_path)
    (tmp_path / "wave").mkdir()
    assert "has no clips" in refused(read_clips, tmp_path)
    make(tmp_path, a__csv="path,label\n", clip__mp4="")
    assert "files and folders" in refused(read_clips, tmp_path / "a.csv", tmp_path)
    assert "is no table" in refused(read_clips, tmp_path / "clip.mp4")
    assert "no such file" in refused(read_clips, tmp_path / "nowhere")
    (tmp_path / "a.csv").rename(tmp_path / "clips.csv")
    make(tmp_path, clips__tsv="path\tlabel\n")
    assert "clips.csv and clips.tsv: name the one" in refused(read_clips, tmp_path)


# segments

SEGMENTS = "path,start_frame,end_frame,label,split\na.mp4,2,4,up,train\na.mp4,0,2,down,train\nb.mp4,1,3,up,val\n"


def test_segments_and_their_frames(tmp_path: Path) -> None:
    found = read_segments([make(tmp_path, "a.mp4", "b.mp4", segments__csv=SEGMENTS)])
    assert [p.name for p in found.paths] == ["a.mp4", "b.mp4"] and found.splits == ["train", "val"]
    assert found.segments == [[(0, 2, "down"), (2, 4, "up")], [(1, 3, "up")]]
    assert found.labels_of(0, 4) == ["down", "down", "up", "up"]
    assert found.labels_of(1, 4) == ["none", "up", "up", "none"]
    classes = found.classes([4, 4])
    assert classes.names == ["down", "none", "up"]
    assert found.numbers_of(1, 4, classes).tolist() == [1, 2, 2, 1]
    assert found.take(np.array([1])).numbers_of(0, 3, classes).tolist() == [1, 2, 2]


def test_a_row_a_frame_says_the_same(tmp_path: Path) -> None:
    table = "path,frame,label\na.mp4,0,down\na.mp4,1,down\na.mp4,3,up\na.mp4,2,up\nb.mp4,1,up\nb.mp4,2,up\n"
    found = read_segments([make(tmp_path, "a.mp4", "b.mp4", frames__csv=table)])
    assert found.segments == [[(0, 2, "down"), (2, 4, "up")], [(1, 3, "up")]]


def test_neighbours_of_the_same_label_stay_two_segments(tmp_path: Path) -> None:
    table = "path,start,end,label\na.mp4,0,2,up\na.mp4,2,4,up\n"
    assert read_segments([make(tmp_path, "a.mp4", labels__csv=table)]).segments == [[(0, 2, "up"), (2, 4, "up")]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.mp4,3,5,up,train", "line 5: frame 3 of .*a.mp4 already has the label 'up', by line 2"),
        ("a.mp4,5,5,up,train", "line 5: the segment ends at frame 5"),
        ("a.mp4,5,4,up,train", "line 5: the segment ends at frame 4"),
        ("a.mp4,-1,0,up,train", "line 5: '-1' is not the number of a frame"),
        ("a.mp4,4.5,6,up,train", "line 5: '4.5' is not the number of a frame"),
        ("a.mp4,,6,up,train", "line 5: '' is not the number of a frame"),
        ("a.mp4,4,6,,train", "line 5 has no label"),
        ("a.mp4,4,6,up,val", "line 5: .*a.mp4 has the split 'val' here and 'train' in .*line 2"),
        ("c.mp4,4,6,up,val", "line 5: no such file: c.mp4"),
    ],
)
def test_what_is_wrong_with_segments(tmp_path: Path, row: str, message: str) -> None:
    make(tmp_path, "a.mp4", "b.mp4", segments__csv=SEGMENTS + row + "\n")
    said = refused(read_segments, tmp_path)
    assert re.search(message, said), said


def test_frames_that_are_not_there_and_labels_that_are_unknown(tmp_path: Path) -> None:
    found = read_segments([make(tmp_path, "a.mp4", "b.mp4", segments__csv=SEGMENTS)])
    with pytest.raises(
        InputError, match=r"line 2: .*a.mp4 has 3 frames and a segment 'up' from frame 2 to 4"
    ) as caught:
        found.labels_of(0, 3)
    assert_one_sentence(str(caught.value))
    with pytest.raises(InputError, match=r"line 4: .*b.mp4 has frames with the label 'none', which does not occur"):
        found.numbers_of(1, 4, Classes(["up", "down"]))
    with pytest.raises(InputError, match="all frames of .* have the label 'up'"):
        Segmented([Path("a")], [[(0, 2, "up")]], found.places.take(np.array([0]))).classes([2])
    assert "no segments.csv" in refused(read_segments, make(tmp_path / "empty", "x.mp4"))


# the division


def test_groups_never_straddle_a_drawn_division() -> None:
    draw = np.random.default_rng(0)
    for seed in range(50):
        sizes = draw.integers(1, 9, 12)
        groups = np.repeat([f"g{n}" for n in range(12)], sizes)
        order = draw.permutation(len(groups))
        found = divide(len(groups), groups=list(groups[order]), fraction=0.2, seed=seed)
        val, train = set(groups[order][found.val]), set(groups[order][found.train])
        assert not val & train and len(val | train) == 12
        assert 0.2 * len(groups) <= len(found.val) <= 0.5 * len(groups)
        assert sorted([*found.train, *found.val]) == list(range(len(groups)))
        assert f"{len(val)} of 12 groups" in found.how


def test_every_label_stays_in_training() -> None:
    groups, labels = ["a", "a", "b", "b", "c", "c", "c"], ["x", "y", "y", "y", "x", "z", "y"]
    for seed in range(10):  # z is only in c
        found = divide(7, groups=groups, strata=labels, seed=seed)
        assert {groups[n] for n in found.val} in ({"a"}, {"b"})
    with pytest.raises(InputError, match="the 2 groups cannot be divided"):
        divide(2, groups=["a", "b"], strata=["x", "y"])


def test_named_groups() -> None:
    groups = ["a", "b", "a", "c"]
    found = divide(4, groups=groups, val_groups=["a"])
    assert (
        found.val.tolist() == [0, 2] and found.train.tolist() == [1, 3] and "1 of 3 groups (a), as named" in found.how
    )
    for names, message in (
        (["d"], "no group 'd' to validate on: choose from a, b, c"),
        (["a", "b", "c"], "no group is left"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            divide(4, groups=groups, val_groups=names)
        assert_one_sentence(str(caught.value))
    with pytest.raises(InputError, match="have no groups"):
        divide(4, val_groups=["a"])
    with pytest.raises(InputError, match="the data say themselves"):
        divide(4, groups=groups, val_groups=["a"], splits=["train", "train", "train", "val"])
    tested = divide(4, groups=groups, val_groups=["a"], splits=["train", "train", "train", "test"])
    assert tested.test.tolist() == [3] and tested.train.tolist() == [1]
    straddling = divide(4, groups=groups, splits=["train", "train", "val", "val"])
    assert "groups are in several parts (1 times)" in straddling.how


def test_real_tables(shared_data: Path) -> None:
    clips = read_clips([shared_data / "lip_words"])
    assert len(clips) == 1_500 and len(set(clips.groups or [])) == 15 and len(set(clips.labels)) == 10
    signs = read_segments([shared_data / "fingerspelling"])
    assert len(signs) == 180 and (signs.splits or []).count("val") == 30
    assert "none" not in signs.classes([segments[-1][1] for segments in signs.segments]).names


# UCF101 and its like


def ucf(folder: Path, groups: int = 5) -> Path:
    names = [
        f"{c}/v_{c}_g{g:02}_c{n:02}.avi" for c in ("Bowling", "YoYo") for g in range(1, groups + 1) for n in (1, 2)
    ]
    return make(folder, *names)


def test_groups_are_known_from_ucf101s_names(tmp_path: Path) -> None:
    """g01 of all classes is one group, as in UCF101's own splits, which are made of groups."""
    found = read_clips([ucf(tmp_path)])
    assert found.groups == [path.stem.split("_")[2] for path in found.paths] and len(set(found.groups)) == 5
    assert found.notes == ["groups from the names of the files: 5 (v_Bowling_g01_c01.avi: g01)"]
    parts = divide(len(found), groups=found.groups, strata=found.labels, fraction=0.2)
    assert not {found.groups[n] for n in parts.val} & {found.groups[n] for n in parts.train}
    table = "path,label,group\n" + "".join(f"{p.relative_to(tmp_path)},x,mine\n" for p in found.paths)
    make(tmp_path, clips__csv=table)
    named = read_clips([tmp_path])
    assert set(named.groups or []) == {"mine"}  # what a table says counts more
    assert not any("names of the files" in note for note in named.notes)
    table = "path,start_frame,end_frame,label\n" + "".join(f"{p.relative_to(tmp_path)},0,2,x\n" for p in found.paths)
    make(tmp_path, segments__csv=table)
    assert read_segments([tmp_path]).groups == found.groups
    (tmp_path / "YoYo" / "other.avi").touch()
    (tmp_path / "clips.csv").unlink()
    (tmp_path / "segments.csv").unlink()
    assert read_clips([tmp_path]).groups is None  # one name without a group
    kth = make(tmp_path / "kth", *(f"{c}/person0{n}_{c}_d1_uncomp.avi" for c in ("boxing", "jogging") for n in (1, 2)))
    assert read_clips([kth]).groups == ["person01", "person02"] * 2


def test_ucf101s_lists_beside_its_videos(tmp_path: Path) -> None:
    ucf(tmp_path / "UCF-101", 3)
    lists = make(tmp_path / "ucfTrainTestlist", "testlist02.txt", classInd__txt="1 Bowling\n2 YoYo\n")
    clips = [f"{c}/v_{c}_g0{g}_c01.avi" for g in (1, 2, 3) for c in ("Bowling", "YoYo")]
    make(lists, trainlist01__txt="".join(f"{clip} {1 + n % 2}\r\n" for n, clip in enumerate(clips[2:])))
    make(lists, testlist01__txt="".join(f"{clip}\n" for clip in clips[:2]))
    found = read_clips([lists / "trainlist01.txt", lists / "testlist01.txt"])
    assert found.splits == ["train"] * 4 + ["test"] * 2 and found.labels == ["Bowling", "YoYo"] * 3
    assert [str(p.relative_to(tmp_path / "UCF-101")) for p in found.paths] == [*clips[2:], *clips[:2]]
    assert read_clips([lists / "testlist01.txt"]).splits is None
    assert "line 1 is not a clip as UCF101's lists name it" in refused(read_clips, lists / "classInd.txt")
    (lists / "testlist01.txt").write_text("YoYo/v_YoYo_g09_c01.avi\n")
    assert "line 1: no such file: YoYo/v_YoYo_g09_c01.avi" in refused(read_clips, lists / "testlist01.txt")
