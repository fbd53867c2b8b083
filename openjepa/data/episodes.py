"""Windows of a few steps of episodes that lie in files.

W windows  B batch  F observations of a window  A width of an action  S values of a state  C channels  H W pixels
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float32, Int, UInt8
from torch import Tensor

from openjepa.core.console import info_once
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples, compute_fingerprint
from openjepa.data.crops import resize
from openjepa.data.episode import Episode, EpisodeViews, check_fits
from openjepa.data.episode_listing import open_episodes

CONSTANT = 1e-6  # standard deviation below which a value counts as constant


class Episodes:
    """All windows of `steps` + 1 observations, `stride` actions apart; none crosses two episodes.

    Window n is that of one episode and one first step, so that `read` needs no randomness. A view has the frames,
    resized, or the states as they are in the files; the conditions are all actions from the first observation to the
    last, divided by `action_scale`. Rewards and ends of episodes are not read. Episodes shorter than a window are left
    out.
    """

    decodes_files: ClassVar[bool] = True
    classes: tuple[str, ...] = ()

    def __init__(self, config: EpisodeViews, paths: list[str], fingerprint: str | Callable[[], str]):
        self.config, self.known_fingerprint = config, fingerprint
        self.reach = config.steps * config.stride  # actions of a window
        self.episodes = self.open_all(paths)
        counts = [len(each.actions) - self.reach + 1 for each in self.episodes]
        self.episode = np.repeat(np.arange(len(counts)), counts)  # of each window
        self.first = np.concatenate([np.arange(count) for count in counts])  # its first step

    def open_all(self, paths: list[str]) -> list[Episode]:
        """Open the episodes that are long enough. Raises UserError if one does not fit, or if all are too short."""
        episodes, short = [], []
        for path in paths:
            for episode in open_episodes(path, self.config.channels, self.config.camera):
                check_fits(episode, self.config)
                (episodes if len(episode.actions) >= self.reach else short).append(episode)
        if not episodes:
            longest = max((len(each.actions) for each in short), default=0)
            raise UserError(
                f"no episode has {self.reach} actions, the longest has {longest}: "
                f"type --data.steps {max(1, longest // self.config.stride)}"
            )
        if short:
            total = len(short) + len(episodes)
            info_once(f"left out   {len(short)} of {total} episodes, which have fewer than {self.reach} actions")
        return episodes

    @property
    def fingerprint(self) -> str:
        return self.computed_fingerprint

    @cached_property
    def computed_fingerprint(self) -> str:
        """Return the fingerprint of the files, and of how they are cut into windows."""
        config = self.config
        return f"{compute_fingerprint(self.known_fingerprint)}-{config.sensors}-{config.steps}-{config.stride}"

    @cached_property
    def statistics(self) -> dict[str, tuple[float, ...]]:
        """Return mean and standard deviation of each value of a state, over all observations; 1 where constant."""
        states = np.concatenate([each.states for each in self.episodes if each.states is not None]).astype(np.float64)
        std = states.std(0)
        values = {"mean": states.mean(0), "std": np.where(std < CONSTANT, 1.0, std)}
        return {name: tuple(float(f"{each:.6g}") for each in value) for name, value in values.items()}

    def __getstate__(self) -> dict[str, object]:
        known = compute_fingerprint(self.known_fingerprint)
        return {**self.__dict__, "known_fingerprint": known}  # without the list of files behind it

    def __len__(self) -> int:
        return len(self.episode)

    def source(self, index: int) -> str:
        """Return the episode of a window and its first step."""
        return f"{self.episodes[self.episode[index]].source}@{self.first[index]}"

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        rows = [(self.episodes[self.episode[number]], int(self.first[number])) for number in index.tolist()]
        view = self.states if self.config.sensors == "states" else self.frames
        actions = np.stack([episode.actions[first : first + self.reach] for episode, first in rows])
        views = torch.stack([view(episode, first) for episode, first in rows])
        conditions = torch.from_numpy(actions) / self.config.action_scale
        return Samples((views,), torch.full((len(index),), -1), conditions=conditions)

    def observations(self, first: int) -> list[int]:
        """Return the numbers of a window's observations in its episode."""
        return list(range(first, first + self.reach + 1, self.config.stride))

    def states(self, episode: Episode, first: int) -> Float32[Tensor, "F S"]:
        """Return the states of a window."""
        assert episode.states is not None
        return torch.from_numpy(episode.states[self.observations(first)])

    def frames(self, episode: Episode, first: int) -> UInt8[Tensor, "F C H W"]:
        """Read the frames of a window and resize them."""
        assert episode.read_frames is not None
        frames = torch.from_numpy(episode.read_frames(self.observations(first))).permute(0, 3, 1, 2)
        return resize(frames, self.config.size).contiguous()
