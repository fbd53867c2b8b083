"""The return of ways to act in an environment of gymnasium, on the same episodes.   B episodes  A width of an action"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from openjepa.core.bootstrap import bootstrap_interval
from openjepa.core.console import console
from openjepa.core.rng import CounterRNG
from openjepa.planning.agent import count_imagined_steps
from openjepa.planning.configurator import AgentSettings
from openjepa.planning.controllers import CONTROLLERS
from openjepa.planning.envs.gym import GymEnv
from openjepa.planning.envs.gym_batch import GymBatch
from openjepa.planning.gym_system import GymSystem

TIMED_STEPS = 40  # of one episode

Choose = Callable[[GymBatch], Float[Tensor, "B A"]]  # actions for what is observed now


class ReturnRow(NamedTuple):
    """Returns of one way to act."""

    name: str
    mean_return: float
    low: float  # of the 95 % interval of the mean, by bootstrap
    high: float
    returns: list[float]  # of each episode
    mean_steps: float
    ms_per_step: float | None = None  # of one episode alone
    imagined_steps: float | None = None  # for each step in the environment


def run_batch(batch: GymBatch, choose: Choose, name: str) -> ReturnRow:
    """Act until all episodes have ended, without gradients."""
    steps = range(batch.max_steps)
    for _ in track(steps, name, console=console, disable=not console.is_terminal, transient=True):
        with torch.no_grad():
            batch.step(choose(batch))
        if not batch.active.any():
            break
    low, high = bootstrap_interval(batch.returns)
    returns = [round(each, 4) for each in batch.returns.tolist()]
    return ReturnRow(name, batch.returns.mean().item(), low, high, returns, batch.steps.float().mean().item())


def run_references(env: GymEnv, seeds: Sequence[int]) -> list[ReturnRow]:
    """Run random actions, and the known controller if the environment has one."""
    pixels = env.pixels if env.has_images else 0
    rows = [run_batch(GymBatch(env.name, seeds, pixels), act_randomly(seeds), "random")]
    if control := CONTROLLERS.get(env.name):
        rows.append(run_batch(GymBatch(env.name, seeds), lambda batch: control(batch.states()), "known controller"))
    return rows


def act_randomly(seeds: Sequence[int]) -> Choose:
    """Return uniform actions, a function of seed and step."""

    def choose(batch: GymBatch) -> Float[Tensor, "B A"]:
        env = batch.envs[0]
        rng = CounterRNG.of(0, 0, np.array(seeds)).fold_in(int(batch.steps.max()))
        return torch.from_numpy(
            np.stack([env.action_of(each) for each in rng.uniform("action", env.action_dim).numpy()])
        )

    return choose


def run_planning(name: str, system: GymSystem, seeds: Sequence[int], settings: AgentSettings, seed: int) -> ReturnRow:
    """Run the agent on all episodes at once, and time it on the first alone."""
    env = system.env
    agent = system.agent(len(seeds), settings, seed)
    batch = GymBatch(env.name, seeds, env.pixels)
    row = run_batch(batch, lambda batch: env.decode(agent(batch.observe())), name)
    imagined = count_imagined_steps(agent.imagined_steps, batch.steps) / int(batch.steps.sum())
    return row._replace(ms_per_step=1000 * time_step(system, seeds[0], settings, seed), imagined_steps=imagined)


def time_step(system: GymSystem, first: int, settings: AgentSettings, seed: int) -> float:
    """Return the seconds that choosing an action for one episode takes, the mean over some steps after the first."""
    agent = system.agent(1, settings, seed)
    observation = GymBatch(system.env.name, [first], system.env.pixels).observe()
    with torch.no_grad():
        agent(observation)
        before = time.perf_counter()
        for _ in range(TIMED_STEPS):
            agent(observation)
    return (time.perf_counter() - before) / TIMED_STEPS
