"""Costs of imagined trajectories: weights, zones, and names that do not exist."""

import pytest
import torch

from openjepa.nn.locator import Location
from openjepa.planning.costs import Imagined, effort, forbidden, goal_distance, weighted


def imagined():
    generator = torch.Generator().manual_seed(0)
    summary, actions = (torch.randn(2, 3, 4, 2, generator=generator) for _ in range(2))
    return Imagined(summary, actions, Location(summary[:, :, -1].flatten(0, 1), torch.ones(6, 1)))


def test_a_weight_of_zero_removes_a_cost():
    goal = goal_distance(torch.zeros(2, 2))
    costs = {"goal": goal, "effort": effort, "zone": forbidden(lambda summary: (summary[..., 0] > 0).float())}
    both = weighted(costs, {"goal": 1.0, "effort": 0.0, "zone": 0.0})
    assert both is not None and torch.equal(both(imagined()), goal(imagined()))
    three = weighted(costs, {"goal": 1.0, "effort": 0.5, "zone": 9.0})
    assert three is not None and weighted(costs, {"goal": 0.0}) is None
    zone = (imagined().summary[..., 0] > 0).float()
    torch.testing.assert_close(three(imagined()), goal(imagined()) + 0.5 * effort(imagined()) + 9 * zone)


def test_a_weight_without_a_cost_is_refused():
    with pytest.raises(ValueError, match="no cost is named gaol: choose of goal"):
        weighted({"goal": effort}, {"gaol": 1.0})
