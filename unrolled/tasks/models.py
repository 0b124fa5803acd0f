"""What users hold: trained models that sample, measure and save themselves, and `load`, which opens any of them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from unrolled.cells import Inputs, State
from unrolled.data import tokenizers
from unrolled.data.contents import check
from unrolled.data.tokenizers import TextDecoder, Tokenizer
from unrolled.decoding.sampling import Sampling, StopAt, generate
from unrolled.decoding.search import Limits, beam_search, stepper
from unrolled.decoding.writers import writer_for
from unrolled.errors import InputError
from unrolled.tasks.arguments import options_of, paths_of
from unrolled.tasks.frame_labeler import FrameLabeler
from unrolled.tasks.image_captioner import ImageCaptioner
from unrolled.tasks.language_model import LanguageModelTask, Network, evaluate
from unrolled.tasks.options import LanguageModelOptions, SearchOptions
from unrolled.tasks.public_model import PublicModel, built, remarks
from unrolled.tasks.text_classifier import TextClassifier
from unrolled.tasks.translator import Translator
from unrolled.tasks.video_captioner import VideoCaptioner
from unrolled.tasks.video_classifier import VideoClassifier
from unrolled.topologies import ManyToMany, Memory
from unrolled.training import model_file
from unrolled.training.memory import refuse_above
from unrolled.training.run import Run
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
        options = LanguageModelOptions.from_json(description["options"])
        tokenizer = tokenizers.from_json(description["vocabulary"])
        # the engine of the training need not exist where the model is used
        network = built(lambda: Network(tokenizer.size, replace(options, engine="auto")), tensors)
        return cls(network, tokenizer, options, description["metrics"], description["step"])

    def vocabulary(self) -> dict[str, Any]:
        return self.tokenizer.to_json()

    def _knows(self) -> str:
        return f"{self.options.topology}, {self.tokenizer.size:,} tokens ({self.tokenizer.kind})"

    def evaluate(self, *paths: str | Path, split: str | None = None) -> dict[str, Any]:
        """`val_loss` (nats per character) and `bits_per_character` of text, `measured_tokens` of it; `notes` and
        `skipped` (files of a folder that are not text). split: "train" or "val", as the training divides this text, or
        "test" where the text says what is for it; None for all of it."""
        from unrolled.tasks.prepare_language_model import measured_part  # the other way round at import

        tokens, notes, skipped = measured_part(self, paths, split)
        found = evaluate(self.network, self.tokenizer, tokens, self.device)
        return {**found.metrics, "measured_tokens": found.size, **remarks(notes, skipped)}

    def sample(self, prompt: str = "", length: int = 500, *, seed: int = 0, stop: str | None = None, **how: Any) -> str:
        """The prompt and up to `length` characters that follow it; `how`: temperature, top_k, top_p, min_p.

        The prompt is read as the beginning of a line, and only characters of the training text are written."""
        return prompt + "".join(self.stream(prompt, length, seed=seed, stop=stop, **how))

    def sample_many(
        self, count: int, prompt: str = "", length: int = 500, *, seed: int = 0, stop: str | None = None, **how: Any
    ) -> list[str]:
        """`count` samples at once; number i is the one that `seed + i` gives alone."""
        check({"count": count, "length": length, "seed": seed}, dict[str, int], "what is asked for")
        seeds = range(seed, seed + count)
        # a character takes 1 byte at least, and a row what its decoder needs
        need = max(0, count) * (max(0, length) + ROW)
        refuse_above(need, torch.device("cpu"), f"{count:,} texts of --length {length:,}", "write less at a time")
        texts = [prompt] * count
        for row, text in self._generate(prompt, length, seeds, stop, options_of(Sampling, how)):
            texts[row] += text
        return texts

    def stream(
        self, prompt: str = "", length: int = 500, *, seed: int = 0, stop: str | None = None, **how: Any
    ) -> Iterator[str]:
        """The characters after the prompt as they come; they end before `stop`, where that appears."""
        return (text for _, text in self._generate(prompt, length, [seed], stop, options_of(Sampling, how)))

    def likeliest(
        self, prompt: str = "", length: int = 500, *, beam: int = 5, count: int = 1, no_repeat_ngram: int = 0
    ) -> list[str]:
        """The prompt with the `count` likeliest continuations that a beam search finds, the best first; nothing is
        drawn. It searches for `length` tokens, of which `length` characters are kept."""
        if length < 1:
            raise InputError(f"--length is {length}: a beam search writes at least 1")
        SearchOptions(beam=beam, no_repeat_ngram=no_repeat_ngram)
        # each hypothesis keeps its tokens and its way, and the search the ended ones
        refuse_above(24 * beam * length, self.device, f"--length {length:,} with --beam {beam}", "write less")
        if not isinstance(self.network.topology, ManyToMany):
            raise InputError("this model has no recurrent layers to carry hypotheses: train a many_to_many one")
        tokens = self._opening(prompt)
        start = Memory(self._after(tokens[:-1])[1])
        step = stepper(self.network.topology, self.network.table, self.tokenizer.trained)
        limits = Limits(int(tokens[-1]), None, length, no_repeat_ngram=no_repeat_ngram)
        (found,) = beam_search(step, start, limits, beam, keep=count)
        return [prompt + tokenizers.decode(self.tokenizer, text.tokens)[:length] for text in found]

    def _generate(
        self, prompt: str, length: int, seeds: Sequence[int], stop: str | None, how: Sampling
    ) -> Iterator[tuple[int, str]]:
        """Pieces of text, each with its row. What is wrong with the request is said here, before the first piece."""
        asked = {"prompt": prompt, "length": length, "stop": stop, "seeds": list(seeds)}
        check(asked, _Asked, "what is asked for")
        if length < 0:
            raise InputError(f"--length is {length}: it must be at least 0")
        if not seeds or min(seeds) < 0:
            raise InputError("--seed and --samples must be at least 0 and 1")
        need = _numbers_a_row(self.network) * 4 * len(seeds)
        refuse_above(need, self.device, f"--samples {len(seeds):,}", "write fewer at a time")
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

    def _opening(self, prompt: str) -> np.ndarray:
        """The tokens of the prompt as the beginning of a line: training hardly ever begins without a past, so a model
        that is given the first letter without one is on unknown ground. Where the vocabulary has no newline, those of
        the prompt alone, and of an empty one the first token that is a whole character or more.
        """
        tokenizer = self.tokenizer
        if tokenizer.trained == 0:
            raise InputError("this model has nothing but unknown words, so it writes nothing: train it on other tokens")
        tokens = tokenizer.encode(prompt)  # says where a prompt is not Unicode, counted in the prompt
        if int(tokenizer.encode("\n")[0]) < tokenizer.trained:
            return tokens if prompt.startswith("\n") else tokenizer.encode("\n" + prompt)
        return tokens if prompt else np.array([_first_whole(tokenizer)])

    @torch.inference_mode()
    def _read(self, tokens: np.ndarray, rows: int) -> tuple[Tensor, State]:
        """The scores (B, V) after these tokens, and the state."""
        scores, state = self._after(tokens)
        return scores[-1, :, : self.tokenizer.trained].expand(rows, -1), tuple(s.expand(-1, rows, -1) for s in state)

    @torch.inference_mode()
    def _after(self, tokens: np.ndarray) -> tuple[Tensor, State]:
        """The scores (T, 1, V) of the last of these tokens, and the state after them."""
        topology, table = self.network.topology, self.network.table
        scores, state = topology.output.weight.new_zeros(1, 1, self.tokenizer.size), topology.initial_state(1)
        for chunk in torch.from_numpy(tokens).to(self.device).split(1024) if len(tokens) else ():
            scores, state = topology(Inputs(chunk[:, None], table), state)
        return scores, state


def _first_whole(tokenizer: Tokenizer) -> int:
    """The first token that a text can begin with: byte-pair tokens may be a part of a character."""
    whole = (token for token in range(tokenizer.trained) if "\ufffd" not in tokenizers.decode(tokenizer, [token]))
    return next(whole, int(np.flatnonzero(tokenizer.starts)[0]))


ROW = 1000
"""Bytes of a text that is being written, beside its characters."""


def _numbers_a_row(network: Network) -> int:
    """Of a sample: scores with their probabilities and order, and the state, old and new."""
    size, topology = network.topology.output.out_features, network.topology
    layers = topology.recurrent if isinstance(topology, ManyToMany) else None
    return 4 * size + (0 if layers is None else 2 * layers.cell.states * layers.num_layers * layers.hidden_size)


class _Asked(TypedDict):
    """What a text is generated from."""

    prompt: str
    length: int
    stop: str | None
    seeds: list[int]


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
SENSELESS = (LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError, RuntimeError, OSError)
"""What a description can bring about that makes no sense."""


@untouched()
def load(path: str | os.PathLike[str], device: str | torch.device | None = None, task: str | None = None) -> Any:
    """The model in a file or a run folder, on any device (default: the CPU).

    Raises `InputError` where there is none, it is damaged, or it is not of the task asked for.
    """
    (given,) = paths_of([path], "a model's places")
    tensors, description = model_file.load(Path(given))
    found = description["task"]
    if task is not None and found != task:
        raise InputError(f"{path} is a model for {found}, not for {task}: name a model of that task")
    if found not in MODELS:
        raise InputError(f"{path} is a model for {found}, which this version of unrolled does not know: update it")
    try:
        model = MODELS[found].from_file(tensors, description)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    except SENSELESS as error:
        # whatever goes wrong here, the file asked for it: other weights or options than this version's networks have
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} was trained by a version of unrolled whose networks for {found} were others: train it again, or "
            f"install that version ({reason})"
        ) from error
    model.trained_on = description.get("trained_on") or _said_by_run(Path(path))
    try:
        return model.to(torch.device(device)) if device is not None else model
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"the device {device} cannot be used ({reason}): give cpu, or a GPU that is there") from error


def _said_by_run(path: Path) -> dict[str, Any] | None:
    """What the run folder of a model says of its training's data: older model files do not."""
    folder = path if path.is_dir() else path.parent
    if folder / model_file.NAME != (path if path.is_file() else path / model_file.NAME):
        return None
    try:
        _, config = Run.open(folder)
    except InputError:  # no run folder, or a damaged one: then nothing is known
        return None
    return {"val": config["val"], "digest": None}
