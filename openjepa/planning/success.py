"""How often ways to act reach the goal, on the same tasks.   B tasks"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from openjepa.core.console import console
from openjepa.data.synthetic.geodesic import distance_at, geodesic_distance
from openjepa.data.synthetic.rooms import MAX_STEP
from openjepa.planning import baselines
from openjepa.planning.agent import Agent, count_imagined_steps
from openjepa.planning.configurator import AgentSettings, Task
from openjepa.planning.envs.rooms import MAX_STEPS, RoomEnv, RoomTasks
from openjepa.planning.episodes import Outcome, join_outcomes, run_episodes, wilson_interval
from openjepa.planning.exploring import ExploringAgent
from openjepa.planning.probes import Probe
from openjepa.planning.systems import RoomSystem
from openjepa.planning.zones import Zones

BANDS = (12, 20, 28)  # steps of the shortest way, by which success is split

ZONE_WEIGHT = 20.0  # steps that a step inside a zone costs


class Scene(NamedTuple):
    """What makes tasks harder."""

    view: float | None = None  # pixels to each side of the dot within which walls are seen; None: all
    remember: bool = True  # whether walls that were seen are remembered
    zones: Zones | None = None
    position: Probe | None = None  # of summaries, to avoid the zones; None: they are ignored


PLAIN = Scene()


class Row(NamedTuple):
    """Success of one way to act."""

    name: str
    success: float
    low: float  # of Wilson's 95 % interval
    high: float
    episodes: int
    median_steps: float | None  # of the tasks that it solved; None: it solved none
    by_distance: dict[str, float]  # steps of the shortest way → success
    ms_per_step: float | None = None  # of choosing an action
    imagined_steps: float | None = None  # for each step in the environment
    inside: float | None = None  # share of the episodes with a step inside a forbidden zone
    by_third: tuple[float, ...] = ()  # success of the nearest third of the tasks, the middle one, the farthest


def shortest_steps(tasks: RoomTasks) -> Float[Tensor, "B"]:
    """Return the steps of the shortest way from start to goal."""
    return distance_at(geodesic_distance(tasks.rooms.wall, tasks.goal), tasks.start) / MAX_STEP


def summarize(name: str, outcome: Outcome, shortest: Float[Tensor, "B"]) -> Row:
    """Return the success of an outcome, in all and by the length of the shortest way."""
    success, count = outcome.success, len(outcome.success)
    low, high = wilson_interval(int(success.sum()), count)
    edges = (0, *BANDS, 10**6)
    bands = {}
    for start, end in pairwise(edges):
        inside = (shortest >= start) & (shortest < end)
        if inside.any():
            band = f"{start}-{end}" if end < 10**6 else f">{start}"
            bands[band] = success[inside].float().mean().item()
    steps = outcome.steps[success].float()
    median = steps.median().item() if len(steps) else None
    thirds = tuple(success[part].float().mean().item() for part in shortest.argsort().tensor_split(3) if len(part))
    return Row(name, success.float().mean().item(), low, high, count, median, bands, by_third=thirds)


def run_baselines(tasks: RoomTasks, seed: int) -> list[Row]:
    """Run the ways to act that need no world model."""
    shortest = shortest_steps(tasks)
    rows = []
    for name, act in (
        ("nothing", baselines.nothing),
        ("random", lambda env: baselines.random(env, seed)),
        ("straight line", baselines.straight),
        ("shortest way", baselines.oracle),
    ):
        env = RoomEnv(tasks)
        rows.append(summarize(name, run_episodes(env, act(env)), shortest))
    return rows


def run_agent(
    name: str,
    system: RoomSystem,
    tasks: RoomTasks,
    settings: AgentSettings,
    seed: int,
    scene: Scene = PLAIN,
    max_steps: int = MAX_STEPS,
) -> Row:
    """Run an agent on all tasks."""

    def build(env: RoomEnv, rows: slice) -> Agent | ExploringAgent:
        return build_agent(system, env.tasks, settings, seed + rows.start, scene, rows)

    return run_tasks(name, tasks, build, scene, max_steps)


def run_tasks(
    name: str,
    tasks: RoomTasks,
    build: Callable[[RoomEnv, slice], Agent | ExploringAgent],
    scene: Scene = PLAIN,
    max_steps: int = MAX_STEPS,
) -> Row:
    """Run the agents that `build` returns for each task, one by one: on a CPU a batch of tasks would save little."""
    outcomes, imagined = [], 0
    for number in track(
        range(len(tasks.start)), name, console=console, disable=not console.is_terminal, transient=True
    ):
        rows = slice(number, number + 1)
        env = RoomEnv(tasks.select(rows), scene.view)
        agent = build(env, rows)
        outcomes.append(run_episodes(env, agent, max_steps))
        imagined += count_imagined_steps(agent.imagined_steps, outcomes[-1].steps)
    outcome = join_outcomes(outcomes)
    steps = outcome.steps.sum().item()
    row = summarize(name, outcome, shortest_steps(tasks))
    row = row._replace(ms_per_step=1000 * outcome.seconds / steps, imagined_steps=imagined / steps)
    if scene.zones is None:
        return row
    return row._replace(inside=scene.zones.entered(outcome.path).float().mean().item())


def build_agent(
    system: RoomSystem,
    tasks: RoomTasks,
    settings: AgentSettings,
    seed: int,
    scene: Scene = PLAIN,
    rows: slice = slice(None),
) -> Agent | ExploringAgent:
    """Return an agent for the goals of some of the tasks; `rows` says which."""
    configurator = system.configurator(seed)
    if scene.view is not None:
        return ExploringAgent(configurator, tasks.goal_frames(), settings, scene.remember)
    if scene.zones is None or scene.position is None:
        return configurator(Task(tasks.goal_frames()), settings)
    costs = {"zone": scene.zones.select(rows).cost(scene.position)}
    return dataclasses.replace(configurator, costs=costs)(Task(tasks.goal_frames(), {"zone": ZONE_WEIGHT}), settings)
