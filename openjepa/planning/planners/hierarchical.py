"""Plan from the highest level down: the state that a level wants next is the sub-goal of the level below.

R rows of states  S sampled sequences  H steps of a plan  P pushes  N cells  D width of a latent  M width of an action
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.nn.level import Hierarchy, Level
from openjepa.nn.world import World
from openjepa.planning.planners.cem import cem
from openjepa.planning.planners.plan import bound_plans, shift_plan
from openjepa.planning.planners.tree import search_tree

HASTE = 1e-3  # part of the distance at the start that each step costs

ALONE = 4  # actions that a first level without levels above takes of a plan

FOLLOW = 3  # own steps that a level above the first takes of a plan


class Search(NamedTuple):
    """How levels plan."""

    horizon: int = 8  # steps of a plan of the first level, by the cross-entropy method
    samples: int = 32
    iterations: int = 3
    budget: int = 3000  # largest number of imagined steps of a plan of each level above, by a tree
    tree: bool = False  # also search a tree on the first level


FLAT = Search(horizon=24, samples=48, iterations=4)  # of a first level that plans alone


class Target(NamedTuple):
    """What a level is to reach: a state of its own, or the sub-goal of the level above."""

    state: Float[Tensor, "1 N D"]
    above: Level | None = None  # the level that the state is of; None: the level that plans

    def distance(self, state: Float[Tensor, "R N D"]) -> Float[Tensor, "R"]:
        """Return how far states are from it: the mean squared difference of latents."""
        compared = state if self.above is None else self.above.encoder(state)
        return (compared - self.state).square().mean((1, 2))


class LevelPlan(NamedTuple):
    """What a level wants to do, until it is nearest to its target; nothing if it is already."""

    actions: Float[Tensor, "H M"]
    states: Float[Tensor, "H N D"]  # that it imagines
    imagined: int  # steps of the search


class HierarchicalPlanner:
    """Plans of all levels for a goal; a level plans again after some steps, or when its sub-goal changes.

    Levels above the first search a tree of what pushes lead to; the first level looks for actions to the sub-goal.
    Source: LeCun 2022, section 4.7 and figure 16.
    """

    def __init__(
        self,
        world: Hierarchy,
        goal: Float[Tensor, "1 N D"],
        pushes: Float[Tensor, "P A"],
        limit: Callable[[Tensor], Tensor],
        generator: torch.Generator,
        levels: int,
        search: Search | None = None,
    ):
        """Prepare to plan on so many levels; `pushes` are the largest actions, `limit` bounds those of the first."""
        self.above = world.above[: levels - 1]
        self.worlds: list[World | Level] = [world, *self.above]
        self.limit, self.generator = limit, generator
        self.search = search or (FLAT if levels == 1 else Search())
        self.goals, self.pushes, self.steps = self.encode(goal), [pushes], [1]
        for level in self.above:
            self.pushes.append(level.hold(self.pushes[-1]))
            self.steps.append(self.steps[-1] * level.config.stride)  # in the environment, of one of its own
        self.plans: list[LevelPlan | None] = [None] * levels
        self.start_times = [0] * levels  # when the plans were made
        self.time = 0

    def encode(self, state: Float[Tensor, "1 N D"]) -> list[Tensor]:
        """Return a state as each level sees it."""
        states = [state]
        for level in self.above:
            states.append(level.encoder(states[-1]))
        return states

    def __call__(self, state: Float[Tensor, "1 N D"]) -> tuple[Float[Tensor, "1 M"], int]:
        """Return the next action of the first level, and the steps that were imagined for it."""
        states, imagined, anew = self.encode(state), 0, False
        for level in reversed(range(len(self.worlds))):
            anew = anew or self.is_due(level)  # a sub-goal that changes needs a new plan
            if anew:
                plan = self.plan(level, states)
                self.plans[level], self.start_times[level] = plan, self.time
                imagined += plan.imagined
        action = self.next_action()
        self.time += 1
        return action, imagined

    def next_action(self) -> Float[Tensor, "1 A"]:
        """Return the action of the first level's plan for this time; none beyond its end."""
        plan, step = self.plans[0], self.elapsed(0)
        if plan is None or step >= len(plan.actions):
            return torch.zeros_like(self.pushes[0][:1])
        return plan.actions[step : step + 1]

    def elapsed(self, level: int) -> int:
        """Return the own steps of a level's plan that are over."""
        return (self.time - self.start_times[level]) // self.steps[level]

    def is_due(self, level: int) -> bool:
        """Return whether a level has to plan: it has followed its plan for long enough, or to its last step."""
        plan, step = self.plans[level], self.elapsed(level)
        if plan is None or level == 0:
            return plan is None or step >= (self.steps[1] if self.above else ALONE)
        return step >= min(FOLLOW, max(1, len(plan.actions) - 1))

    def target(self, level: int) -> Target:
        """Return the next state of the plan of the level above; the goal itself where that is its last one."""
        above = self.plans[level + 1] if level + 1 < len(self.plans) else None
        step = 0 if above is None else self.elapsed(level + 1)
        if above is None or len(above.actions) - step <= 1:
            return Target(self.goals[level])
        return Target(above.states[step : step + 1], self.above[level])

    def plan(self, level: int, states: list[Tensor]) -> LevelPlan:
        """Plan for a level."""
        target = self.target(level)
        if level == 0 and not self.search.tree:
            return self.plan_actions(states[0], target)
        step, pushes = self.worlds[level].step, self.pushes[level]
        return LevelPlan(*search_tree(step, states[level], pushes, target.distance, self.search.budget))

    def plan_actions(self, state: Float[Tensor, "1 N D"], target: Target) -> LevelPlan:
        """Minimize the distance to a target at the nearest moment of a plan, the earlier the better."""
        imagined, now = 0, target.distance(state)
        late = HASTE * now * torch.arange(1.0, self.search.horizon + 1)

        def cost(actions: Float[Tensor, "1 S H M"]) -> Float[Tensor, "1 S"]:
            nonlocal imagined
            imagined += actions.shape[1] * actions.shape[2]
            states = self.worlds[0].unroll(state.expand(actions.shape[1], -1, -1), self.limit(actions[0]))
            return (target.distance(states.flatten(0, 1)).unflatten(0, states.shape[:2]) + late).amin(1)[None]

        start = state.new_zeros(1, self.search.horizon, self.pushes[0].shape[1])
        if (before := self.plans[0]) is not None:
            start = shift_plan(before.actions[None], self.elapsed(0))
        elites = max(2, self.search.samples // 8)
        planner = partial(cem, samples=self.search.samples, iterations=self.search.iterations, elites=elites)
        actions = bound_plans(planner, self.limit)(cost, start, self.generator).actions
        return LevelPlan(actions[0], self.worlds[0].unroll(state, actions)[0], imagined + actions.shape[1])
