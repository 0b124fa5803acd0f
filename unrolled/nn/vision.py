"""Pretrained image networks of the library `transformers`, frozen: what a picture is to a recurrent network.

Their classifier and last pooling are left out: what remains is a grid of regions, each a vector, and one vector of the
whole picture. Preprocessing is what the network's own configuration says, with Pillow, so that torchvision changes
nothing where it is installed.

B: pictures, F: features, S: regions, row by row from the top left.
"""

import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from unrolled.data import decoders
from unrolled.errors import InputError

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
BATCH = 16
"""Pictures that go through the network together."""
WITHOUT = ("id2label", "label2id", "_name_or_path", "transformers_version")
"""Of a configuration: what only a classifier needs, and where and by what it was written."""


class Seen(NamedTuple):
    """What a backbone says of B pictures."""

    pooled: Tensor
    """(B, F)"""
    regions: Tensor
    """(B, S, F)"""


class Backbone(nn.Module):
    """A frozen image network with its preprocessing. It is always in evaluation mode, and nothing in it learns.

    Regions are the last feature map of a convolutional network, or a transformer's last tokens without those in front
    (a class token). The vector of the whole picture is what the network pools its regions to, where that has trained
    weights or none; else the class token; else the regions' mean.
    """

    def __init__(self, network: nn.Module, description: dict[str, Any]) -> None:
        """description: as `to_json` gives it."""
        super().__init__()
        self.network = network.float().eval().requires_grad_(False)
        self.description = description
        with tempfile.TemporaryDirectory() as folder:  # the one way in that knows every model's processor
            for name, key in ((CONFIG, "config"), (PROCESSOR, "processor")):
                Path(folder, name).write_text(json.dumps(description[key]))
            self.processor = _processor(folder)
        blank = np.full((64, 64, 3), 128, dtype=np.uint8)
        pixels = self.pixels([blank])
        seen = self(pixels)
        self.features = seen.pooled.shape[1]
        self.grid = _grid(seen.regions.shape[1], pixels.shape[-2] / pixels.shape[-1])
        """Rows and columns of regions"""

    @classmethod
    def open(cls, name: str | os.PathLike[str]) -> Self:
        """A folder with config.json, preprocessor_config.json and weights, or a name on the Hugging Face hub, which is
        downloaded once. Raises `InputError` where there is none or it is no image network."""
        folder = Path(name)
        local = folder.is_dir()
        if local:
            for file in (CONFIG, PROCESSOR):
                if not (folder / file).is_file():
                    raise InputError(f"{folder} has no {file}: name a folder that transformers' save_pretrained wrote")
                with suppress(OSError, ValueError):  # transformers says below what is wrong with it
                    _refuse_code(name, json.loads((folder / file).read_bytes()))
        transformers = library()
        try:
            with _quiet(transformers):
                network, found = transformers.AutoModel.from_pretrained(
                    str(name),
                    local_files_only=local,
                    use_safetensors=True,
                    output_loading_info=True,
                    trust_remote_code=False,
                )
                processor = _processor(str(name), local)
        except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            if "trust_remote_code" in str(error):
                raise _brings_code(name) from None
            what = "folder" if local else "name on the hub, nor a folder here"
            raise InputError(
                f"{name} is not the {what} of an image network that transformers opens: {_reason(error)}"
            ) from None
        missing = [key for key in found["missing_keys"] if "pooler" not in key]
        if missing:
            raise InputError(f"{name} lacks the weights of {missing[0]}: take the model from its source again")
        part = _image_part(network)
        if getattr(part, "main_input_name", None) != "pixel_values":
            raise InputError(f"{name} is a {type(network).__name__}, which reads no pictures: name an image network")
        config = {key: value for key, value in network.config.to_dict().items() if key not in WITHOUT}
        settings = json.loads(processor.to_json_string())
        _refuse_code(name, [config, settings])
        pooler = not found["missing_keys"]
        description = {"name": str(name), "config": config, "processor": settings, "pooler": pooler}
        try:
            return cls(part, description)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"the preprocessing of {name} does not fit its network: {_reason(error)}") from None

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Self:
        """The network of this description with weights that mean nothing yet: load them with `load_state_dict`."""
        transformers, name = library(), description["name"]
        _refuse_code(name, description)
        try:
            config = transformers.AutoConfig.for_model(**description["config"])
            with _quiet(transformers):
                network = transformers.AutoModel.from_config(config, trust_remote_code=False)
                return cls(_image_part(network), description)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"transformers {transformers.__version__} cannot make the model's backbone {name} ({_reason(error)}): "
                "install the version that the model was trained with"
            ) from None

    @staticmethod
    def shapes(description: dict[str, Any]) -> dict[str, torch.Size]:
        """Of the weights of the network of this description, by their names in `state_dict`; no memory is taken."""
        transformers = library()
        config = transformers.AutoConfig.for_model(**description["config"])
        with _quiet(transformers), torch.device("meta"):
            network = _image_part(transformers.AutoModel.from_config(config, trust_remote_code=False))
        return {f"network.{name}": tensor.shape for name, tensor in network.state_dict().items()}

    def to_json(self) -> dict[str, Any]:
        return self.description

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever module it is a part of: its batch norms are those it was trained with."""
        return super().train(False)

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    @property
    def name(self) -> str:
        """What it was opened by."""
        return str(self.description["name"])

    def sha256(self) -> str:
        """Of the weights, the configuration and the preprocessing: who has the same sees the same."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state_dict().items()}
        what = {key: value for key, value in self.description.items() if key != "name"}
        digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
        digest.update(safetensors.torch.save(tensors))
        return digest.hexdigest()

    def pixels(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """RGB pictures, each uint8 (H, W, 3) of its own size, to what `forward` takes."""
        prepared = self.processor(images=list(pictures), return_tensors="pt", input_data_format="channels_last")
        return prepared["pixel_values"].to(self.device)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Seen:
        """Prepared pictures (B, 3, height, width)."""
        found = self.network(pixels)
        states = found.last_hidden_state
        pooled = getattr(found, "pooler_output", None) if self.description["pooler"] else None
        if states.dim() == 4:
            regions = states.flatten(2).transpose(1, 2)
            return Seen(regions.mean(1) if pooled is None else pooled.flatten(1), regions)
        front = self._in_front(states.shape[1], pixels)
        regions = states[:, front:]
        if pooled is None:
            pooled = states[:, 0] if front else regions.mean(1)
        return Seen(pooled.flatten(1), regions)

    def _in_front(self, tokens: int, pixels: Tensor) -> int:
        """How many of a transformer's tokens stand before those of the patches."""
        patch = getattr(self.network.config, "patch_size", None)
        if not isinstance(patch, int):
            return 0
        patches = (pixels.shape[-2] // patch) * (pixels.shape[-1] // patch)
        return tokens - patches if tokens > patches else 0

    def versions(self) -> str:
        """Of the libraries that `pixels` and `compute` depend on."""
        return decoders.of_networks()

    def recipe(self, grid: bool) -> str:
        """All else that they depend on."""
        return json.dumps({"backbone": self.sha256(), "of": "regions" if grid else "picture"})

    def compute(self, pixels: Tensor, *, grid: bool) -> list[np.ndarray]:
        """Prepared pictures (N, 3, height, width) to the regions (S, F) of each, or without `grid` its one vector
        (1, F); float16."""
        rows: list[np.ndarray] = []
        for part in pixels.split(BATCH):
            seen = self(part)
            found = seen.regions if grid else seen.pooled[:, None]
            rows += list(found.half().cpu().numpy())
        return rows

    def place(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Which part of a picture the network sees, in pixels of the picture: left, top, right, bottom."""
        settings = self.description["processor"]
        size, crop = settings.get("size") or {}, settings.get("crop_size") or {}
        shortest = size.get("shortest_edge")
        if settings.get("crop_pct") and shortest and shortest < 384:  # ConvNeXt's: above it is squeezed into a square
            across = down = min(height, width) * settings["crop_pct"]
        elif not settings.get("do_center_crop") or not crop:
            across, down = width, height
        elif shortest:
            scale = min(height, width) / shortest
            across, down = scale * crop["width"], scale * crop["height"]
        else:
            across = width * crop["width"] / size.get("width", crop["width"])
            down = height * crop["height"] / size.get("height", crop["height"])
        return (width - across) / 2, (height - down) / 2, (width + across) / 2, (height + down) / 2


def _grid(regions: int, ratio: float) -> tuple[int, int]:
    """Rows and columns of so many regions of a picture that is `ratio` times as high as wide; one row where they make
    no rectangle.

    >>> _grid(49, 1.0), _grid(24, 1.5), _grid(50, 1.0)
    ((7, 7), (6, 4), (1, 50))
    """
    rows = max(1, round((regions * ratio) ** 0.5))
    return (rows, regions // rows) if regions % rows == 0 and abs(rows**2 / regions / ratio - 1) < 0.2 else (1, regions)


def library() -> Any:
    """`transformers`; raises `InputError` where it or Pillow is not installed."""
    try:
        importlib.import_module("PIL.Image")
        return importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            f"pretrained image networks need transformers and Pillow: pip install 'unrolled[vision]' ({error})"
        ) from error


def _processor(name: str, local: bool = True) -> Any:
    """The preprocessing that goes with a network, done by Pillow and NumPy."""
    transformers = library()
    with _quiet(transformers):
        # the same request, to newer and to older versions
        return transformers.AutoImageProcessor.from_pretrained(
            name, local_files_only=local, backend="pil", use_fast=False, trust_remote_code=False
        )


def _reason(error: Exception) -> str:
    """Its first sentence."""
    return str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__


def _refuse_code(name: object, settings: Any) -> None:
    """Raises `InputError` where settings name Python code that comes with a network. It would be a stranger's, so it is
    never run; and transformers' own class of that name need not be the same network."""
    inner = settings.values() if isinstance(settings, dict) else settings if isinstance(settings, list) else ()
    if isinstance(settings, dict) and settings.get("auto_map"):
        raise _brings_code(name)
    for value in inner:
        _refuse_code(name, value)


def _brings_code(name: object) -> InputError:
    return InputError(
        f"{name} brings code of its own (auto_map in its settings), which is never run here: name an image network "
        "that transformers itself has"
    )


def _image_part(network: nn.Module) -> nn.Module:
    """Of a model of pictures and texts (CLIP and its kin) that of pictures."""
    part = getattr(network, "vision_model", network)
    assert isinstance(part, nn.Module)
    return part


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without transformers' own bars and reports: what matters of them is checked here."""
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
