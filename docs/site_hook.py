"""What the site's build adds to MkDocs: pages from outside docs/, what each block prints and draws, and formulas.

Blocks run through run_blocks.py, with trainings shortened: UNROLLED_DOCS_SECONDS and UNROLLED_DOCS_STEPS set the
limits. UNROLLED_DOCS_CACHE names the folder that keeps what they print until the code or the page changes, default
build/pages.
"""

import base64
import html
import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parent))
import run_blocks  # noqa: E402
from run_blocks import Block, DocumentationError, Outcome  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("UNROLLED_DOCS_CACHE") or ROOT / "build" / "pages")
LIMITS = run_blocks.Limits(
    seconds=int(os.environ.get("UNROLLED_DOCS_SECONDS", "8")),
    steps=int(os.environ.get("UNROLLED_DOCS_STEPS", "300")),
    updates=int(os.environ["UNROLLED_DOCS_UPDATES"]) if "UNROLLED_DOCS_UPDATES" in os.environ else None,
)
OUTSIDE = {
    "readme.md": "README.md",
    "ko.md": "README.ko.md",
    "contributing.md": "CONTRIBUTING.md",
    "results.md": "results/README.md",
}
"""Pages of the site that are files of the repository outside docs/."""
NOT_RUN = ("results.md", "design.md")
"""Logs and explanations: their commands were run when they were written, some for hours."""
LINK = re.compile(r"(?<=\]\()([^()\s:#]+)(#[^()\s]*)?(?=\))")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    for uri, path in OUTSIDE.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Run the page's blocks, put beneath each what it printed and drew, and lead links to the site's pages."""
    uri = page.file.src_uri
    source = OUTSIDE.get(uri, f"docs/{uri}")
    outcomes: dict[Block, Outcome] = {}
    if uri not in NOT_RUN:
        try:
            outcomes = run_blocks.run_page(markdown, source, LIMITS, CACHE)
        except DocumentationError as error:
            raise PluginError(str(error)) from error
    fences = run_blocks.blocks(markdown, source)
    inside = {number for block in fences for number in range(block.first, block.last + 1)}
    lines = [
        line if number in inside else _lead(line, source, uri) for number, line in enumerate(markdown.splitlines(), 1)
    ]
    for block in reversed(fences):
        if block in outcomes:
            beneath = _beneath(block, outcomes[block], uri, config, files)
            lines[block.last : block.last] = [block.indent + line if line else "" for line in beneath]
    return "\n".join(lines) + "\n"


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """Formulas become MathML, which browsers draw themselves: no script, and nothing fetched."""

    def formula(found: re.Match[str]) -> str:
        source = html.unescape(found[3])
        drawn = convert(source, display="block" if found[2] == "[" else "inline")
        if re.search(r"<mi>(\\|&<)", drawn):
            raise PluginError(f"{page.file.src_uri}: latex2mathml does not know all of this formula:\n{source}")
        return f'<{found[1]} class="formula">{drawn}</{found[1]}>'

    return FORMULA.sub(formula, content)


def _beneath(block: Block, outcome: Outcome, uri: str, config: Any, files: Any) -> list[str]:
    """Markdown of a block's output and pictures."""
    lines: list[str] = []
    if outcome.output.strip():
        shortened = _lengths(outcome.code) if outcome.code != block.code else ""
        title = f"prints, here with {shortened}" if shortened else "prints"
        fence = "~" * (3 + max(map(len, re.findall("~+", outcome.output)), default=0))
        lines += ["", f'{fence} {{ .text .no-copy .printed title="{title}" }}', *outcome.output.splitlines(), fence, ""]
    for name, data in outcome.pictures.items():
        if name.endswith(".svg") and name.removesuffix(".svg") + ".png" in outcome.pictures:
            continue  # one picture, two formats
        picture = f"pictures/{uri.removesuffix('.md')}/{name}"
        if not files.get_file_from_path(picture):
            files.append(File.generated(config, picture, content=base64.b64decode(data)))
        address = posixpath.relpath(picture, posixpath.dirname(uri) or ".")
        lines += ["", f"![{name}, drawn by the command above]({address}){{ .drawn }}", ""]
    return lines


def _lengths(code: str) -> str:
    return ", ".join(dict.fromkeys(re.findall(r"--(?:seconds|steps)[ =]\S+|(?<![\w-])(?:seconds|steps)=[\d.]+", code)))


def _lead(line: str, source: str, uri: str) -> str:
    """Links between files of the repository become links between pages of the site."""
    pages = {path: page for page, path in OUTSIDE.items()}

    def target(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[1]))
        if (ROOT / path).is_dir():
            path += "/README.md"
        if path not in pages and not path.startswith("docs/"):
            return found[0]
        page = pages.get(path, path.removeprefix("docs/"))
        return posixpath.relpath(page, posixpath.dirname(uri) or ".") + (found[2] or "")

    return LINK.sub(target, line)
