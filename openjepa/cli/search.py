"""Command `jepa search`: find the pictures of an index that are most like one."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Pillow
from rich.table import Table

from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.evaluation.index import Index, open_index
from openjepa.evaluation.nearest import ExactSearch, Neighbors
from openjepa.evaluation.search import Hit, PooledSearch, Search, best_patch_cosines, patch_means, top_hits
from openjepa.interop.adapters import EncoderAdapter, load_adapter
from openjepa.interop.inputs import evaluation_view
from openjepa.masking.region import Box, covered_patches
from openjepa.viz.gallery import NeighborsOf, PageQuery, write_gallery
from openjepa.viz.thumbnails import (
    SIDE,
    contact_sheet,
    image_exists,
    image_label,
    jpeg_data_url,
    shorten_path,
    thumbnail,
    warn_of_missing,
)

ROW_PATTERN = re.compile(r"row:(\d+)")


class Query(NamedTuple):
    """What is asked for."""

    vector: Float[np.ndarray, "D"]
    file: str
    row: int | None  # of the index, so that it is not found itself
    picture: Pillow.Image


def search(settings: Search) -> list[Hit]:
    """The nearest pictures by the cosine of their features, the nearest first.

    Features are less their mean, and the deviation of each principal direction is its root: of ten neighbours more are of
    the same class (docs/interop.md). A picture that is in the index does not find itself. A part of a picture is the mean of
    the features of its patches. In an index of patches a picture is as near as its nearest patch. Mistake in a sentence where the query, the index or its encoder is no good.
    """
    if settings.count < 1:
        raise UserError(f"{settings.count} pictures are none: try --count 12")
    index = open_index(settings.index)
    asked = read_query(settings, index)
    hits, how = find_hits(settings, index, asked)
    if not hits:
        raise UserError(f"{settings.index} has no other picture that could be decoded: embed more")
    print_hits(hits, f"{shorten_path(asked.file)}: the nearest of {len(index.pictures):,} pictures ({how})")
    out = settings.out or index.beside("search")
    warn_of_missing(hit.file for hit in hits)
    cells = [(thumbnail(hit.file), f"{hit.cosine:.3f} {hit.label[:18]}".strip()) for hit in hits]
    drawn = contact_sheet(
        asked.picture, cells, f"most like {image_label(asked.file)}", out.with_name(f"{out.name}.png")
    )
    info(f"sheet      {drawn}")
    if settings.page and index.pooled:
        words = {
            "title": f"Most like {image_label(asked.file)}",
            "caption": f"{len(index.pictures):,} pictures, {how}; below each the cosine of {'whitened' if settings.whiten else 'plain'} features. "
            "A click on a picture searches from it; of pale ones the neighbours are not on this page.",
            "again": f"jepa search {settings.index} row:ROW",
        }
        near = [(hit.row, hit.cosine) for hit in hits]
        first = PageQuery(jpeg_data_url(asked.picture), asked.file, near)
        made = write_gallery(
            first, neighbors_of_rows(settings, index), index_rows(index), words, out.with_name(f"{out.name}.html")
        )
        info(f"page       {made}")
    return hits


def read_query(settings: Search, index: Index) -> Query:
    """The vector that is asked for. Mistake if there is no such picture or row, or if a part of it is none."""
    match = ROW_PATTERN.fullmatch(settings.query)
    row = int(match[1]) if match else None
    if row is not None and row >= len(index.pictures):
        raise UserError(f"{settings.index} has rows from 0 to {len(index.pictures) - 1}, no {row}")
    file = index.pictures[row] if row is not None else settings.query
    if not image_exists(file) and row is None:
        raise UserError(f"{file} is no picture: give a file, or row:17 for one of the index")
    if not image_exists(file) and settings.box:
        raise UserError(f"{file}, row {row}, is not where it was: put it back, or give the picture")
    if row is not None and not settings.box and index.pooled:
        vector = np.asarray(index.features[row])
        if not np.isfinite(vector).all():
            raise UserError(f"row {row} is {file}, which could not be decoded: ask for another")
        return Query(vector, file, row, thumbnail(file, 2 * SIDE))
    vector, picture = encode_query(settings, index, file)
    return Query(vector, file, row_of_file(file, index) if row is None else row, picture)


def row_of_file(file: str, index: Index) -> int | None:
    """The row of the index that is of this very file."""
    name = Path(file).name
    rows = (row for row, each in enumerate(index.pictures) if each.endswith(name))
    return next((row for row in rows if Path(index.pictures[row]).resolve() == Path(file).resolve()), None)


def encode_query(settings: Search, index: Index, file: str) -> tuple[Float[np.ndarray, "D"], Pillow.Image]:
    """A picture, or a part of it, as the index's encoder sees it."""
    this = index_encoder(settings, index)
    data = dataclasses.replace(this.data, eval_crop=index.about.get("fit", this.data.eval_crop))
    view = evaluation_view(file, data, data.size)
    shown = Pillow.fromarray(data.picture(view)).resize((2 * SIDE, 2 * SIDE))
    with torch.no_grad():
        found = this.encode(view[None])
    if not settings.box:
        return (found.last4 if index.about.get("kind") == "last4" else found.last)[0].numpy(), shown
    if index.about.get("kind") == "last4":
        raise UserError("features of four layers have no parts to compare: embed with --features last")
    inside = covered_patches(settings.box, data.grid)
    return found.patches[0, inside.ravel()].mean(0).numpy(), frame_region(shown, settings.box)


def frame_region(picture: Pillow.Image, box: Box) -> Pillow.Image:
    """The part as it is, the rest pale."""
    place = tuple(round(each * side) for each, side in zip(box, picture.size * 2, strict=True))
    pale = Pillow.blend(picture, Pillow.new("RGB", picture.size, "white"), 0.6)
    pale.paste(picture.crop(place), place[:2])  # type: ignore[arg-type]
    return pale


def index_encoder(settings: Search, index: Index) -> EncoderAdapter:
    """The encoder that made the index. Mistake if it is gone, or another by now."""
    run = settings.run or index.about.get("run", "")
    if not run or (index.about.get("run") == run and "/" in run and not Path(run).exists()):
        raise UserError(
            f"the encoder that made {settings.index} is no longer at {run or 'a known place'}: say where, --run RUN"
        )
    this = load_adapter(run, index.about.get("which", "target"))
    if this.fingerprint != index.about.get("encoder"):
        raise UserError(f"{settings.index} was made by another encoder than {run}: embed again, or give --run")
    this.network.eval()
    return this


def find_hits(settings: Search, index: Index, asked: Query) -> tuple[list[Hit], str]:
    """The hits, and how they were searched for."""
    if asked.vector.shape[-1] != index.features.shape[-1]:
        raise UserError(
            f"{settings.index} has features of width {index.features.shape[-1]}, not {asked.vector.shape[-1]}"
        )
    if index.pooled:
        pooled = PooledSearch.of(settings, index)
        near, how = pooled.find(asked.vector[None], settings.count + 1), pooled.finder.how
    elif settings.box is None:  # a whole picture is compared with whole pictures
        near, how = (
            ExactSearch(patch_means(index.features)).find(asked.vector[None], settings.count + 1),
            "exact, by their mean",
        )
    else:
        cosine = best_patch_cosines(index.features, asked.vector)
        order = np.lexsort((np.arange(len(cosine)), -cosine))[: settings.count + 1]
        near, how = Neighbors(order[None], cosine[order][None]), "exact, by their nearest patch"
    return top_hits(index, near, asked.row, settings.count), how


def neighbors_of_rows(settings: Search, index: Index) -> NeighborsOf:
    """The nearest other rows of rows."""
    pooled = PooledSearch.of(settings, index)

    def of(wanted: list[int]) -> list[list[tuple[int, float]]]:
        if not wanted:
            return []
        near = pooled.find(np.asarray(index.features[wanted]), settings.count + 1)
        each = (Neighbors(near.rows[place : place + 1], near.cosine[place : place + 1]) for place in range(len(wanted)))
        return [
            [(hit.row, hit.cosine) for hit in top_hits(index, one, row, settings.count)]
            for row, one in zip(wanted, each, strict=True)
        ]

    return of


def index_rows(index: Index):
    return lambda row: (index.pictures[row], index.classes[row])


def print_hits(hits: list[Hit], title: str) -> None:
    table = Table("", "cosine", "row", "folder", "file", title=title)
    for place, hit in enumerate(hits):
        table.add_row(str(place + 1), f"{hit.cosine:.3f}", str(hit.row), hit.label, hit.file)
    console.print(table)
