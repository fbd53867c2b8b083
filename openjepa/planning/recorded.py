"""What a world model sees in the episodes that it was trained on.

R observations of all episodes  F of one, T + 1  T actions  N cells  D width  S values of a state
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.data.crops import resize
from openjepa.data.episode import Episode
from openjepa.data.episode_listing import SUFFIXES, open_episodes
from openjepa.data.episode_npz import read_array
from openjepa.nn.world import World
from openjepa.planning.perception import Perception

CHUNK = 256  # observations that are encoded at once


class Recorded(NamedTuple):
    """Latents of observations, and what happened there."""

    latents: Float[Tensor, "R N D"]
    states: Float[Tensor, "R S"] | None  # None: some episode has none
    rewards: Float[Tensor, "R"] | None  # of the action that was taken there; nan at the end of an episode
    terminated: Bool[Tensor, "R"]  # whether success or failure ended the episode there


class Ends(NamedTuple):
    """What the file of an episode says beside its observations and actions."""

    rewards: Float32[np.ndarray, "T"] | None
    terminated: bool


@torch.no_grad()
def encode_recorded(world: World, modality: Any) -> Recorded:
    """Encode all observations of the episodes that a run was trained on. Raises UserError if it has no files."""
    if not modality.root:
        raise UserError(f"this run was trained in {modality.world}: train one on files, see jepa collect --help")
    perception = Perception(world, modality)
    latents, states, rewards, terminated = [], [], [], []
    for path in modality.listing().paths:
        episodes = list(open_episodes(path, modality.channels, modality.camera))
        for episode, ends in zip(episodes, read_ends(path, len(episodes)), strict=True):
            latents.append(encode_episode(perception, modality, episode))
            states.append(episode.states)
            rewards.append(None if ends.rewards is None else np.append(ends.rewards, np.float32("nan")))
            terminated.append(np.zeros(len(latents[-1]), bool))
            terminated[-1][-1] = ends.terminated
    return Recorded(torch.cat(latents), join(states), join(rewards), torch.from_numpy(np.concatenate(terminated)))


def join(arrays: list[Any]) -> Tensor | None:
    """Return arrays one after the other; None if one of them is missing."""
    return None if any(each is None for each in arrays) else torch.from_numpy(np.concatenate(arrays))


def encode_episode(perception: Perception, modality: Any, episode: Episode) -> Float[Tensor, "F N D"]:
    """Encode the observations of an episode."""
    count = len(episode.actions) + 1
    rows = [list(range(first, min(first + CHUNK, count))) for first in range(0, count, CHUNK)]
    if modality.sensors == "states":
        assert episode.states is not None
        return torch.cat([perception(torch.from_numpy(episode.states[index])) for index in rows])
    assert episode.read_frames is not None
    frames = (torch.from_numpy(episode.read_frames(index)).permute(0, 3, 1, 2) for index in rows)
    return torch.cat([perception(resize(each, modality.size).contiguous()) for each in frames])


def read_ends(path: str, count: int) -> list[Ends]:
    """Return rewards and end of each of the `count` episodes of a path; only .npz files have them."""
    if Path(path).suffix not in SUFFIXES:
        return [Ends(None, False)] * count
    rewards, terminated = read_array(path, "rewards"), read_array(path, "terminated")
    ends = np.zeros(count, bool) if terminated is None else terminated.reshape(-1).astype(bool)
    rows = [None] * count if rewards is None else list(rewards.reshape(count, -1))
    return [Ends(row, bool(end)) for row, end in zip(rows, ends, strict=True)]
