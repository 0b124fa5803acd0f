"""How the reference reads docstrings: what is no Markdown in them becomes it.

Shapes such as (T, B, G*H) get their asterisks escaped, doctests become blocks of code.
"""

import re
from typing import Any

import griffe

STAR = re.compile(r"(`[^`]*`)|(?<=\w)\*(?=\w)")
DOCTEST = re.compile(r"^>>> .*\n(?:.+\n?)*", re.MULTILINE)


class Markdown(griffe.Extension):
    """Rewrites the docstring of every object."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """A docstring as Markdown.

    >>> markdown("(G*H, I) and `a*b`")
    '(G\\\\*H, I) and `a*b`'
    >>> markdown(">>> [1][0]\\n1\\n\\nAnd so on.")
    '```pycon\\n>>> [1][0]\\n1\\n```\\n\\nAnd so on.'
    """
    parts, end = [], 0
    for found in DOCTEST.finditer(text):
        parts += [_escape(text[end : found.start()]), f"```pycon\n{found[0].rstrip()}\n```\n"]
        end = found.end()
    return "".join([*parts, _escape(text[end:])])


def _escape(text: str) -> str:
    lines = text.split("\n")
    return "\n".join(line if line.startswith("    ") else STAR.sub(lambda m: m[1] or r"\*", line) for line in lines)
