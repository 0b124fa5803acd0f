"""An output layer that knows how frequent each token or class is before it learns anything."""

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def begin_at_frequencies(bias: Tensor, counts: np.ndarray) -> None:
    """Set the bias (V,) to the logarithm of the frequencies, from how often each of V occurs; half of one is added, so
    that what never occurs is unlikely and not impossible."""
    bias.copy_(torch.from_numpy(np.log((counts + 0.5) / counts.sum())))
