"""Act in an environment until every task is solved or its time is over.   B tasks  T steps"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from openjepa.planning.envs.rooms import MAX_STEPS, RoomEnv

Act = Callable[[Tensor], Float[Tensor, "B A"]]  # observations → actions


class Outcome(NamedTuple):
    """What happened in each task."""

    success: Bool[Tensor, "B"]
    steps: Int[Tensor, "B"]  # until the goal was reached; MAX_STEPS where it was not
    path: Float[Tensor, "B T+1 2"]  # stays at its last position after the end
    seconds: float  # that acting took, for all tasks and steps together


def run_episodes(env: RoomEnv, act: Act, max_steps: int = MAX_STEPS) -> Outcome:
    """Run all tasks of an environment at once, without gradients."""
    observation, path, seconds = env.observe(), [env.position], 0.0
    steps = torch.full((len(env.position),), max_steps)
    for step in range(max_steps):
        before = time.perf_counter()
        with torch.no_grad():
            action = act(observation)
        seconds += time.perf_counter() - before
        observation = env.step(action)
        path.append(env.position)
        steps = torch.where(env.reached(), steps.clamp(max=step + 1), steps)
        if env.reached().all():
            break
    return Outcome(env.reached(), steps, torch.stack(path, 1), seconds)


def join_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcomes of several groups of tasks as one."""
    longest = max(each.path.shape[1] for each in outcomes)
    paths = [
        torch.cat([each.path, each.path[:, -1:].expand(-1, longest - each.path.shape[1], -1)], 1) for each in outcomes
    ]
    success, steps = (torch.cat([getattr(each, name) for each in outcomes]) for name in ("success", "steps"))
    return Outcome(success, steps, torch.cat(paths), sum(each.seconds for each in outcomes))


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, by Wilson's score."""
    z = 1.959964
    share = successes / count
    center = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return max(0.0, center - half), min(1.0, center + half)
