"""`VideoCaptioner`: what users hold of a trained captioner of clips. It describes, measures and saves itself."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unrolled.data.captioned import Captioned, read_captions
from unrolled.data.examples import BadFiles
from unrolled.data.frames import Frames
from unrolled.metrics import captions
from unrolled.nn.convnet import pack
from unrolled.tasks.caption_video import EACH, Network, VideoCaptionTask, described, description, sample
from unrolled.tasks.captioning import Caption, Words, counted, inputs_alone, with_all_captions
from unrolled.tasks.clip_labels import several
from unrolled.tasks.media_options import VideoCaptionerOptions
from unrolled.tasks.options import SearchOptions
from unrolled.tasks.public_model import PublicModel, built, remarks
from unrolled.tasks.video import Shape
from unrolled.tasks.writing import BEAM, mean_loss, write

PathLike = str | os.PathLike[str]
GROUP = 32
"""Clips that are decoded together: no more frames than theirs are held."""


class VideoCaptioner(PublicModel):
    """A trained captioner of clips."""

    task = VideoCaptionTask.name
    options_class = VideoCaptionerOptions
    reading = ("encoding", "bad_files")
    network: Network

    def __init__(
        self,
        network: Network,
        words: Words,
        shape: Shape,
        options: VideoCaptionerOptions,
        metrics: dict[str, float] | None = None,
        step: int = 0,
    ) -> None:
        super().__init__(network, options, metrics, step)
        self.words, self.shape = words, shape

    @classmethod
    def from_file(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> "VideoCaptioner":
        """From what `model_file.load` returns."""
        options = VideoCaptionerOptions.from_json(description["options"])
        words, shape = described(description["vocabulary"])
        # the engine of the training need not exist where the model is used
        network = built(lambda: Network(words, shape, replace(options, engine="auto")), tensors)
        return cls(network, words, shape, options, description["metrics"], description["step"])

    def vocabulary(self) -> dict[str, Any]:
        return description(self.words, self.shape)

    def _knows(self) -> str:
        return f"{self.words.vocabulary.size:,} tokens"

    def caption(self, clips: Sequence[PathLike], beam: int = BEAM, **how: Any) -> list[str]:
        """A sentence for each clip, a video file or a folder of pictures. beam: hypotheses of each, 1 for greedy; how:
        length_penalty, min_length, max_length, no_repeat_ngram (see `SearchOptions`)."""
        return [found.text for found in self.predict(clips, beam, **how)]

    def predict(
        self, clips: Sequence[PathLike], beam: int = BEAM, *, aligned: bool = False, **how: Any
    ) -> list[Caption]:
        """The captions with their scores; aligned: with attention weights. A clip of any length is read frame by frame,
        and at most `frames` of it are kept (see `looked_at`)."""
        paths, found, search = several(clips), list[Caption](), SearchOptions(beam=beam, **how)
        for begin in range(0, len(paths), GROUP):
            frames = Frames.pack([self.shape.decode(path) for path in paths[begin : begin + GROUP]])
            found += self._written(frames, search, aligned)
        return found

    def looked_at(self, count: int) -> list[int]:
        """Of a clip of which so many frames are read, the numbers of those that the words can look at."""
        rows, _ = sample(pack(torch.zeros(count, 1, 1, 1, 1), torch.tensor([count])), EACH, False)
        return rows.tolist()

    def _written(self, frames: Frames, search: SearchOptions, aligned: bool = False) -> list[Caption]:
        _, found = write(self.network, self.words, inputs_alone(frames), self.device, search=search, aligned=aligned)
        return [self.words.caption(best) for best in found]

    def evaluate(
        self,
        *paths: PathLike,
        split: str | None = None,
        encoding: str | None = None,
        bad_files: BadFiles = "stop",
        beam: int = BEAM,
        **how: Any,
    ) -> dict[str, Any]:
        """cider (0 to 10), bleu_1 to bleu_4 and rouge_l (0 to 1) of the captions that the model writes, against all
        captions of each clip; exact, the share that is one of them; val_loss (nats per token, with teacher forcing);
        clips, captions; `notes` and `skipped`.

        split: train or val as the training divides these clips; test where the data say so. encoding: of their table,
        default UTF-8. bad_files: "stop" at a clip that cannot be read, or "skip" it. how: see `SearchOptions`.
        """
        return self.measured(*paths, split=split, encoding=encoding, bad_files=bad_files, beam=beam, **how)[1]

    def measured(
        self,
        *paths: PathLike,
        split: str | None = None,
        encoding: str | None = None,
        bad_files: BadFiles = "stop",
        beam: int = BEAM,
        **how: Any,
    ) -> tuple[Captioned, dict[str, Any]]:
        """The clips that `evaluate` measures, and what it finds."""
        search = SearchOptions(beam=beam, **how)
        data = read_captions(paths, encoding=encoding, bad_files=bad_files)
        data = self.part(data, split, paths, "clip", groups=data.groups)
        kept = self.shape.read(data.paths, bad_files)
        data, frames = data.take(kept.rows), kept.frames
        written = [found.text for found in self._written(frames, search)]
        scores = captions.scores(written, data.captions)
        loss, _ = mean_loss(self.network, with_all_captions(frames, data.captions, self.words), self.device)
        return data, {
            "cider": scores.pop("cider"),
            **scores,
            "exact": captions.exact(written, data.captions),
            "val_loss": loss,
            "clips": len(data),
            "captions": sum(map(len, data.captions)),
            "beam": beam,
            **how,
            **remarks([*data.notes, *kept.notes, *counted(data.captions)], [*data.skipped, *kept.skipped]),
        }
