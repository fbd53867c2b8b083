"""The configurator: from what a task demands to the settings of all modules.   B tasks  C H W channels and pixels"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.methods.actor import ActingWorld
from openjepa.methods.critic import ValuedWorld
from openjepa.nn.directions import directions
from openjepa.nn.level import Hierarchy
from openjepa.nn.world import World
from openjepa.planning.actors.adaptive import AdaptiveActor
from openjepa.planning.actors.decision import Actor
from openjepa.planning.actors.hierarchical import HierarchicalActor
from openjepa.planning.actors.planning import PlanningActor
from openjepa.planning.actors.policy import PolicyActor
from openjepa.planning.agent import Agent
from openjepa.planning.costs import (
    Limit,
    StateCost,
    StepCost,
    critic_value,
    latent_distance,
    revisits,
    total_cost,
    weighted,
)
from openjepa.planning.memory import Memory
from openjepa.planning.perception import Perception
from openjepa.planning.planners.cem import cem
from openjepa.planning.planners.gradient import gradient
from openjepa.planning.planners.hierarchical import HierarchicalPlanner
from openjepa.planning.planners.mppi import mppi
from openjepa.planning.planners.plan import Planner, bound_plans

Mode = Literal["1", "2", "adaptive"]

REVISITS = 0.1

PUSHES, LONG = 12, 1e3  # directions in which levels push; longer than any limit

BUDGET = 288  # imagined steps for each action that plans in full


@dataclass(frozen=True)
class Task:
    """What an agent is asked to do."""

    goal: UInt8[Tensor, "B C H W"]  # what is seen at the goal
    costs: Mapping[str, float] = field(default_factory=dict)  # weights of the intrinsic costs on the way
    budget: int = BUDGET  # imagined steps for each action, on the average of an episode


@dataclass(frozen=True)
class AgentSettings:
    """Settings of the modules."""

    mode: Mode = "2"  # 2: plan; 1: react; adaptive: plan where reacting fails
    planner: Literal["mppi", "cem", "gradient"] = "mppi"
    horizon: int = 8  # steps of a plan
    replan: int = 4  # steps until the next plan
    samples: int = 48  # plans that mppi and cem try in each iteration
    iterations: int = 3  # of mppi and cem
    critic: bool = True  # judge states by the critic; otherwise by the distance of latents
    levels: int = 0  # of a hierarchy that plan; 0: all
    revisits: float = REVISITS  # steps that an imagined state costs for each earlier visit


def configure(task: Task) -> AgentSettings:
    """Choose settings for a task: react without a budget, plan with costs on the way, otherwise what the budget allows.

    The policy was distilled without intrinsic costs, so that mode 1 cannot obey them.
    """
    if not task.budget and not any(task.costs.values()):
        return AgentSettings(mode="1")
    settings = AgentSettings()
    if any(task.costs.values()) or task.budget >= BUDGET:
        used = max(task.budget, BUDGET // 2)
        return AgentSettings(samples=used * settings.replan // (settings.iterations * settings.horizon))
    return AgentSettings(mode="adaptive")


def choose_planner(settings: AgentSettings) -> Planner:
    """Return the planner of mode 2 with its settings; the temperature of mppi is in the unit of the cost."""
    if settings.planner == "gradient":  # few starts and many iterations: its own
        return gradient
    chosen = partial(mppi, temperature=0.3) if settings.planner == "mppi" else cem
    return partial(chosen, samples=settings.samples, iterations=settings.iterations)


@dataclass(frozen=True)
class Configurator:
    """Build the agent for a task on a trained world."""

    world: World
    modality: Any
    limit: Limit  # of an action to what the environment can do
    pushes: Tensor | None = None  # the actions of the policy
    costs: Mapping[str, StepCost] = field(default_factory=dict)  # intrinsic costs by name
    seed: int = 0

    def __call__(self, task: Task, settings: AgentSettings | None = None, memory: Memory | None = None) -> Agent:
        """Return an agent with the settings that `configure` chooses, unless some are given."""
        settings, memory = settings or configure(task), memory or Memory()
        perception = Perception(self.world, self.modality)
        goal = perception(task.goal)
        if isinstance(self.world, Hierarchy):
            return Agent(perception, self.world, latent_distance(goal), self.level_actor(goal, settings), memory)
        cost = self.state_cost(goal, settings)
        planning = self.planning_actor(cost, task, settings, memory)
        actor: Actor = planning
        if settings.mode != "2":
            policy = self.policy_actor(goal)
            actor = policy if settings.mode == "1" else AdaptiveActor(policy, planning)
        return Agent(perception, self.world, cost, actor, memory)

    def state_cost(self, goal: Tensor, settings: AgentSettings) -> StateCost:
        """Return the critic's value, or the distance of latents."""
        if not settings.critic:
            return latent_distance(goal)
        if not isinstance(self.world, ValuedWorld):
            raise UserError("this run has no critic: train all stages, jepa pretrain world-rooms, or give --no-critic")
        return critic_value(self.world, goal)

    def planning_actor(self, cost: StateCost, task: Task, settings: AgentSettings, memory: Memory) -> PlanningActor:
        """Return the actor of mode 2."""
        costs = {**self.costs, "revisits": revisits(memory)}
        intrinsic = weighted(costs, {"revisits": settings.revisits, **task.costs})

        def cost_from(state: Tensor) -> Callable[[Tensor], Tensor]:
            return total_cost(self.world, state, cost, intrinsic, self.limit)

        generator = torch.Generator().manual_seed(self.seed)
        width = self.modality.action_dim
        planner = bound_plans(choose_planner(settings), self.limit)
        return PlanningActor(cost_from, planner, width, generator, settings.horizon, settings.replan)

    def level_actor(self, goal: Tensor, settings: AgentSettings) -> HierarchicalActor:
        """Return the actor that plans on several levels. Raises UserError if there are not as many."""
        assert isinstance(self.world, Hierarchy)
        available = 1 + len(self.world.levels)
        levels = settings.levels or available
        if levels > available:
            raise UserError(f"this run has {available} levels, not {levels}: give --levels {available}")
        pushes = self.limit(directions(PUSHES, self.modality.action_dim, LONG))
        generator = torch.Generator().manual_seed(self.seed)
        return HierarchicalActor(
            [HierarchicalPlanner(self.world, each[None], pushes, self.limit, generator, levels) for each in goal]
        )

    def policy_actor(self, goal: Tensor) -> PolicyActor:
        """Return the actor of mode 1."""
        if not isinstance(self.world, ActingWorld) or self.pushes is None:
            raise UserError("this run has no policy: train all stages, jepa pretrain world-rooms, or give --mode 2")
        generator = torch.Generator().manual_seed(self.seed + 1)
        return PolicyActor(self.world, self.world.policy_field(goal, len(goal)), self.pushes, generator)
