"""Make thumbnails for pages and contact sheets."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from PIL import Image as Pillow

from openjepa.core.console import warn
from openjepa.data.archives import parse_address
from openjepa.data.image_io import Undecodable, load_npy, open_image, upright_image
from openjepa.viz.html import encode_data_url

SIDE = 128  # pixels of the longer side

GRAY = (128, 128, 128)

MAX_LABEL = 60  # characters of a path in a table or title


def thumbnail(path: str, side: int = SIDE) -> Pillow.Image:
    """Load an image at thumbnail size in RGB; return a gray tile if it is missing or cannot be decoded."""
    if not image_exists(path):
        return Pillow.new("RGB", (side, side), GRAY)
    try:
        picture = upright_image(open_image(path), 3, 1.0) if not path.endswith(".npy") else array_thumbnail(path)
    except (Undecodable, OSError):
        return Pillow.new("RGB", (side, side), GRAY)
    scale = side / max(picture.size)
    size = max(1, round(picture.size[0] * scale)), max(1, round(picture.size[1] * scale))
    return picture.resize(size, Pillow.Resampling.BILINEAR if scale < 1 else Pillow.Resampling.NEAREST, reducing_gap=2)


def image_exists(path: str) -> bool:
    """Return whether the image file, or the archive that contains it, exists."""
    address = parse_address(path)
    return Path(address.archive if address else path).is_file()


def warn_of_missing(paths: Iterable[str]) -> None:
    """Warn if images no longer exist."""
    every = list(paths)
    if missing := [path for path in every if not image_exists(path)]:
        warn(f"{len(missing)} of {len(every)} images are missing, e.g. {missing[0]}: shown as gray tiles")


def array_thumbnail(path: str) -> Pillow.Image:
    """Load the first three channels of a .npy file, or the first one if it has fewer."""
    array = load_npy(path)
    if array.dtype != "uint8" or array.ndim != 3:
        raise Undecodable(f"{array.dtype} of shape {array.shape}")
    return Pillow.fromarray(array[..., :3] if array.shape[2] >= 3 else array[..., 0]).convert("RGB")


def jpeg_data_url(picture: Pillow.Image) -> str:
    """Encode an image as a JPEG data: URL, so that a page contains it."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return encode_data_url("image/jpeg", stream.getvalue())


def contact_sheet(
    query: Pillow.Image, hits: list[tuple[Pillow.Image, str]], title: str, out: Path, columns: int = 7
) -> Path:
    """Write a contact sheet as PNG: the query, then the hits, each with a line of text above; return its path."""
    matplotlib.use("agg")
    cells = [(query, "query"), *hits]
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.75 * rows + 0.4), layout="constrained")
    for number, (picture, line) in enumerate(cells):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(picture)
        axes.set_title(line, fontsize=8, fontweight="bold" if number == 0 else "normal")
        axes.set_axis_off()
    figure.suptitle(title, fontsize=9)
    figure.savefig(out, dpi=110, format="png")
    return out


def image_label(path: str) -> str:
    """Return the folder and file name of an image."""
    return "/".join(Path(path).parts[-2:])


def shorten_path(path: str) -> str:
    """Return the path, cut at its start to MAX_LABEL characters."""
    return path if len(path) <= MAX_LABEL else "…" + path[-MAX_LABEL:]
