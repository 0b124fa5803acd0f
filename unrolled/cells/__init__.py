"""The cells: what one timestep does. Adding one takes its file and a line in the table below."""

from unrolled.cells.cell import Cell, Inputs, Saved, State, Weights
from unrolled.cells.gru import GRU
from unrolled.cells.lstm import LSTM
from unrolled.cells.rnn import RNN

CELLS: dict[str, Cell] = {"rnn": RNN("tanh"), "rnn_relu": RNN("relu"), "lstm": LSTM(), "gru": GRU()}

__all__ = ["CELLS", "GRU", "LSTM", "RNN", "Cell", "Inputs", "Saved", "State", "Weights"]
