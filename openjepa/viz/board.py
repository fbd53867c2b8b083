"""Lay the patches of a view out flat: an image as it is, a clip as its time steps in rows.   N tokens  R C cells"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from openjepa.core.capabilities import TubeletGrid
from openjepa.viz.animation import Frames
from openjepa.viz.canvas import RGBImage, enlarge
from openjepa.viz.clips import step_pictures

ACROSS = 4  # time steps in a row


class Board(NamedTuple):
    """The cells of a flat picture of a view, each a token; cells without a token are -1."""

    data: Any  # the modality
    cells: Int[np.ndarray, "R C"]

    @classmethod
    def of(cls, data: Any) -> Board:
        """Lay out the views of a modality, of images or of clips."""
        tokens = np.arange(data.layout.count).reshape(steps_of(data))
        return cls(data, lay_out(tokens, -1))

    def picture(self, view: Any) -> RGBImage:
        """Draw a view; of a clip, a frame for each time step."""
        return lay_out(self.steps(view), 255)

    def steps(self, view: Any) -> Frames:
        """Return the picture of an image, or one for each time step of a clip."""
        return step_pictures(self.data, view) if isinstance(self.data, TubeletGrid) else self.data.picture(view)[None]

    def arrange(self, values: Shaped[np.ndarray, "N *V"], empty: Any) -> Shaped[np.ndarray, "R C *V"]:
        """Put the values of the tokens where the tokens are; cells without a token get the value `empty`."""
        arranged = values[self.cells]
        arranged[self.cells < 0] = empty
        return arranged

    def enlarge(self, picture: RGBImage, side: int) -> RGBImage:
        """Enlarge a picture of a view to at least `side` pixels; white lines separate the time steps of a clip."""
        large = enlarge(picture, side).copy()
        height, width = (
            size * frame // cells
            for size, frame, cells in zip(large.shape[:2], self.frame, self.cells.shape, strict=True)
        )
        for edge in range(height, len(large), height):
            large[edge - 1 : edge + 1] = 255
        for edge in range(width, large.shape[1], width):
            large[:, edge - 1 : edge + 1] = 255
        return large

    def cell_of(self, token: int) -> tuple[int, int]:
        """Return row and column of a token."""
        row, column = np.argwhere(self.cells == token)[0].tolist()
        return row, column

    @property
    def frame(self) -> tuple[int, int]:
        """Return rows and columns of a time step."""
        return steps_of(self.data)[1:]


def steps_of(data: Any) -> tuple[int, int, int]:
    """Return time steps, rows and columns: an image has one time step."""
    return data.tubelets if isinstance(data, TubeletGrid) else (1, *data.grid)


def lay_out(steps: Shaped[np.ndarray, "T rows columns *V"], empty: Any) -> Shaped[np.ndarray, "R C *V"]:
    """Lay time steps out in rows of ACROSS; what is left of the last row is `empty`."""
    count, height, width = steps.shape[:3]
    across = min(ACROSS, count)
    down = -(-count // across)
    canvas = np.full((down * across, *steps.shape[1:]), empty, steps.dtype)
    canvas[:count] = steps
    rows = canvas.reshape(down, across, height, width, *steps.shape[3:]).swapaxes(1, 2)
    return rows.reshape(down * height, across * width, *steps.shape[3:])
