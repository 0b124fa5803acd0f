"""What docs/design.md says of the code is true: every file it names is there, and holds what is looked for."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| `([\w/.]+)` \| `(\w+)` \|$", DESIGN, re.M)


def test_the_table_answers_at_least_twenty_questions_with_one_file_each() -> None:
    table = DESIGN[DESIGN.index("## Where is") : DESIGN.index("## Decisions")]
    lines = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(ROWS) == len(lines) >= 20  # a row of another form would be overlooked below
    assert len({question for question, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("question", "file", "name"), ROWS)
def test_the_file_holds_what_is_looked_for(question: str, file: str, name: str) -> None:
    text = (ROOT / "unrolled" / file).read_text(encoding="utf-8")
    assert re.search(rf"\b{name}\b", text), f"{question}: no {name} in {file}"


def test_every_file_of_the_tree_is_there_and_named() -> None:
    """The drawing of the layout names each module of the package, and nothing that is gone."""
    tree = DESIGN[DESIGN.index("```\nunrolled/") : DESIGN.index("Imports go one way")]
    named = set(re.findall(r"\b(\w+\.py)\b", tree))
    there = {p.name for p in (ROOT / "unrolled").rglob("*.py") if not p.name.startswith("__")}
    packaged = {p.name for p in (ROOT / "unrolled").rglob("*.py") if p.parent.name in ("bench", "graph")}
    assert named <= there, f"gone: {named - there}"
    assert there - named - packaged == set(), "not in the drawing"
