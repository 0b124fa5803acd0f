"""A language model's validation loss as nanoGPT measures its own, beside ours.

    python benchmarks/nanogpt_protocol.py runs/mine ../shared/data/tiny_shakespeare/input.txt

nanoGPT reads windows of 256 characters, each without a past, and takes the mean over all positions. Its figures are
estimates from random windows; here the windows lie side by side and cover the validation part (the last tenth), each
position counted once. Ours carries the state through the text, as a recurrent model can. Prints one JSON object, nats a
character.
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F

import unrolled
from unrolled.data.streams import IGNORED, Batch
from unrolled.tasks.models import LanguageModel
from unrolled.tasks.prepare_language_model import measured_part

WINDOW = 256
ROWS = 64
"""Windows in one batch."""


@torch.no_grad()
def windowed_loss(model: LanguageModel, text: Path, window: int = WINDOW) -> float:
    """Nats a character over windows side by side, each from a state of zeros; the last may be shorter."""
    tokens, _, _ = measured_part(model, [text], "val")  # the last tenth
    ids = torch.from_numpy(tokens.ids.astype("int64"))
    starts = torch.from_numpy(model.tokenizer.starts)
    windows = list(zip(ids[:-1].split(window), ids[1:].split(window), strict=True))
    nats, characters = 0.0, 0
    for at in range(0, len(windows), ROWS):
        inputs, targets = zip(*windows[at : at + ROWS], strict=True)
        x = torch.nn.utils.rnn.pad_sequence(list(inputs))
        y = torch.nn.utils.rnn.pad_sequence(list(targets), padding_value=IGNORED)
        lengths = torch.tensor([len(w) for w in inputs])
        batch = Batch(x, y, None if bool((lengths == len(x)).all()) else lengths, torch.zeros(len(inputs)).bool())
        scores, _ = model.network.scores(batch.to(model.device), None)
        flat, wanted = scores.flatten(0, 1), y.flatten().to(model.device)
        nats += F.cross_entropy(flat, wanted, ignore_index=IGNORED, reduction="sum").item()
        characters += int(starts[y[y != IGNORED]].sum())
    return nats / max(1, characters)


def both(model: Path, text: Path) -> dict[str, float]:
    """The loss by each protocol."""
    loaded = unrolled.load(model)
    return {
        "carried_state": loaded.evaluate(text, split="val")["val_loss"],
        f"windows_of_{WINDOW}_from_zero": windowed_loss(loaded, text),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    arguments = parser.parse_args()
    print(json.dumps(both(arguments.model, arguments.text)))


if __name__ == "__main__":
    main()
