"""Pretrained image networks: the features are those of transformers itself, of real networks with real pictures."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from helpers import assert_one_sentence
from PIL import Image
from vision_helpers import PREPROCESSING, convolutional, transformer

from unrolled.data.pictures import read_picture
from unrolled.errors import InputError
from unrolled.nn.vision import Backbone

EVIDENT = {
    "parrot.png": "macaw",
    "sunflower.png": "daisy",
    "hot_dog.png": "hotdog",
    "dragonfly.png": "dragonfly",
    "grace_hopper.png": "military uniform",
    "bird.png": "chickadee",
}
"""Pictures with an evident class. The larger network knows all of them, the small one half."""


@pytest.mark.parametrize(
    ("name", "features", "grid", "knows"),
    [("mobilenet_v2_1.0_224", 1280, (7, 7), 6), ("mobilenet_v1_0.25_128", 256, (4, 4), 3)],
)
def test_a_real_network_sees_what_is_in_the_pictures(
    shared_data: Path, name: str, features: int, grid: tuple[int, int], knows: int
) -> None:
    """Golden: transformers' classifier on our features has its own logits, and names what the pictures show."""
    folder, images = shared_data / "backbones" / name, shared_data / "test_images"
    backbone = Backbone.open(folder)
    assert (backbone.features, backbone.grid) == (features, grid)
    whole = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    labels = (images / "imagenet_labels_1001.txt").read_text().splitlines()
    read = [read_picture(images / file) for file in EVIDENT]
    pixels = backbone.pixels(read)
    seen = backbone(pixels)
    with torch.inference_mode():
        logits = whole.classifier(seen.pooled)
        torch.testing.assert_close(logits, whole(pixels).logits, rtol=1e-4, atol=1e-4)
    found = [labels[n] for n in logits.argmax(1).tolist()]
    right = sum(true in label for true, label in zip(EVIDENT.values(), found, strict=True))
    assert right >= knows, found
    torch.testing.assert_close(seen.regions.mean(1), seen.pooled, rtol=1e-4, atol=1e-4)
    assert seen.regions.shape == (len(read), grid[0] * grid[1], features)
    alone = torch.cat([backbone.pixels([picture]) for picture in read])
    for batched, one in zip(backbone.compute(pixels, grid=True), backbone.compute(alone, grid=True), strict=True):
        assert batched.dtype == np.float16
        np.testing.assert_allclose(batched, one, rtol=1e-2, atol=1e-2)


def test_the_grid_lies_where_the_picture_is(tmp_path: Path) -> None:
    """Regions go row by row: what changes below changes no region above."""
    backbone = Backbone.open(transformer(tmp_path / "vit"))
    assert backbone.grid == (4, 4)
    vit = transformers.ViTModel.from_pretrained(tmp_path / "vit", add_pooling_layer=False).eval()
    pixels = backbone.pixels([np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)])
    states = vit(pixels).last_hidden_state
    seen = backbone(pixels)
    torch.testing.assert_close(seen.regions, states[:, 1:])
    torch.testing.assert_close(seen.pooled, states[:, 0])  # the file has no trained pooling, so the class token it is
    light = torch.zeros(1, 3, 32, 32)
    light[..., 24:, :] = 1.0
    patches = backbone.network.embeddings.patch_embeddings(light)[0].norm(dim=-1).reshape(4, 4)
    assert bool((patches[3] != patches[0]).all()) and torch.equal(patches[0], patches[2])


def test_a_trained_pooling_is_used(tmp_path: Path) -> None:
    backbone = Backbone.open(transformer(tmp_path / "vit", pooling=True))
    vit = transformers.ViTModel.from_pretrained(tmp_path / "vit").eval()
    pixels = backbone.pixels([np.full((40, 50, 3), 90, dtype=np.uint8)])
    torch.testing.assert_close(backbone(pixels).pooled, vit(pixels).pooler_output)


@pytest.mark.parametrize("make", [convolutional, transformer])
def test_it_comes_back_from_its_description_and_weights(tmp_path: Path, make: object) -> None:
    backbone = Backbone.open(make(tmp_path / "net"))  # type: ignore[operator]
    again = Backbone.from_json(json.loads(json.dumps(backbone.to_json())))
    assert again.sha256() != backbone.sha256()
    again.load_state_dict(backbone.state_dict())
    assert again.sha256() == backbone.sha256()
    picture = np.random.default_rng(0).integers(0, 255, (50, 30, 3), dtype=np.uint8)
    torch.testing.assert_close(again(again.pixels([picture])), backbone(backbone.pixels([picture])), rtol=0, atol=0)
    assert not any(p.requires_grad for p in again.parameters())
    assert not again.train().network.training


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}, 128),
        ({"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}, None),
        ({"size": {"height": 32, "width": 32}}, None),
        ({"size": {"shortest_edge": 32}, "crop_pct": 0.8, "image_processor_type": "ConvNextImageProcessor"}, 115.2),
    ],
    ids=["cropped", "squeezed and cropped", "squeezed", "by a share"],
)
def test_the_part_that_is_seen(tmp_path: Path, settings: dict, seen: float | None) -> None:
    """A picture that is white where the network sees it, and black around, is white to the network."""
    folder = convolutional(tmp_path / "net", {"image_processor_type": "MobileNetV2ImageProcessor", **settings})
    backbone = Backbone.open(folder)
    left, top, right, bottom = backbone.place(144, 288)
    if seen is not None:
        assert (right - left, bottom - top) == pytest.approx((seen, seen))
    assert (left + right, top + bottom) == pytest.approx((288, 144))
    picture = np.zeros((144, 288, 3), dtype=np.uint8)
    rim = 9  # of the filter: two pixels of the smaller picture
    picture[max(0, round(top) - rim) : round(bottom) + rim, max(0, round(left) - rim) : round(right) + rim] = 255
    assert float(backbone.pixels([picture]).min()) > 0.9
    inside = np.full((144, 288, 3), 255, dtype=np.uint8)
    inside[max(0, round(top)) : round(top) + rim] = 0
    assert float(backbone.pixels([inside]).min()) < 0


def test_the_library_stays_silent_and_asks_no_network(tmp_path: Path) -> None:
    """A local folder needs neither the hub nor its switch, and prints neither bars nor reports."""
    folder = transformer(tmp_path / "vit", pooling=True)
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from unrolled.nn.vision import Backbone\n"
        f"Backbone.open({str(folder)!r})"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_no_image_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = transformer(tmp_path / "vit", pooling=True)
    cases = {"config": "config.json", "weights": "model.safetensors", "processor": "preprocessor_config.json"}
    for name, file in cases.items():
        broken = shutil.copytree(good, tmp_path / name)
        (broken / file).unlink()
        with pytest.raises(InputError, match=name) as error:
            Backbone.open(broken)
        assert_one_sentence(str(error.value).replace("config.json", "config"))
    cut = shutil.copytree(good, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:5000])
    text = tmp_path / "text"
    transformers.BertModel(
        transformers.BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
        )
    ).save_pretrained(text)
    shutil.copy(good / "preprocessor_config.json", text)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (cut, text, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=str(name)):
            Backbone.open(name)


def family(name: str) -> tuple[torch.nn.Module, int]:
    """A small network of a family with random weights, and the side of its pictures."""
    deep, small = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}, {"num_hidden_layers": 2, "hidden_size": 16}
    small |= {"num_attention_heads": 2}
    t = transformers
    if name == "resnet":
        return t.ResNetModel(t.ResNetConfig(embedding_size=8, layer_type="basic", **deep)), 96
    if name == "convnext":
        return t.ConvNextModel(t.ConvNextConfig(**deep)), 96
    if name == "swin":
        return t.SwinModel(t.SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1], image_size=64)), 64
    if name == "dinov2":
        return t.Dinov2Model(t.Dinov2Config(image_size=42, patch_size=14, **small)), 42
    text, vision = {"vocab_size": 9, "intermediate_size": 16, **small}, {"image_size": 32, "patch_size": 8, **small}
    if name == "clip":
        return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)), 32
    return t.SiglipModel(t.SiglipConfig(text_config=text, vision_config={"intermediate_size": 16, **vision})), 32


@pytest.mark.parametrize(
    ("name", "grid"),
    [("resnet", 3), ("convnext", 3), ("swin", 8), ("dinov2", 3), ("clip", 4), ("siglip", 4)],
)
def test_networks_of_other_families(tmp_path: Path, name: str, grid: int) -> None:
    torch.manual_seed(0)
    network, side = family(name)
    network.save_pretrained(tmp_path)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": side, "width": side}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**PREPROCESSING, **settings}))
    backbone = Backbone.open(tmp_path)
    assert backbone.grid == (grid, grid)
    pixels = backbone.pixels([np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)])
    part = network.eval().vision_model if hasattr(network, "vision_model") else network.eval()
    with torch.no_grad():
        theirs = part(pixels)
    torch.testing.assert_close(backbone(pixels).pooled, theirs.pooler_output.flatten(1))
    again = Backbone.from_json(json.loads(json.dumps(backbone.to_json())))
    again.load_state_dict(backbone.state_dict())
    torch.testing.assert_close(again(pixels), backbone(pixels))


def test_a_picture_of_any_shape(tmp_path: Path) -> None:
    backbone = Backbone.open(convolutional(tmp_path / "net"))
    for height, width in ((1, 1), (3, 400), (400, 3)):
        Image.new("RGB", (width, height), "red").save(tmp_path / "a.png")
        (found,) = backbone.compute(backbone.pixels([read_picture(tmp_path / "a.png")]), grid=False)
        assert found.shape == (1, backbone.features) and np.isfinite(found).all()


CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nraise SystemExit('a stranger is here')\n"
MAP = {"AutoConfig": "own.C", "AutoModel": "own.M", "AutoImageProcessor": "own.P"}


@pytest.mark.parametrize("where", ["its own class", "a class that transformers has", "preprocessing", "inside"])
def test_code_that_comes_with_a_network_is_refused_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As a folder, and in the description that a model file carries."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    folder = transformer(tmp_path / "vit", pooling=True)
    (folder / "own.py").write_text(CODE)
    backbone = Backbone.open(folder)
    config, processor = (
        json.loads((folder / name).read_text()) for name in ("config.json", "preprocessor_config.json")
    )
    description = json.loads(json.dumps(backbone.to_json()))
    changes: dict[str, dict] = {"config": {}, "processor": {}}
    if where == "preprocessing":
        changes["processor"] = {"auto_map": MAP, "image_processor_type": "P"}
    elif where == "inside":
        changes["config"] = {"vision_config": {"auto_map": MAP}}
    else:
        changes["config"] = {"auto_map": MAP, **({"model_type": "strange"} if where == "its own class" else {})}
    (folder / "config.json").write_text(json.dumps({**config, **changes["config"]}))
    (folder / "preprocessor_config.json").write_text(json.dumps({**processor, **changes["processor"]}))
    for key, more in changes.items():
        description[key] |= more
    for make in (lambda: Backbone.open(folder), lambda: Backbone.from_json(description)):
        with pytest.raises(InputError, match="brings code of its own .* which is never run here") as error:
            make()
        assert_one_sentence(str(error.value))
    assert not (folder / "ran").exists()


def test_a_model_file_whose_backbone_this_transformers_does_not_have(tmp_path: Path) -> None:
    description = json.loads(json.dumps(Backbone.open(transformer(tmp_path / "vit", pooling=True)).to_json()))
    description["config"]["model_type"] = "of-the-future"
    with pytest.raises(InputError, match="cannot make the model's backbone .*vit .*of-the-future") as error:
        Backbone.from_json(description)
    assert_one_sentence(str(error.value))
