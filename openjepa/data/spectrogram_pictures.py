"""Draw spectrograms in color.   M mel bands  T time frames"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt8

RANGE = (-2.0, 3.0)  # normalized values that are black and white


@lru_cache(maxsize=1)
def colors() -> UInt8[np.ndarray, "256 3"]:
    """Return the colors of a perceptually uniform map, from dark to light."""
    from matplotlib import colormaps

    return (np.asarray(colormaps["magma"](np.arange(256)))[:, :3] * 255).round().astype(np.uint8)


def draw_spectrogram(values: Float[np.ndarray, "M T"]) -> UInt8[np.ndarray, "M T 3"]:
    """Return one pixel per value of a normalized spectrogram, its rows from high to low."""
    low, high = RANGE
    level = np.clip((np.asarray(values, np.float32) - low) / (high - low), 0, 1)
    return colors()[(level * 255).round().astype(np.int64)]
