"""Command `jepa search`: find the samples of an index that are most similar to one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Pillow

from openjepa.core.capabilities import PatchGrid, Plays, Reads, require
from openjepa.core.console import draw_safely, info
from openjepa.core.errors import UserError
from openjepa.core.names import shorten
from openjepa.core.options import Box
from openjepa.core.tables import print_table
from openjepa.data.clips import parse_clip_name
from openjepa.evaluation.index import Index, open_index
from openjepa.evaluation.nearest import ExactSearch, Neighbors
from openjepa.evaluation.search import Hit, PooledSearch, best_patch_cosines, patch_means, top_hits
from openjepa.evaluation.settings import Search
from openjepa.interop.adapters import load_any
from openjepa.interop.inputs import replace_root, source_exists, with_every
from openjepa.interop.pretrained import PretrainedEncoder, check_patch_tokens
from openjepa.masking.region import covered_patches
from openjepa.viz.gallery import NeighborsOf, PageQuery, write_gallery
from openjepa.viz.thumbnails import (
    SIDE,
    PageThumbnails,
    can_draw,
    contact_sheet,
    jpeg_data_url,
    short_label,
    shorten_path,
    still_picture,
    thumbnail,
    warn_of_missing,
)

ROW_PATTERN = re.compile(r"row:(\d+)")


class Query(NamedTuple):
    """The features of the sample or region to search for."""

    vector: Float[np.ndarray, "D"]
    file: str
    row: int | None  # its row in the index, which is left out of the results; None = not in the index
    picture: Pillow.Image | None  # None if the modality draws none


def search(settings: Search) -> list[Hit]:
    """Find the nearest samples by the cosine of their features, the nearest first; write a sheet and a page.

    Features are centered, and the standard deviation along each principal direction is replaced by its square root:
    then more of the 10 nearest neighbors are of the same class (docs/reference/interop.md). A sample of the index is
    not among its own results. A region of an image is the mean of the features of its patches. In an index of patches,
    an image is as near as its nearest patch. Raises UserError if the query, the index or its encoder cannot be used.
    """
    if settings.count < 1:
        raise UserError(f"--count must be >= 1, got {settings.count}")
    index = open_index(settings.index)
    drawable = can_draw(index.modality, "jepa search")
    query = read_query(settings, index, drawable)
    hits, how = find_hits(settings, index, query)
    if not hits:
        raise UserError(f"{settings.index} has no other decodable {index.plural[:-1]}: run jepa embed on more")
    print_hits(hits, f"{shorten_path(query.file)}: the nearest of {len(index.files):,} {index.plural} ({how})")
    picture = query.picture
    if picture is not None:
        draw_safely("the sheet", lambda: write_sheet(settings, index, query, picture, hits))
        draw_safely("the page", lambda: write_page(settings, index, query, picture, hits, how))
    return hits


def write_sheet(settings: Search, index: Index, query: Query, picture: Pillow.Image, hits: list[Hit]) -> None:
    """Write the contact sheet of the results."""
    out, modality = settings.out or index.sibling_path("search"), index.modality
    warn_of_missing((hit.file for hit in hits), index.plural)
    cells = [(thumbnail(modality, hit.file), f"{hit.cosine:.3f} {shorten(hit.label, 18)}".strip()) for hit in hits]
    title = f"most similar to {short_label(query.file)}"
    info(f"sheet      {contact_sheet(picture, cells, title, out.with_name(f'{out.name}.png'))}")


def write_page(settings: Search, index: Index, query: Query, picture: Pillow.Image, hits: list[Hit], how: str) -> None:
    """Write the HTML page of the results, if it is requested and the index has one vector per sample."""
    if not (settings.page and index.pooled):
        return
    out = settings.out or index.sibling_path("search")
    draw = PageThumbnails(index.modality)
    source = draw(query.file, 2 * SIDE) if isinstance(index.modality, Plays) else jpeg_data_url(picture)
    first = PageQuery(source, query.file, [(hit.row, hit.cosine) for hit in hits], draw.sound(query.file))
    texts = {
        "title": f"Most similar to {short_label(query.file)}",
        "caption": f"{len(index.files):,} {index.plural}, {how}. Below each picture: the cosine of "
        f"{'whitened' if settings.whiten else 'plain'} features. Click a picture to search with it; "
        "the neighbors of faded pictures are not on this page.",
        "again": f"jepa search {shlex.quote(str(settings.index))} row:ROW",
    }
    find, html = neighbors_of_rows(settings, index), out.with_name(f"{out.name}.html")
    page = write_gallery(first, find, index_rows(index), draw, draw.sound, texts, html)
    info(f"page       {page}")


def read_query(settings: Search, index: Index, drawable: bool) -> Query:
    """Read the query of the command line. Raises UserError if the file or row does not exist or the box is empty."""
    match = ROW_PATTERN.fullmatch(settings.query)
    row = int(match[1]) if match else None
    if row is not None and row >= len(index.files):
        raise UserError(f"{settings.index} has rows 0 to {len(index.files) - 1}, got row:{row}")
    file = index.files[row] if row is not None else settings.query
    if not source_exists(file) and row is None:
        kind = "an image file" if index.plural == "images" else "a file"
        raise UserError(f"{file} is not {kind}: give a path, or row:17 for a row of the index")
    if not source_exists(file) and settings.box:
        raise UserError(f"{file} (row {row}) is missing: put it back, or give the path of the image")
    if row is not None and not settings.box and index.pooled:
        vector = np.asarray(index.features[row])
        if not np.isfinite(vector).all():
            raise UserError(f"row {row} is {file}, which could not be decoded: give another row")
        return Query(vector, file, row, thumbnail(index.modality, file, 2 * SIDE) if drawable else None)
    vector, picture = encode_query(settings, index, file, drawable)
    return Query(vector, file, row_of_file(file, index) if row is None else row, picture)


def row_of_file(file: str, index: Index) -> int | None:
    """Return the row of the index that belongs to the same file, if there is one."""
    name = Path(file).name  # also of FILE#NUMBER
    rows = (row for row, path in enumerate(index.files) if path.endswith(name))
    return next((row for row in rows if Path(index.files[row]).resolve() == Path(file).resolve()), None)


def encode_query(
    settings: Search, index: Index, file: str, drawable: bool
) -> tuple[Float[np.ndarray, "D"], Pillow.Image | None]:
    """Encode a sample or a region of an image with the index's encoder; return features and picture."""
    encoder = index_encoder(settings, index)
    crop = index.metadata.get("fit", getattr(encoder.modality, "eval_crop", "crop"))
    data: Any = replace_root(encoder.modality, (), crop)
    if seconds := getattr(index.modality, "every", 0.0):
        data = with_every(data, seconds)
    view = require(data, Reads, "jepa search with a file").read(file)
    picture = draw_query(still_picture(data, view), settings) if drawable else None
    with torch.no_grad():
        features = encoder.encode(view[None])
    if not settings.box:
        pooled = features.last4 if index.metadata.get("kind") == "last4" else features.last
        return pooled[0].numpy(), picture
    require(data, PatchGrid, "jepa search --box")
    if index.metadata.get("kind") == "last4":
        raise UserError("--box needs features of the last layer: run jepa embed with --features last")
    inside = covered_patches(settings.box, data.grid)
    check_patch_tokens(encoder.name, features.patches, inside.size)
    return features.patches[0, inside.ravel()].mean(0).numpy(), picture


def draw_query(picture: np.ndarray, settings: Search) -> Pillow.Image:
    """Return the picture of the query at the size of the sheet, faded outside the box if there is one."""
    longer = max(picture.shape[:2])
    size = round(2 * SIDE * picture.shape[1] / longer), round(2 * SIDE * picture.shape[0] / longer)
    large = Pillow.fromarray(picture).resize(size)
    return frame_region(large, settings.box) if settings.box else large


def frame_region(picture: Pillow.Image, box: Box) -> Pillow.Image:
    """Fade the picture outside the box."""
    pixels = tuple(round(share * side) for share, side in zip(box, picture.size * 2, strict=True))
    faded = Pillow.blend(picture, Pillow.new("RGB", picture.size, "white"), 0.6)
    faded.paste(picture.crop(pixels), pixels[:2])  # type: ignore[arg-type]
    return faded


def index_encoder(settings: Search, index: Index) -> PretrainedEncoder:
    """Load the encoder that made the index. Raises UserError if it is missing or has changed."""
    run = settings.run or index.metadata.get("run", "")
    if not run or (index.metadata.get("run") == run and "/" in run and not Path(run).exists()):
        raise UserError(
            f"the encoder of {settings.index} is not at {run or 'a known path'}: give its path with --run RUN"
        )
    encoder = load_any(run, index.metadata.get("which", ""))
    if encoder.fingerprint != index.metadata.get("encoder"):
        raise UserError(
            f"{settings.index} was made with another encoder than {run} is now: "
            "give --run if that moved, or run jepa embed again"
        )
    encoder.network.eval()
    return encoder


def find_hits(settings: Search, index: Index, query: Query) -> tuple[list[Hit], str]:
    """Search the index; return the hits and a description of the search."""
    if query.vector.shape[-1] != index.features.shape[-1]:
        raise UserError(
            f"{settings.index} has features of width {index.features.shape[-1]}, the query {query.vector.shape[-1]}"
        )
    if index.pooled:
        pooled = PooledSearch.of(settings, index)
        near, how = pooled.find(query.vector[None], settings.count + 1), pooled.finder.how
    elif settings.box is None:  # a whole picture is compared with whole pictures
        near = ExactSearch(patch_means(index.features)).find(query.vector[None], settings.count + 1)
        how = "exact, by the mean of their patches"
    else:
        cosine = best_patch_cosines(index.features, query.vector)
        order = np.lexsort((np.arange(len(cosine)), -cosine))[: settings.count + 1]
        near, how = Neighbors(order[None], cosine[order][None]), "exact, by their nearest patch"
    return top_hits(index, near, query.row, settings.count), how


def neighbors_of_rows(settings: Search, index: Index) -> NeighborsOf:
    """Return the function that finds the nearest other rows of several rows."""
    pooled = PooledSearch.of(settings, index)

    def find(rows: list[int]) -> list[list[tuple[int, float]]]:
        if not rows:
            return []
        near = pooled.find(np.asarray(index.features[rows]), settings.count + 1)
        results = []
        for position, row in enumerate(rows):
            one = Neighbors(near.rows[position : position + 1], near.cosine[position : position + 1])
            results.append([(hit.row, hit.cosine) for hit in top_hits(index, one, row, settings.count)])
        return results

    return find


def index_rows(index: Index):
    """Return the function that gives a row's file and class."""
    return lambda row: (index.files[row], index.classes[row])


def print_hits(hits: list[Hit], title: str) -> None:
    """Print the hits as a table; of parts of files, FILE#t=SECONDS, with the time at which they start."""
    parts = [parse_clip_name(hit.file) for hit in hits]
    timed = all(seconds is not None for _, seconds in parts)
    rows = []
    for rank, (hit, (file, seconds)) in enumerate(zip(hits, parts, strict=True), 1):
        where = (format_time(seconds), hit.label, file) if timed and seconds is not None else (hit.label, hit.file)
        rows.append((str(rank), f"{hit.cosine:.3f}", str(hit.row), *where))
    print_table(("", "cosine", "row", *(("time",) if timed else ()), "folder", "file"), rows, title)


def format_time(seconds: float) -> str:
    """Return a time as minutes and seconds."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
