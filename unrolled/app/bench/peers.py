"""The competitors in training, as one writes them in PyTorch: embedding, `torch.nn`'s layers, linear output."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unrolled.app.bench.measure import clock
from unrolled.tasks.language_model import Network
from unrolled.topologies import ManyToMany

State = tuple[Tensor, ...]
LAYERS: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
GATES = {"rnn": 1, "gru": 3, "lstm": 4}
CLIP = 1.0


class TorchModel(nn.Module):
    """The loss of a chunk of tokens and the state after it. With `one_hot` the layers read one-hot vectors."""

    def __init__(self, cell: str, vocabulary: int, hidden: int, layers: int, one_hot: bool = False) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.embedding = None if one_hot else nn.Embedding(vocabulary, hidden)
        self.layers = LAYERS[cell](vocabulary if one_hot else hidden, hidden, layers)
        self.output = nn.Linear(hidden, vocabulary)

    def forward(self, x: Tensor, y: Tensor, state: State) -> tuple[Tensor, State]:
        """x, y: (T, B) tokens and their successors; state: each (layers, B, H)."""
        scores, state = self.scores(x, state)
        return F.cross_entropy(scores.flatten(0, 1), y.flatten()), state

    def scores(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """(T, B, V) and the state after the chunk."""
        below = F.one_hot(x, self.vocabulary).float() if self.embedding is None else self.embedding(x)
        hidden, after = self.layers(below, state if len(state) > 1 else state[0])
        return self.output(hidden), after if isinstance(after, tuple) else (after,)


@torch.no_grad()
def with_weights_of(network: Network, cell: str, vocabulary: int, one_hot: bool = False) -> TorchModel:
    """The same function in `torch.nn`. Of a larger vocabulary the first tokens are taken."""
    assert isinstance(network.topology, ManyToMany) and network.table is not None
    recurrent, output = network.topology.recurrent, network.topology.output
    table = network.table[:vocabulary]
    model = TorchModel(cell, vocabulary, recurrent.hidden_size, recurrent.num_layers, one_hot)
    weights = dict(recurrent.state_dict())
    if model.embedding is None:
        weights["weight_ih_l0"] = weights["weight_ih_l0"] @ table.t()
    else:
        model.embedding.weight.copy_(table)
    model.layers.load_state_dict(weights)
    model.output.weight.copy_(output.weight[:vocabulary])
    model.output.bias.copy_(output.bias[:vocabulary])
    return model


class TorchTraining:
    """Training steps over chunks that come round again, with the state carried from one to the next."""

    def __init__(self, model: Callable[..., Any], parameters: list[nn.Parameter], chunks: list[Any], state: State):
        self.model, self.parameters, self.chunks, self.state, self.step = model, parameters, chunks, state, 0
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), fused=True)

    def __call__(self, units: int) -> None:
        for _ in range(units):
            batch = self.chunks[self.step % len(self.chunks)]
            loss, state = self.model(batch.inputs, batch.targets, self.state)
            self.state = tuple(s.detach() for s in state)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, CLIP)
            self.optimizer.step()
            self.step += 1


def fresh_compiler(allow_rnn: bool = False) -> None:
    """Forget what torch.compile has compiled: else earlier sizes use up the number of recompilations, and eager code
    runs unsaid. allow_rnn: let it unroll `torch.nn`'s layers, which takes minutes for many timesteps."""
    import torch._dynamo.config
    import torch._inductor.config

    torch.compiler.reset()
    torch._dynamo.config.allow_rnn = allow_rnn
    torch._inductor.config.compile_threads = 1  # no processes that live on and would count as others' work


def compiled_training(model: TorchModel, chunks: list[Any], state: State) -> tuple[TorchTraining, float]:
    """The same under `torch.compile`, and the seconds that compiling took (with two steps)."""
    fresh_compiler()
    training = TorchTraining(torch.compile(model), list(model.parameters()), chunks, state)
    return training, clock(training, 2)
