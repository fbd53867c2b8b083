"""Actors beside each other on one trained world, and with modules replaced by exact ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from torch import Tensor

from openjepa.data.synthetic.rooms import shorten
from openjepa.methods.actor import ActingWorld
from openjepa.methods.critic import ValuedWorld
from openjepa.nn.level import Hierarchy
from openjepa.planning.actors.greedy import GreedyActor
from openjepa.planning.actors.planning import PlanningActor
from openjepa.planning.agent import Agent
from openjepa.planning.configurator import AgentSettings
from openjepa.planning.costs import total_cost
from openjepa.planning.diagnosis import Decoder
from openjepa.planning.envs.rooms import RoomEnv, RoomTasks
from openjepa.planning.exact import exact_dynamics, exact_value, judge_distance, judge_frames
from openjepa.planning.planners.plan import Cost
from openjepa.planning.success import Row, build_agent, run_agent, run_tasks
from openjepa.planning.systems import RoomSystem

CostFrom = Callable[[Tensor], Cost]  # of a latent: the cost of sequences of actions that start there


def compare_actors(system: RoomSystem, tasks: RoomTasks, settings: AgentSettings, seed: int) -> list[Row]:
    """Run all actors that a world allows."""
    if isinstance(system.world, Hierarchy):
        return compare_levels(system, tasks, seed)
    planning = dataclasses.replace(settings, mode="2", critic=True)
    rows = [run_agent("mode 2, flat cost", system, tasks, dataclasses.replace(planning, critic=False), seed)]
    if isinstance(system.world, ValuedWorld):
        rows.append(run_greedy(system, tasks, planning, seed))
    if isinstance(system.world, ActingWorld):
        rows.append(run_agent("mode 1", system, tasks, dataclasses.replace(planning, mode="1"), seed))
        rows.append(run_agent("adaptive", system, tasks, dataclasses.replace(planning, mode="adaptive"), seed))
    if isinstance(system.world, ValuedWorld):
        rows.append(run_agent(f"mode 2, {settings.planner}", system, tasks, planning, seed))
        rows.append(run_exact_dynamics(system, tasks, planning, seed))
    return rows


def compare_levels(system: RoomSystem, tasks: RoomTasks, seed: int) -> list[Row]:
    """Run a hierarchy with its first level alone, with two levels, and so on."""
    assert isinstance(system.world, Hierarchy)
    counts = range(1, 2 + len(system.world.levels))
    return [run_agent(name_levels(count), system, tasks, AgentSettings(levels=count), seed) for count in counts]


def name_levels(count: int) -> str:
    """Return the name of an agent that plans on so many levels."""
    return "one level" if count == 1 else f"{count} levels"


def replace_modules(system: RoomSystem, tasks: RoomTasks, decoder: Decoder, seed: int) -> list[Row]:
    """Run planning agents with the critic or the dynamics, or both, replaced by exact ones."""
    rows = []
    if isinstance(system.world, ValuedWorld):
        rows.append(run_exact_dynamics(system, tasks, AgentSettings(), seed))
    return [*rows, run_exact_values(system, tasks, decoder, seed), run_both_exact(system, tasks, seed)]


def run_exact_values(system: RoomSystem, tasks: RoomTasks, decoder: Decoder, seed: int) -> Row:
    """Run a planning agent that imagines by the world model; the shortest way from decoded positions judges."""

    def cost(env: RoomEnv, _: Agent) -> CostFrom:
        value = exact_value(env, decoder)
        return lambda state: total_cost(system.world, state, value, None, shorten)

    return run_planner("learned dynamics, exact values", system, tasks, AgentSettings(critic=False), seed, cost)


def run_both_exact(system: RoomSystem, tasks: RoomTasks, seed: int) -> Row:
    """Run a planning agent that knows the environment's equations and the shortest way."""

    def cost(env: RoomEnv, _: Agent) -> CostFrom:
        return exact_dynamics(env, judge_distance(env))

    return run_planner("exact dynamics, exact values", system, tasks, AgentSettings(critic=False), seed, cost)


def run_exact_dynamics(system: RoomSystem, tasks: RoomTasks, settings: AgentSettings, seed: int) -> Row:
    """Run a planning agent that knows the environment's equations; the critic judges."""

    def cost(env: RoomEnv, agent: Agent) -> CostFrom:
        return exact_dynamics(env, judge_frames(env, agent.perception, agent.critic))

    return run_planner("exact dynamics, critic", system, tasks, settings, seed, cost)


def run_planner(
    name: str,
    system: RoomSystem,
    tasks: RoomTasks,
    settings: AgentSettings,
    seed: int,
    cost: Callable[[RoomEnv, Agent], CostFrom],
) -> Row:
    """Run a planning agent with another cost."""

    def build(env: RoomEnv, rows: slice) -> Agent:
        agent = build_agent(system, env.tasks, settings, seed + rows.start)
        assert isinstance(agent, Agent) and isinstance(agent.actor, PlanningActor)
        agent.actor = dataclasses.replace(agent.actor, cost_from=cost(env, agent))
        return agent

    return run_tasks(name, tasks, build)


def run_greedy(system: RoomSystem, tasks: RoomTasks, settings: AgentSettings, seed: int) -> Row:
    """Run the actor that imagines one push in each direction."""

    def build(env: RoomEnv, rows: slice) -> Agent:
        agent = build_agent(system, env.tasks, settings, seed + rows.start)
        assert isinstance(agent, Agent) and isinstance(agent.actor, PlanningActor) and system.pushes is not None
        agent.actor = GreedyActor(agent.actor.cost_from, system.pushes, agent.actor.generator)
        return agent

    return run_tasks("greedy", tasks, build)
