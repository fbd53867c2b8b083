"""A page of neighbors that contains all its pictures: a click on one searches from it."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from openjepa.core.fileio import atomic_write
from openjepa.viz.thumbnails import jpeg_data_url, thumbnail

MAX_IMAGES = 1500  # pictures on a page

NeighborsOf = Callable[[list[int]], list[list[tuple[int, float]]]]  # of rows: the nearest other rows, and their cosines


class PageQuery(NamedTuple):
    """What the page begins with; it may be no row of the index."""

    src: str  # a data: address
    file: str
    near: list[tuple[int, float]]


def write_gallery(
    asked: PageQuery, neighbours: NeighborsOf, rows: Callable[[int], tuple[str, str]], words: dict[str, str], out: Path
) -> Path:
    """The page as one HTML file. `rows` gives a row's path and class; `words` title, caption and the command for more.

    It holds what was found, the neighbours of these, and of those: as many as MOST allows, the nearest first. What has its
    own neighbours on the page can be clicked; of the others the page says how to ask.
    """
    wanted, near = reachable_rows([row for row, _ in asked.near], neighbours)
    number = {row: place + 1 for place, row in enumerate(wanted)}
    pictures: list[dict[str, Any]] = [
        {"src": asked.src, "file": asked.file, "near": link_neighbors(asked.near, number)}
    ]
    for row in wanted:
        path, name = rows(row)
        each = {"row": row, "src": jpeg_data_url(thumbnail(path)), "file": path, "label": name}
        pictures.append(each | ({"near": link_neighbors(near[row], number)} if row in near else {}))
    data = json.dumps({"pictures": pictures, "start": 0, "again": words["again"]}).replace("<", "\\u003c")
    text = files("openjepa.viz").joinpath("gallery.html").read_text(encoding="utf-8")
    for mark, value in (
        ("TITLE", html.escape(words["title"])),
        ("CAPTION", html.escape(words["caption"])),
        ("DATA", data),
    ):
        text = text.replace(f"@{mark}@", value)
    with atomic_write(out) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return out


def link_neighbors(near: list[tuple[int, float]], number: dict[int, int]) -> list[tuple[int, float]]:
    """Rows as their numbers on the page."""
    return [(number[row], round(cosine, 4)) for row, cosine in near if row in number]


def reachable_rows(first: list[int], neighbours: NeighborsOf) -> tuple[list[int], dict[int, list[tuple[int, float]]]]:
    """Rows that are shown, and the neighbours of those of which all neighbours are."""
    wanted, near = dict.fromkeys(first), {}
    for _ in range(2):
        asked = [row for row in wanted if row not in near]
        for row, found in zip(asked, neighbours(asked), strict=True):
            grown = wanted | dict.fromkeys(other for other, _ in found)
            if len(grown) > MAX_IMAGES:
                return list(wanted), near
            wanted, near[row] = grown, found
    return list(wanted), near
