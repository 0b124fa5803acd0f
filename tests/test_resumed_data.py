"""How a resumed training knows its pictures and clips: by their contents and what is said of them. And under which
versions of what decodes they are found in the cache."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Listener
from PIL import Image
from test_caption_video import write_captioned
from video_helpers import picture, write_clip, write_turns, write_ways
from vision_helpers import captioned, convolutional

from unrolled.data import decoders, frame_cache, frame_store
from unrolled.data.captioned import read_captions
from unrolled.data.clips import read_clips, read_segments
from unrolled.data.examples import fingerprint, train_and_val
from unrolled.errors import InputError
from unrolled.nn.vision import Backbone
from unrolled.tasks import caption_image, fitting, video
from unrolled.tasks.media_options import (
    FrameLabelerOptions,
    ImageCaptionerOptions,
    VideoCaptionerOptions,
    VideoClassifierOptions,
)
from unrolled.training.run import CHECKSUM

SMALL: dict[str, Any] = {"hidden": 8, "features": 8, "channels": "4", "batch": 4, "steps": 4}
TASKS: dict[str, tuple[Any, Callable[[Path], Path], Callable[..., Any]]] = {
    "caption-image": (ImageCaptionerOptions(size=16, **SMALL), lambda f: captioned(f, 2), read_captions),
    "caption-video": (VideoCaptionerOptions(**SMALL), lambda f: write_captioned(f, 8, 2), read_captions),
    "classify-video": (VideoClassifierOptions(**SMALL), lambda f: write_ways(f, 8), read_clips),
    "label-frames": (FrameLabelerOptions(**SMALL), lambda f: write_turns(f, 8), read_segments),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_store, "cache_folder", lambda: tmp_path / "cache")


def stopped(task: str, tmp_path: Path) -> tuple[Path, Path]:
    """A run that was stopped, and its data."""
    options, make, _ = TASKS[task]
    folder = make(tmp_path / "data")
    fitting.fit([folder], options=options, out=tmp_path / "run", observer=Listener(stop_at=2))
    return tmp_path / "run", folder


def as_begun_by_5096622(task: str, run: Path, folder: Path) -> list[str]:
    """Its run.json, with the fingerprints of that release."""
    options, _, read = TASKS[task]
    strata = {"strata": lambda found: found.labels} if task == "classify-video" else {}
    groups = {"groups": lambda found: found.groups}
    parts = train_and_val(read, [folder], None, fraction=options.val_fraction, seed=options.seed, **strata, **groups)
    config = json.loads((run / "run.json").read_text())
    found = []
    for part in parts[:2]:
        if task == "caption-image":
            said = ["\n".join(several) for several in part.captions]
            found.append(fingerprint([path.name for path in part.paths], said))
            continue
        shape = video.Shape(**config["vocabulary"]["shape"])
        frames = [hashlib.sha256(shape.decode(path).tobytes()).hexdigest() for path in part.paths]
        if task == "classify-video":
            said = [str(config["vocabulary"]["labels"].index(label)) for label in part.labels]
        else:
            said = [str(one) for one in (part.captions if task == "caption-video" else part.segments)]
        found.append(fingerprint(frames, said))
    del config["decoders"], config[CHECKSUM]
    (run / "run.json").write_text(json.dumps({**config, "sha256": found}))
    return found


@pytest.mark.parametrize("task", TASKS)
def test_runs_of_this_and_of_the_release_before_resume_until_a_file_changes(task: str, tmp_path: Path) -> None:
    run, folder = stopped(task, tmp_path)
    config = json.loads((run / "run.json").read_text())
    assert all(one.startswith("content:") for one in config["sha256"]) and "Pillow" in config["decoders"]
    old = shutil.copytree(run, tmp_path / "old")
    as_begun_by_5096622(task, old, folder)
    changed = shutil.copytree(run, tmp_path / "changed"), shutil.copytree(old, tmp_path / "changed-old")
    results = [fitting.resume(path).result for path in (run, old)]
    assert results[0].finished and results[0].metrics == results[1].metrics
    file = next(path for path in sorted(folder.rglob("*")) if path.suffix in (".png", ".mkv"))
    if file.suffix == ".png":
        image = np.array(Image.open(file))
        image[20, 20] ^= 1  # a shade of a pixel; name and captions stay
        Image.fromarray(image).save(file)
    else:
        write_clip(file, [picture(3, 200)] * 16)
    for path in changed if task != "caption-image" else changed[:1]:  # that release did not heed pixels
        with pytest.raises(InputError, match="the data of .* have changed since"):
            fitting.resume(path)


def test_what_is_said_of_files_is_in_the_fingerprint(tmp_path: Path) -> None:
    """Two captions are not one of two lines, which are the same file to the release before."""
    kept = frame_cache.Kept(None, np.arange(2), [], [], ["a", "b"], "")  # type: ignore[arg-type]

    class Task:
        sha256: list[str]

    found = set()
    said: list[list[Any]] = [[["x", "y"], ["z"]], [["x\ny"], ["z"]], [["z"], ["x", "y"]], [["y", "x"], ["z"]]]
    for one in [*said, [[(0, 1, "x")], [(1, 2, "x")]], [[(0, 2, "x")], [(1, 2, "x")]]]:
        task = Task()
        video.begun_with(task, [(kept, one)], old=list)
        found.add(task.sha256[0])
    assert len(found) == 6


def test_each_file_is_hashed_once_and_no_frames_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    whole = frame_cache.content_hash
    monkeypatch.setattr(frame_cache, "content_hash", lambda path: (hashed.append(path), whole(path))[1])
    monkeypatch.setattr(video, "old_fingerprint", None)
    stopped("classify-video", tmp_path)
    assert len(hashed) == len(set(hashed)) == 8


def test_frames_are_decoded_again_under_other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of PyAV, its FFmpeg and Pillow for clips, of Pillow for pictures, of transformers and torch for backbones."""
    clip = write_clip(tmp_path / "a.mkv", [picture(3, 200)] * 5)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    backbone, small = Backbone.open(convolutional(tmp_path / "net")), caption_image.PictureEncoder(16, (4,))
    decoded: list[str] = []
    decode, compute = video.Shape.decode, Backbone.compute
    monkeypatch.setattr(video.Shape, "decode", lambda *a: (decoded.append("clip"), decode(*a))[1])
    monkeypatch.setattr(Backbone, "compute", lambda *a, **k: (decoded.append("net"), compute(*a, **k))[1])
    monkeypatch.setattr(small, "compute", lambda p, grid: (decoded.append("small"), list(p[:, None].numpy()))[1])

    def read() -> list[str]:
        decoded.clear()
        video.Shape(8, 8, False).read([clip])
        for eye in (backbone, small):
            caption_image.features_of(eye, [tmp_path / "a.png"], "both")
        return list(decoded)

    assert read() == ["clip", "net", "small"] and read() == []
    for name, again in {
        "av.__version__": ["clip"],
        "PIL.__version__": ["clip", "net", "small"],
        "transformers.__version__": ["net"],
        "torch.__version__": ["net"],
    }.items():
        monkeypatch.setattr(name, "99.1")
        assert read() == again and read() == [], name
    monkeypatch.setattr("av.library_versions", {"libavcodec": (1, 2, 3)})
    assert read() == ["clip"] and "PyAV 99.1 (libavcodec 1.2.3), Pillow 99.1 (" in decoders.of_clips()


def test_a_resumed_training_says_that_other_versions_read_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = stopped("classify-video", tmp_path)
    monkeypatch.setattr("av.__version__", "99.1")
    listener = Listener()
    assert fitting.resume(run, observer=listener).result.finished
    (note,) = (line["note"] for line in listener.lines if "read by" in line.get("note", ""))
    assert "read by PyAV 99.1 (" in note and "when the training began by PyAV 1" in note and "Pillow" not in note


def test_a_run_from_before_groups_were_known_by_names_keeps_its_division(tmp_path: Path) -> None:
    """UCF101's names say groups since then, which divides the clips anew: the old run goes on with the old division."""
    for n, clip in enumerate(sorted(write_ways(tmp_path / "ways", 12).glob("*/*.mkv"))):
        name = f"{clip.parent.name}/v_{clip.parent.name}_g0{n % 3}_c0{n}.mkv"
        (tmp_path / "data" / clip.parent.name).mkdir(parents=True, exist_ok=True)
        clip.rename(tmp_path / "data" / name)
    options = VideoClassifierOptions(**SMALL)
    config = {}
    for rules in (1, 2):
        with fitting._rules(rules):
            fitting.fit([tmp_path / "data"], options=options, out=tmp_path / f"run-{rules}", observer=Listener(2))
        config[rules] = json.loads((tmp_path / f"run-{rules}" / "run.json").read_text())
    assert config[1]["sha256"] != config[2]["sha256"] and config[2]["rules"] == 2
    del config[1]["rules"], config[1][CHECKSUM]
    (tmp_path / "run-1" / "run.json").write_text(json.dumps(config[1]))
    for rules in (1, 2):
        assert fitting.resume(tmp_path / f"run-{rules}").result.finished
