"""Write tables and names in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from openjepa.core.names import printable

SIGNS = re.compile(r"[\\`*{}\[\]<>#|$~&!]|(?<![^\W_])_|_(?![^\W_])")  # mean something; so do underscores at an edge


def markdown_name(name: object) -> str:
    """Return a name for Markdown: as it is, or as code where its signs would mean something."""
    text = printable(name)
    if not SIGNS.search(text):
        return text
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    edge = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{fence}{edge}{text}{edge}{fence}"


def markdown_table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; its cells are names and values, shown as they are."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(markdown_name(each).replace("|", "\\|") for each in line) + " |" for line in lines
    )
