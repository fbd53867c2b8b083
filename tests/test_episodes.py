"""Episodes in rooms: what the baselines reach, seeds, tasks that are not solved at the start, intervals."""

import pytest
import torch

from openjepa.planning import baselines
from openjepa.planning.envs.rooms import REACHED, RoomEnv, draw_tasks
from openjepa.planning.episodes import run_episodes, wilson_interval


@pytest.mark.parametrize("world", ["two-rooms", "four-rooms"])
def test_an_oracle_solves_all_tasks_and_the_straight_way_less_than_half(world):
    rates = {}
    for name in ("nothing", "random", "straight", "oracle"):
        env = RoomEnv(draw_tasks(world, 100, seed=1))
        rates[name] = run_episodes(env, getattr(baselines, name)(env)).success.float().mean()
    assert rates["nothing"] == 0 and rates["oracle"] == 1, rates
    assert rates["random"] < 0.25 and 0.2 < rates["straight"] < 0.6, rates


def test_no_task_begins_solved_and_tasks_are_a_function_of_the_seed():
    tasks, again, other = (draw_tasks("four-rooms", 200, seed) for seed in (1, 1, 2))
    assert len(tasks.start) == 200 and (tasks.start - tasks.goal).norm(dim=-1).min() > REACHED
    assert torch.equal(tasks.goal, again.goal) and not torch.equal(tasks.goal, other.goal)


def test_a_task_that_reached_its_goal_stands_still_and_counts_its_steps():
    env = RoomEnv(draw_tasks("two-rooms", 20, seed=3))
    outcome = run_episodes(env, baselines.oracle(env))
    for path, steps, goal in zip(outcome.path, outcome.steps.tolist(), env.tasks.goal, strict=True):
        near = (path - goal).norm(dim=-1) < REACHED
        assert near.nonzero()[0].item() == steps and torch.equal(path[steps], path[-1])


def test_wilson_intervals_are_those_of_the_formula():
    assert wilson_interval(99, 100) == pytest.approx((0.9455, 0.9982), abs=1e-4)
    assert wilson_interval(0, 100) == pytest.approx((0.0, 0.0370), abs=1e-4)
