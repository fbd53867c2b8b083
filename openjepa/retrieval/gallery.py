"""A page of neighbours that holds everything it shows: a click on a picture searches from it."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from openjepa.core.fileio import atomic_write
from openjepa.retrieval.thumbnails import as_data, thumbnail

MOST = 1500  # pictures on a page

Neighbours = Callable[[list[int]], list[list[tuple[int, float]]]]  # of rows: the nearest other rows, and their cosines


class Asked(NamedTuple):
    """What the page begins with; it may be no row of the index."""

    src: str  # a data: address
    file: str
    near: list[tuple[int, float]]


def page(
    asked: Asked, neighbours: Neighbours, rows: Callable[[int], tuple[str, str]], words: dict[str, str], out: Path
) -> Path:
    """The page as one HTML file. `rows` gives a row's path and class; `words` title, caption and the command for more.

    It holds what was found, the neighbours of these, and of those: as many as MOST allows, the nearest first. What has its
    own neighbours on the page can be clicked; of the others the page says how to ask.
    """
    wanted, near = reached([row for row, _ in asked.near], neighbours)
    number = {row: place + 1 for place, row in enumerate(wanted)}
    pictures: list[dict[str, Any]] = [{"src": asked.src, "file": asked.file, "near": linked(asked.near, number)}]
    for row in wanted:
        path, name = rows(row)
        each = {"row": row, "src": as_data(thumbnail(path)), "file": path, "label": name}
        pictures.append(each | ({"near": linked(near[row], number)} if row in near else {}))
    data = json.dumps({"pictures": pictures, "start": 0, "again": words["again"]}).replace("<", "\\u003c")
    text = files("openjepa.retrieval").joinpath("gallery.html").read_text(encoding="utf-8")
    for mark, value in (
        ("TITLE", html.escape(words["title"])),
        ("CAPTION", html.escape(words["caption"])),
        ("DATA", data),
    ):
        text = text.replace(f"@{mark}@", value)
    with atomic_write(out) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return out


def linked(near: list[tuple[int, float]], number: dict[int, int]) -> list[tuple[int, float]]:
    """Rows as their numbers on the page."""
    return [(number[row], round(cosine, 4)) for row, cosine in near if row in number]


def reached(first: list[int], neighbours: Neighbours) -> tuple[list[int], dict[int, list[tuple[int, float]]]]:
    """Rows that are shown, and the neighbours of those of which all neighbours are."""
    wanted, near = dict.fromkeys(first), {}
    for _ in range(2):
        asked = [row for row in wanted if row not in near]
        for row, found in zip(asked, neighbours(asked), strict=True):
            grown = wanted | dict.fromkeys(other for other, _ in found)
            if len(grown) > MOST:
                return list(wanted), near
            wanted, near[row] = grown, found
    return list(wanted), near
