"""Training, validation and test parts of a set that has no test part, for the benchmarks beside this file."""

import numpy as np

from unrolled.data.splits import divide


def three_parts(
    count: int, *, strata: list[str] | None = None, groups: list[str] | None = None, seed: int = 0
) -> list[str]:
    """train, val or test for each of `count` examples: a tenth for test, then a tenth of the rest for validation.

    strata: the label of each, drawn alike. groups: what examples have in common, never divided. The best model is
    chosen on val and measured on test.
    """
    parts = np.full(count, "train", dtype=object)
    for name in ("test", "val"):
        left = np.flatnonzero(parts == "train")
        labels, common = ([column[n] for n in left] if column else None for column in (strata, groups))
        drawn = divide(len(left), strata=labels, groups=common, fraction=0.1, seed=seed)
        parts[left[drawn.val]] = name
    return parts.tolist()
