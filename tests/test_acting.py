"""Acting in rooms: exact modules reach every goal, zones are avoided, agents with a view remember walls."""

import pytest
import torch

from openjepa.data.synthetic.rooms import shorten
from openjepa.planning import baselines
from openjepa.planning.comparison import compare_actors, replace_modules
from openjepa.planning.configurator import AgentSettings, Configurator
from openjepa.planning.diagnosis import Decoder, flatten
from openjepa.planning.envs.rooms import REACHED, RoomEnv, draw_tasks
from openjepa.planning.episodes import run_episodes
from openjepa.planning.exact import FAR, judge_distance
from openjepa.planning.exploring import ExploringAgent
from openjepa.planning.success import Scene, run_agent, run_baselines, shortest_steps
from openjepa.planning.zones import PASSAGE, RADIUS, Zones, draw_zones, wall_distance
from tests.worlds import ExactActingWorld, ExactModality, ExactValuedWorld, ExactWorld, exact_system

TASKS = draw_tasks("two-rooms", 4, 0)
EXACT = Decoder(flatten, lambda features: features)


def test_exact_dynamics_and_exact_values_reach_the_goal_in_all_tasks():
    rows = replace_modules(exact_system(ExactValuedWorld()), TASKS, EXACT, seed=0)
    assert [row.name for row in rows] == [
        "exact dynamics, critic",
        "learned dynamics, exact values",
        "exact dynamics, exact values",
    ]
    assert [row.success for row in rows] == [1, 1, 1] and all(row.episodes == 4 for row in rows)
    shortest = shortest_steps(TASKS).median()
    assert all(row.median_steps and 0.8 * shortest < row.median_steps < 2 * shortest + 5 for row in rows)


def test_dynamics_that_ignore_walls_fail_although_values_are_exact():
    """Otherwise nothing would follow from the comparison."""
    porous = exact_system(ExactWorld(porous=True))
    rows = {row.name: row for row in replace_modules(porous, TASKS, EXACT, seed=0)}
    assert rows.keys() == {"learned dynamics, exact values", "exact dynamics, exact values"}
    assert rows["learned dynamics, exact values"].success < rows["exact dynamics, exact values"].success == 1


def test_values_of_positions_are_the_steps_of_the_shortest_way():
    env = RoomEnv(TASKS)
    judge = judge_distance(env)
    torch.testing.assert_close(judge(TASKS.start)[:, 0], shortest_steps(TASKS))
    assert (judge(TASKS.goal) < 1).all()  # the way leads over the center of a pixel
    row, column = TASKS.rooms.wall.nonzero(as_tuple=True)[1:]
    inside = torch.stack([column, row], 1)[row == 0][:1] + 0.5  # deep in a wall
    assert judge(inside.expand(4, 2))[0, 0] <= FAR


def test_a_comparison_has_a_row_for_every_actor_that_the_world_allows(monkeypatch):
    quick = AgentSettings(samples=8, iterations=1)
    few = TASKS.select(slice(1))
    names = {
        world: [row.name for row in compare_actors(exact_system(world), few, quick, 0)]
        for world in (ExactWorld(), ExactValuedWorld(), ExactActingWorld())
    }
    assert list(names.values()) == [
        ["mode 2, flat cost"],
        ["mode 2, flat cost", "greedy", "mode 2, mppi", "exact dynamics, critic"],
        ["mode 2, flat cost", "greedy", "mode 1", "adaptive", "mode 2, mppi", "exact dynamics, critic"],
    ]


def test_baselines_are_bounded_by_nothing_and_the_shortest_way():
    rows = {row.name: row for row in run_baselines(TASKS, 0)}
    assert rows["nothing"].success == 0 and rows["shortest way"].success == 1
    assert rows["straight line"].success < 1 and 0.4 < rows["shortest way"].low < 1


MANY = draw_tasks("two-rooms", 12, 1)
ZONES = draw_zones(MANY)


def test_zones_lie_on_the_shortest_ways_and_leave_start_goal_and_a_passage_free():
    env = RoomEnv(MANY)
    path = run_episodes(env, baselines.oracle(env)).path
    assert ZONES.exists.float().mean() > 0.5
    assert torch.equal(ZONES.entered(path), ZONES.exists)
    center = ZONES.center[ZONES.exists]
    tasks = MANY.select(ZONES.exists)
    for position in (tasks.start, tasks.goal):
        assert ((center - position).norm(dim=-1) > RADIUS + REACHED).all()
    assert (wall_distance(tasks, center[:, None])[:, 0] > RADIUS + PASSAGE).all()


def test_an_agent_with_exact_modules_enters_zones_only_if_it_does_not_know_them():
    rows = ZONES.exists.nonzero()[:4, 0]
    tasks, zones = MANY.select(rows), Zones(*(each[rows] for each in ZONES))
    system = exact_system(ExactValuedWorld())
    ignored, avoided = (
        run_agent("agent", system, tasks, AgentSettings(), 0, Scene(zones=zones, position=position))
        for position in (None, lambda summary: summary[..., :2])
    )
    assert ignored.inside is not None and ignored.inside > 0.5
    assert avoided.inside == 0 and avoided.success == 1


def test_a_view_hides_walls_further_than_it_reaches_and_none_that_are_near():
    env = RoomEnv(TASKS, view=4.0)
    seen, walls = env.observe()[:, 1] > 0, TASKS.rooms.wall
    centers = torch.arange(33) + 0.5
    near = (centers - TASKS.start[..., None]).abs() <= 4.0  # B 2 33
    both = near[:, 1, :, None] & near[:, 0, None]
    assert torch.equal(seen, walls & both) and not torch.equal(seen, walls)
    assert torch.equal(env.observe()[:, 0], RoomEnv(TASKS).observe()[:, 0])


@pytest.mark.parametrize("remember", [True, False])
def test_a_map_with_memory_only_grows_and_without_it_is_what_is_in_view(remember):
    env = RoomEnv(TASKS, view=5.0)
    configurator = Configurator(ExactWorld(), ExactModality(), shorten)
    quick = AgentSettings(critic=False, samples=8, iterations=1)
    agent = ExploringAgent(configurator, TASKS.goal_frames(), quick, remember)
    observation, known = env.observe(), torch.zeros_like(TASKS.goal_frames()[:, 1])
    for step in range(12):
        before = known
        with torch.no_grad():
            action = agent(observation)
        known = agent.walls
        expected = torch.maximum(before, observation[:, 1]) if remember else observation[:, 1]
        assert torch.equal(known, expected)
        observation = env.step(action)
        assert len(agent.imagined_steps) == step + 1 == len(agent.memory.rows)  # of all agents that it configured
    assert known.any() and (known <= TASKS.goal_frames()[:, 1]).all()


def test_an_agent_with_a_view_keeps_the_plan_that_it_had_before_it_saw_a_wall():
    agent = ExploringAgent(
        Configurator(ExactWorld(), ExactModality(), shorten),
        TASKS.goal_frames(),
        AgentSettings(critic=False, samples=8, iterations=1, replan=4),
    )
    frames = TASKS.goal_frames()
    first = replace_walls(frames, 0)
    with torch.no_grad():
        agent(first)
        plan = agent.agent.actor.plan  # type: ignore[union-attr]
        agent(frames)  # all walls appear
    assert agent.agent.actor.plan is plan and agent.agent.actor.step == 2  # type: ignore[union-attr]


def test_a_reacting_agent_draws_anew_after_each_wall_that_it_sees():
    """Otherwise it would repeat its first draw as long as walls appear."""
    system = exact_system(ExactActingWorld())  # all pushes are equally probable
    settings = AgentSettings(mode="1", critic=False)
    agent = ExploringAgent(system.configurator(0), TASKS.goal_frames(), settings, remember=False)
    actions = []
    with torch.no_grad():
        for step in range(8):
            actions.append(agent(replace_walls(TASKS.goal_frames(), step)))
    assert all(len(each.unique(dim=0)) > 2 for each in torch.stack(actions, 1))


def replace_walls(frames, value):
    return torch.stack([frames[:, 0], torch.full_like(frames[:, 1], value)], 1)


def test_scenes_with_a_view_are_run_with_and_without_memory():
    quick = AgentSettings(critic=False, samples=8, iterations=1)
    system = exact_system(ExactWorld())
    for remember in (True, False):
        row = run_agent("view", system, TASKS.select(slice(1)), quick, 0, Scene(5.0, remember))
        assert row.imagined_steps and row.ms_per_step and row.inside is None
