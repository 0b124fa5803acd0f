"""`unrolled moving-digits`: the command. Nothing heavy is imported before it runs."""

import shlex
import sys
from pathlib import Path


def moving_digits(folder: Path, *, train: int = 3000, val: int = 200, test: int = 200, seed: int = 0) -> int:
    """Write clips of moving digits, with captions, a label for every frame and actions: data for a machine without any.

    Parameters
    ----------
    folder
        A new folder.
    train
        Clips to train on.
    val
        Clips to validate on, which choose the best model. Their handwriting is not in the training clips.
    test
        Clips to measure on, in a third handwriting.
    seed
        The same seed writes the same clips.
    """
    from unrolled.data.moving_digits import write

    def say(done: int, of: int) -> None:
        if done % 100 == 0 or done == of:
            print(f"{done:,} of {of:,} clips", file=sys.stderr, flush=True)

    write(folder, train=train, val=val, test=test, seed=seed, progress=say)
    print(f"next:\n  unrolled train caption-video {shlex.quote(str(folder))} --seconds 300")
    return 0
