"""How the reference reads docstrings: shapes such as (T, B, G*H) are no Markdown, so their asterisks are escaped."""

import re
from typing import Any

import griffe

STAR = re.compile(r"(`[^`]*`)|(?<=\w)\*(?=\w)")


class Shapes(griffe.Extension):
    """Escapes asterisks between letters, outside code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            lines = obj.docstring.value.splitlines()
            obj.docstring.value = "\n".join(
                line if line.startswith("    ") else STAR.sub(lambda m: m[1] or r"\*", line) for line in lines
            )
