"""Clips and frames labelled, beside classifiers that see the same frames without their order, in the same run.

    python benchmarks/video.py ../shared/data --sets speakers repetitions fingerspelling sprites --seconds 600 --seeds 0

speakers: lip_words, all clips of the speakers F02, F07, F11 and M04 are measured, none of them is trained on;
repetitions: the instances 8 to 10 of every word and speaker. Both beside two bags of frames: the same convolutions on
single frames, their mean over time and no recurrence, trained as long, and a logistic regression of the frames' mean
and standard deviation over time. fingerspelling, sprites: a label a frame, measured on their split val, beside the
nearest neighbour of each frame alone. Only the last model is measured, so no choice is made on what is measured.
Prints a JSON line a training. Needs unrolled[bench].
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from unrolled.data.batches import ExampleBatch
from unrolled.data.frames import Frames
from unrolled.nn.convnet import standardise
from unrolled.nn.dropout import dropout
from unrolled.tasks import classify_video
from unrolled.tasks.classified import outcomes
from unrolled.tasks.classify_video import VideoClassifierTask, numbers
from unrolled.tasks.classify_video import measure as measure_labels
from unrolled.tasks.label_frames import FrameLabelerTask, frame_labels
from unrolled.tasks.media_options import FrameLabelerOptions, VideoClassifierOptions
from unrolled.tasks.prepare_classify_video import prepare_video_classifier
from unrolled.tasks.prepare_label_frames import prepare_frame_labeler
from unrolled.tasks.video import VideoNetwork
from unrolled.training.loop import Trainer
from unrolled.training.schedule import Clock
from unrolled.training.task import Evaluation

UNSEEN = "F02,F07,F11,M04"
FIRST_UNSEEN_INSTANCE = 8
NEVER = 10**9
"""Updates between validations: none before the last."""
SETS = ("speakers", "repetitions", "fingerspelling", "sprites")


class BagOfFrames(VideoNetwork):
    """The mean over time of what the convolutions make of each frame alone, and one linear layer."""

    def __init__(self, task: VideoClassifierTask) -> None:
        super().__init__(task.shape, task.options, seen=1)
        assert task.options.features
        self.output = nn.Linear(task.options.features, len(task.labels))

    def forward(self, batch: ExampleBatch, state: Any) -> tuple[Tensor, Any]:
        return F.cross_entropy(self.scores(batch), batch.targets, label_smoothing=self.options.label_smoothing), ()

    read_at_once = classify_video.Network.read_at_once
    probabilities = classify_video.Network.probabilities

    def scores(self, batch: ExampleBatch) -> Tensor:
        packed = self.packed(batch)
        features = packed.unpack(self.encoder(standardise(packed).frames))
        mean = features.sum(0) / batch.lengths[:, None]
        return self.output(dropout(mean, self.options.dropout, self.training))


class BagTask(VideoClassifierTask):
    def model(self) -> Any:
        return BagOfFrames(self)

    def evaluate(self, model: Any, split: str, limit: int | None = None, *, write: int | None = None) -> Evaluation:
        rows, found = outcomes(model, self.splits[split], self.device)
        return Evaluation(measure_labels(numbers(self.splits[split])[rows], found, len(self.labels)), len(rows))

    def public(self, model: Any) -> Any:
        return model.eval()


def bag_of_frames(task: VideoClassifierTask) -> float:
    """Accuracy after the same time."""
    bag = BagTask(task.options, task.shape, task.labels, task.splits, task.device)
    lr = task.options.lr
    assert lr is not None
    trained = Trainer(bag, task.options, learning_rate=lr, device=task.device, clock=Clock()).train()
    return trained.metrics["accuracy"]


def regression(task: VideoClassifierTask) -> float:
    """Accuracy of a logistic regression of each pixel's mean and standard deviation over time."""

    def vectors(split: str) -> np.ndarray:
        clips = task.splits[split].sources
        assert isinstance(clips, Frames)
        pixels = (clips[row].reshape(len(clips[row]), -1) / 255 for row in range(len(clips)))
        return np.stack([np.concatenate((x.mean(0), x.std(0))) for x in pixels])

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.01))
    model.fit(vectors("train"), numbers(task.splits["train"]))
    return float(np.mean(model.predict(vectors("val")) == numbers(task.splits["val"])))


def nearest(task: FrameLabelerTask) -> float:
    """Frame accuracy of the most similar training frame, each a quarter as wide and as high."""

    def vectors(split: str) -> tuple[np.ndarray, np.ndarray]:
        clips = task.splits[split].sources
        assert isinstance(clips, Frames)
        frames = np.concatenate([clips[row] for row in range(len(clips))])
        small = F.avg_pool2d(torch.from_numpy(frames).permute(0, 3, 1, 2).float(), 4).flatten(1).numpy()
        return small, frame_labels(task.splits[split]).ids

    model = KNeighborsClassifier(1).fit(*vectors("train"))
    x, true = vectors("val")
    return float(np.mean(model.predict(x) == true))


def repetitions(data: Path, folder: Path) -> Path:
    """A table of lip_words with the later instances for validation."""
    path = folder / "repetitions.csv"
    with (data / "lip_words" / "clips.csv").open(newline="") as read, path.open("w", newline="") as written:
        out = csv.writer(written)
        out.writerow(["path", "label", "split"])
        for row in csv.DictReader(read):
            split = "val" if int(row["instance"]) >= FIRST_UNSEEN_INSTANCE else "train"
            out.writerow([(data / "lip_words" / row["path"]).resolve(), row["label"], split])
    return path


def unrolled(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "unrolled", *arguments, "--json"], stdout=subprocess.PIPE, check=True, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(data: Path, name: str, seed: int, seconds: float, baselines: bool, flags: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = name in ("speakers", "repetitions")
        source = repetitions(data, folder) if name == "repetitions" else data / ("lip_words" if clips else name)
        groups = {"val_groups": UNSEEN} if name == "speakers" else {}
        command = ["train", "classify-video" if clips else "label-frames", str(source), "--seconds", str(seconds)]
        command += [part for flag, value in groups.items() for part in ("--" + flag.replace("_", "-"), value)]
        command += ["--seed", str(seed), "--eval-every", str(NEVER), "--out", str(folder / "run"), *flags]
        begun = time.time()
        summary = unrolled(*command)
        line = {
            "set": name,
            "seed": seed,
            "command": " ".join(command),
            "wall": round(time.time() - begun, 1),
            **summary,
        }
        if not baselines:
            return line
        how: dict[str, Any] = {"val": None, "device": torch.device("cpu"), "clock": Clock()}
        common: dict[str, Any] = {"seconds": seconds, "seed": seed, "eval_every": NEVER, **groups}
        if not clips:
            labeler = prepare_frame_labeler([source], FrameLabelerOptions(**common), **how)
            return {**line, "nearest_neighbour": nearest(labeler)}
        flip = "--flip" in flags
        task = prepare_video_classifier([source], VideoClassifierOptions(flip=flip, **common), **how)
        return {**line, "regression": regression(task), "bag_of_frames": bag_of_frames(task)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--no-baselines", action="store_true")
    parser.epilog = "What follows a -- are more flags of the training."
    given, more = sys.argv[1:], []
    if "--" in given:  # argparse would not give them to the right place
        given, more = given[: given.index("--")], given[given.index("--") + 1 :]
    options = parser.parse_args(given)
    for name in options.sets:
        for seed in options.seeds:
            found = measure(options.data, name, seed, options.seconds, not options.no_baselines, more)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
