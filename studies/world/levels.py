"""Does a hierarchy plan better than one level? Four rooms with a distractor, and ways of 25, 50 and 100 steps.

    python -m studies.world.levels --out runs/levels --world four-rooms-distractor --seed 0     # train and measure
    python -m studies.world.levels --out runs/levels --world winding --seed 0
    python -m studies.world.levels --out runs/levels --world winding --seeds 0 1 2              # the table of all

Each run is `jepa pretrain world-levels`. Four rooms: 300 tasks of up to 100 steps. Winding corridors: 200 tasks for
each length of the shortest way, with twice as many steps allowed; all agents imagine at most about as many steps. One
level plans by samples (CEM) or, in four rooms, by the same tree as the levels above it do (in winding corridors the
tree of one level reached none of twelve goals, and is left out). Layouts never occur in training; tasks are those of
seed 0. Finished runs and rows are kept.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import tyro

from openjepa.core.fileio import write_text
from openjepa.nn.level import Hierarchy
from openjepa.planning.actors.hierarchical import HierarchicalActor
from openjepa.planning.agent import Agent
from openjepa.planning.configurator import AgentSettings, Task
from openjepa.planning.envs.rooms import MAX_STEPS, RoomEnv, RoomTasks, draw_distant_tasks, draw_tasks
from openjepa.planning.planners.hierarchical import HierarchicalPlanner, Search
from openjepa.planning.success import Row, run_baselines, run_tasks
from openjepa.planning.systems import RoomSystem, load_room_system
from openjepa.recipes.world_levels import levels_run
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.run import pretrain


class Way(NamedTuple):
    """How an agent plans."""

    levels: int
    search: Search


WAYS = {  # about 450 imagined steps for each step in the environment
    "one level, samples": Way(1, Search(horizon=32, samples=14, iterations=4)),
    "one level, tree": Way(1, Search(budget=1800, tree=True)),
    "two levels": Way(2, Search(budget=3000)),
    "three levels": Way(3, Search(budget=2000)),
}

DISTANCES = (25, 50, 100)  # steps of the shortest way in winding corridors


@dataclass(frozen=True)
class Study:
    """Train a hierarchy and let its levels plan."""

    world: Literal["four-rooms-distractor", "winding"]
    out: Path = Path("runs/levels")
    seed: int = 0
    seeds: tuple[int, ...] = ()  # print the table of these
    tasks: int = 0  # 0: 300 in four rooms, 200 for each length in winding corridors


def train(study: Study) -> Path:
    """Train a hierarchy, unless it is trained."""
    out = study.out / f"{study.world}-{study.seed}"
    if not (out / "export").exists():
        config = dataclasses.replace(levels_run(study.world), seed=study.seed, out=out, resume="if-any", report=False)
        pretrain(dataclasses.replace(config, threads=1, workers=0, device="cpu"))
    return out


def tasks_of(study: Study) -> dict[str, tuple[RoomTasks, int]]:
    """Return tasks and the steps that each may take, by the name of their group."""
    if study.world == "winding":
        return {
            f"{steps} steps": (draw_distant_tasks("winding", study.tasks or 200, 0, steps), 2 * steps)
            for steps in DISTANCES
        }
    return {"all": (draw_tasks(study.world, study.tasks or 300, 0), MAX_STEPS)}


def build(system: RoomSystem, way: Way, env: RoomEnv, rows: slice) -> Agent:
    """Return an agent that plans in a way, for one task."""
    assert isinstance(system.world, Hierarchy)
    agent = system.configurator(rows.start)(Task(env.tasks.goal_frames()), AgentSettings(levels=way.levels))
    assert isinstance(agent, Agent) and isinstance(agent.actor, HierarchicalActor)
    (planner,) = agent.actor.planners
    goal, generator = planner.goals[0], planner.generator
    pushes, limit = planner.pushes[0], planner.limit
    agent.actor = HierarchicalActor(
        [HierarchicalPlanner(system.world, goal, pushes, limit, generator, way.levels, way.search)]
    )
    return agent


def measure(study: Study, run: Path) -> None:
    """Run all agents on all groups of tasks, and write their rows."""
    file = run / "rows.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    system = load_room_system(str(run))
    for group, (tasks, steps) in tasks_of(study).items():
        for row in run_baselines(tasks, 0) if group == "all" else []:
            known.setdefault(f"{group}: {row.name}", describe(row))
        for name, way in WAYS.items():
            if study.world == "winding" and name == "one level, tree":
                continue
            key = f"{group}: {name}"
            if key not in known:
                row = run_tasks(name, tasks, partial(build, system, way), max_steps=steps)
                known[key] = describe(row)
                write_text(file, json.dumps(known, indent=1))
                print(f"{study.world}, seed {study.seed}, {key}: {known[key]}", flush=True)


def describe(row: Row) -> dict[str, float | None]:
    """Return success in percent with its interval, of the nearest and of the farthest third, and what acting costs."""
    nearest, _, farthest = row.by_third
    shares = {"success": row.success, "low": row.low, "high": row.high, "nearest": nearest, "farthest": farthest}
    costs = {"imagined": row.imagined_steps, "ms": row.ms_per_step}
    return {name: 100 * value for name, value in shares.items()} | costs


def print_table(study: Study) -> None:
    """Print the success of each seed with its interval, and the mean of all."""
    runs = [study.out / f"{study.world}-{seed}" for seed in study.seeds]
    rows = [json.loads((run / "rows.json").read_text(encoding="utf-8")) for run in runs]
    heads = [f"seed {seed}" for seed in study.seeds]
    head = ["tasks: way to act", *heads, "mean", "nearest third", "farthest third", "imagined / step", "ms / step"]
    print("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    for key in rows[0]:
        each = [row[key] for row in rows]
        cells = [f"{row['success']:.1f} ({row['low']:.1f} to {row['high']:.1f})" for row in each]
        means = {name: sum(row[name] for row in each) / len(each) for name in ("success", "nearest", "farthest")}
        costs = [sum(row[name] or 0 for row in each) / len(each) for name in ("imagined", "ms")]
        cells += [f"{value:.1f}" for value in means.values()] + [f"{cost:.0f}" for cost in costs]
        print(f"| {key} | " + " | ".join(cells) + " |")


def main(study: Study) -> None:
    """Train and measure one seed, or print the table of several."""
    retain_freed_memory()
    torch.set_num_threads(1)
    if study.seeds:
        print_table(study)
    else:
        measure(study, train(study))


if __name__ == "__main__":
    main(tyro.cli(Study))
