"""Who writes the tokens: a model in the middle of its texts, stepped by PyTorch or by compiled code.

Both project the token table once, so that the first layer's input part is a row of it, and both draw as `sampling.py`
says. Their scores differ by rounding alone.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unrolled.cells import Inputs, State
from unrolled.decoding.sampling import Sampling, Writer, draw, finite, probabilities
from unrolled.engines import ENGINES
from unrolled.engines.fused import NUMBERS
from unrolled.topologies import ManyToMany, OneToOne


@torch.inference_mode()
def writer_for(
    topology: ManyToMany | OneToOne, table: Tensor | None, tokens: int, scores: Tensor, state: State
) -> Writer:
    """The fastest writer for this model.

    table: the embedding, None for one-hot tokens; tokens: how many of them, from 0, may be written; scores: (B, tokens)
    of the next one; state: each (layers, B, H), what the topology carries on.
    """
    if isinstance(topology, OneToOne):
        return TorchWriter(lambda x: topology.step(Inputs(x, table), ())[0][:, :tokens], scores)
    stack = Stack(topology, table, tokens, state)
    if topology.recurrent.engine in ("auto", "fused") and stack.compiles():
        return CompiledWriter(stack, scores, state)
    return TorchWriter(stack.step, scores)


class Stack:
    """Recurrent layers and an output layer, for one timestep after the other."""

    def __init__(self, topology: ManyToMany, table: Tensor | None, tokens: int, state: State) -> None:
        recurrent = topology.recurrent
        self.cell = recurrent.cell
        self.weights = [recurrent.weights(layer) for layer in range(recurrent.num_layers)]
        self.parts = self.cell.project_table(self.weights[0], table)[:tokens].contiguous()
        """(tokens, G*H): the first layer's input part of every token."""
        self.output, self.bias = topology.output.weight[:tokens], topology.output.bias[:tokens]
        self.states = [tuple(s[layer] for s in state) for layer in range(recurrent.num_layers)]
        """(B, H) each, layer by layer."""

    def step(self, tokens: Tensor) -> Tensor:
        """Tokens (B,) to scores (B, tokens); the state goes on."""
        x = F.embedding(tokens, self.parts)
        for layer, w in enumerate(self.weights):
            xg = F.linear(x, w.ih, w.bias_ih) if layer else x
            hg = F.linear(self.states[layer][0], w.hh, w.bias_hh)
            self.states[layer], _ = self.cell.pointwise(xg, hg, self.states[layer])
            x = self.states[layer][0]
        return F.linear(x, self.output, self.bias)

    def compiles(self) -> bool:
        """Whether the compiled kernels take this model."""
        inputs, output = Inputs(self.parts), self.weights[0]._replace(ih=self.output, bias_ih=self.bias)
        return all(
            ENGINES["fused"].refuses(self.cell, w, inputs, state) is None
            for w, state in zip((*self.weights, output), (*self.states, self.states[0]), strict=True)
        )


class TorchWriter:
    """Steps a token after the other, on any device and in any dtype; draws in NumPy.

    step: tokens (B,) to the scores (B, V) of the next; scores: those of the first.
    """

    def __init__(self, step: Callable[[Tensor], Tensor], scores: Tensor) -> None:
        self.step, self.scores = step, scores

    @torch.inference_mode()
    def write(self, u: np.ndarray, how: Sampling) -> np.ndarray:
        written = np.empty(u.shape, dtype=np.int64)
        for n, numbers in enumerate(u):
            scores = self.scores.cpu().double().numpy()
            if not finite(scores):
                return written[:n]
            written[n] = draw(probabilities(scores, how), numbers)
            self.scores = self.step(torch.from_numpy(written[n]).to(self.scores.device))
        return written


class CompiledWriter:
    """Steps and draws a whole block in one call of `engines/native/generate.cpp`.

    threads: 0 for as many as pay.
    """

    def __init__(self, stack: Stack, scores: Tensor, state: State, threads: int = 0) -> None:
        self.cell, self.threads, self.parts = NUMBERS[stack.cell.name], threads, stack.parts
        tensors: list[Tensor] = []
        for layer, w in enumerate(stack.weights):
            zeros = w.hh.new_zeros(len(w.hh))
            if layer:
                tensors += [w.ih, zeros if w.bias_ih is None else w.bias_ih]
            tensors += [w.hh, zeros if w.bias_hh is None else w.bias_hh]
        tensors += [stack.output, stack.bias]
        self.packed = torch.ops.unrolled.generate_pack([t.contiguous() for t in tensors], self.cell)
        # copies, since the kernel changes them
        self.h, *cells = (s.clone(memory_format=torch.contiguous_format) for s in state)
        self.c = cells[0] if cells else None
        self.scores = scores.clone(memory_format=torch.contiguous_format)

    @torch.inference_mode()
    def write(self, u: np.ndarray, how: Sampling) -> np.ndarray:
        tokens = torch.ops.unrolled.generate(
            self.packed,
            self.parts,
            self.h,
            self.c,
            self.scores,
            torch.from_numpy(u),
            self.cell,
            how.temperature,
            how.top_k,
            how.top_p,
            how.min_p,
            self.threads,
        ).numpy()
        failed = (tokens < 0).any(1)
        return tokens[: failed.argmax()] if failed.any() else tokens
