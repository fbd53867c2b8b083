"""Draw signals as lines.   C channels  L samples  N tokens"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

SIZE = (192, 384)  # height and width in pixels

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of the channels, in turn

MAX_CHANNELS = 8  # with more, the first ones are drawn


def draw_signal(
    signal: Float[np.ndarray, "C L"],
    colors: Float[np.ndarray, "N 3"] | None = None,
    size: tuple[int, int] = SIZE,
    line: str = "",
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw each channel in a strip of its own, from its lowest to its highest value; behind it the tokens' colors.

    Pages hold a thousand of these pictures, so Pillow draws them: a matplotlib figure takes twenty times as long.
    """
    height, width = size[0] * 2, size[1] * 2  # twice as large, and reduced at the end, for smooth lines
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    tints = [] if colors is None else colors
    for number, color in enumerate(tints):
        left, right = (round(width * edge / len(tints)) for edge in (number, number + 1))
        draw.rectangle((left, 0, right, height), fill=tuple((color * 255).round().astype(int).tolist()))
    strips = signal[:MAX_CHANNELS]
    for channel, values in enumerate(strips):
        points = polyline(values, width, height / len(strips), channel * height / len(strips))
        draw.line(points, fill=line or LINES[channel % len(LINES)], width=3, joint="curve")
    return np.asarray(canvas.resize((size[1], size[0]), Image.Resampling.BOX))


def polyline(values: Float[np.ndarray, "L"], width: int, height: float, top: float) -> list[tuple[float, float]]:
    """Return the points of a line that fills a strip up to a margin; values that are not finite lie in the middle."""
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 1.0)
    share = np.where(finite, (values - low) / max(high - low, 1e-12), 0.5) if high > low else np.full(len(values), 0.5)
    y = top + height * (0.92 - 0.84 * share)
    x = np.linspace(0, width - 1, len(values))
    return list(zip(x.tolist(), y.tolist(), strict=True))
