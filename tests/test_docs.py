"""Every block of the documentation runs, every link within it leads somewhere, and the site builds."""

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import run_blocks  # noqa: E402
from run_blocks import Block, DocumentationError, Limits, blocks, run_page  # noqa: E402

PAGES = [
    str(path.relative_to(ROOT))
    for pattern in ("README*.md", "CONTRIBUTING.md", "docs/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
LIMITS = Limits(steps=40, updates=3)
REASONS = {".ci/run runs it"}
"""Why a block may not run here. `test_ci_runs_what_pages_leave_to_it` holds each to it."""
LINK = re.compile(r"(?<!\\)\[(?:[^][]|\[[^]]*\])*\]\((?P<target>[^()\s]+(?:\([^()]*\))?)(?: \"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6} +(?P<title>.*?)(?: +\{ *#(?P<name>[\w-]+) *\})?$")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pages' outcomes are kept, so that the site's build need not run them again."""
    return tmp_path_factory.mktemp("outcomes")


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/design.md"])
def test_every_block_says_its_language(page: str) -> None:
    """A block without one would be forgotten, not run."""
    for block in blocks(read(page), page):
        assert block.language, f"{page}:{block.first}: name the language: sh, python, text or json"


@pytest.fixture(scope="session")
def running(request: pytest.FixtureRequest, outcomes: Path) -> Iterator[dict[str, Future[object]]]:
    """The pages whose tests were chosen, each running with one thread, a page a core; pages of the same blocks once."""
    chosen = [item.callspec.params["page"] for item in request.session.items if "test_every_block_runs" in item.name]
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(os.cpu_count()) as pool:
        patch.setenv("OMP_NUM_THREADS", "1")
        runs: dict[tuple[str, ...], Future[object]] = {}
        pages: dict[str, Future[object]] = {}
        for page in chosen:
            code = tuple(block.code for block in blocks(read(page), page))
            if code not in runs:
                runs[code] = pool.submit(run_page, read(page), page, LIMITS, outcomes)
            pages[page] = runs[code]
        yield pages
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, running: dict[str, Future[object]]) -> None:
    running[page].result()


def unmarked(page: str) -> str:
    """The page without its code, with as many lines."""
    lines = read(page).splitlines()
    for block in blocks(read(page), page):
        lines[block.first - 1 : block.last] = [""] * (block.last - block.first + 1)
    return re.sub(r"`[^`\n]+`", lambda code: "`" * len(code[0]), "\n".join(lines))


def anchors(page: str) -> set[str]:
    """The names that GitHub and the site give the page's headings."""
    names: set[str] = set()
    inside = {n for block in blocks(read(page), page) for n in range(block.first, block.last + 1)}
    for number, line in enumerate(read(page).splitlines(), 1):
        if number not in inside and (heading := HEADING.match(line)):
            title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading["title"])
            plain = re.sub(r"[^\w\- ]", "", title.lower())
            names.add(heading["name"] or plain.strip().replace(" ", "-"))
    return names


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = unmarked(page)
    for found in LINK.finditer(text):
        target = found["target"]
        place = f"{page}:{text.count(chr(10), 0, found.start()) + 1}: {target}"
        if ":" in target:
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]+(/\S*)?", target), f"{place} is no https address"
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{place} does not exist"
        if anchor:
            assert anchor in anchors(str(path.resolve().relative_to(ROOT))), f"{place}: no such heading"


def test_the_korean_page_has_the_same_blocks() -> None:
    english, korean = ([(b.language, b.code) for b in blocks(read(p), p)] for p in ("README.md", "README.ko.md"))
    assert korean == english


def test_ci_runs_what_pages_leave_to_it() -> None:
    ci = ROOT / ".ci" / "run"
    listed = subprocess.run([ci, "--list"], capture_output=True, text=True, check=True).stdout.splitlines()
    script = ci.read_text(encoding="utf-8")
    for page in PAGES:
        for block in blocks(read(page), page):
            place = f"{page}:{block.first}"
            if block.sets_up:
                assert block.code in listed, f"{place}: .ci/run does not run this"
            elif block.reason is not None:
                assert block.reason in REASONS, f"{place}: {block.reason!r} is no reason that we know"
                for command in re.split(r" && |\n", block.code):
                    assert f"\n{command}\n" in script, f"{place}: .ci/run does not run {command}"
    assert len(listed) == 2 and all(f'"${{setup[{n}]}}"' in script for n in range(2))


@pytest.mark.slow
def test_the_site_builds(outcomes: Path, tmp_path: Path) -> None:
    """Strictly: every link and anchor of the site, too, leads somewhere."""
    if not find_spec("mkdocs"):
        assert not os.environ.get("CI"), "the documentation's tools are missing"
        pytest.skip("pip install '.[docs]' brings mkdocs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={
            **os.environ,
            "UNROLLED_DOCS_CACHE": str(outcomes),
            "UNROLLED_DOCS_SECONDS": str(LIMITS.seconds),
            "UNROLLED_DOCS_STEPS": str(LIMITS.steps),
            "UNROLLED_DOCS_UPDATES": str(LIMITS.updates),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tmp_path / "site" / "readme.html").read_text(encoding="utf-8")
    assert "bits_per_character" in page, "what the commands print is missing"


@pytest.mark.parametrize(("name", "examples"), [("run_blocks", 4), ("docstrings", 2)])
def test_examples_of_the_code_in_docs(name: str, examples: int) -> None:
    if name == "docstrings":
        pytest.importorskip("griffe", reason="pip install '.[docs]' brings griffe")
    assert doctest.testmod(import_module(name)) == (0, examples)


# The executor


def test_blocks_are_found() -> None:
    page = '# a\n```sh\nls\n```\n- b\n\n    ~~~python title="c"\n    if 1:\n        d\n    ~~~\n'
    page += "<!-- not run: e -->\n\n```sh\n```\n"
    assert blocks(page) == [
        Block("sh", "ls", 2, 4),
        Block("python", "if 1:\n    d", 7, 10, "    "),
        Block("sh", "", 13, 14, "", "e"),
    ]


@pytest.mark.parametrize("page", ["```js\na\n```", "```shell\na\n```", "```sh\na\n", "````sh\na\n```\n"])
def test_a_block_that_nobody_would_run_is_refused(page: str) -> None:
    with pytest.raises(DocumentationError, match="page:1"):
        blocks(page)


@pytest.mark.parametrize(
    ("code", "short"),
    [
        ("unrolled train --seconds 300 --steps 1000", "unrolled train --seconds 4 --steps 300"),
        ("unrolled train --seconds=300 --seconds 2.5", "unrolled train --seconds=4 --seconds 2.5"),
        ("fit(a, seconds=60.5, steps=1_000)", "fit(a, seconds=4, steps=300)"),
        ("num_steps=100; --seconds-x 100", "num_steps=100; --seconds-x 100"),
    ],
)
def test_trainings_are_shortened(code: str, short: str) -> None:
    assert Limits().shorten(code) == short


def test_a_page_runs_in_one_folder(tmp_path: Path) -> None:
    page = (
        "```sh\nhead -c 5 input.txt > a; echo b >&2; mkdir c; echo x > c/d.svg\n```\n"
        "```python\nx = open('a').read()\n```\n"
        "```python\nprint(len(x))\nimport unrolled; print(unrolled.__file__)\n```\n```sh\nunrolled --version\n```\n"
    )
    first, _, second, third = run_page(page, "page", cache=tmp_path).values()
    assert first.output == "b\n" and first.pictures == {"c/d.svg": "eAo="}
    assert second.output == f"5\n{ROOT / 'unrolled' / '__init__.py'}\n" and not second.pictures
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", third.output)
    (kept,) = tmp_path.iterdir()
    kept.write_text(kept.read_text().replace('"b\\n"', '"kept"'))
    assert next(iter(run_page(page, "page", cache=tmp_path).values())).output == "kept"


@pytest.mark.parametrize(
    "page",
    ["```sh\nfalse; true\n```", "```sh\nfalse | cat\n```", "```sh\necho $nothing\n```", "```python\n1 / 0\n```",
     "```python\nraise SystemExit(0)\n```", "```python\nimport os; os._exit(0)\n```"],
)  # fmt: skip
def test_a_failing_block_is_noticed(page: str) -> None:
    with pytest.raises(DocumentationError, match="page:1: the block ended with exit code [1-9]"):
        run_page(page, "page")


def test_a_hanging_block_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_blocks, "BLOCK_SECONDS", 0.2)
    with pytest.raises(DocumentationError, match=r"exit code 124(.|\n)*killed after 0.2 s"):
        run_page("```sh\nsleep 100 & wait\n```", "page")
    with pytest.raises(DocumentationError, match="exit code 1"):
        run_page("```python\nimport time; time.sleep(100)\n```", "page")


def test_other_text_where_shakespeare_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNROLLED_TEST_DATA", str(tmp_path))
    found = run_blocks.texts()
    assert [len(found[name]) for name in ("input.txt", "other.txt", "new.txt")] == [400_000, 50_000, 150_000]
    for name in ("reviews.tsv", "test.tsv"):
        rows = [line.split("\t") for line in found[name].splitlines()]
        assert rows[0] == ["text", "label"] and {row[1] for row in rows[1:]} == {"asks", "says"}
    for name in ("pairs.tsv", "test-pairs.tsv"):
        rows = [line.split("\t") for line in found[name].splitlines()[1:]]
        assert rows and all(source.upper() == target for source, target in rows)
