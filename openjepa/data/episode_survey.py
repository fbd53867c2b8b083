"""Look at a few episodes to choose settings that fit them.   R actions  A width of an action"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from openjepa.data.episode_listing import open_episodes

SURVEYED = 16  # files or folders that are opened

LARGEST = 96  # side of a frame that keeps its size; larger frames are resized to RESIZED

RESIZED, CELL = (64, 64), 8

USUAL = (0.1, 10.0)  # standard deviations of actions that are used as they are

CELLS = 10  # cells along the longer side that a patch should give: those of the rooms are 11


class EpisodeSurvey(NamedTuple):
    """What some episodes have."""

    action_dim: int
    length: int  # actions of an episode, the median
    size: tuple[int, int]  # height and width of the first frame; (0, 0) without frames
    channels: int
    state_dim: int  # 0 without states
    action_scale: float  # 1, or what actions of another order of magnitude are divided by

    def describe(self) -> str:
        frames = f"frames of {self.size[0]}×{self.size[1]} px and {self.channels} channels, " if self.channels else ""
        scaled = "" if self.action_scale == 1 else f"; actions are divided by {self.action_scale:g}"
        states = f"states of {self.state_dim} values, " if self.state_dim else ""
        return f"{frames}{states}actions of {self.action_dim} values, about {self.length:,} of an episode{scaled}"


def survey_episodes(paths: list[str], camera: str) -> EpisodeSurvey:
    """Open evenly spaced episodes and return what the first of them has. Raises UserError if one cannot be read."""
    rows = np.linspace(0, len(paths) - 1, min(SURVEYED, len(paths))).astype(int)
    episodes = [episode for row in rows for episode in open_episodes(paths[row], 3, camera)]
    first = episodes[0]
    size = first.read_frames([0]).shape[1:3] if first.read_frames else (0, 0)
    return EpisodeSurvey(
        action_dim=first.actions.shape[1],
        length=int(np.median([len(each.actions) for each in episodes])),
        size=(int(size[0]), int(size[1])),
        channels=first.channels if first.read_frames else 0,
        state_dim=0 if first.states is None else first.states.shape[1],
        action_scale=choose_scale(np.concatenate([each.actions for each in episodes])),
    )


def choose_scale(actions: Float32[np.ndarray, "R A"]) -> float:
    """Return 1 for actions of the order of 1, as one-hot vectors and torques are, else the largest deviation, rounded.

    Actions in degrees or encoder ticks let the loss of the inverse model and the dynamics diverge.
    """
    largest = float(actions.std(0).max())
    return 1.0 if largest == 0 or USUAL[0] <= largest <= USUAL[1] else float(f"{largest:.1g}")


def choose_cells(size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Return the size to which frames are resized, and the side of a cell that divides it into about CELLS."""
    if max(size) > LARGEST:
        return RESIZED, CELL
    patches = [side for side in range(2, min(size) + 1) if size[0] % side == size[1] % side == 0]
    if not patches:
        return RESIZED, CELL
    return size, min(patches, key=lambda side: abs(max(size) / side - CELLS))
