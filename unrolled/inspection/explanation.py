"""What `unrolled explain` knows: one small network, every number of its forward and backward pass, as plain data.

T: timesteps, one fewer than characters of the text. V: characters of the vocabulary, H: hidden units, G: gates of the
cell (1, GRU 3, LSTM 4). `dataclasses.asdict` of an `Explanation` is the object that `unrolled explain --json` prints:
the fields of the classes below are its keys.
"""

from dataclasses import dataclass

Vector = list[float]
Matrix = list[Vector]


@dataclass(frozen=True)
class Training:
    """How the network came to know the text: Adam on the whole text, full backpropagation through time."""

    updates: int
    loss_before: float
    """The summed loss of the network as it was initialised, in nats."""
    loss_after: float
    correct: int
    """Timesteps at which the likeliest character is the target."""
    learned: bool
    """Whether that is so at all of them."""


@dataclass(frozen=True)
class Timestep:
    """The forward pass at one timestep."""

    t: int
    """From 1 to T."""
    input: str
    one_hot: list[int]
    hidden: Vector
    """h_t (H)"""
    cell_state: Vector | None
    """c_t (H) of an LSTM; the other cells have none."""
    scores: Vector
    """y_t (V)"""
    softmax: Vector
    likeliest: str
    target: str
    loss: float
    """L_t = -log softmax(y_t)[target], in nats."""


@dataclass(frozen=True)
class Gradient:
    """The gradient of L with respect to the shared W_hh, and what each timestep contributes to it."""

    contributions: list[Matrix]
    """For each timestep (G*H, H): the gradient that reaches W_hh where this timestep uses it."""
    norms: Vector
    """The Frobenius norm of each contribution."""
    total: Matrix
    """(G*H, H): the sum of the contributions."""
    norm: float
    reach: Vector
    """(T): the norm of the last timestep's loss differentiated with respect to h_t (an LSTM: c_t) of each timestep."""


@dataclass(frozen=True)
class Backward(Gradient):
    """Full backpropagation through time."""

    autograd: Matrix
    """(G*H, H): what autograd gives for the one W_hh that all timesteps share."""
    largest_difference: float
    """Between `total` and `autograd`, of any entry."""


@dataclass(frozen=True)
class Truncated(Gradient):
    """Truncated backpropagation through time: the state enters the next chunk detached."""

    bptt: int
    """Timesteps of a chunk."""
    chunks: list[tuple[int, int]]
    """First and last timestep of each, from 1 to T."""
    lost: float
    """The norm of the full gradient minus this one."""
    cosine: float | None
    """Of the angle between the two; None where one of them is zero."""


@dataclass(frozen=True)
class Draw:
    """One character of the sample."""

    input: str
    softmax: Vector
    u: float
    """Uniform in [0, 1); the character at which the cumulated softmax first exceeds it is drawn."""
    drawn: str


@dataclass(frozen=True)
class Sample:
    """What the network writes, one character at a time, from the first character of the text on: T characters."""

    draws: list[Draw]
    text: str
    """Temperature 1, the first character included."""
    likeliest: str
    """The same with the likeliest character each time (temperature 0)."""


@dataclass(frozen=True)
class Explanation:
    """Every number of the lesson."""

    text: str
    cell: str
    hidden: int
    seed: int
    vocabulary: list[str]
    """The characters of the text in order of first appearance: V."""
    weights: dict[str, Matrix | Vector]
    """W_xh (G*H, V), W_hh (G*H, H), b_xh and b_hh (G*H), W_hy (V, H), b_y (V); gates in `torch.nn`'s order."""
    parameters: int
    training: Training
    timesteps: list[Timestep]
    loss: float
    """L, the sum of the losses of the timesteps."""
    mean_loss: float
    backward: Backward
    truncated: Truncated
    sample: Sample
