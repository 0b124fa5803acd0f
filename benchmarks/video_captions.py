"""Captions of clips: what is said of them, beside what is in them.

    python benchmarks/video_captions.py sprites ../shared/data/sprites --seconds 600
    python benchmarks/video_captions.py digits FOLDER --seconds 600        (FOLDER: of unrolled moving-digits)

sprites: pixel-art figures, three captions a clip, each of which names other attributes: hair, top, trousers, and what
the figure does, in which order and direction. What is true of a clip is what its three captions and its segments say
together. A generated caption is right if all that it states is true; one that is no sentence of the captions' grammar
is wrong. The 100 clips whose split is val are the test part; of the 900 others whole outfits (hair, top and trousers,
as the captions name them) make a tenth to choose the best model on, so no outfit is in two parts. digits: a caption is
right if it is one of the clip's two; the three parts are those of the folder. Beside them: the captions of the training
clip whose frames are most similar (pixels, resampled to 16 frames). Prints a JSON line.

--measure val: for choosing hyperparameters, measure on the part that chooses the model, and leave the test part alone.
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unrolled.data import video
from unrolled.data.captioned import Captioned, read_captions
from unrolled.data.clips import read_segments
from unrolled.data.moving_digits import NAMES
from unrolled.data.splits import divide
from unrolled.metrics import captions
from unrolled.tasks.models import load

TOP = r"an? (?P<top>.+? (?:shirt|breastplate|vest))"
GRAMMAR = [
    re.compile(form)
    for form in (
        rf"a person with (?P<hair>\w+) hair and {TOP} (?P<actions>.+)",
        rf"someone in {TOP} and (?P<trousers>\w+) trousers (?P<actions>.+)",
        r"a figure with (?P<hair>\w+) hair in (?P<trousers>\w+) trousers (?P<actions>.+)",
    )
]
ACTION = re.compile(r"(walks|slashes|thrusts a spear|casts a spell|shoots an arrow) (.+)")
DIRECTIONS = ("to the left", "to the right", "towards us", "away")
LABELS = {
    "walks": "walk",
    "slashes": "slash",
    "thrusts a spear": "thrust",
    "casts a spell": "spell",
    "shoots an arrow": "shoot",
}
FRAMES = 16
"""Of a clip, for the nearest neighbour."""


def stated(caption: str) -> dict[str, Any] | None:
    """The attributes that a caption states: hair, top, trousers, actions with their directions in order; None where it
    is no sentence of the grammar.

    >>> stated("a figure with red hair in grey trousers walks away and then slashes to the left")["actions"]
    (('walks', 'away'), ('slashes', 'to the left'))
    """
    match = next((found for form in GRAMMAR if (found := form.fullmatch(caption))), None)
    if match is None:
        return None
    said: dict[str, Any] = match.groupdict()
    actions = [ACTION.fullmatch(part) for part in said["actions"].split(" and then ")]
    if not all(action and action[2] in DIRECTIONS for action in actions):
        return None
    return {**said, "actions": tuple((action[1], action[2]) for action in actions if action)}


def truth(references: Sequence[str], segments: Sequence[tuple[int, int, str]]) -> dict[str, Any]:
    """What the references and the segments of a clip say together; they may not contradict each other."""
    found: dict[str, Any] = {}
    for reference in references:
        said = stated(reference)
        assert said is not None, reference
        for name, value in said.items():
            assert found.setdefault(name, value) == value, (reference, found)
    labels = [label for *_, label in segments]
    merged = [label for n, label in enumerate(labels) if n == 0 or labels[n - 1] != label]
    acts = [LABELS[verb] for verb, _ in found["actions"]]
    assert merged == [act for n, act in enumerate(acts) if n == 0 or acts[n - 1] != act], (references, segments)
    return found


def attributes(written: Sequence[str], truths: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares of clips: with every stated attribute right, no sentence, and each attribute right where it is stated."""
    rows = []
    for text, true in zip(written, truths, strict=True):
        said = stated(text)
        if said is not None:
            rows.append(
                {
                    **{name: said[name] == true[name] for name in ("hair", "top", "trousers") if name in said},
                    "actions": [verb for verb, _ in said["actions"]] == [verb for verb, _ in true["actions"]],
                    "directions": [d for _, d in said["actions"]] == [d for _, d in true["actions"]],
                }
            )
    names = ("hair", "top", "trousers", "actions", "directions")
    return {
        "all_right": sum(all(row.values()) for row in rows) / len(written),
        "no_sentence": 1 - len(rows) / len(written),
        **{name: float(np.mean([row[name] for row in rows if name in row] or [np.nan])) for name in names},
    }


def digits(written: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Shares of clips whose caption is exact, names the right digits, and says the right motions apart from them."""

    def parts(caption: str) -> tuple[list[str], list[str]]:
        words = ["a" if word == "an" else word for word in caption.split()]
        return [word for word in words if word in NAMES], [word for word in words if word not in NAMES]

    said, true = [parts(text) for text in written], [[parts(text) for text in several] for several in references]
    return {
        "exact": float(np.mean([text in several for text, several in zip(written, references, strict=True)])),
        "digits": float(np.mean([s[0] in [t[0] for t in of] for s, of in zip(said, true, strict=True)])),
        "motions": float(np.mean([s[1] in [t[1] for t in of] for s, of in zip(said, true, strict=True)])),
    }


def measure(kind: str, written: Sequence[str], data: Captioned, folder: Path) -> dict[str, Any]:
    """Caption metrics, and what is right."""
    scores = captions.scores(written, data.captions)
    found = {name: round(scores[name], 4) for name in ("cider", "bleu_4", "rouge_l")}
    if kind == "digits":
        return {**found, **{name: round(value, 4) for name, value in digits(written, data.captions).items()}}
    segmented = read_segments([folder])
    of = {path.resolve(): segments for path, segments in zip(segmented.paths, segmented.segments, strict=True)}
    truths = [truth(several, of[path.resolve()]) for path, several in zip(data.paths, data.captions, strict=True)]
    return {**found, **{name: round(value, 4) for name, value in attributes(written, truths).items()}}


def nearest(train: Captioned, test: Captioned) -> list[str]:
    """The first caption of the training clip with the most similar frames, for each clip to test."""

    def pixels(part: Captioned) -> np.ndarray:
        rows = []
        for path in part.paths:
            frames = np.stack(list(video.frames(path, size=(32, 32))))
            at = np.linspace(0, len(frames) - 1, FRAMES).round().astype(int)
            rows.append(frames[at].astype(np.float32).ravel())
        return np.stack(rows)

    known, asked = pixels(train), pixels(test)
    distances = (asked**2).sum(1)[:, None] - 2 * asked @ known.T + (known**2).sum(1)
    return [train.captions[row][0] for row in distances.argmin(1)]


def divided(kind: str, folder: Path) -> dict[str, Captioned]:
    """The clips of each part; see the module's first lines."""
    read = read_captions([folder])
    parts = divide(len(read), splits=read.splits)
    if kind == "digits":
        return {name: read.take(getattr(parts, name)) for name in ("train", "val", "test")}
    rest = read.take(parts.train)
    within = divide(len(rest), groups=[outfit(several) for several in rest.captions], seed=0)
    return {"train": rest.take(within.train), "val": rest.take(within.val), "test": read.take(parts.val)}


def outfit(references: Sequence[str]) -> str:
    """Hair, top and trousers of a clip with these captions."""
    found: dict[str, Any] = {}
    for reference in references:
        found |= stated(reference) or {}
    return ", ".join(found[name] for name in ("hair", "top", "trousers"))


def table(path: Path, parts: dict[str, Captioned]) -> None:
    """The captions of the parts, as a training takes them."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "caption", "split"))
        for split, part in parts.items():
            for clip, several in zip(part.paths, part.captions, strict=True):
                writer.writerows((clip.resolve(), text, split) for text in several)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("sprites", "digits"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--steps", type=int, help="updates, instead of a time: comparable between machines")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--measure", choices=("val", "test"), default="test")
    parser.add_argument("--out", type=Path, help="keep the run here")
    parser.add_argument("--show", type=int, default=0, help="print so many captions that are wrong")
    parser.epilog = "What follows a -- are more flags of train caption-video."
    given, more = sys.argv[1:], []
    if "--" in given:  # argparse would not give them to the right place
        given, more = given[: given.index("--")], given[given.index("--") + 1 :]
    options = parser.parse_args(given)
    parts = divided(options.kind, options.folder)
    train, test = parts["train"], parts[options.measure]
    with tempfile.TemporaryDirectory() as scratch:
        run = options.out or Path(scratch) / "run"
        data = Path(scratch) / "captions.csv"
        table(data, parts)
        length = ["--seconds", str(options.seconds)] if options.steps is None else ["--steps", str(options.steps)]
        command = ["train", "caption-video", str(data), *length, "--out", str(run)]
        command += ["--seed", str(options.seed), "--json", *more]
        done = subprocess.run(
            [sys.executable, "-m", "unrolled", *command], stdout=subprocess.PIPE, check=True, text=True
        )
        summary = json.loads(done.stdout.splitlines()[-1])
        model = load(run)
    written = model.caption(test.paths, beam=options.beam)
    wrong = [(text, several) for text, several in zip(written, test.captions, strict=True) if text not in several]
    for text, several in wrong[: options.show]:
        print(f"{text}   |   {several[0]}   |   {several[1]}", file=sys.stderr)
    kept = ("seconds", "steps", "best_step", "parameters", "train_loss", "val_loss", "cider")
    print(
        json.dumps(
            {
                "set": options.kind,
                "measured_on": options.measure,
                "seed": options.seed,
                "flags": more,
                "clips": {name: len(part) for name, part in parts.items()},
                "ours": measure(options.kind, written, test, options.folder),
                "nearest_neighbour": measure(options.kind, nearest(train, test), test, options.folder),
                "training": {name: summary[name] for name in kept},
            }
        )
    )


if __name__ == "__main__":
    main()
