"""Draw how a hierarchy plans: what each level wants next, on the map and as real frames, and the energy of actions.

B tasks  R rows  H steps of a plan  N cells  D width of a latent  G points to a side of a landscape
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data.synthetic.rooms import MAX_STEP, draw_episodes
from openjepa.nn.level import Hierarchy
from openjepa.planning.actors.hierarchical import HierarchicalActor
from openjepa.planning.agent import Agent
from openjepa.planning.configurator import AgentSettings, Task
from openjepa.planning.diagnosis import WALKS, encode
from openjepa.planning.envs.rooms import RoomEnv, RoomTasks, draw_tasks
from openjepa.planning.episodes import run_episodes
from openjepa.planning.planners.hierarchical import HierarchicalPlanner, LevelPlan
from openjepa.planning.probes import Probe, linear_probe
from openjepa.planning.systems import RoomSystem, load_room_system
from openjepa.viz.canvas import COLOR_MAP, COLORS, CaptionedFigure, draw_tiles
from openjepa.viz.plans import draw_episodes as draw_paths
from openjepa.viz.plans import frames_of_layout
from openjepa.viz.settings import LevelsOptions
from openjepa.viz.world_maps import draw_walls, paint_frame

MOMENTS = 4  # of an episode that are drawn

LEVEL_COLORS = (COLORS[4], COLORS[5], COLORS[2], COLORS[3])  # from the first level to the highest

POINTS = 41  # of a landscape, to a side


class Moment(NamedTuple):
    """What all levels want at a time when the highest plans."""

    position: Float[Tensor, "2"]
    states: list[Tensor]  # of each level
    plans: list[LevelPlan]


@torch.no_grad()
def show_levels(settings: LevelsOptions) -> list[CaptionedFigure]:
    """Draw the plans of an episode on the map, the first ones as frames, energies, and episodes in motion.

    Raises UserError if the run has one level alone.
    """
    system = load_room_system(settings.run, settings.env)
    if not isinstance(system.world, Hierarchy):
        raise UserError(f"{settings.run} has one level: train several, jepa pretrain world-levels --out runs/levels")
    tasks = draw_tasks(system.env, max(settings.count, settings.task + 1), settings.seed)
    one = tasks.select(slice(settings.task, settings.task + 1))
    planner, moments = think(system, one, settings.seed)
    return [
        draw_sub_goals(one, moments, fit_probes(system)),
        draw_nearest(system, one, moments[0]),
        draw_energies(planner, moments[0]),
        draw_paths(system, tasks.select(slice(settings.count)), settings.seed),
    ]


def think(system: RoomSystem, task: RoomTasks, seed: int) -> tuple[HierarchicalPlanner, list[Moment]]:
    """Run an episode; return the planner, and what all levels wanted whenever the highest one planned."""
    env, moments = RoomEnv(task), []
    agent = system.configurator(seed)(Task(task.goal_frames()), AgentSettings())
    assert isinstance(agent, Agent) and isinstance(agent.actor, HierarchicalActor)
    (planner,) = agent.actor.planners

    def act(observation: Tensor) -> Float[Tensor, "B A"]:
        due, state = planner.is_due(len(planner.plans) - 1), planner.encode(agent.perception(observation))
        action = agent(observation)
        if due:
            moments.append(Moment(env.position[0], state, [plan for plan in planner.plans if plan is not None]))
        return action

    run_episodes(env, act)
    return planner, moments


def fit_probes(system: RoomSystem) -> list[Probe]:
    """Fit probes that read positions from the states of each level, in training layouts."""
    assert isinstance(system.world, Hierarchy)
    walks = draw_episodes(system.env, CounterRNG.of(5, 0, np.arange(WALKS // 2)), 1)
    state, probes = encode(system.world, system.modality, walks.frames().flatten(0, 1)), []
    for level in (None, *system.world.above):
        state = state if level is None else level.encoder(state)
        probes.append(linear_probe(state.flatten(1), walks.position.flatten(0, 1)))
    return probes


def name_level(number: int, planner_levels: int) -> str:
    """Return the name of a level, counted from 0."""
    return f"level {number + 1}" + (" (highest)" if number == planner_levels - 1 else "")


def draw_sub_goals(task: RoomTasks, moments: list[Moment], probes: list[Probe]) -> CaptionedFigure:
    """Draw the imagined positions of all levels on the map at some moments of an episode."""
    chosen = moments[:: max(1, -(-len(moments) // MOMENTS))][:MOMENTS]
    figure = Figure(figsize=(3.1 * len(chosen), 3.5), layout="constrained")
    panels = figure.subplots(1, len(chosen), squeeze=False)[0]
    for axes, moment in zip(panels, chosen, strict=True):
        draw_walls(axes, task.rooms.wall[0].numpy(), moment.position.numpy(), task.goal[0].numpy())
        for number in reversed(range(len(probes))):
            plan, color = moment.plans[number], LEVEL_COLORS[number]
            if not len(plan.actions):
                continue
            path = torch.cat([moment.position[None], probes[number](plan.states.flatten(1))]).numpy()
            label = name_level(number, len(probes))
            axes.plot(*path.T, "-o", color=color, markersize=3 + 2 * number, linewidth=1.4, label=label, zorder=4)
            axes.plot(*path[1], "s", color=color, markersize=6 + 2 * number, markeredgecolor="white", zorder=6)
    panels[0].legend(fontsize=7, loc="best")
    caption = (
        "What each level plans whenever the highest one does in an episode; "
        "squares: the state after its first step, which is the sub-goal of the level below. Probes read positions from "
        "latents; dot: the agent, star: its goal. The layout never occurs in training."
    )
    return CaptionedFigure("levels", "Sub-goals of all levels", caption, figure)


def draw_nearest(system: RoomSystem, task: RoomTasks, moment: Moment) -> CaptionedFigure:
    """Draw the real frames that are nearest to what each level imagines, the highest level first."""
    assert isinstance(system.world, Hierarchy)
    bank, rows, labels = frames_of_layout(task), [], []
    known = [encode(system.world, system.modality, bank)]
    for level in system.world.above:
        known.append(level.encoder(known[-1]))
    longest = max(len(plan.states) for plan in moment.plans)
    for number in reversed(range(len(moment.plans))):
        nearest = torch.cdist(moment.plans[number].states.flatten(1), known[number].flatten(1)).argmin(1)
        frames = [paint_frame(bank[row].numpy()) for row in nearest]
        rows.append([*frames, *[None] * (longest - len(frames))])
        labels.append(name_level(number, len(moment.plans)))
    caption = (
        "The first plans of the episode: for each imagined state, the real frame of this layout whose latent on that "
        "level is nearest to it."
    )
    figure = draw_tiles(rows, [f"step {step}" for step in range(1, longest + 1)], labels)
    return CaptionedFigure("sub-goals", "Imagined states as real frames", caption, figure)


def draw_energies(planner: HierarchicalPlanner, moment: Moment) -> CaptionedFigure:
    """Draw the distance to each level's goal after one action, over the two dimensions of the action."""
    figure = Figure(figsize=(3.6 * len(planner.worlds), 3.4), layout="constrained")
    panels = figure.subplots(1, len(planner.worlds), squeeze=False)[0]
    for number, axes in enumerate(panels):
        reach = MAX_STEP if number == 0 else 1.0
        energies = energy_landscape(planner, number, moment, reach)
        picture = axes.imshow(energies, extent=(-reach, reach, reach, -reach), cmap=COLOR_MAP)
        axes.plot(*moment.plans[number].actions[:1].numpy().T, "*", color=COLORS[5], markersize=12)
        axes.set_title(name_level(number, len(panels)), fontsize=9)
        axes.set_xlabel("action, first dimension", fontsize=8)
        axes.tick_params(labelsize=7)
        figure.colorbar(picture, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
    panels[0].set_ylabel("action, second dimension", fontsize=8)
    caption = (
        "The energy of one action (a macro-action above the first level): the distance of the imagined latent to the "
        "goal's, at the first moment of the episode. Star: the first action of the plan, which looks further ahead."
    )
    return CaptionedFigure("energy", "The energy of actions", caption, figure)


def energy_landscape(
    planner: HierarchicalPlanner, number: int, moment: Moment, reach: float
) -> Float[np.ndarray, "G G"]:
    """Return the distance to the goal after each action of a grid; actions beyond the reach are left out as NaN."""
    axis = torch.linspace(-reach, reach, POINTS)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    actions = torch.stack([x, y], -1).flatten(0, 1)
    state = moment.states[number].expand(len(actions), -1, -1)
    after = planner.worlds[number].step(state, actions)
    energy = (after - planner.goals[number]).square().mean((1, 2))
    return energy.masked_fill(actions.norm(dim=-1) > reach, float("nan")).view(POINTS, POINTS).numpy()
