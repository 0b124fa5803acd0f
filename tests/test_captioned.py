"""Tables of captions: every usual layout is read, and what is unusable is said with file and line.

The pictures themselves are not opened here, so the files are empty.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.media_helpers import make, refused
from unrolled.data.captioned import read_captions

CAPTIONS = [["a dog , running", "a brown dog"], ["two cats"]]


@pytest.mark.parametrize(
    ("name", "text"),
    {
        "captions.csv": 'image,caption\nd.jpg,"a dog , running"\nc.jpg,two cats\nd.jpg,a brown dog\n',
        "captions.txt": 'image,caption\nd.jpg,"a dog , running"\nd.jpg,a brown dog\nc.jpg,two cats\n',
        "captions.tsv": "file_name\ttext\nd.jpg\ta dog , running\nd.jpg\t a brown dog \nc.jpg\ttwo cats\n",
        "Some.token.txt": "d.jpg#0\ta dog , running\nd.jpg#1\ta brown dog\n\nc.jpg#0\ttwo cats\n",
        "metadata.jsonl": '{"file_name": "d.jpg", "text": ["a dog , running", "a brown dog"]}\n'
        '{"file_name": "c.jpg", "text": "two cats"}\n',
        "results.jsonl": '{"image": "d.jpg", "captions": ["a dog , running", "a brown dog"]}\n'
        '{"image": "c.jpg", "caption": "two cats"}\n',
    }.items(),
)
def test_every_usual_form_of_captions(tmp_path: Path, name: str, text: str) -> None:
    make(tmp_path, "images/d.jpg", "images/c.jpg", "README.txt", **{name.replace(".", "__"): text})
    for path in (tmp_path, tmp_path / name):
        found = read_captions([path])
        assert [p.name for p in found.paths] == ["d.jpg", "c.jpg"] and found.paths[0].exists()
        assert found.captions == CAPTIONS and found.splits is None
        assert all("is taken for a header" in note for note in found.notes)
        assert found.places.say(0).startswith(f"{tmp_path / name}, line ")
    assert found.take(np.array([1])).captions == CAPTIONS[1:]


COCO = {
    "images": [{"id": 7, "file_name": "d.jpg"}, {"id": 9, "file_name": "c.jpg"}, {"id": 10, "file_name": "none.jpg"}],
    "annotations": [
        {"image_id": n, "caption": c} for n, c in ((7, "a dog , running"), (9, "two cats"), (7, "a brown dog"))
    ],
}
KARPATHY = {
    "images": [
        {"filename": "d.jpg", "split": "restval", "sentences": [{"raw": c} for c in CAPTIONS[0]]},
        {"filename": "c.jpg", "split": "val", "sentences": [{"raw": CAPTIONS[1][0]}]},
    ]
}
LISTED = [{"caption": CAPTIONS[0], "id": "d.jpg"}, {"caption": CAPTIONS[1], "id": "c.jpg"}]


def test_captions_in_one_json(tmp_path: Path) -> None:
    make(tmp_path, "images/d.jpg", "video/c.jpg")
    for found, splits in ((COCO, None), (KARPATHY, ["train", "val"]), (LISTED, None)):
        make(tmp_path, a__json=json.dumps(found))
        read = read_captions([tmp_path / "a.json"])
        assert (
            read.captions == CAPTIONS and [p.name for p in read.paths] == ["d.jpg", "c.jpg"] and read.splits == splits
        )
    wrong = [{"images": [{}]}, {"images": 1, "annotations": []}, [1], "x", [{"id": "d.jpg"}], [{"caption": "x"}]]
    for text in ("{", *map(json.dumps, wrong)):
        assert "a.json" in refused(read_captions, make(tmp_path, a__json=text) / "a.json")


def test_flickr8k_as_it_came_with_its_lists(tmp_path: Path) -> None:
    token = "".join(f"{name}.jpg#{n}\tcaption {n}\n" for name in "abcx" for n in range(2))
    lists = {
        f"Flickr_8k__{part}Images__txt": f"{name}.jpg\n"
        for part, name in zip(("train", "dev", "test"), "abc", strict=True)
    }
    make(tmp_path, *(f"Flicker8k_Dataset/{name}.jpg" for name in "abcx"), Flickr8k__token__txt=token, **lists)
    make(tmp_path, Flickr8k__lemma__token__txt="a.jpg#0\tlemma\n")
    found = read_captions([tmp_path])
    assert [p.stem for p in found.paths] == ["a", "b", "c"] and found.splits == ["train", "val", "test"]
    assert found.captions == [["caption 0", "caption 1"]] * 3
    assert found.notes == ["pictures of Flickr8k.token.txt in none of the lists beside it, left out: 1"]


def test_splits_of_captions_by_column_and_by_folder(tmp_path: Path) -> None:
    make(
        tmp_path,
        "x.mp4",
        "y.mp4",
        captions__csv="path,caption,split\nx.mp4,one,train\ny.mp4,two,val\nx.mp4,three,train\n",
    )
    found = read_captions([tmp_path])
    assert found.captions == [["one", "three"], ["two"]] and found.splits == ["train", "val"]
    parts = tmp_path / "parts"
    for part in ("train", "test"):
        line = json.dumps({"file_name": f"{part}.png", "text": part})
        make(parts / part, f"{part}.png", metadata__jsonl=line)
    found = read_captions([parts])
    assert found.captions == [["test"], ["train"]] and found.splits == ["test", "train"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "captions.csv",
            "image,caption,split\na.png,x,train\na.png,y,val\n",
            "has the split 'val' here and 'train' in",
        ),
        ("captions.csv", "image,caption\na.png,x\nq.png,y\n", "line 3: no such file: q.png"),
        ("captions.csv", "image,caption\na.png,x , y\n", "line 2 has 3 columns"),
        ("captions.csv", "image,caption\na.png,\n", "has no captions"),
        ("metadata.jsonl", '{"file_name": "a.png"}', "line 1 has no caption"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": [1]}', "line 1 has no caption"),
        ("metadata.jsonl", '{"text": "x"}', "line 1 names no file"),
        ("metadata.jsonl", '{"file_name": "a.png", "text": "x", "split": "all"}', "line 1: unknown split 'all'"),
        ("a.token.txt", "a.png#0\tx\na.png\ty\n", "line 2 is not a picture's name with #0"),
    ],
)
def test_what_is_wrong_with_captions(tmp_path: Path, name: str, text: str, message: str) -> None:
    make(tmp_path, "a.png", **{name.replace(".", "__"): text})
    said = refused(read_captions, tmp_path)
    assert message in said and str(tmp_path / name) in said or message == "has no captions"
    assert message in said


def test_empty_captions_are_left_out_and_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png", captions__csv="image,caption\na.png,x\na.png, \nb.png,\n")
    found = read_captions([tmp_path])
    assert found.captions == [["x"]] and "left out 2 empty captions, the first of them in" in found.notes[1]


def test_a_folder_without_captions(tmp_path: Path) -> None:
    assert "has no captions: give it a captions.csv" in refused(
        read_captions, make(tmp_path, "a.png", LICENSE__txt="x")
    )


def test_real_captions(shared_data: Path) -> None:
    pictures = read_captions([shared_data / "flickr8k_small"])
    assert len(pictures) == 875 and {len(c) for c in pictures.captions} == {5}
    videos = refused(read_captions, shared_data / "msvd/training_label.json")  # it is read, its clips are not there
    assert "no such file: " in videos and "(and 1,449 other files that it names)" in videos
    sprites = read_captions([shared_data / "sprites"])
    assert len(sprites) == 1_000 and {len(c) for c in sprites.captions} == {3}
    assert (sprites.splits or []).count("val") == 100


# the layouts of known data sets, as they are when unpacked


def pairs(found: object, folder: Path) -> list[tuple[str, list[str], str | None]]:
    splits = found.splits or [None] * len(found)  # type: ignore[attr-defined]
    rows = zip(found.paths, found.captions, splits, strict=True)  # type: ignore[attr-defined]
    return [(str(path.relative_to(folder)), captions, split) for path, captions, split in rows]


def coco(*images: tuple[int, str, str]) -> str:
    return json.dumps(
        {
            "images": [{"id": n, "file_name": name} for n, name, _ in images],
            "annotations": [{"image_id": n, "id": n, "caption": f"{caption} "} for n, _, caption in images],
        }
    )


@pytest.mark.parametrize("year", ["2014", "2017"])
@pytest.mark.parametrize("above", ["", "images"])
def test_coco_as_it_is_unpacked(tmp_path: Path, year: str, above: str) -> None:
    """Pictures lie in folders of their own, and names come twice: only the part says which."""
    folder = make(tmp_path / "coco", *(str(Path(above, f"{part}{year}", "7.jpg")) for part in ("train", "val")))
    tables = make(folder / "annotations", "instances.json")
    for part in ("train", "val"):
        (tables / f"captions_{part}{year}.json").write_text(coco((7, "7.jpg", f"a {part} picture")))
        (tables / f"instances_{part}{year}.json").write_text('{"images": [], "annotations": []}')
    both = [tables / f"captions_{part}{year}.json" for part in ("train", "val")]
    wanted = [(str(Path(above, f"{part}{year}", "7.jpg")), [f"a {part} picture"], part) for part in ("train", "val")]
    for given in ([folder], [tables], both):
        assert pairs(read_captions(given), folder) == wanted
    (alone,) = pairs(read_captions(both[:1]), folder)
    assert alone == (*wanted[0][:2], None)  # what stands alone is divided, or validated on another file


@pytest.mark.parametrize("laid", ["val2014/c.jpg", "images/val2014/c.jpg", "c.jpg", "images/c.jpg"])
def test_karpathys_splits_name_the_folder_of_a_picture(tmp_path: Path, laid: str) -> None:
    found = {
        "images": [
            {"filepath": "train2014", "filename": "d.jpg", "split": "restval", "sentences": [{"raw": "a dog \n"}]},
            {"filepath": "val2014", "filename": "c.jpg", "split": "test", "sentences": [{"raw": "two cats"}]},
        ],
        "dataset": "coco",
    }
    make(tmp_path, "train2014/d.jpg", laid, "results/c.jpg", dataset_coco__json=json.dumps(found))
    for given in (tmp_path, tmp_path / "dataset_coco.json"):
        assert pairs(read_captions([given]), tmp_path) == [
            ("train2014/d.jpg", ["a dog"], "train"),
            (laid, ["two cats"], "test"),
        ]
    make(tmp_path, dataset_flickr8k__json=json.dumps(KARPATHY), Images__txt="")
    assert "dataset_coco.json and dataset_flickr8k.json: name the one" in refused(read_captions, tmp_path)
    make(tmp_path, "Flicker8k_Dataset/d.jpg", "Flicker8k_Dataset/c.jpg")
    flickr = read_captions([tmp_path / "dataset_flickr8k.json"])
    assert pairs(flickr, tmp_path)[0] == ("Flicker8k_Dataset/d.jpg", CAPTIONS[0], "train")


FLICKR30K = (
    "image_name| comment_number| comment\n"
    'd.jpg| 0| A "big" dog , running ; it says hello .\n'
    "d.jpg| 1| Two men | one dog .\n"
    "c.jpg| 4   A dog runs across the grass .\n"
)


@pytest.mark.parametrize("name", ["results.csv", "captions.txt"])
def test_flickr30ks_results_with_its_line_that_lacks_a_separator(tmp_path: Path, name: str) -> None:
    make(tmp_path, "flickr30k_images/d.jpg", "flickr30k_images/c.jpg", **{name.replace(".", "__"): FLICKR30K})
    for given in (tmp_path, tmp_path / name):
        found = read_captions([given])
        assert found.captions == [
            ['A "big" dog , running ; it says hello .', "Two men | one dog ."],
            ["A dog runs across the grass ."],
        ]
        assert [path.name for path in found.paths] == ["d.jpg", "c.jpg"] and found.places.say(1).endswith("line 4")
        (note,) = found.notes
        assert "lack their second |" in note and note.endswith("1, the first of them line 4")
    (tmp_path / name).write_text(FLICKR30K + "d.jpg\n")
    assert "line 5 is not a picture's name, a number and a caption" in refused(read_captions, tmp_path / name)


def test_flickr30k_with_commas_and_as_token_file(tmp_path: Path) -> None:
    make(tmp_path, "a.jpg", captions__csv='image_name,comment_number,comment\na.jpg,0,"one, two"\n')
    assert read_captions([tmp_path]).captions == [["one, two"]]
    folder = make(tmp_path / "b", "flickr30k-images/a.jpg", results_20130124__token="a.jpg#0\tone , two\n")
    for given in (folder, folder / "results_20130124.token"):
        assert read_captions([given]).captions == [["one , two"]]


def test_msr_vtt_as_it_came(tmp_path: Path) -> None:
    found = {
        "videos": [{"video_id": "video0", "split": "train"}, {"video_id": "video9", "split": "validate"}],
        "sentences": [{"video_id": f"video{n}", "caption": f"clip {n}"} for n in (9, 0, 9)],
    }
    make(tmp_path, "TrainValVideo/video0.mp4", "TrainValVideo/video9.mp4", a__json=json.dumps(found))
    assert pairs(read_captions([tmp_path / "a.json"]), tmp_path) == [
        ("TrainValVideo/video0.mp4", ["clip 0"], "train"),
        ("TrainValVideo/video9.mp4", ["clip 9", "clip 9"], "val"),
    ]
