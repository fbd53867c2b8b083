"""Look at a few episodes to choose settings that fit them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from openjepa.data.episode_listing import open_episodes

SURVEYED = 16  # files or folders that are opened

LARGEST = 96  # side of a frame that keeps its size; larger frames are resized to RESIZED

RESIZED, CELL = (64, 64), 8

CELLS = 10  # cells along the longer side that a patch should give: those of the rooms are 11


class EpisodeSurvey(NamedTuple):
    """What some episodes have."""

    action_dim: int
    length: int  # actions of an episode, the median
    size: tuple[int, int]  # height and width of the first frame; (0, 0) without frames
    channels: int
    state_dim: int  # 0 without states

    def describe(self) -> str:
        frames = f"frames of {self.size[0]}×{self.size[1]} px and {self.channels} channels, " if self.channels else ""
        states = f"states of {self.state_dim} values, " if self.state_dim else ""
        return f"{frames}{states}actions of {self.action_dim} values, about {self.length:,} of an episode"


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
    )


def choose_cells(size: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """Return the size to which frames are resized, and the side of a cell that divides it into about CELLS."""
    if max(size) > LARGEST:
        return RESIZED, CELL
    patches = [side for side in range(2, min(size) + 1) if size[0] % side == size[1] % side == 0]
    if not patches:
        return RESIZED, CELL
    return size, min(patches, key=lambda side: abs(max(size) / side - CELLS))
