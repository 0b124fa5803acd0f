"""`ImageCaptioner`: what users hold of a trained captioner of pictures. It describes, measures and saves itself."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from unrolled.data.captioned import Captioned, read_captions
from unrolled.data.examples import BadFiles
from unrolled.data.frames import Frames
from unrolled.data.pictures import read_picture
from unrolled.errors import InputError
from unrolled.metrics import captions
from unrolled.nn.vision import Backbone
from unrolled.tasks.caption_image import Eye, ImageCaptionTask, Network, description, encoder_of, examples, features_of
from unrolled.tasks.captioning import Caption, Words, counted, inputs_alone
from unrolled.tasks.media_options import ImageCaptionerOptions
from unrolled.tasks.options import SearchOptions
from unrolled.tasks.public_model import PublicModel, built, remarks
from unrolled.tasks.writing import BEAM, mean_loss, write

PathLike = str | os.PathLike[str]
GROUP = 64
"""Pictures that are decoded together."""


class ImageCaptioner(PublicModel):
    """A trained captioner of pictures."""

    task = ImageCaptionTask.name
    options_class = ImageCaptionerOptions
    reading = ("encoding", "bad_files")
    network: Network

    def __init__(
        self,
        network: Network,
        words: Words,
        options: ImageCaptionerOptions,
        metrics: dict[str, float] | None = None,
        step: int = 0,
    ) -> None:
        super().__init__(network, options, metrics, step)
        self.words = words

    @classmethod
    def from_file(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> "ImageCaptioner":
        """From what `model_file.load` returns."""
        options = ImageCaptionerOptions.from_json(description["options"])
        kept = description["vocabulary"]
        words = Words.from_json(kept["words"])
        eye = None if options.backbone is None else _backbone(kept, tensors)
        # the engine of the training need not exist where the model is used
        anywhere = replace(options, engine="auto")
        network = built(lambda: Network(words, eye or encoder_of(options), anywhere), tensors)
        return cls(network, words, options, description["metrics"], description["step"])

    def to(self, device: str | torch.device) -> Self:
        self.eye.to(device)  # a large backbone is no part of the network
        return super().to(device)

    @property
    def eye(self) -> Eye:
        """What looks at pictures: a backbone, or convolutions that learned with the rest."""
        return self.network.eye

    def vocabulary(self) -> dict[str, Any]:
        return description(self.words, self.eye)

    def _knows(self) -> str:
        return f"{self.words.vocabulary.size:,} tokens"

    def caption(self, pictures: Sequence[PathLike | np.ndarray], beam: int = BEAM, **how: Any) -> list[str]:
        """A sentence for each picture, a file or an RGB array (H, W, 3) uint8. beam: hypotheses of each, 1 for greedy;
        how: length_penalty, min_length, max_length, no_repeat_ngram (see `SearchOptions`)."""
        return [found.text for found in self.predict(pictures, beam, **how)]

    def predict(
        self, pictures: Sequence[PathLike | np.ndarray], beam: int = BEAM, *, aligned: bool = False, **how: Any
    ) -> list[Caption]:
        """The captions with their scores; aligned: with attention weights."""
        if isinstance(pictures, str | os.PathLike):
            raise InputError("predict takes a list of pictures: put the path into brackets")
        for picture in pictures:
            if isinstance(picture, np.ndarray) and (picture.dtype != np.uint8 or picture.shape[2:] != (3,)):
                raise InputError(
                    f"predict takes pictures of shape (H, W, 3), red, green and blue, of uint8, and one is "
                    f"{picture.shape} {picture.dtype}: convert it"
                )
        search = SearchOptions(beam=beam, **how)
        found: list[Caption] = []
        grid = self.options.image == "attention"
        for begin in range(0, len(pictures), GROUP):
            pixels = [
                self.eye.pixels([p if isinstance(p, np.ndarray) else read_picture(p)])
                for p in pictures[begin : begin + GROUP]
            ]
            found += self._written(Frames.pack(self.eye.compute(torch.cat(pixels), grid=grid)), search, aligned)
        return found

    def _written(self, inputs: Frames, search: SearchOptions, aligned: bool = False) -> list[Caption]:
        """Of features (S, F) of each picture."""
        _, found = write(self.network, self.words, inputs_alone(inputs), self.device, search=search, aligned=aligned)
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
        captions of each picture; val_loss (nats per token, with teacher forcing); pictures, captions; `notes` and
        `skipped`.

        split: train or val as the training divides these pictures; test where the data say so. encoding: of their
        table, default UTF-8. bad_files: "stop" at a picture that cannot be read, or "skip" it. how: see
        `SearchOptions`.
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
        """The pictures that `evaluate` measures, and what it finds."""
        o, search = self.options, SearchOptions(beam=beam, **how)
        data = read_captions(paths, encoding=encoding, bad_files=bad_files)
        data = self.part(data, split, paths, "picture", groups=data.groups)
        kept = features_of(self.eye, data.paths, o.image, bad_files)
        data = data.take(kept.rows)
        scores = captions.scores([found.text for found in self._written(kept.frames, search)], data.captions)
        loss, _ = mean_loss(self.network, examples(kept.frames, data.captions, self.words, o), self.device)
        return data, {
            "cider": scores.pop("cider"),
            **scores,
            "val_loss": loss,
            "pictures": len(data),
            "captions": sum(map(len, data.captions)),
            "beam": beam,
            **how,
            **remarks([*data.notes, *kept.notes, *counted(data.captions)], [*data.skipped, *kept.skipped]),
        }


def _backbone(kept: dict[str, Any], tensors: dict[str, Tensor]) -> Backbone:
    """The one that the model file carries, its weights to come; else the one that it names."""
    carried = {name.removeprefix("eye."): tensor for name, tensor in tensors.items() if name.startswith("eye.")}
    if carried:
        wanted = Backbone.shapes(kept["backbone"])  # before it is built: it may ask for more memory than there is
        if wrong := [name for name, shape in wanted.items() if name not in carried or carried[name].shape != shape]:
            raise RuntimeError(f"its backbone asks for {wrong[0]} of shape {tuple(wanted[wrong[0]])}")
        return Backbone.from_json(kept["backbone"])
    name = kept["backbone"]["name"]
    backbone = Backbone.open(name)
    if backbone.sha256() != kept["backbone_sha256"]:
        raise InputError(f"{name} is not the backbone that this model was trained with: take that from its source")
    return backbone
