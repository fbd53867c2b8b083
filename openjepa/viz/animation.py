"""Draw figures in motion and encode them as animated pictures: GIF for files, WebP for pages.   F frames"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image as Pillow

from openjepa.core.fileio import atomic_write
from openjepa.viz.canvas import draw_tiles, paste_tiles, tiles_corner, to_png, wrap_heads

Frames = UInt8[np.ndarray, "_ _ _ 3"]  # frames, height, width

FRAME_MILLISECONDS = 120  # a clip's own pace differs from file to file

GIF_COLORS = 128  # of a frame: fewer make smaller files

WEBP_QUALITY = 60


def animate_tiles(
    rows: Sequence[Sequence[Frames]], columns: Sequence[str], labels: Sequence[str], tile: tuple[int, int]
) -> Frames:
    """Draw clips in rows under column titles, as `draw_tiles` does with images: a picture for each frame."""
    first = draw_tiles([[clip[0] for clip in row] for row in rows], columns, labels, tile=tile)
    still = np.asarray(Pillow.open(io.BytesIO(to_png(first))).convert("RGB"))
    corner = tiles_corner(wrap_heads(columns, tile[1]), labels)
    moments = ([[clip[frame] for clip in row] for row in rows] for frame in range(len(rows[0][0])))
    return np.stack([paste_tiles(each, tile, corner, still) for each in moments])


def to_gif(frames: Frames) -> bytes:
    """Encode frames as a GIF that repeats; equal neighboring frames become one that lasts longer."""
    pictures = [Pillow.fromarray(each).quantize(GIF_COLORS, dither=Pillow.Dither.NONE) for each in frames]
    return encode(pictures, "GIF", optimize=False)


def to_webp(frames: Frames) -> bytes:
    """Encode frames as a WebP that repeats, in about a tenth of the bytes of a GIF."""
    return encode([Pillow.fromarray(each) for each in frames], "WEBP", quality=WEBP_QUALITY, method=2)


def encode(pictures: Sequence[Pillow.Image], kind: str, **options: int) -> bytes:
    """Encode pictures one after the other, in this format of Pillow."""
    stream = io.BytesIO()
    pictures[0].save(
        stream, kind, save_all=True, append_images=pictures[1:], duration=FRAME_MILLISECONDS, loop=0, **options
    )
    return stream.getvalue()


def save_frames(frames: Frames, out: Path) -> Path:
    """Write frames as a GIF and return its path."""
    with atomic_write(out) as temporary:
        temporary.write_bytes(to_gif(frames))
    return out
