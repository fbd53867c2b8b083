"""Color optical flow by the wheel in common use: hue is direction, saturation is length.   H height  W width

Source: Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011, figure 7. The six primaries
are 15, 6, 4, 11, 13 and 6 steps of a circle of 55 apart, as the eye tells more hues between red and yellow than between
green and cyan. To the right is red, down yellow, left cyan, up violet.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8

from openjepa.core.errors import UserError

STEPS = (0, 15, 21, 25, 36, 49, 55)  # where red, yellow, green, cyan, blue, magenta and red again are on the circle

PRIMARIES = ((1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 0, 0))

TOO_LONG = 0.75  # brightness of motion longer than the largest

UNKNOWN_FLOW = 1e9  # pixels; larger values are unknown


def color_flow(
    uv: Float[np.ndarray, "2 H W"], largest: float | None = None, valid: Bool[np.ndarray, "H W"] | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Color motion to the right and down; no motion is white, unknown pixels are black.

    Motion of `largest` pixels has full saturation, by default the longest one; longer motion is darker. Unknown are
    pixels that are not `valid`, and those with NaN or a value above 1e9.

    Raises:
        UserError: `largest` is not positive.
    """
    if largest is not None and not largest > 0:
        raise UserError(f"largest must be > 0 pixels, got {largest}")
    known = np.abs(uv).max(0) <= UNKNOWN_FLOW  # False for NaN, too
    if valid is not None:
        known = known & valid
    right, down = np.where(known, uv, 0).astype(np.float64)
    length = np.hypot(right, down)
    share = length / (largest or max(float(length.max()), 1e-12))
    hue = hue_of(np.arctan2(down, right))
    inside = 1 - share[..., None] * (1 - hue)  # from white to the hue
    colors = np.where(share[..., None] > 1, TOO_LONG * hue, inside)
    return (255 * np.where(known[..., None], colors, 0)).round().astype(np.uint8)


def hue_of(angle: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W 3"]:
    """Return the saturated color of each direction, in radians clockwise from the right; 0 to 1."""
    step = (angle / (2 * np.pi) % 1) * STEPS[-1]
    return np.stack([np.interp(step, STEPS, channel) for channel in zip(*PRIMARIES, strict=True)], -1)


def color_wheel(side: int) -> UInt8[np.ndarray, "S S 3"]:
    """Draw the legend: a disc whose pixels have the color of motion from the center to them, on white."""
    if side < 2:
        raise UserError(f"the side of a color wheel must be >= 2 pixels, got {side}")
    offset = np.arange(side) - (side - 1) / 2
    uv = np.stack(np.broadcast_arrays(offset[None], offset[:, None]))
    radius = side / 2
    return color_flow(np.where(np.hypot(*uv) <= radius, uv, 0.0), radius)
