"""Train a world model in rooms with random walls and doors, a critic and a policy on it, and let them act."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from openjepa.cli.diagnose import diagnose
from openjepa.cli.plan import print_rows
from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import Demo
from openjepa.cli.show import write_figures
from openjepa.core.errors import UserError
from openjepa.core.types import Score
from openjepa.planning.configurator import AgentSettings
from openjepa.planning.envs.rooms import draw_tasks
from openjepa.planning.settings import Diagnose, Mode
from openjepa.planning.success import Row, run_agent, run_baselines
from openjepa.planning.systems import load_room_system
from openjepa.recipes.world_rooms import DEMO_STEPS, rooms_stages
from openjepa.training.stages import Stages, run_stages
from openjepa.viz.plans import show_plan
from openjepa.viz.settings import PlanOptions, ValueOptions
from openjepa.viz.values import show_value

DEFAULTS: dict[str, Any] = {"test": 100, "epochs": 1.0}

WORLD = "two-rooms"

MODES: dict[str, Mode] = {"mode 1": "1", "adaptive": "adaptive", "mode 2, mppi": "2"}

FEW = 25  # tasks of the actor that fails most of them, which takes the longest


def rooms(settings: Demo) -> list[Score]:
    """Return the success of agents and baselines on tasks in layouts that never occur in training."""
    folder = settings.out / "run"
    run_stages(Stages(demo_stages(settings)), folder, pretrain)
    diagnose(Diagnose(run=str(folder), episodes=25, out=settings.out / "diagnosis.json"))
    system = load_room_system(str(folder))
    tasks = draw_tasks(WORLD, settings.test, settings.seed)
    rows = run_baselines(tasks, settings.seed)
    flat = AgentSettings(critic=False)
    first = tasks.select(slice(FEW))
    rows.append(run_agent(f"mode 2, flat cost, {FEW} tasks", system, first, flat, settings.seed))
    for name, mode in MODES.items():
        rows.append(run_agent(name, system, tasks, AgentSettings(mode=mode), settings.seed))
    print_rows(rows, describe_split(settings))
    return [to_score(row) for row in rows]


def demo_stages(settings: Demo) -> tuple[Any, ...]:
    """Return the stages of world-rooms with fewer steps. Raises UserError if a budget is given."""
    shared = {"seed": settings.seed, "resume": "if-any", "report": False, "out": settings.out / "run"}
    if settings.budget:
        raise UserError("jepa demo rooms has four runs and no --budget: give --epochs 0.5 for half of their steps")
    return tuple(
        dataclasses.replace(stage, steps=max(1, round(settings.epochs * stage.steps)), **shared)
        for stage in rooms_stages(WORLD, DEMO_STEPS).runs
    )


def to_score(row: Row) -> Score:
    """Return a row of the table as a score in percent."""
    chosen = {"ms_per_step": row.ms_per_step, "imagined_steps": row.imagined_steps, "by_distance": row.by_distance}
    return Score(WORLD, row.name, "success", 100 * row.success, 100 * row.low, 100 * row.high, chosen=chosen)


def describe_split(settings: Demo) -> str:
    """Return on what the agents were measured."""
    return f"{WORLD}: {settings.test} tasks in layouts that never occur in training"


def draw(settings: Demo) -> None:
    """Draw plans, what is imagined beside what happens, episodes, and the values of three goals."""
    run = str(settings.out / "run")
    figures = show_plan(PlanOptions(run=run)) + show_value(ValueOptions(run=run))
    write_figures(figures, Path(settings.out / "overview.png"), True, "A world model that plans")
