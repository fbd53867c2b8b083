"""Settings of agents and of what measures them; without torch, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openjepa.core.arguments import Run
from openjepa.core.errors import UserError

RoomWorld = Literal["two-rooms", "four-rooms"]

Mode = Literal["1", "2", "adaptive"]

PlannerName = Literal["mppi", "cem", "gradient"]


@dataclass(frozen=True)
class Plan:
    """Let an agent act in rooms that it never saw, and count how often it reaches its goal.

    Start and goal are in different rooms. Beside it: doing nothing, random pushes, pushing straight to the goal, and
    the shortest way. Writes a JSON file.

    Example: jepa plan runs/rooms --episodes 300 --mode 2
    """

    run: Run  # folder of a run of jepa pretrain world-rooms
    env: RoomWorld | None = None  # default: the world that the run was trained in
    episodes: int = 100  # tasks
    mode: Mode = "2"  # 2: plan in the world model; 1: react by the policy; adaptive: plan where reacting fails
    planner: PlannerName = "mppi"
    horizon: int = 8  # steps of a plan
    replan: int = 4  # steps until the next plan
    samples: int = 48  # plans that mppi and cem try in each iteration
    iterations: int = 3
    critic: bool = True  # judge states by the critic; otherwise by the distance of latents
    view: float = 0.0  # pixels to each side of the dot within which it sees walls; 0: all of them
    memory: bool = True  # with --view: remember the walls that were seen
    # put a forbidden zone on the shortest way of each task; the table says how often it was entered, without and with
    # its cost
    zone: bool = False
    compare: bool = False  # also measure the other mode, the greedy actor, the flat cost and exact dynamics
    seed: int = 0  # of the tasks and of all that is random in acting
    out: Path | None = None  # path of the JSON file; default: RUN/plan.json

    def __post_init__(self):
        if self.episodes < 1:
            raise UserError(f"--episodes must be >= 1, got {self.episodes}")
        if not 1 <= self.replan <= self.horizon:
            raise UserError(f"--replan must be between 1 and --horizon {self.horizon}, got {self.replan}")
        if self.samples < 8 or self.iterations < 1:
            raise UserError(f"--samples must be >= 8 and --iterations >= 1, got {self.samples} and {self.iterations}")


@dataclass(frozen=True)
class Diagnose:
    """Find out which module of an agent fails, before any planner is tuned.

    Prints what probes read from the latents, how porous imagined walls are, how far imagined positions are off, and
    success with the critic or the dynamics replaced by exact ones. Writes a JSON file.

    Example: jepa diagnose runs/rooms
    """

    run: Run  # folder of a run of jepa pretrain world-rooms; also its first stage alone
    env: RoomWorld | None = None  # default: the world that the run was trained in
    episodes: int = 100  # tasks
    seed: int = 0
    out: Path | None = None  # path of the JSON file; default: RUN/diagnosis.json
