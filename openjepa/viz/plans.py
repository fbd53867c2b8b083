"""Draw how an agent plans: candidates, the chosen plan, what it imagines beside what happens, and whole episodes.

B tasks  S candidates  T steps  H steps of a plan
"""

from __future__ import annotations

from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.data.synthetic.rooms import BORDER, move, shorten
from openjepa.planning.actors.planning import PlanningActor
from openjepa.planning.agent import Agent
from openjepa.planning.configurator import AgentSettings, Task
from openjepa.planning.diagnosis import Decoder, encode, fit_decoder
from openjepa.planning.envs.rooms import RoomEnv, RoomTasks, draw_tasks
from openjepa.planning.episodes import run_episodes
from openjepa.planning.planners.plan import Plan
from openjepa.planning.systems import RoomSystem, load_room_system, require_one_level
from openjepa.viz.animation import animate_tiles
from openjepa.viz.canvas import COLOR_MAP, COLORS, CaptionedFigure, draw_tiles
from openjepa.viz.settings import PlanOptions
from openjepa.viz.world_maps import draw_walls, paint_frame, paint_room

SHOWN_STEPS = (1, 2, 4, 6, 8)  # of the first plan

PLANS = 4  # of an episode that are drawn


class Thought(NamedTuple):
    """A plan, and the position from which it was made."""

    position: Float[Tensor, "2"]
    state: Float[Tensor, "1 N D"]
    plan: Plan


@torch.no_grad()
def show_plan(settings: PlanOptions) -> list[CaptionedFigure]:
    """Draw the plans of one episode, the first plan as frames beside what happens, and several episodes in motion."""
    system = load_room_system(settings.run, settings.env)
    require_one_level(system, settings.run)
    tasks = draw_tasks(system.env, max(settings.count, settings.task + 1), settings.seed)
    one = tasks.select(slice(settings.task, settings.task + 1))
    thoughts = think(system, one, settings.seed)
    decoder = fit_decoder(system.world, system.modality, system.env)
    return [
        draw_candidates(system, decoder, one, thoughts[:: max(1, len(thoughts) // PLANS)][:PLANS]),
        draw_imagined(system, one, thoughts[0]),
        draw_episodes(system, tasks.select(slice(settings.count)), settings.seed),
    ]


def think(system: RoomSystem, task: RoomTasks, seed: int) -> list[Thought]:
    """Run an episode and return every plan that was made."""
    env, thoughts = RoomEnv(task), []
    agent = build_planner(system, task, seed)
    actor = agent.actor
    assert isinstance(actor, PlanningActor)
    make_plan = actor.make_plan

    def remember(state: Tensor) -> tuple[Plan, int]:
        plan, imagined = make_plan(state)
        thoughts.append(Thought(env.position[0], state, plan))
        return plan, imagined

    actor.make_plan = remember  # type: ignore[method-assign]
    run_episodes(env, agent)
    return thoughts


def build_planner(system: RoomSystem, tasks: RoomTasks, seed: int) -> Agent:
    return system.configurator(seed)(Task(tasks.goal_frames()), AgentSettings())


def imagined_path(
    system: RoomSystem, decoder: Decoder, thought: Thought, actions: Tensor
) -> Float[np.ndarray, "S T 2"]:
    """Return the positions that a probe reads from imagined latents, from the real one on."""
    count, steps = actions.shape[:2]
    states = system.world.unroll(thought.state.expand(count, -1, -1), shorten(actions))
    positions = decoder.position(states.flatten(0, 1)).unflatten(0, (count, steps))
    return torch.cat([thought.position.expand(count, 1, 2), positions], 1).numpy()


def draw_candidates(system: RoomSystem, decoder: Decoder, task: RoomTasks, thoughts: list[Thought]) -> CaptionedFigure:
    """Draw the candidates of some plans of an episode, colored by their cost, and the chosen plan."""
    figure = Figure(figsize=(3.0 * len(thoughts) + 0.8, 3.3), layout="constrained")
    panels = figure.subplots(1, len(thoughts), squeeze=False)[0]
    for axes, thought in zip(panels, thoughts, strict=True):
        draw_walls(axes, task.rooms.wall[0].numpy(), thought.position.numpy(), task.goal[0].numpy())
        plan = thought.plan
        costs = plan.costs[0] - plan.costs[0].amin()
        scale = Normalize(0, max(float(costs.quantile(0.9)), 1e-6))
        for path, cost in zip(imagined_path(system, decoder, thought, plan.candidates[0]), costs, strict=True):
            axes.plot(*path.T, color=color_of(scale(float(cost))), linewidth=0.7, alpha=0.6, zorder=3)
        (chosen,) = imagined_path(system, decoder, thought, plan.actions)
        axes.plot(*chosen.T, color=COLORS[5], linewidth=2.2, zorder=4)
    figure.suptitle("candidates, dark: low cost; orange: the chosen plan", fontsize=9)
    caption = (
        "Plans of one episode in a layout that never occurs in training, from the first to the last. A probe reads "
        "positions from imagined latents; dot: the agent, star: its goal."
    )
    return CaptionedFigure("plan", "Candidates and chosen plans", caption, figure)


def color_of(share: float) -> tuple[float, ...]:
    return matplotlib.colormaps[COLOR_MAP](min(1.0, share))


def draw_imagined(system: RoomSystem, task: RoomTasks, thought: Thought) -> CaptionedFigure:
    """Draw the real frames nearest to what the first plan imagines, above the frames that its actions lead to."""
    actions = shorten(thought.plan.actions)
    states = system.world.unroll(thought.state, actions)[0]
    bank = frames_of_layout(task)
    known = encode(system.world, system.modality, bank).flatten(1)
    nearest = torch.cdist(states.flatten(1), known).argmin(1)
    position, happened = thought.position[None], []
    for action in actions[0]:
        position = move(task.rooms.wall, position, action[None])
        happened.append(task.frames_at(position)[0])
    steps = [step for step in SHOWN_STEPS if step <= len(happened)]
    rows = [
        [paint_frame(bank[nearest[step - 1]].numpy()) for step in steps],
        [paint_frame(happened[step - 1].numpy()) for step in steps],
    ]
    titles = [f"step {step}" for step in steps]
    figure = draw_tiles(rows, titles, ["imagined:\nnearest real frame", "what happens"])
    caption = (
        "The first plan of the episode, all of its actions carried out. Above: what the world model imagines, as the "
    )
    caption += "real frame of this layout whose latent is nearest to the imagined one."
    return CaptionedFigure("imagined", "Imagined and real", caption, figure)


def frames_of_layout(task: RoomTasks) -> UInt8[Tensor, "R C H W"]:
    """Render the agent at every half pixel that is free."""
    axis = torch.arange(BORDER, task.rooms.wall.shape[-1] - BORDER, 0.5)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    positions = torch.stack([x, y], -1).flatten(0, 1)
    free = ~task.rooms.wall[0][positions[:, 1].long(), positions[:, 0].long()]
    return task.frames_at(positions[free])


def draw_episodes(system: RoomSystem, tasks: RoomTasks, seed: int) -> CaptionedFigure:
    """Draw episodes of mode 2: their whole paths, and the episodes in motion."""
    outcome = run_episodes(RoomEnv(tasks), build_planner(system, tasks, seed))
    longest = int(outcome.steps.max())
    walls, goals, paths = tasks.rooms.wall.numpy(), tasks.goal.numpy(), outcome.path.numpy()
    clips = [
        np.stack([paint_room(wall, path[: step + 1], goal) for step in range(min(longest, len(path) - 1) + 1)])
        for wall, path, goal in zip(walls, paths, goals, strict=True)
    ]
    titles = [
        f"{int(steps)} steps" if success else "not reached"
        for steps, success in zip(outcome.steps, outcome.success, strict=True)
    ]
    figure = draw_tiles([[clip[-1] for clip in clips]], titles)
    moving = animate_tiles([clips], titles, [], clips[0].shape[1:3])
    caption = "Episodes of mode 2 in layouts that never occur in training: path (blue), agent (dot) and goal (ring)."
    return CaptionedFigure("episodes", "Episodes", caption, figure, frames=moving)
