"""Worlds that are rendered when they are read: what their frames and actions are like."""

from __future__ import annotations

from typing import NamedTuple

from openjepa.data.synthetic.cart_pole import HEIGHT, WIDTH
from openjepa.data.synthetic.room_layouts import WORLDS

SCALE = (0.1, 0.4, 0.1)  # of the dot, the walls, and a second dot: their standard deviations, rounded


class Form(NamedTuple):
    """What a world's frames and actions are like."""

    size: tuple[int, int]  # height and width of a frame
    patch: int  # side of a cell in pixels
    action_dim: int
    scale: tuple[float, ...]  # by which each channel, from 0 to 1, is divided

    @property
    def channels(self) -> int:
        return len(self.scale)


FORMS = {name: Form((world.side, world.side), 3, 2, SCALE[: world.channels]) for name, world in WORLDS.items()}

FORMS["cart-pole"] = Form((HEIGHT, WIDTH), 4, 1, (0.2, 0.2))
