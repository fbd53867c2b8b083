"""Settings of agents and of what measures them; without torch, so that --help is quick."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from openjepa.core.arguments import Run
from openjepa.core.errors import UserError

RoomWorld = Literal["two-rooms", "four-rooms", "four-rooms-distractor"]

Mode = Literal["1", "2", "adaptive"]

PlannerName = Literal["mppi", "cem", "gradient"]

PLANNING = ("planner", "horizon", "replan", "samples", "iterations", "critic")  # settings of mode 2 on one level

ROOMS = ("mode", "view", "memory", "zone", "compare", "goal")  # settings of an agent in rooms


@dataclass(frozen=True)
class Plan:
    """Let an agent act, and measure how well: in rooms that it never saw, or in an environment of gymnasium.

    In rooms, start and goal are in different rooms, and the table says how often the goal is reached; beside it: doing
    nothing, random pushes, pushing straight to the goal, and the shortest way. In gymnasium, for a run that was trained
    on collected episodes, it says the mean return; beside it: random actions, and the known controller if there is one.
    Of a run of ts-jepa, it says how long poles stay up when packets are lost. Writes a JSON file.

    Example: jepa plan runs/rooms --episodes 300 --mode 2

    Example: jepa plan runs/rooms --goal 28 4

    Example: jepa plan runs/cartpole --env CartPole-v1 --episodes 20
    """

    run: Run  # folder of a run of jepa pretrain world-rooms or world-levels, or of one on collected episodes
    env: str | None = None  # a world of rooms, or a name of gymnasium; default: the rooms that it was trained in
    # in rooms: x and y in pixels of one goal for all tasks; default: each has its own, in another room than its start.
    # In gymnasium: values of the state to reach; default: at rest and upright in CartPole-v1 and Pendulum-v1, else the
    # recorded rewards are learned
    goal: tuple[float, ...] = ()
    episodes: int = 100  # tasks, or episodes
    mode: Mode = "2"  # 2: plan in the world model; 1: react by the policy; adaptive: plan where reacting fails
    planner: PlannerName = "mppi"
    horizon: int = 8  # steps of a plan
    replan: int = 4  # steps until the next plan
    samples: int = 48  # plans that mppi and cem try in each iteration
    iterations: int = 3  # of mppi and cem
    levels: int = 0  # of a run of world-levels that plan, from the first on; 0: all
    critic: bool = True  # judge states by the critic, which is learned first in gymnasium; otherwise by the latents
    every: tuple[int, ...] = (1, 2, 5)  # of a run of ts-jepa: send one of so many observations; each is measured
    view: float = 0.0  # pixels to each side of the dot within which it sees walls; 0: all of them
    memory: bool = True  # with --view: remember the walls that were seen
    # put a forbidden zone on the shortest way of each task; the table says how often it was entered, without and with
    # its cost
    zone: bool = False
    # measure all actors: both modes, adaptive, greedy, the flat cost, and exact dynamics; of levels, one, two and so on
    compare: bool = False
    seed: int = 0  # of the tasks and of all that is random in acting
    out: Path | None = None  # path of the JSON file; default: RUN/plan.json

    def __post_init__(self):
        if self.episodes < 1:
            raise UserError(f"--episodes must be >= 1, got {self.episodes}")
        if not 1 <= self.replan <= self.horizon:
            raise UserError(f"--replan must be between 1 and --horizon {self.horizon}, got {self.replan}")
        if self.samples < 8 or self.iterations < 1:
            raise UserError(f"--samples must be >= 8 and --iterations >= 1, got {self.samples} and {self.iterations}")
        if not self.every or min(self.every) < 1:
            raise UserError(f"--every must be >= 1 (1 = all observations are sent), got {self.every}")
        if self.levels < 0:
            raise UserError(f"--levels must be >= 0 (0 = all), got {self.levels}")
        if self.view < 0:
            raise UserError(f"--view must be >= 0 (0 = all walls), got {self.view:g}")
        if self.zone and self.mode != "2":
            raise UserError(f"--zone needs --mode 2: the policy was trained without zones, got --mode {self.mode}")
        if self.zone and self.view:
            raise UserError("--zone and --view cannot be measured together: leave one of them out")
        if self.compare and (self.zone or self.view):
            raise UserError("--compare measures all actors where all walls are seen: leave --zone and --view out")

    def describe_goal(self) -> str:
        """Return the end of a title, as in ", goal 28 4"; nothing where each task has its own goal."""
        return f", goal {' '.join(f'{value:g}' for value in self.goal)}" if self.goal else ""

    def refuse_unused(self, used: Collection[str], where: str) -> None:
        """Raise UserError if a setting that is not the default is not among those that are used."""
        always = {"run", "env", "episodes", "seed", "out", *used}
        changed = [
            f"--{each.name}"
            for each in dataclasses.fields(self)
            if each.name not in always and getattr(self, each.name) != each.default
        ]
        if changed:
            raise UserError(
                f"{' and '.join(changed)} {'has' if len(changed) == 1 else 'have'} no effect {where}: "
                f"leave {'it' if len(changed) == 1 else 'them'} out"
            )


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


Environment = Annotated[str, Positional, arg(metavar="ENV")]


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Collect episodes of an environment into a folder of .npz files, to train a world model on.

    Each file has `actions` (T, A), `states` (T+1, S) or `observations` (T+1, H, W, C) or both, `rewards` (T) and
    `terminated`. Discrete actions are one-hot vectors. The same seed collects the same files.

    Example: jepa collect CartPole-v1 --episodes 200 --out data/cartpole
    and then: jepa pretrain --modality trajectory --data.root data/cartpole --out runs/cartpole
    """

    env: Environment  # an environment of gymnasium, such as CartPole-v1 or Pendulum-v1; two-rooms; four-rooms
    out: Path  # folder for the episodes; it must be new or empty
    episodes: int = 100  # files to write
    # random: uniform actions, in rooms pushes that go on for some steps; known: a hand-written controller, of
    # CartPole-v1 and Pendulum-v1
    policy: Literal["random", "known"] = "random"
    pixels: int = 0  # side of rendered frames, saved beside states; 0: none, and rooms as they are, 33
    steps: int = 0  # longest episode; 0: until the environment ends it, and 100 in rooms
    seed: int = 0  # seed of first states and actions

    def __post_init__(self):
        for name, lowest in (("episodes", 1), ("pixels", 0), ("steps", 0), ("seed", 0)):
            if (value := getattr(self, name)) < lowest:
                raise UserError(f"--{name} must be >= {lowest}, got {value}")
