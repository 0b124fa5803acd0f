"""Layers: drop-in replacements for `torch.nn.RNN`, `LSTM` and `GRU`, and the stack beneath them."""

from unrolled.nn.recurrent import GRU, LSTM, RNN, Recurrent

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]
