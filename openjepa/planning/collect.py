"""Collect episodes of an environment and write them as .npz files.

F observations, T + 1  T actions  A width of an action  S values of a state  C channels  H W pixels
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.rng import CounterRNG, random_words
from openjepa.data.crops import resize
from openjepa.data.synthetic.room_layouts import WORLDS
from openjepa.data.synthetic.rooms import draw_episodes
from openjepa.planning.controllers import controller_of
from openjepa.planning.envs.gym import GymEnv, Observation
from openjepa.planning.envs.rooms import MAX_STEPS
from openjepa.planning.settings import Collect

Policy = Callable[[Observation, int], Float32[np.ndarray, "A"]]  # observation and step -> action

Progress = Callable[[range], Iterable[int]]  # yields what it gets, and reports how far it is


class Recording(NamedTuple):
    """What happened in one episode, under the names that the files have."""

    actions: Float32[np.ndarray, "T A"]
    rewards: Float32[np.ndarray, "T"] | None  # None: the environment has none
    terminated: bool
    states: Float32[np.ndarray, "F S"] | None
    observations: UInt8[np.ndarray, "F H W C"] | None


class Collected(NamedTuple):
    """What was collected, summed up."""

    episodes: int
    steps: int
    mean_return: float | None  # None: the environment has no rewards


def collect_episodes(settings: Collect, progress: Progress = iter) -> Collected:
    """Write all episodes, a function of the settings alone. Raises UserError if the folder has files."""
    if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
        raise UserError(f"{settings.out} is not empty: give another --out, or remove what is in it")
    record = room_recorder(settings) if settings.env in WORLDS else gym_recorder(settings)
    steps, returns = 0, []
    for number in progress(range(settings.episodes)):
        recording = record(number)
        write_recording(settings.out / f"episode-{number:06d}.npz", recording)
        steps += len(recording.actions)
        returns += [] if recording.rewards is None else [float(recording.rewards.sum())]
    return Collected(settings.episodes, steps, sum(returns) / len(returns) if returns else None)


def write_recording(file: Path, recording: Recording) -> None:
    """Write an episode atomically."""
    arrays = {name: value for name, value in recording._asdict().items() if value is not None}
    with atomic_write(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def room_recorder(settings: Collect) -> Callable[[int], Recording]:
    """Return the function that records a walk by its number; the state is the position."""
    if settings.policy != "random":
        raise UserError(f"{settings.env} has random walks alone: type --policy random")
    return partial(record_walk, settings)


def record_walk(settings: Collect, number: int) -> Recording:
    """Record a random walk in a room with layouts of training."""
    steps = settings.steps or MAX_STEPS
    walk = draw_episodes(settings.env, CounterRNG.of(settings.seed, 0, np.array([number])), steps)
    frames = walk.frames()[0]
    if settings.pixels:
        frames = resize(frames, (settings.pixels, settings.pixels))
    return Recording(
        actions=walk.action[0].numpy(),
        rewards=None,
        terminated=False,
        states=walk.position[0].numpy(),
        observations=frames.permute(0, 2, 3, 1).contiguous().numpy(),
    )


def gym_recorder(settings: Collect) -> Callable[[int], Recording]:
    """Return the function that records an episode of gymnasium by its number."""
    controlled = settings.policy == "known"
    controller = controller_of(settings.env) if controlled else None
    env = GymEnv(settings.env, settings.pixels)
    limit = settings.steps or env.max_steps
    if not limit:
        raise UserError(f"{settings.env} has no limit of time: type --steps 1000")

    def record(number: int) -> Recording:
        policy = random_policy(env, settings.seed, number, limit) if controller is None else known_policy(controller)
        seed = int(random_words(settings.seed, "episode", np.array([number]), 1)[0, 0] >> np.uint64(33))
        return record_episode(env, policy, seed, limit)

    return record


def random_policy(env: GymEnv, seed: int, number: int, limit: int) -> Policy:
    """Return the policy of uniform actions, a function of the seed and the number of the episode."""
    uniform = CounterRNG.of(seed, 0, np.array([number])).uniform("action", limit, env.action_dim)[0].numpy()
    return lambda _, step: env.action_of(uniform[step])


def known_policy(controller: Callable[[torch.Tensor], torch.Tensor]) -> Policy:
    """Return the policy of a controller that reads states."""

    def act(observation: Observation, _: int) -> Float32[np.ndarray, "A"]:
        assert observation.state is not None
        return controller(torch.from_numpy(observation.state)[None])[0].numpy()

    return act


def record_episode(env: GymEnv, policy: Policy, seed: int, limit: int) -> Recording:
    """Act until the episode ends, or `limit` actions were taken."""
    observations, actions, rewards, terminated = [env.reset(seed)], [], [], False
    for step in range(limit):
        actions.append(policy(observations[-1], step))
        observation, reward, terminated, truncated = env.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            break
    states = [each.state for each in observations if each.state is not None]
    frames = [each.frame for each in observations if each.frame is not None]
    return Recording(
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
        terminated=terminated,
        states=np.stack(states) if states else None,
        observations=np.stack(frames) if frames else None,
    )
