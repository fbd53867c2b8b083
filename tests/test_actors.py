"""The configurator chooses modules for a task, and actors spend imagined steps only where they say."""

import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.data.synthetic.rooms import MAX_STEP, shorten
from openjepa.nn.locator import Location
from openjepa.nn.value_iteration import GoalField
from openjepa.planning.actors.adaptive import AdaptiveActor
from openjepa.planning.actors.decision import Situation
from openjepa.planning.actors.greedy import GreedyActor
from openjepa.planning.actors.planning import PlanningActor
from openjepa.planning.actors.policy import PolicyActor
from openjepa.planning.agent import count_imagined_steps
from openjepa.planning.configurator import BUDGET, AgentSettings, Configurator, Task, configure
from openjepa.planning.costs import effort
from openjepa.planning.envs.rooms import RoomEnv, draw_tasks
from openjepa.planning.memory import Memory
from openjepa.planning.planners.plan import Plan
from tests.worlds import PUSHES, ExactActingWorld, ExactModality, ExactValuedWorld, ExactWorld

TASKS = draw_tasks("two-rooms", 2, 0)
GOAL = TASKS.goal_frames()


def situation(value=(5.0, 5.0), memory=None, position=(0.0, 0.0)) -> Situation:
    state = torch.tensor([[[*position, 15.0, 4.0]]]).expand(2, -1, -1)
    where = Location(state[:, 0], torch.ones(2, 1))
    return Situation(state, where, torch.tensor(value), Memory() if memory is None else memory)


def counting_planner(cost, start, generator):
    """Ask for the cost of 5 candidates twice; return a plan whose actions are numbered."""
    candidates = start[:, None].expand(-1, 5, -1, -1)
    costs = cost(candidates) + cost(candidates)
    numbered = torch.arange(1.0, start.shape[1] + 1).view(1, -1, 1).expand_as(start)
    return Plan(numbered + 10 * start[:, :1], candidates, costs)


def planning_actor(horizon=6, replan=3) -> PlanningActor:
    def cost_from(state):
        return lambda actions: actions.sum((2, 3))

    return PlanningActor(cost_from, counting_planner, 2, torch.Generator().manual_seed(0), horizon, replan)


def policy_actor(logits=None, **settings) -> PolicyActor:
    world = ExactActingWorld(logits)
    return PolicyActor(
        world,
        GoalField(torch.zeros(2, 1, 1, 4), torch.zeros(2, 1, 2)),
        PUSHES,
        torch.Generator().manual_seed(0),
        **settings,
    )


def test_a_planning_actor_plans_every_few_steps_from_the_rest_of_the_last_plan():
    actor = planning_actor()
    decisions = [actor(situation()) for _ in range(7)]
    assert [int(each.imagined_steps[0]) for each in decisions] == [60, 0, 0, 60, 0, 0, 60]  # 2 · 5 · 6
    first = [float(each.action[0, 0]) for each in decisions]
    assert first[:3] == [1, 2, 3]
    assert first[3] == 1 + 10 * 4  # action 4 of the first plan is where the second starts


def test_an_actor_that_keeps_its_whole_plan_plans_once():
    actor = planning_actor(horizon=4, replan=4)
    assert [bool(actor(situation()).imagined_steps.any()) for _ in range(5)] == [True, False, False, False, True]


def remembered(values) -> Memory:
    """Return a memory of two tasks with these values."""
    memory = Memory()
    for time, value in enumerate(values):
        memory.write(float(time), torch.zeros(2, 4), torch.zeros(2, 2), torch.tensor(value))
    return memory


def test_an_adaptive_actor_plans_only_for_tasks_whose_value_does_not_fall():
    actor = AdaptiveActor(policy_actor(), planning_actor(), steps=5, progress=0.4)
    falling, standing = [10.0, 9.0, 8.0, 7.0, 6.0], [10.0] * 5
    memory = remembered(list(zip(falling, standing, strict=True)))
    decision = actor(situation(value=(5.0, 10.0), memory=memory))
    assert decision.imagined_steps.tolist() == [0, 60]
    assert decision.action[1].tolist() == [1, 1] and decision.action[0].norm() == pytest.approx(MAX_STEP)


def test_an_adaptive_actor_reacts_while_all_values_fall_or_the_memory_is_short():
    actor = AdaptiveActor(policy_actor(), planning_actor(), steps=5, progress=0.4)
    short = remembered([(10.0, 10.0)] * 4)
    assert not actor(situation(value=(10.0, 10.0), memory=short)).imagined_steps.any()
    falling = remembered([(10.0 - step, 20.0 - step) for step in range(5)])
    assert not actor(situation(value=(5.0, 15.0), memory=falling)).imagined_steps.any()
    assert actor.planning.plan is None
    assert actor(situation(value=(9.0, 19.0), memory=falling)).imagined_steps.all()  # fell by 1 instead of 2


def test_a_policy_is_flatter_where_the_memory_was_before():
    logits = torch.zeros(len(PUSHES))
    logits[3] = 2.0
    actor, memory = policy_actor(logits), Memory()

    def share() -> float:
        chosen = [actor(situation(memory=memory)).action for _ in range(150)]
        return (torch.cat(chosen) == PUSHES[3]).all(1).float().mean().item()

    fresh = share()
    for time in range(20):
        memory.write(float(time), situation().where.summary, torch.zeros(2, 2), torch.zeros(2))
    visited = share()
    assert fresh > 0.8 and visited < 0.35
    memory = Memory()
    for time in range(20):  # a state that is further than the radius counts for nothing
        memory.write(float(time), situation(position=(9.0, 9.0)).where.summary, torch.zeros(2, 2), torch.zeros(2))
    assert share() > 0.8


def test_a_policy_imagines_nothing():
    assert policy_actor()(situation()).imagined_steps.tolist() == [0, 0]


def test_a_greedy_actor_chooses_the_push_with_the_lowest_cost_and_keeps_it():
    goals = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # directions to go to

    def cost_from(state):
        return lambda actions: -(actions.sum(2) * goals[:, None]).sum(-1)

    actor = GreedyActor(cost_from, PUSHES, torch.Generator().manual_seed(0), steps=3)
    decisions = [actor(situation()) for _ in range(4)]
    for decision in decisions:
        torch.testing.assert_close(decision.action, MAX_STEP * goals, atol=1e-5, rtol=0)
    assert [int(each.imagined_steps[0]) for each in decisions] == [24, 0, 0, 24]  # 8 pushes of 3 steps
    goals.neg_()
    turned = [bool(actor(situation()).action[0, 0] < 0) for _ in range(3)]
    assert turned == [False, False, True]  # the push that began before is kept to its end


def test_a_task_without_a_budget_reacts_and_one_with_costs_on_the_way_plans():
    assert configure(Task(GOAL, budget=0)).mode == "1"
    assert configure(Task(GOAL)) == AgentSettings()
    assert configure(Task(GOAL, {"zone": 20.0}, budget=0)).mode == "2"
    assert configure(Task(GOAL, {"zone": 0.0}, budget=0)).mode == "1"
    assert configure(Task(GOAL, budget=BUDGET // 2)).mode == "adaptive"


def configurator(world, **settings) -> Configurator:
    return Configurator(world, ExactModality(), shorten, PUSHES, **settings)


def test_a_missing_critic_or_policy_is_an_error_that_says_what_to_type():
    with pytest.raises(UserError, match="no critic: train all stages, jepa pretrain world-rooms, or give --no-critic"):
        configurator(ExactWorld())(Task(GOAL))
    for mode in ("1", "adaptive"):
        with pytest.raises(
            UserError, match=r"no policy: train all stages, jepa pretrain world-rooms, or give --mode 2"
        ):
            configurator(ExactValuedWorld())(Task(GOAL), AgentSettings(mode=mode))
    with pytest.raises(ValueError, match="no cost is named zone"):
        configurator(ExactActingWorld())(Task(GOAL, {"zone": 1.0}))


@pytest.mark.parametrize("budget", [0, BUDGET, 500])
def test_the_budget_bounds_the_imagined_steps_of_an_action(budget):
    agent, env = configurator(ExactActingWorld())(Task(GOAL, budget=budget)), RoomEnv(TASKS)
    for _ in range(8):
        with torch.no_grad():
            env.step(agent(env.observe()))
    imagined = count_imagined_steps(agent.imagined_steps, torch.tensor([8, 8]))
    assert 0.9 * budget <= imagined / 16 <= budget
    assert count_imagined_steps(agent.imagined_steps, torch.tensor([1, 0])) == int(agent.imagined_steps[0][0])


def test_plans_stay_within_what_the_environment_can_do_however_long_it_goes_straight_on():
    """Otherwise the next plan starts so far beyond it that no candidate turns back at the goal."""
    agent, env = configurator(ExactActingWorld())(Task(GOAL), AgentSettings(replan=1)), RoomEnv(TASKS)
    for _ in range(8):
        with torch.no_grad():
            env.step(agent(env.observe()))
        assert isinstance(agent.actor, PlanningActor) and agent.actor.plan is not None
        assert (agent.actor.plan.actions.norm(dim=-1) <= MAX_STEP + 1e-5).all()


def test_intrinsic_costs_change_what_an_agent_does():
    actions = []
    for weight in (0.0, 100.0):
        agent = configurator(ExactActingWorld(), costs={"effort": effort})(Task(GOAL, {"effort": weight}))
        with torch.no_grad():
            actions.append(agent(RoomEnv(TASKS).observe()))
    assert (actions[1].norm(dim=-1) < actions[0].norm(dim=-1)).all()


@pytest.mark.parametrize("planner", ["cem", "gradient"])
def test_every_planner_can_be_chosen(planner):
    settings = AgentSettings(planner=planner, samples=8, iterations=2, critic=False)
    agent = configurator(ExactWorld())(Task(GOAL), settings)
    assert agent(RoomEnv(TASKS).observe()).shape == (2, 2)
