"""Modules of an agent replaced by exact ones, to see which module fails.   B tasks  S sequences  R rows: B · S"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from openjepa.data.synthetic.geodesic import distance_at, geodesic_distance
from openjepa.data.synthetic.rooms import MAX_STEP, move
from openjepa.planning.costs import StateCost
from openjepa.planning.diagnosis import Decoder
from openjepa.planning.envs.rooms import RoomEnv
from openjepa.planning.perception import Perception
from openjepa.planning.planners.plan import Cost

FAR = 100.0  # steps: of a position in a wall

Judge = Callable[[Float[Tensor, "R 2"]], Float[Tensor, "B S"]]  # what positions cost


def exact_dynamics(env: RoomEnv, judge: Judge) -> Callable[[Tensor], Cost]:
    """Return the cost of actions that the environment's own equations carry out."""

    def cost(actions: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
        positions = env.position.repeat_interleave(actions.shape[1], 0)
        walls = env.tasks.rooms.wall.repeat_interleave(actions.shape[1], 0)
        total = actions.new_zeros(actions.shape[:2])
        for action in actions.unbind(2):
            positions = move(walls, positions, action.flatten(0, 1))
            total = total + judge(positions)
        return total

    return lambda state: cost


def judge_frames(env: RoomEnv, perception: Perception, cost: StateCost) -> Judge:
    """Return what the frames of positions cost."""

    def judge(positions: Float[Tensor, "R 2"]) -> Float[Tensor, "B S"]:
        return cost(perception(env.draw(positions)))

    return judge


def judge_distance(env: RoomEnv) -> Judge:
    """Return the steps of the shortest way from positions to the goal."""
    distance = geodesic_distance(env.tasks.rooms.wall, env.tasks.goal)

    def judge(positions: Float[Tensor, "R 2"]) -> Float[Tensor, "B S"]:
        samples = len(positions) // len(distance)
        ways = distance_at(distance.repeat_interleave(samples, 0), positions.clamp(0.0, distance.shape[-1] - 1e-3))
        return (ways / MAX_STEP).clamp(max=FAR).unflatten(0, (-1, samples))

    return judge


def exact_value(env: RoomEnv, decoder: Decoder) -> StateCost:
    """Return the cost that knows the walls, at the positions that a probe reads."""
    judge = judge_distance(env)
    return lambda state: judge(decoder.position(state))
