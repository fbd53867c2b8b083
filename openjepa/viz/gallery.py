"""Write a page of nearest neighbors that contains all its pictures: a click on one searches from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from openjepa.core.names import printable
from openjepa.viz.html import escape, fill_template

MAX_IMAGES = 1500  # pictures on a page

DrawSource = Callable[[str], str]  # path -> data: URL of its thumbnail

NeighborsOf = Callable[[list[int]], list[list[tuple[int, float]]]]  # rows -> (nearest other row, cosine) of each


SoundOfSource = Callable[[str], str]  # path -> data: URL of its sound; empty: none


class PageQuery(NamedTuple):
    """The query that the page opens with; it need not be a row of the index."""

    src: str  # data: URL of its image
    file: str
    near: list[tuple[int, float]]  # (row, cosine) of its neighbors
    sound: str = ""  # data: URL of its sound


def write_gallery(
    query: PageQuery,
    neighbors_of: NeighborsOf,
    describe_row: Callable[[int], tuple[str, str]],
    draw: DrawSource,
    sound: SoundOfSource,
    words: dict[str, str],
    out: Path,
) -> Path:
    """Write the page as one HTML file and return its path.

    `describe_row` returns path and class of a row; `words` holds the title, the caption and, under "again", the command
    that searches from a row. The page contains the query's neighbors, their neighbors and the neighbors of those,
    nearest first, up to MAX_IMAGES. A sample whose neighbors are all on the page can be searched from with a click;
    for the others the page shows the command.
    """
    rows, near = reachable_rows([row for row, _ in query.near], neighbors_of)
    positions = {row: position for position, row in enumerate(rows, 1)}
    pictures: list[dict[str, Any]] = [
        {
            "src": query.src,
            "sound": query.sound,
            "file": printable(query.file),
            "near": link_neighbors(query.near, positions),
        }
    ]
    for row in rows:
        path, label = describe_row(row)
        entry = {
            "row": row,
            "src": draw(path),
            "sound": sound(path),
            "file": printable(path),
            "label": printable(label),
        }
        if row in near:
            entry["near"] = link_neighbors(near[row], positions)
        pictures.append(entry)
    data = json.dumps({"pictures": pictures, "start": 0, "again": words["again"]}).replace("<", "\\u003c")
    values = {"TITLE": escape(words["title"]), "CAPTION": escape(words["caption"]), "DATA": data}
    return fill_template("gallery.html", values, out)


def link_neighbors(near: list[tuple[int, float]], positions: dict[int, int]) -> list[tuple[int, float]]:
    """Replace rows by their positions on the page; neighbors that are not on the page are dropped."""
    return [(positions[row], round(cosine, 4)) for row, cosine in near if row in positions]


def reachable_rows(first: list[int], neighbors_of: NeighborsOf) -> tuple[list[int], dict[int, list[tuple[int, float]]]]:
    """Return the rows that fit on the page, and the neighbors of each row whose neighbors all fit."""
    rows, near = dict.fromkeys(first), {}
    for _ in range(2):
        unexplored = [row for row in rows if row not in near]
        for row, neighbors in zip(unexplored, neighbors_of(unexplored), strict=True):
            grown = rows | dict.fromkeys(other for other, _ in neighbors)
            if len(grown) > MAX_IMAGES:
                return list(rows), near
            rows, near[row] = grown, neighbors
    return list(rows), near
