"""What users hold: trained models that sample, measure and save themselves, and `load`, which opens any of them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.cells import Inputs, State
from unrolled.data import tokenizers
from unrolled.data.tokenizers import TextDecoder, Tokenizer
from unrolled.decoding.sampling import Sampling, StopAt, generate
from unrolled.decoding.search import Limits, beam_search, stepper
from unrolled.decoding.writers import writer_for
from unrolled.errors import InputError
from unrolled.tasks.frame_labeler import FrameLabeler
from unrolled.tasks.image_captioner import ImageCaptioner
from unrolled.tasks.language_model import LanguageModelTask, Network, evaluate
from unrolled.tasks.options import LanguageModelOptions
from unrolled.tasks.public_model import PublicModel
from unrolled.tasks.text_classifier import TextClassifier
from unrolled.tasks.translator import Translator
from unrolled.tasks.video_captioner import VideoCaptioner
from unrolled.tasks.video_classifier import VideoClassifier
from unrolled.topologies import ManyToMany, Memory
from unrolled.training import model_file
from unrolled.training.untouched import untouched


class LanguageModel(PublicModel):
    """A trained language model: sample it, measure it, save it."""

    task = LanguageModelTask.name
    options_class = LanguageModelOptions
    network: Network

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        options: LanguageModelOptions,
        metrics: dict[str, float] | None = None,
        step: int = 0,
    ) -> None:
        super().__init__(network, options, metrics, step)
        self.tokenizer = tokenizer

    @classmethod
    def from_file(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> "LanguageModel":
        """From what `model_file.load` returns."""
        options = LanguageModelOptions(**description["options"])
        tokenizer = tokenizers.from_json(description["vocabulary"])
        # the engine of the training need not exist where the model is used
        network = Network(tokenizer.size, replace(options, engine="auto"))
        network.load_state_dict(tensors)
        return cls(network, tokenizer, options, description["metrics"], description["step"])

    def vocabulary(self) -> dict[str, Any]:
        return self.tokenizer.to_json()

    def _knows(self) -> str:
        return f"{self.options.topology}, {self.tokenizer.size:,} tokens ({self.tokenizer.kind})"

    def evaluate(self, *paths: str | Path, split: str | None = None) -> dict[str, float]:
        """`val_loss` (nats a character) and `bits_per_character` of text; split: "train", "val" or None for all."""
        from unrolled.tasks.prepare_language_model import tokens_of  # the other way round at import

        tokens = tokens_of(self.tokenizer, paths, split, self.options.val_fraction)
        return evaluate(self.network, self.tokenizer, tokens, self.device).metrics

    def sample(self, prompt: str = "", length: int = 500, *, seed: int = 0, stop: str | None = None, **how: Any) -> str:
        """The prompt and up to `length` characters that follow it; `how`: temperature, top_k, top_p, min_p.

        The prompt is read as the beginning of a line, and only characters of the training text are written."""
        return prompt + "".join(self.stream(prompt, length, seed=seed, stop=stop, **how))

    def sample_many(
        self, count: int, prompt: str = "", length: int = 500, *, seed: int = 0, stop: str | None = None, **how: Any
    ) -> list[str]:
        """`count` samples at once; number i is the one that `seed + i` gives alone."""
        seeds = range(seed, seed + count)
        texts = [prompt] * count
        for row, text in self._generate(prompt, length, seeds, stop, Sampling(**how)):
            texts[row] += text
        return texts

    def stream(
        self, prompt: str = "", length: int = 500, *, seed: int = 0, stop: str | None = None, **how: Any
    ) -> Iterator[str]:
        """The characters after the prompt as they come; they end before `stop`, where that appears."""
        return (text for _, text in self._generate(prompt, length, [seed], stop, Sampling(**how)))

    def likeliest(
        self, prompt: str = "", length: int = 500, *, beam: int = 5, count: int = 1, no_repeat_ngram: int = 0
    ) -> list[str]:
        """The prompt with the `count` likeliest continuations that a beam search finds, the best first; nothing is
        drawn. It searches for `length` tokens, of which `length` characters are kept."""
        if length < 1:
            raise InputError(f"--length is {length}: a beam search writes at least 1")
        if not isinstance(self.network.topology, ManyToMany):
            raise InputError("this model has no recurrent layers to carry hypotheses: train a many_to_many one")
        tokens = self.tokenizer.encode(self._opening(prompt))
        start = Memory(self._after(tokens[:-1])[1])
        step = stepper(self.network.topology, self.network.table, self.tokenizer.trained)
        limits = Limits(int(tokens[-1]), None, length, no_repeat_ngram=no_repeat_ngram)
        (found,) = beam_search(step, start, limits, beam, keep=count)
        return [prompt + tokenizers.decode(self.tokenizer, text.tokens)[:length] for text in found]

    def _generate(
        self, prompt: str, length: int, seeds: Sequence[int], stop: str | None, how: Sampling
    ) -> Iterator[tuple[int, str]]:
        """Pieces of text, each with its row. What is wrong with the request is said here, before the first piece."""
        if length < 0:
            raise InputError(f"--length is {length}: it must be at least 0")
        if not seeds or min(seeds) < 0:
            raise InputError("--seed and --samples must be at least 0 and 1")
        scores, state = self._read(self._opening(prompt), len(seeds))
        network, rows = self.network, [_Row(self.tokenizer, stop, length) for _ in seeds]
        writer = writer_for(network.topology, network.table, self.tokenizer.trained, scores, state)
        return self._pieces(generate(writer, how, seeds, lambda: max(row.left for row in rows)), rows)

    @staticmethod
    def _pieces(blocks: Iterator[np.ndarray], rows: "list[_Row]") -> Iterator[tuple[int, str]]:
        for tokens in blocks:
            for number, row in enumerate(rows):
                if text := row.feed(tokens[:, number].tolist()):
                    yield number, text

    def _opening(self, prompt: str) -> str:
        """The prompt as the beginning of a line: training hardly ever begins without a past, so a model that is given
        the first letter without one is on unknown ground. Where the vocabulary has no newline, the prompt alone."""
        self.tokenizer.encode(prompt)  # says where a prompt is not Unicode, counted in the prompt
        newline = int(self.tokenizer.encode("\n")[0])
        if newline < self.tokenizer.trained:
            return prompt if prompt.startswith("\n") else "\n" + prompt
        return prompt or self.tokenizer.to_bytes([0]).decode()

    @torch.inference_mode()
    def _read(self, prompt: str, rows: int) -> tuple[Tensor, State]:
        """The scores (B, V) after the prompt, and the state."""
        scores, state = self._after(self.tokenizer.encode(prompt))
        return scores[-1, :, : self.tokenizer.trained].expand(rows, -1), tuple(s.expand(-1, rows, -1) for s in state)

    @torch.inference_mode()
    def _after(self, tokens: np.ndarray) -> tuple[Tensor, State]:
        """The scores (T, 1, V) of the last of these tokens, and the state after them."""
        topology, table = self.network.topology, self.network.table
        scores, state = topology.output.weight.new_zeros(1, 1, self.tokenizer.size), topology.initial_state(1)
        for chunk in torch.from_numpy(tokens).to(self.device).split(1024) if len(tokens) else ():
            scores, state = topology(Inputs(chunk[:, None], table), state)
        return scores, state


class _Row:
    """The text of one sample as its tokens come."""

    def __init__(self, tokenizer: Tokenizer, stop: str | None, length: int) -> None:
        self.decoder, self.stop = TextDecoder(tokenizer), StopAt(stop)
        self.left = length
        """Characters to come, which take at least as many tokens."""

    def feed(self, tokens: list[int]) -> str:
        """What can be shown of the text that these tokens complete."""
        text = self.decoder.feed_all(tokens)[: self.left]
        self.left -= len(text)
        shown = self.stop.feed(text)
        if self.stop.stopped:
            self.left = 0
        return shown + self.stop.flush() if self.left == 0 else shown


MODELS: dict[str, Any] = {
    model.task: model
    for model in (
        LanguageModel,
        TextClassifier,
        Translator,
        ImageCaptioner,
        VideoCaptioner,
        VideoClassifier,
        FrameLabeler,
    )
}
"""The class of each task's models."""


@untouched()
def load(path: str | os.PathLike[str], device: str | torch.device | None = None, task: str | None = None) -> Any:
    """The model in a file or a run folder, on any device (default: the CPU).

    Raises `InputError` where there is none, it is damaged, or it is not of the task asked for.
    """
    tensors, description = model_file.load(Path(path))
    found = description["task"]
    if task is not None and found != task:
        raise InputError(f"{path} is a model for {found}, not for {task}: name a model of that task")
    if found not in MODELS:
        raise InputError(f"{path} is a model for {found}, which this version of unrolled does not know: update it")
    try:
        model = MODELS[found].from_file(tensors, description)
    except (RuntimeError, TypeError) as error:  # other weights, or other options, than this version's networks have
        raise InputError(
            f"{path} was trained by a version of unrolled whose networks for {found} were others: train it again, or "
            f"install that version ({str(error).splitlines()[0]})"
        ) from error
    return model.to(device) if device is not None else model
