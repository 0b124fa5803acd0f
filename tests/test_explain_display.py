"""How `unrolled explain` shows its numbers, and the command."""

import io
import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict

import pytest
from helpers import assert_one_sentence
from rich.cells import cell_len
from rich.color import Color, ColorSystem
from rich.console import Console

from unrolled.app.lesson import show
from unrolled.app.page import GRADIENT, INPUT, OUTPUT, STATE, number
from unrolled.app.sketch import sketch
from unrolled.inspection.explain import explain
from unrolled.inspection.explanation import Explanation

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
LONG = "The quick brown fox jumps over the lazy dog, then sleeps all day"
KOREAN = "한글은 한국의 글"
CONTROLS = "a\tb\n\x00\x1b[31mc\u0301\u200d é"
TEXTS = {"hello": {}, LONG: {"steps": 20}, KOREAN: {}, CONTROLS: {"steps": 20}, "ab": {}, "memory": {"hidden": 9}}


@pytest.fixture(scope="module")
def hello() -> Explanation:
    return explain("hello")


# How they are shown


def page(e: Explanation, width: int = 80, **how: object) -> str:
    """What `unrolled explain` writes into a pipe of that width."""
    out = io.StringIO()
    show(e, Console(file=out, width=width, highlight=False, **how))
    return out.getvalue()


def row(text: str, label: str) -> list[str]:
    """The cells of the first line with that label."""
    line = next(line for line in text.splitlines() if re.match(rf"  {re.escape(label)}(  |$)", line))
    return line[2 + len(label) :].split()


def test_what_was_not_learned_is_said(hello: Explanation) -> None:
    assert "not learned" in page(explain(steps=0))
    assert "not learned" not in page(hello)


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("text", TEXTS)
def test_plain_text_fits(text: str, width: int) -> None:
    shown = page(explain(text, **TEXTS[text]), width)
    lines = shown.splitlines()
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert max(map(cell_len, lines)) <= width
    assert all(line == line.rstrip() for line in lines)
    titles = [line for line in lines if line.startswith("── ")]
    assert [title[3] for title in titles] == list("123456")


def test_colours_change_nothing_else(hello: Explanation) -> None:
    coloured = page(hello, force_terminal=True, color_system="truecolor")
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == page(hello)


def test_colours_are_legible_on_light_and_dark() -> None:
    for name in (INPUT, STATE, OUTPUT, GRADIENT):
        colour = Color.parse(name)
        r, g, b = (((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour.triplet)
        luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b  # WCAG 2
        assert min(1.05 / (luminance + 0.05), (luminance + 0.05) / 0.05) > 4.3
        assert colour.downgrade(ColorSystem.STANDARD).number not in (0, 3, 7, 8, 11, 15)  # black, yellow, grey, white


def test_the_page_shows_the_numbers(hello: Explanation) -> None:
    text = page(hello)
    assert row(text, "input") == list("hell")
    assert row(text, "target") == list("ello")
    assert row(text, "L_t") == [number(s.loss) for s in hello.timesteps]
    for i in range(3):
        label = "h_t  1" if i == 0 else f"     {i + 1}"
        assert row(text, label) == [number(s.hidden[i]) for s in hello.timesteps]
    assert row(text, "p_t  h") == [number(s.softmax[0]) for s in hello.timesteps]
    assert row(text, "truncated") == ["0", *(number(x, 3) for x in hello.truncated.norms[1:])]
    assert row(text, "drawn") == [d.drawn for d in hello.sample.draws]
    assert f'"{hello.sample.text}"' in text
    assert f"= {number(hello.loss)} nats" in text
    assert "W_xh 3×4 + W_hh 3×3 + b_xh 3 + b_hh 3 + W_hy 4×3 + b_y 4 = 43" in text


def test_wide_characters_align() -> None:
    lines = page(explain(KOREAN)).splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("  t  "))) :]
    table = table[: table.index("")]
    assert len(table) == 2 + 6 + 3 + 6 + 6 + 3
    assert len({cell_len(line) for line in table}) == 1


@pytest.mark.parametrize("bptt", range(1, 8))
@pytest.mark.parametrize("text", ["hello", KOREAN])
def test_the_sketch_cuts_where_chunks_begin(text: str, bptt: int) -> None:
    """Between the boxes of t - 1 and t the gradient goes back, unless a chunk begins at t."""
    e = explain(text, bptt=bptt, steps=5)
    boxes, back = [], []
    lines = [line.plain for line in sketch(e, 80)]
    for i, line in enumerate(lines):
        if "h_1 " in line or "→│" in line:
            boxes += [int(t) for t in re.findall(r"h_(\d+)", line)]
            inside = re.split(r"│[^│]*│", lines[i + 1])
            assert inside.pop().strip() in ("", "╳", "←╌╌")
            back += [link.strip() for link in inside]
    assert boxes == list(range(1, len(text)))
    assert back[0] == ""
    for t, link in zip(boxes[1:], back[1:], strict=True):
        assert bool(re.match("╳ (stop|detach)$", link)) == ((t - 1) % bptt == 0)
        assert bool(re.match("←╌+$", link)) == ((t - 1) % bptt != 0)


@pytest.mark.parametrize("text", TEXTS)
def test_arrows_meet_the_middle_of_the_boxes(text: str) -> None:
    e = explain(text, **TEXTS[text])
    seen = 0
    lines = [line.plain for line in sketch(e, 80)]
    for i, line in enumerate(lines):
        if "↑ W_hy" in line:
            arrows = [m.start() for m in re.finditer("↑", line)]
            corners = [(m.start() + m.end() - 1) / 2 for m in re.finditer("┌─+┐", lines[i + 1])]
            below = next(other for other in lines[i:] if "↑ W_xh" in other)
            assert arrows == corners == [m.start() for m in re.finditer("↑", below)]
            seen += len(arrows)
    assert seen == len(text) - 1


# The command


@pytest.mark.parametrize(
    "arguments", ["", "--cell lstm --hidden 2 --bptt 1 --seed 4 --steps 9", "-- -a-b", "--text memory"]
)
def test_json_is_the_structure(quick_cli: Cli, arguments: str) -> None:
    how: dict[str, object] = {}
    if "lstm" in arguments:
        how = {"cell": "lstm", "hidden": 2, "bptt": 1, "seed": 4, "steps": 9}
    elif arguments:
        how = {"text": arguments.split()[1]}
    result = quick_cli("explain", "--json", *arguments.split())
    assert (result.returncode, result.stderr, result.stdout.count("\n")) == (0, "", 1)
    expected = asdict(explain(**how))
    printed = json.loads(result.stdout)
    assert printed.keys() == expected.keys()
    assert printed["timesteps"][0].keys() == expected["timesteps"][0].keys()
    assert (printed["text"], printed["vocabulary"]) == (expected["text"], expected["vocabulary"])
    assert printed["loss"] == pytest.approx(expected["loss"])
    for mine, theirs in zip(printed["backward"]["total"], expected["backward"]["total"], strict=True):
        assert mine == pytest.approx(theirs)


def test_the_command_writes_the_page_and_repeats(quick_cli: Cli) -> None:
    first, again = quick_cli("explain", KOREAN), quick_cli("explain", KOREAN)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == again.stdout
    assert KOREAN.replace(" ", "␣") in first.stdout
    assert "\x1b" not in first.stdout


BAD = {
    "nothing": ([""], "nothing to predict in the text ''"),
    "one character": (["a"], "nothing to predict in the text 'a'.*at least 2 different"),
    "one character, twice": (["aa"], "nothing to predict in the text 'aa'.*at least 2 different"),
    "too long": (["ab" * 33], "66 characters and 64 can be.*train language-model"),
    "no Unicode": (["a\udcff"], "not valid Unicode"),
    "unknown cell": (["--cell", "lstn"], "unknown cell 'lstn': choose one of .*lstm"),
    "no hidden units": (["--hidden", "0"], "--hidden is 0: it must be from 1"),
    "too many hidden units": (["--hidden", "4096"], "--hidden is 4096: it must be from 1 to 128"),
    "updates": (["--steps", "-1"], "--steps is -1"),
    "chunks": (["--bptt", "0"], "--bptt is 0: it must be at least 1"),
    "seed": (["--seed", str(2**64)], "--seed is 18446744073709551616"),
    "no number": (["--hidden", "three"], "--hidden.*three"),
    "two texts": (["hello", "world"], "world"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_explained_is_said(quick_cli: Cli, arguments: list[str], message: str) -> None:
    result = quick_cli("explain", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.search(message, result.stderr)
    assert result.stderr.count("\n") == 1
    if "See unrolled --help" not in result.stderr:
        assert_one_sentence(result.stderr.strip())


def test_help_imports_no_torch(unrolled_cli: Cli) -> None:
    result = unrolled_cli("explain", "--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert result.returncode == 0
    assert "--text" in result.stdout
    imported = set(re.findall(r"^import time:.*\| +(\w+)", result.stderr, re.MULTILINE))
    assert "cyclopts" in imported
    assert not {"torch", "numpy", "matplotlib"} & imported
