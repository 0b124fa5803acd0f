"""Layers: drop-in replacements for `torch.nn.RNN`, `LSTM` and `GRU`, and the stack beneath them."""

from unrolled.nn.drop_in import GRU, LSTM, RNN
from unrolled.nn.recurrent import Recurrent

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]
