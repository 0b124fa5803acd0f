"""`unrolled explain prediction`: the numbers shown and drawn are the model's own."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli
from helpers import assert_one_sentence
from rich.cells import cell_len
from rich.console import Console
from translate_helpers import make

from unrolled.app.prediction import LEVELS, SHADES, shade, show_attention, show_words
from unrolled.cells import Inputs
from unrolled.data.vocabulary import BEGIN
from unrolled.errors import InputError
from unrolled.inspection import pictures
from unrolled.inspection.attribution import Attribution
from unrolled.inspection.prediction_picture import MOST_TOKENS, draw_attention, draw_words, ink_on, mixed
from unrolled.tasks.text_classifier import TextClassifier
from unrolled.tasks.translator import Translation, Translator

WORDS = Attribution(
    "좋다 & $good$",
    0.8,
    1.386,
    "occlusion",
    ["a", "dull,", "<b>", "wonderful", "영화", "$x_1$", "\n", "[red]", "영" * 200] * 4,
    [0.1, -1.2, 0.0, 2.0, -0.01, 0.3, 0.0, 0.2, -0.4] * 4,
    [False, True, False, False, False, False, False, False, False] * 4,
)


@pytest.fixture(scope="module")
def translation() -> Translation:
    return make(attention="additive").predict(["fedcab"], aligned=True)[0]


def test_the_weights_are_those_of_the_network() -> None:
    """The alignment that is drawn against attention computed anew, with the written tokens given."""
    model = make(attention="additive")
    found = model.predict(["fedcab"], beam=1, aligned=True)[0]
    network, side = model.network, model.languages.target
    with torch.no_grad():
        source = torch.from_numpy(model.languages.sources(["fedcab"])[0].astype(np.int64))[:, None]
        memory = network.topology.encode(Inputs(source, network.source_table), torch.tensor([len(source)]))
        written = torch.from_numpy(side.encode(found.text).astype(np.int64))
        before = torch.cat([torch.tensor([BEGIN]), written])[:, None]
        _, weights = network.topology.decode(Inputs(before, network.table), memory)
    drawn = draw_attention(found).axes[0].images[0].get_array()
    assert drawn.shape == (len(found.tokens), len(found.source_tokens)) == (len(before), len(source))
    assert np.allclose(drawn, weights[:, 0].numpy(), atol=1e-5)
    assert np.allclose(drawn.sum(1), 1, atol=1e-5)


def page(show: object, found: object, width: int = 80, **how: object) -> str:
    out = io.StringIO()
    show(found, Console(file=out, width=width, highlight=False, **how))  # type: ignore[operator]
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 140])
def test_shades_say_the_weights(translation: Translation, width: int) -> None:
    text = page(show_attention, translation, width)
    rows = [line.split("│")[1] for line in text.splitlines() if "│" in line]
    assert len(rows) == len(translation.tokens)
    for row, weights in zip(rows, translation.alignment, strict=True):
        assert row == "".join(2 * SHADES[sum(w >= level for level in LEVELS)] for w in weights)
    assert shade(0.0) == " " and shade(1.0) == "█"
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "\x1b" not in text


def test_a_long_source_goes_below(translation: Translation) -> None:
    long = translation._replace(
        source_tokens=[*"abcdefgh" * 9, "<end>"],
        tokens=["한국어", " house", "<end>"],
        alignment=[[1 / 73] * 72 + [1 - 72 / 73], [0.9] + [0.1 / 72] * 72, [0.0] * 72 + [1.0]],
    )
    text = page(show_attention, long)
    assert len([line for line in text.splitlines() if line.startswith("house")]) == 3
    assert all(cell_len(line) <= 80 for line in text.splitlines())


def test_words_are_plain_numbers_in_a_pipe_and_colours_in_a_terminal() -> None:
    text = page(show_words, WORDS)
    found = re.findall(r"^ *([+-]\d+\.\d{3})", text, re.MULTILINE)
    assert [float(number) for number in found] == WORDS.scores
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text and text.count("(not in the vocabulary)") == 4 and "[red]" in text
    coloured = page(show_words, WORDS, force_terminal=True, color_system="truecolor")
    assert "\x1b[38;2;255;255;255;48;2;46;111;189mwonderful" in coloured  # the strongest, white on full blue
    assert all(cell_len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= 80 for line in coloured.splitlines())
    plain = page(show_words, WORDS, force_terminal=True, no_color=True)
    assert "48;2" not in plain


def test_colours_are_readable() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert mixed(0) == "#ffffff" and mixed(1) != mixed(-1)
    for share in np.linspace(-1, 1, 41):
        fill = mixed(share)
        ink = {"white": "#ffffff"}.get(ink_on(fill), ink_on(fill))
        light, dark = sorted((luminance(fill), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 3


def test_pictures_have_every_word_and_no_overlap(tmp_path: Path) -> None:
    figure = draw_words(WORDS)
    axes = figure.axes[0]
    shown = [t.get_text() for t in axes.texts]
    assert "wonderful" in shown and "dull," in shown and "↵" in shown
    figure.canvas.draw()
    boxes = [t.get_window_extent() for t in axes.texts]
    width, height = figure.canvas.get_width_height()
    for i, one in enumerate(boxes):
        assert one.x0 >= 0 and one.x1 <= width and one.y0 >= 0 and one.y1 <= height
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])
    pictures.save(figure, tmp_path / "words.png")
    assert (tmp_path / "words.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn(translation: Translation) -> None:
    with pytest.raises(InputError, match="too long to draw"):
        draw_words(WORDS._replace(words=WORDS.words * 20, scores=WORDS.scores * 20))
    with pytest.raises(InputError, match="no attention"):
        draw_attention(translation._replace(alignment=None))
    with pytest.raises(InputError, match="too many to draw"):
        draw_attention(translation._replace(source_tokens=["a"] * (MOST_TOKENS + 1)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    table = folder / "table.tsv"
    table.write_text("text\tlabel\n" + "good film\tpos\nbad film\tneg\n" * 20)
    TextClassifier.fit(table, tokens="word", hidden=8, embedding=6, steps=10).save(folder / "classifier.safetensors")
    translator: Translator = make(attention="dot")
    translator.save(folder / "translator.safetensors")
    make(attention="none").save(folder / "blind.safetensors")
    return folder


def test_the_command(quick_cli: Cli, models: Path, tmp_path: Path) -> None:
    classifier, translator = models / "classifier.safetensors", models / "translator.safetensors"
    command = ("explain", "prediction", classifier, "a good film")
    done = quick_cli(*command, "--out", "w.png", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["words"] == ["a", "good", "film"] and found["path"] == "w.png" and (tmp_path / "w.png").exists()
    assert quick_cli(*command, "--out", "w.png", cwd=tmp_path).returncode == 2
    done = quick_cli(*command, "--method", "gradient", "--label", "neg", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("neg ") and "gradient of" in done.stdout
    done = quick_cli("explain", "prediction", translator, "abc", "--out", "a.svg", cwd=tmp_path)
    assert done.returncode == 0 and "a.svg" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("model", "rest", "words"),
    [
        ("classifier", ["x", "--beam", "3"], "--beam is for translators"),
        ("classifier", ["x", "--label", "odd"], "no label 'odd'"),
        ("classifier", [" "], "text is empty"),
        ("classifier", ["x", "--out", "a.gif"], "neither .png nor .svg"),
        ("translator", ["x", "--label", "pos"], "are for classifiers"),
        ("translator", [""], "text is empty"),
        ("blind", ["abc"], "has no attention"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    quick_cli: Cli, models: Path, tmp_path: Path, model: str, rest: list[str], words: str
) -> None:
    done = quick_cli("explain", "prediction", models / f"{model}.safetensors", *rest, cwd=tmp_path)
    assert done.returncode == 2 and words in done.stderr
    assert_one_sentence(done.stderr.strip().removeprefix("unrolled: "))
