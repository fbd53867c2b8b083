"""Command `jepa plan`: let an agent act, and count how often it reaches its goal."""

from __future__ import annotations

from pathlib import Path

from openjepa.cli.plan_remote import plan_remote
from openjepa.cli.plan_returns import plan_returns, write_rows
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.tables import print_table
from openjepa.data.synthetic.room_layouts import WORLDS
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.level import Hierarchy
from openjepa.planning.comparison import compare_actors, name_levels
from openjepa.planning.configurator import AgentSettings
from openjepa.planning.diagnosis import fit_decoder
from openjepa.planning.envs.rooms import RoomTasks, draw_tasks, draw_tasks_to
from openjepa.planning.remote import RemoteRow
from openjepa.planning.returns import ReturnRow
from openjepa.planning.settings import PLANNING, ROOMS, Plan
from openjepa.planning.success import Row, Scene, run_agent, run_baselines
from openjepa.planning.systems import RoomSystem, load_room_system
from openjepa.planning.zones import draw_zones
from openjepa.training.config import load_config
from openjepa.training.stages import last_stage


def plan(settings: Plan) -> list[Row] | list[ReturnRow] | list[RemoteRow]:
    """Run an agent and the baselines on the same tasks; print a table and write a JSON file."""
    if settings.env is None and balances(settings.run):
        return plan_remote(settings)
    return plan_in_rooms(settings) if acts_in_rooms(settings) else plan_returns(settings)


def balances(run: str) -> bool:
    """Return whether a run was trained on driven carts."""
    data = load_config(last_stage(Path(run))).data
    return isinstance(data, Trajectory) and not data.root and data.world == "cart-pole"


def acts_in_rooms(settings: Plan) -> bool:
    """Return whether the environment is a world of rooms; without --env, the one of the run."""
    if settings.env is not None:
        return settings.env in WORLDS
    data = load_config(last_stage(Path(settings.run))).data
    if isinstance(data, Trajectory) and data.root:
        raise UserError(f"{settings.run} was trained on files: type --env and the environment, such as CartPole-v1")
    return True


def plan_in_rooms(settings: Plan) -> list[Row]:
    """Count how often the agent reaches its goal."""
    system = load_room_system(settings.run, settings.env)
    if isinstance(system.world, Hierarchy):
        settings.refuse_unused(("levels", "compare", "goal"), "on several levels")
    else:
        settings.refuse_unused((*PLANNING, *ROOMS), "in rooms, with one level")
    tasks = choose_tasks(settings, system.env)
    rows = run_baselines(tasks, settings.seed)
    chosen = AgentSettings(
        settings.mode,
        settings.planner,
        settings.horizon,
        settings.replan,
        settings.samples,
        settings.iterations,
        settings.critic,
        settings.levels,
    )
    name = {"1": "mode 1", "2": f"mode 2, {settings.planner}"}.get(settings.mode, settings.mode)
    if isinstance(system.world, Hierarchy):
        name = name_levels(settings.levels or 1 + len(system.world.levels))
    if settings.compare:
        rows += compare_actors(system, tasks, chosen, settings.seed)
    else:
        for suffix, scene in choose_scenes(settings, system, tasks).items():
            rows.append(run_agent(name + suffix, system, tasks, chosen, settings.seed, scene))
    title = f"{system.env}, {len(tasks.goal)} tasks in layouts that never occur in training{settings.describe_goal()}"
    print_rows(rows, title)
    write_rows(settings.out or system.folder / "plan.json", system.env, settings.seed, rows)
    return rows


def choose_tasks(settings: Plan, env: str) -> RoomTasks:
    """Return tasks with the goal of the settings, or with goals of their own."""
    if settings.goal:
        return draw_tasks_to(env, settings.goal, settings.episodes, settings.seed)
    return draw_tasks(env, settings.episodes, settings.seed)


def choose_scenes(settings: Plan, system: RoomSystem, tasks: RoomTasks) -> dict[str, Scene]:
    """Return what is measured, by what is added to the actor's name."""
    if settings.view:
        remember = "with" if settings.memory else "without"
        return {f", {remember} memory of walls": Scene(settings.view, settings.memory)}
    if not settings.zone:
        return {"": Scene()}
    zones = draw_zones(tasks)
    info(f"zones      on the shortest way of {zones.exists.float().mean():.0%} of the tasks")
    probe = fit_decoder(system.world, system.modality, system.env).probe
    return {", zone ignored": Scene(zones=zones), ", zone avoided": Scene(zones=zones, position=probe)}


def print_rows(rows: list[Row], title: str) -> None:
    """Print success with its interval, in all and by the length of the shortest way."""
    bands = list(dict.fromkeys(band for row in rows for band in row.by_distance))
    head = ("way to act", "success %", "95 % interval", *(f"{band} steps" for band in bands), "median steps")
    head += ("ms / step", "imagined / step", "inside the zone %")[: 3 if has_zones(rows) else 2]
    cells = []
    for row in rows:
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
        success = (f"{100 * row.by_distance[band]:.0f}" if band in row.by_distance else "" for band in bands)
        costs = [row.median_steps, row.ms_per_step, row.imagined_steps]
        costs += [None if row.inside is None else 100 * row.inside] * has_zones(rows)
        texts = ("" if cost is None else f"{cost:.3g}" for cost in costs)
        cells.append((row.name, f"{100 * row.success:.1f}", interval, *success, *texts))
    print_table(head, cells, title)


def has_zones(rows: list[Row]) -> bool:
    return any(row.inside is not None for row in rows)
