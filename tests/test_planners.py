"""Planners find the optimum of what they are given; the memory returns what was written."""

import pytest
import torch

from openjepa.nn.directions import directions
from openjepa.planning.memory import Memory
from openjepa.planning.planners.cem import cem
from openjepa.planning.planners.gradient import gradient
from openjepa.planning.planners.mppi import mppi
from openjepa.planning.planners.plan import SHARED, sample_around, shift_plan

PLANNERS = {
    "cem": lambda cost, start, generator: cem(
        cost, start, generator, samples=512, iterations=40, elites=16, std=3.0
    ),
    "mppi": lambda cost, start, generator: mppi(
        cost, start, generator, samples=512, iterations=60, std=0.3, temperature=0.05
    ),
    "gradient": lambda cost, start, generator: gradient(cost, start, generator, iterations=300, lr=0.05),
}  # fmt: skip

HORIZON = 5


def double_integrator():
    """Return the dynamics x' = A x + B u of a point with a velocity, and the start of three tasks."""
    a, b = torch.tensor([[1.0, 0.3], [0.0, 1.0]]), torch.tensor([[0.0], [0.3]])
    return a, b, torch.tensor([[1.0, 0.0], [-0.5, 0.4], [0.2, -1.0]])


def quadratic_cost(actions):
    """Return the cost of sequences: the squared state and action of each step, with exact dynamics."""
    a, b, start = double_integrator()
    state, total = start[:, None].expand(-1, actions.shape[1], -1), 0.0
    for action in actions.unbind(2):
        state = state @ a.T + action @ b.T
        total = total + state.square().sum(-1) + 0.1 * action.square().sum(-1)
    return total


def riccati_action():
    """Return the first action of the linear-quadratic regulator, by backward recursion."""
    a, b, start = double_integrator()
    value = torch.zeros(2, 2)
    for _ in range(HORIZON):
        cost = value + torch.eye(2)
        gain = torch.linalg.solve(0.1 * torch.eye(1) + b.T @ cost @ b, b.T @ cost @ a)
        value = a.T @ cost @ (a - b @ gain)
    return -start @ gain.T


@pytest.mark.parametrize("planner", PLANNERS)
def test_with_exact_dynamics_and_a_quadratic_cost_the_first_action_is_that_of_lqr(planner):
    plan = PLANNERS[planner](quadratic_cost, torch.zeros(3, HORIZON, 1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(plan.actions[:, 0], riccati_action(), atol=0.06, rtol=0)
    assert plan.costs.shape == plan.candidates.shape[:2]


@pytest.mark.parametrize("planner", PLANNERS)
def test_a_plan_is_a_function_of_the_generator(planner):
    plans = [
        PLANNERS[planner](quadratic_cost, torch.zeros(3, HORIZON, 1), torch.Generator().manual_seed(seed)).actions
        for seed in (1, 1, 2)
    ]
    assert torch.equal(plans[0], plans[1]) and not torch.equal(plans[0], plans[2])


def test_of_several_starts_the_gradient_planner_returns_the_one_that_ends_lowest():
    """The cost has a minimum near 1, and a lower one near -1."""

    def cost(actions):
        return ((actions.square() - 1).square() + 0.3 * actions).sum((2, 3))

    plan = gradient(cost, torch.zeros(20, 1, 1), torch.Generator().manual_seed(0), samples=16)
    assert (plan.candidates > 0.5).any() and (plan.actions < -0.5).all()
    torch.testing.assert_close(cost(plan.actions[:, None])[:, 0], plan.costs.amin(1))


def test_noise_has_the_stated_variance_and_its_steps_share_a_part_of_it():
    mean, std = torch.full((1, 3, 2), 5.0), torch.tensor([0.5, 2.0]).expand(1, 3, 2)
    samples = sample_around(mean, std, 20_000, torch.Generator().manual_seed(0))[0]
    assert torch.equal(samples[0], mean[0])  # the first sequence has no noise
    values = samples[1:].flatten(1)  # step 1 of both parts of the action, then step 2
    torch.testing.assert_close(values.std(0), std.flatten(), rtol=0.03, atol=0)
    same_part = torch.eye(2).repeat(3, 3) * SHARED
    torch.testing.assert_close(values.T.corrcoef(), same_part.fill_diagonal_(1.0), rtol=0, atol=0.03)


def test_directions_are_evenly_spread_and_of_equal_length():
    circle = directions(12, 2, 1.5)
    torch.testing.assert_close(circle.norm(dim=-1), torch.full((12,), 1.5))
    torch.testing.assert_close(circle.sum(0), torch.zeros(2), atol=1e-5, rtol=0)
    assert directions(12, 1, 2.0).flatten().tolist() == [2.0, -2.0]
    assert directions(12, 3, 1.0).shape == (6, 3)


def test_the_rest_of_a_plan_starts_the_next_one():
    plan = torch.arange(8.0).view(1, 4, 2)
    assert shift_plan(plan, 1)[0, :, 0].tolist() == [2, 4, 6, 6]
    assert shift_plan(plan, 9)[0, :, 0].tolist() == [6, 6, 6, 6]


def test_the_memory_returns_what_was_written_and_forgets_the_oldest():
    memory = Memory(capacity=3)
    with pytest.raises(ValueError, match="empty"):
        memory.read()
    for time in range(5):
        state, action = torch.full((2, 4), float(time)), torch.full((2, 1), -float(time))
        memory.write(float(time), state, action, torch.tensor([time, 1.0]))
    records = memory.read()
    assert records.time.tolist() == [2, 3, 4] and records.state[0, :, 0].tolist() == [2, 3, 4]
    assert records.action[1, :, 0].tolist() == [-2, -3, -4] and records.cost[:, -1].tolist() == [4, 1]
    assert memory.read(newest=2).time.tolist() == [3, 4]


def test_the_memory_notices_revisits_and_tasks_that_are_stuck():
    memory, nothing = Memory(), torch.zeros(2)
    moving, standing = torch.tensor([[0.0, 0.0], [5.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert memory.visits(moving, 0.5).tolist() == [0, 0] and memory.is_stuck(moving, 1, 0.5).tolist() == [False, False]
    for time in range(4):
        memory.write(float(time), moving + time * standing, torch.zeros(2, 1), nothing)
    assert memory.visits(torch.tensor([[1.0, 0.0], [5.0, 0.1]]), 0.5).tolist() == [1, 4]
    now = moving + 3 * standing
    assert memory.is_stuck(now, 4, 0.5).tolist() == [False, True]
    assert memory.is_stuck(now, 5, 0.5).tolist() == [False, False]
