"""Train three levels of world models in four rooms with a distractor, and let them plan (H-JEPA)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from openjepa.cli.demos.rooms import to_score
from openjepa.cli.plan import print_rows
from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import Demo
from openjepa.cli.show import write_figures
from openjepa.core.errors import UserError
from openjepa.core.types import Score
from openjepa.planning.comparison import name_levels
from openjepa.planning.configurator import AgentSettings
from openjepa.planning.envs.rooms import draw_tasks
from openjepa.planning.success import run_agent, run_baselines
from openjepa.planning.systems import load_room_system
from openjepa.recipes.world_levels import DEMO_STEPS, levels_run
from openjepa.viz.levels import show_levels
from openjepa.viz.settings import LevelsOptions

DEFAULTS: dict[str, Any] = {"test": 60, "epochs": 1.0}

WORLD = "four-rooms-distractor"


def four_rooms(settings: Demo) -> list[Score]:
    """Return the success of one and of several levels, and of baselines, in layouts that never occur in training."""
    pretrain(demo_run(settings))
    system = load_room_system(str(settings.out / "run"))
    tasks = draw_tasks(WORLD, settings.test, settings.seed)
    rows = run_baselines(tasks, settings.seed)
    for levels in (1, 2, 3):
        rows.append(run_agent(name_levels(levels), system, tasks, AgentSettings(levels=levels), settings.seed))
    print_rows(rows, describe_split(settings))
    return [to_score(row)._replace(task=WORLD) for row in rows]


def demo_run(settings: Demo) -> Any:
    """Return the run of world-levels with fewer steps. Raises UserError if a budget is given."""
    if settings.budget:
        raise UserError("jepa demo four-rooms has no --budget: give --epochs 0.5 for half of the steps")
    run = levels_run(WORLD, max(1, round(settings.epochs * DEMO_STEPS)))
    return dataclasses.replace(run, seed=settings.seed, resume="if-any", report=False, out=settings.out / "run")


def describe_split(settings: Demo) -> str:
    """Return on what the agents were measured."""
    return f"{WORLD}: {settings.test} tasks in layouts that never occur in training"


def draw(settings: Demo) -> None:
    """Draw what each level wants, the energy of actions, and episodes."""
    figures = show_levels(LevelsOptions(run=str(settings.out / "run")))
    write_figures(figures, Path(settings.out / "overview.png"), True, "World models on three levels")
