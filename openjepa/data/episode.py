"""An episode in files: observations over time and the actions between them.

F observations, T + 1  T actions  A width of an action  S values of a state  K frames read  C channels  H W pixels
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from openjepa.core.errors import UserError

ReadFrames = Callable[[list[int]], UInt8[np.ndarray, "K H W C"]]  # sorted numbers of frames -> pixels


IMAGE_CHANNELS = (1, 3)  # in which images and videos are decoded


class Episode(NamedTuple):
    """Actions and states in memory, and the function that reads frames when a window needs them."""

    source: str  # the file, with #NUMBER if it has several episodes
    actions: Float32[np.ndarray, "T A"]
    states: Float32[np.ndarray, "F S"] | None = None
    read_frames: ReadFrames | None = None
    channels: int = 0  # of the frames

    def check(self, frame_count: int) -> Episode:
        """Return the episode. Raises UserError unless T actions lie between T + 1 finite states or frames."""
        counts = {"frames": frame_count if self.read_frames else None}
        counts["states"] = None if self.states is None else len(self.states)
        for name, count in counts.items():
            if count is not None and count != len(self.actions) + 1:
                raise UserError(
                    f"{self.source} has {len(self.actions)} actions and {count} {name}: T actions lie between T + 1 "
                    f"{name}, so remove the last action or add the last of the {name}"
                )
        for name, values in (("actions", self.actions), ("states", self.states)):
            if values is not None and not np.isfinite(values).all():
                raise UserError(f"{self.source} has {name} that are not finite: repair or remove the file")
        if self.states is None and self.read_frames is None:
            raise UserError(f"{self.source} has neither frames nor states: add one of them")
        return self


def decoded_channels(channels: int) -> int:
    """Return the channels in which frames of images and videos are decoded: as the settings say, if possible."""
    return channels if channels in IMAGE_CHANNELS else IMAGE_CHANNELS[-1]


@runtime_checkable
class EpisodeViews(Protocol):
    """The part of the trajectory modality that a data set of episodes needs."""

    @property
    def steps(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def channels(self) -> int: ...
    @property
    def action_dim(self) -> int: ...
    @property
    def action_scale(self) -> float: ...
    @property
    def state_dim(self) -> int: ...
    @property
    def sensors(self) -> str: ...
    @property
    def camera(self) -> str: ...


def check_fits(episode: Episode, config: EpisodeViews) -> None:
    """Raise UserError, which says what to type, if an episode does not fit the settings."""
    source, width = episode.source, episode.actions.shape[1]
    if width != config.action_dim:
        raise UserError(
            f"actions of {source} have {width} values, but --data.action-dim is {config.action_dim}: "
            f"type --data.action-dim {width}"
        )
    if config.sensors == "states":
        if episode.states is None:
            raise UserError(f"{source} has no states: type --data.sensors frames")
        if (values := episode.states.shape[1]) != config.state_dim:
            raise UserError(
                f"states of {source} have {values} values, but --data.state-dim is {config.state_dim}: "
                f"type --data.state-dim {values}"
            )
    elif episode.read_frames is None:
        assert episode.states is not None
        values = episode.states.shape[1]
        raise UserError(f"{source} has no frames: type --data.sensors states --data.state-dim {values}")
    elif episode.channels != config.channels:
        raise UserError(
            f"frames of {source} have {episode.channels} channels, but --data.channels is {config.channels}: "
            f"type --data.channels {episode.channels}"
        )
