"""Load a run that was trained on recorded episodes as the world of an agent in an environment of gymnasium.

B episodes  N cells  D width  K actions to choose from  A width of an action
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.interop.pretrained import load_run
from openjepa.nn.world import World
from openjepa.planning.actors.planning import PlanningActor
from openjepa.planning.agent import Agent
from openjepa.planning.configurator import AgentSettings, choose_planner
from openjepa.planning.costs import total_cost
from openjepa.planning.envs.gym import GymEnv
from openjepa.planning.imagined_values import Imagination, learn_values
from openjepa.planning.intrinsic import RowCost, distance_to, learn_ends, learn_rewards
from openjepa.planning.memory import Memory
from openjepa.planning.perception import Perception
from openjepa.planning.planners.plan import bound_plans
from openjepa.planning.recorded import Recorded, encode_recorded
from openjepa.training.stages import last_stage

GOALS = {"CartPole-v1": (0.0, 0.0, 0.0, 0.0), "Pendulum-v1": (1.0, 0.0, 0.0)}  # upright, at rest, in the middle

LEVELS = (-1.0, 0.0, 1.0)  # of each value of a continuous action that the critic tries

MOST_ACTIONS = 27  # that the critic tries; of more values, as many random ones


class GymSystem(NamedTuple):
    """A trained world, and what its states cost."""

    folder: Path
    env: GymEnv
    world: World
    modality: Any
    cost: RowCost  # of each state on the way

    def agent(self, count: int, settings: AgentSettings, seed: int) -> Agent:
        """Return an agent that acts in `count` episodes at once."""

        def judge(rows: Float[Tensor, "R N D"]) -> Float[Tensor, "B S"]:
            return self.cost(rows).unflatten(0, (count, -1))

        def limit(values: Float[Tensor, "*B A"]) -> Float[Tensor, "*B A"]:
            return self.env.decode(values) / self.modality.action_scale

        actor = PlanningActor(
            cost_from=lambda state: total_cost(self.world, state, judge, limit=limit),
            planner=bound_plans(choose_planner(settings), self.env.bound),
            action_dim=self.env.action_dim,
            generator=torch.Generator().manual_seed(seed),
            horizon=settings.horizon,
            replan=settings.replan,
        )
        return Agent(Perception(self.world, self.modality), self.world, judge, actor, Memory())


def load_gym_system(run: str, name: str, goal: Sequence[float], critic: bool, seed: int) -> GymSystem:
    """Load a run and learn what its states cost. Raises UserError if it is no world model of this environment."""
    folder = last_stage(Path(run))
    trained = load_run(folder)
    world, modality = trained.network, trained.data
    if not isinstance(world, World):
        raise UserError(f"{run} is no world model: type jepa pretrain --modality trajectory --data.root EPISODES")
    env = make_env(name, modality)
    if modality.action_dim != env.action_dim:
        raise UserError(
            f"actions of {env.name} have {env.action_dim} values, those of {run} {modality.action_dim}: "
            "give the --env whose episodes the run was trained on"
        )
    world.requires_grad_(False).eval()
    recorded = encode_recorded(world, modality)
    goal = goal or GOALS.get(env.name, ())
    cost = distance_to(goal_latent(world, modality, recorded, goal)) if goal else require_rewards(recorded, env.name)
    if critic:
        ended = learn_ends(recorded.latents, recorded.terminated, seed)
        actions = candidate_actions(env) / modality.action_scale
        cost = learn_values(Imagination(world, recorded.latents, cost, ended, actions), seed)
    return GymSystem(folder, env, world, modality, in_unit(cost, recorded))


def make_env(name: str, modality: Any) -> GymEnv:
    """Return the environment with what the run observes: frames of its size, or states. Raises UserError."""
    if modality.sensors == "states":
        return GymEnv(name)
    if modality.size[0] != modality.size[1]:
        raise UserError(f"frames of {modality.size} pixels are not square: collect them by jepa collect {name}")
    return GymEnv(name, modality.size[0])


def require_rewards(recorded: Recorded, env: str) -> RowCost:
    """Return the cost that recorded rewards teach. Raises UserError if they teach nothing."""
    cost = learn_rewards(recorded)
    if cost is None:
        width = 0 if recorded.states is None else recorded.states.shape[1]
        raise UserError(
            f"the recorded rewards of {env} are all equal, or missing: type --goal and the {width} values of a state"
        )
    return cost


@torch.no_grad()
def goal_latent(world: World, modality: Any, recorded: Recorded, goal: Sequence[float]) -> Float[Tensor, "N D"]:
    """Return the latent of a goal, which is given as a state.

    Where frames are observed, it is that of the recorded frame whose state is nearest to the goal, in standard
    deviations. Raises UserError if the states have another width.
    """
    states = recorded.states
    if states is None or states.shape[1] != len(goal):
        width = 0 if states is None else states.shape[1]
        raise UserError(f"--goal has {len(goal)} values, but the recorded states have {width}")
    if modality.sensors == "states":
        return Perception(world, modality)(states.new_tensor(goal)[None])[0]
    away = (states - states.new_tensor(goal)) / states.std(0).clamp(min=1e-6)
    return recorded.latents[away.square().sum(1).argmin()]


def candidate_actions(env: GymEnv) -> Float[Tensor, "K A"]:
    """Return the actions that the critic tries: all discrete ones, or low, middle and high of each continuous value."""
    if env.is_discrete:
        return torch.eye(env.action_dim)
    if len(LEVELS) ** env.action_dim <= MOST_ACTIONS:
        return env.decode(torch.tensor(list(itertools.product(LEVELS, repeat=env.action_dim))))
    values = torch.rand(MOST_ACTIONS, env.action_dim, generator=torch.Generator().manual_seed(0))
    return env.decode(2 * values - 1)


@torch.no_grad()
def in_unit(cost: RowCost, recorded: Recorded) -> RowCost:
    """Divide a cost by its standard deviation over the recorded states, so that it suits the planners' temperature."""
    unit = cost(recorded.latents).std().clamp(min=1e-6)
    return lambda latents: cost(latents) / unit
