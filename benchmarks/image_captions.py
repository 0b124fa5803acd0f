"""Captions of Flickr8k's small part: the four ways of giving the picture, beside the nearest neighbour's captions.

    python benchmarks/image_captions.py ../shared/data --seconds 150

Trains `caption-image` with each way, on the training pictures of flickr8k_small with a frozen MobileNet v2 ("learned":
with attention, but convolutions that learn from these pictures alone), and measures on its development pictures (beam
search, five references each). Features are computed before, once for all. Nearest neighbour: the caption of the
training picture whose features, of the same network, have the highest cosine; of its five captions each by its place
in the file, and that most like the other four ("consensus", by the F1 of words and pairs of words); beyond one picture
the consensus of the captions of the k most similar ones (Devlin et al. 2015, arXiv:1505.04467). For scale: whole
Flickr8k (6,000 training pictures) gives BLEU-4 19.5 with soft attention on VGG (Xu et al. 2015, arXiv:1502.03044), 19.7
in re-runs with a frozen ResNet-50.

Nothing touches the development pictures in training: --held-out pictures of the training part choose the best of about
ten validations (by CIDEr-D of greedy output). Prints a JSON line per training and a table at the end. Needs
unrolled[vision].
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

from unrolled.data.captioned import Captioned, read_captions
from unrolled.metrics import captions
from unrolled.nn.vision import Backbone
from unrolled.tasks.caption_image import features_of

WAYS = ("initial", "every-step", "both", "attention", "learned")
NEIGHBOURS = (1, 5, 20, 50)
SHOWN = ("bleu_1", "bleu_4", "rouge_l", "cider")


def neighbours(data: Captioned, network: Backbone) -> dict[str, dict[str, float]]:
    """The measures of each way to copy captions from similar training pictures."""
    features = features_of(network, data.paths, "both").frames
    vectors = np.concatenate([features[n] for n in range(len(data))]).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    part = np.array(data.splits)
    train, held = np.flatnonzero(part == "train"), np.flatnonzero(part == "val")
    nearest = train[np.argsort(-vectors[held] @ vectors[train].T, axis=1)]
    true = [data.captions[row] for row in held]
    copied = {f"caption {n + 1}": [data.captions[row][n] for row in nearest[:, 0]] for n in range(5)}
    for k in NEIGHBOURS:
        name = "consensus of its five" if k == 1 else f"consensus of {k} pictures"
        copied[name] = [consensus([text for row in rows[:k] for text in data.captions[row]]) for rows in nearest]
    return {name: captions.scores(texts, true) for name, texts in copied.items()}


def consensus(texts: list[str]) -> str:
    """The caption that is most like the others: the highest mean F1 of the words and pairs of words that it has."""
    cut = [captions.words(text) for text in texts]
    grams = [{*words, *zip(words, words[1:], strict=False)} for words in cut]
    column = {gram: n for n, gram in enumerate(set().union(*grams))}
    has = np.zeros((len(texts), len(column)))
    for row, found in enumerate(grams):
        has[row, [column[gram] for gram in found]] = 1
    sizes = has.sum(1)
    alike = 2 * has @ has.T / np.maximum(sizes[:, None] + sizes, 1)
    return texts[int((alike.sum(1) - alike.diagonal()).argmax())]


def train(folder: Path, backbone: Path, way: str, options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        run, data = str(Path(temporary) / "run"), without_dev(folder, options.held_out, Path(temporary))
        seen = ["--image", "attention"] if way == "learned" else ["--backbone", str(backbone), "--image", way]
        flags = [*seen, "--seed", str(options.seed), *options.flags]
        summary = unrolled("train", "caption-image", str(data), "--seconds", str(options.seconds), "--out", run, *flags)
        begun = time.time()
        found = unrolled("evaluate", run, str(folder), "--split", "val", "--beam", str(options.beam))
        kept = ("seconds", "steps", "best_step", "parameters", "tokens_per_second", "train_loss", "val_loss", "cider")
        return {
            "image": way,
            "train": {key: summary[key] for key in kept},
            "found": found,
            "evaluate_seconds": round(time.time() - begun, 1),
        }


def without_dev(folder: Path, count: int, into: Path) -> Path:
    """A table of the training pictures alone, `count` of them to validate on; drawn with seed 0."""
    with open(folder / "captions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    names = sorted({row["image"] for row in rows})
    held = set(np.random.default_rng(0).permutation(names)[:count].tolist())
    table = into / "captions.csv"
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "caption", "split"))
        for row in rows:
            path = (folder / "images" / row["image"]).resolve()
            writer.writerow((path, row["caption"], "val" if row["image"] in held else "train"))
    return table


def unrolled(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "unrolled", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--backbone", default="mobilenet_v2_1.0_224")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", type=int, default=76, help="training pictures to choose the best model by")
    parser.epilog = "What follows a -- are more flags of train caption-image."
    given, more = sys.argv[1:], []
    if "--" in given:  # argparse would not give them to the right place
        given, more = given[: given.index("--")], given[given.index("--") + 1 :]
    options = parser.parse_args(given)
    options.flags = more
    folder, backbone = options.data / "flickr8k_small", options.data / "backbones" / options.backbone
    data, network, begun = read_captions([folder]), Backbone.open(backbone), time.time()
    for way in ("both", "attention"):
        features_of(network, data.paths, way)
    print(json.dumps({"features_seconds": round(time.time() - begun, 1)}), flush=True)
    table = {f"nearest: {name}": found for name, found in neighbours(data, network).items()}
    for way in options.ways:
        line = train(folder, backbone, way, options)
        print(json.dumps(line), flush=True)
        table[f"ours: {way}"] = line["found"]
    print(f"{'':34}" + "".join(f"{name:>9}" for name in SHOWN))
    for name, found in table.items():
        print(f"{name:34}" + "".join(f"{found[measure]:9.4f}" for measure in SHOWN))


if __name__ == "__main__":
    main()
