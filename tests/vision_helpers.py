"""A small image network as a folder of transformers, and drawn pictures with captions."""

import json
from pathlib import Path

import torch
import transformers
from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 40), "green": (40, 170, 60), "blue": (40, 70, 220), "yellow": (240, 220, 60)}
SHAPES = ("circle", "square")
TEMPLATES = ("A {} {} .", "There is a {} {} on a white ground .")


PREPROCESSING = {
    "do_resize": True,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
}


def convolutional(folder: Path, settings: dict[str, object] | None = None) -> Path:
    """MobileNet v1 with random weights: 64 × 64 pixels to 2 × 2 regions of 64; always the same. settings: of its
    preprocessing."""
    torch.manual_seed(0)
    config = transformers.MobileNetV1Config(image_size=64, depth_multiplier=0.0625, min_depth=8)
    plain = {"image_processor_type": "MobileNetV1ImageProcessor", "size": {"height": 64, "width": 64}}
    return _saved(transformers.MobileNetV1Model(config), settings or plain, folder)


def transformer(folder: Path, pooling: bool = False) -> Path:
    """A ViT with random weights: 32 × 32 pixels to a class token and 4 × 4 regions of 16. Without `pooling` its file
    has no pooling layer, as that of a classifier has not."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
    )
    network = transformers.ViTModel(config, add_pooling_layer=pooling)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}
    return _saved(network, settings, folder)


def _saved(network: torch.nn.Module, settings: dict[str, object], folder: Path) -> Path:
    network.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSING, **settings}))
    return folder


def captioned(folder: Path, of_each: int = 4) -> Path:
    """`of_each` pictures of each colour and shape, at different places, with two captions each; the last of each is for
    validation."""
    (folder / "images").mkdir(parents=True)
    rows = ["image,caption,split"]
    for colour, fill in COLOURS.items():
        for shape in SHAPES:
            for n in range(of_each):
                name = f"{colour}_{shape}_{n}.png"
                _draw(shape, fill, n).save(folder / "images" / name)
                split = "dev" if n == of_each - 1 else "train"
                rows += [f"{name},{template.format(colour, shape)},{split}" for template in TEMPLATES]
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


def _draw(shape: str, fill: tuple[int, int, int], n: int) -> Image.Image:
    picture = Image.new("RGB", (60, 48), "white")
    box = (4 + 3 * n, 3 + 2 * n, 40 + 3 * n, 39 + 2 * n)
    brush = ImageDraw.Draw(picture)
    (brush.ellipse if shape == "circle" else brush.rectangle)(box, fill=fill)
    return picture
