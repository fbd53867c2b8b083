"""Costs of imagined trajectories: weights, zones, limits, and names that do not exist."""

import math

import pytest
import torch

from openjepa.data.synthetic.rooms import shorten
from openjepa.nn.world import World
from openjepa.planning.costs import effort, forbidden, goal_distance, latent_distance, revisits, total_cost, weighted
from openjepa.planning.memory import Memory

SUMMARY, ACTION = (torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))


class Adding(World):
    """A world whose latent is a position: an action is added to it."""

    def __init__(self):
        torch.nn.Module.__init__(self)

    @staticmethod
    def dynamics(state, action):  # type: ignore[override]
        return state + action[:, None]


def test_a_weight_of_zero_removes_a_cost():
    goal = goal_distance(torch.zeros(2, 2))
    costs = {"goal": goal, "effort": effort, "zone": forbidden(lambda summary: (summary[..., 0] > 0).float())}
    both = weighted(costs, {"goal": 1.0, "effort": 0.0, "zone": 0.0})
    assert both is not None and torch.equal(both(SUMMARY, ACTION), goal(SUMMARY, ACTION))
    three = weighted(costs, {"goal": 1.0, "effort": 0.5, "zone": 9.0})
    assert three is not None and weighted(costs, {"goal": 0.0}) is None
    zone = (SUMMARY[..., 0] > 0).float()
    expected = goal(SUMMARY, ACTION) + 0.5 * effort(SUMMARY, ACTION) + 9 * zone
    torch.testing.assert_close(three(SUMMARY, ACTION), expected)


def test_a_weight_without_a_cost_is_refused():
    with pytest.raises(ValueError, match="no cost is named gaol: choose of goal"):
        weighted({"goal": effort}, {"gaol": 1.0})


def test_the_total_cost_is_the_sum_over_all_imagined_states():
    start, goal = torch.zeros(2, 1, 2), torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]]])
    actions = 0.3 * torch.randn(2, 5, 4, 2, generator=torch.Generator().manual_seed(0))
    cost = total_cost(Adding(), start, latent_distance(goal), effort)(actions)
    states = actions.cumsum(2)
    expected = (states - goal[:, None]).square().mean(-1).sum(2) + actions.square().sum((2, 3))
    torch.testing.assert_close(cost, expected)


def test_actions_beyond_the_limit_cost_as_much_as_shortened_ones():
    goal = latent_distance(torch.tensor([[[9.0, 0.0]]]))
    cost = total_cost(Adding(), torch.zeros(1, 1, 2), goal, effort, shorten)
    long, limited, free = (torch.tensor([[[[length, 0.0]]]]) for length in (7.0, 1.5, 1.0))
    assert torch.equal(cost(long), cost(limited)) and not torch.equal(cost(long), cost(free))


def test_states_that_the_memory_holds_cost_more_the_more_often_and_the_nearer():
    memory = Memory()
    cost = revisits(memory, radius=0.5)
    summary, action = torch.tensor([[[0.0, 0.0], [0.4, 0.0], [5.0, 0.0]]]), torch.zeros(1, 3, 2)
    assert cost(summary, action).tolist() == [[0.0, 0.0, 0.0]]
    for time in range(2):
        memory.write(float(time), torch.zeros(1, 2), torch.zeros(1, 2), torch.zeros(1))
    here, near, far = cost(summary, action)[0].tolist()
    assert here == pytest.approx(2.0) and near == pytest.approx(2 * math.exp(-0.32)) and far < 1e-6
