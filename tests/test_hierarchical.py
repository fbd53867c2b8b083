"""H-JEPA: what each level receives, what it trains, and plans whose sub-goals the level below reaches."""

import dataclasses
import json

import pytest
import torch

from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.core.types import Batch
from openjepa.methods.hierarchical import Hierarchical
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.convnet import ConvNetConfig
from openjepa.nn.directions import directions
from openjepa.nn.level import Hierarchy, Level, LevelConfig, MacroActions, chunks, windows
from openjepa.planning import success
from openjepa.planning.episodes import run_episodes
from openjepa.planning.planners.hierarchical import HierarchicalPlanner, Search
from openjepa.planning.planners.tree import search_tree, squared_distance
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.run import pretrain
from openjepa.training.step import train_step
from openjepa.viz import levels, plans
from tests.conftest import CPU
from tests.worlds import tiny_runs

SMALL = WorldModel(ConvNetConfig(dim=8, hidden=8, depth=1))

LEVEL = LevelConfig(stride=2, dim=8, hidden=8)


def data_of(steps):
    return Trajectory(episodes=64, steps=steps)


def batch_of(steps, count=8):
    samples = data_of(steps).synthetic(64, 0).read(torch.arange(count), None)
    return Batch(samples.views, torch.arange(count), conditions=samples.conditions)


def test_one_level_is_the_recurrent_jepa_bit_for_bit():
    batch, results = batch_of(8), []
    for config in (SMALL, Hierarchical(SMALL, levels=())):
        method = config.build(data_of(8), 0)
        output = method(batch, None)
        output.loss.backward()
        results.append((output.loss, [p.grad for p in method.parameters()], list(output.metrics.values())))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(("steps", "stride"), [(9, 2), (9, 4), (10, 4), (33, 16)])
def test_a_level_receives_every_stride_th_state_and_the_actions_between(steps, stride):
    """Of T states, ceil(T / stride)."""
    config = Hierarchical(SMALL, (dataclasses.replace(LEVEL, stride=stride),))
    (level,) = config.build(data_of(steps - 1), 0).world.above
    states, actions = torch.randn(3, steps, 121, 8), torch.arange(3.0 * (steps - 1) * 2).view(3, steps - 1, 2)
    own, taken = level.ascend(states, actions)
    assert own.shape[1] == -(-steps // stride) and own.shape[2] == 36  # cells of 11×11, every second one
    torch.testing.assert_close(own[:, 1], level.encoder(states[:, stride]))
    assert taken.shape == (3, (steps - 1) // stride, 2 * stride)
    torch.testing.assert_close(
        taken[:, -1].flatten(), actions[:, taken.shape[1] * stride - stride :][:, :stride].flatten()
    )


@pytest.mark.parametrize("detach", [True, False])
def test_a_level_trains_the_one_below_only_without_detach(detach):
    method = Hierarchical(SMALL, (LEVEL, LEVEL), detach=detach).build(data_of(8), 0)
    method(batch_of(8), None).loss.backward()
    alone = SMALL.build(data_of(8), 0)
    alone.load_state_dict({name: method.state_dict()[name] for name in alone.state_dict()})
    alone(batch_of(8), None).loss.backward()
    weight, expected = method.world.perception.head.weight, alone.world.perception.head.weight
    assert torch.allclose(weight.grad, expected.grad, rtol=1e-4) == detach


def test_the_loss_of_every_level_falls():
    config = Hierarchical(SMALL, (LEVEL, LEVEL))
    method, batch = config.build(data_of(8), 0), batch_of(8, 16)
    settings = Optim(lr=2e-3)
    optimizer, history = build_optimizer(method, settings), []
    for _ in range(80):
        rates = settings.at(200, 1000)._replace(lr=3e-3)
        history.append(train_step(method, optimizer, batch, rates, CPU, clip=5.0).output.metrics)
    for name in ("inverse", "variance", "level2_inverse", "level2_variance", "level3_inverse", "level3_variance"):
        assert history[-1][name] < 0.9 * history[0][name], name


def test_windows_begin_after_each_other_and_share_a_state_but_no_action():
    states, actions = torch.arange(9.0)[None], torch.arange(8.0)[None]
    assert windows(states, 4, 1).tolist() == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]]
    assert windows(actions, 4, 0).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows(states, 8, 1).tolist() == states.tolist() and windows(states, 20, 1).tolist() == states.tolist()
    assert windows(actions[:, :7], 3, 0).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_macro_actions_are_shorter_than_one_so_that_a_planner_knows_its_bounds():
    macro = MacroActions(8, 2)
    assert macro(100 * torch.randn(50, 8)).norm(dim=-1).max() <= 1 + 1e-6
    assert chunks(torch.arange(12.0).view(1, 6, 2), 3).tolist() == [[[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]]


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="--data.steps 7"):
        Pretrain(data_of(3), Hierarchical(SMALL, (LEVEL, LEVEL)))
    with pytest.raises(UserError, match="--method.world.target same"):
        Pretrain(data_of(8), Hierarchical(dataclasses.replace(SMALL, target="ema"), (LEVEL,)))


class LineLevel(Level):
    """A level that sees positions, as the level below does, and moves `reach` as far."""

    def __init__(self, reach):
        torch.nn.Module.__init__(self)
        self.reach, self.config, self.encoder = reach, LevelConfig(), torch.nn.Identity()

    def hold(self, actions):
        return actions

    def step(self, state, action):
        return state + self.reach * action[:, None]


class LineWorld(Hierarchy):
    """A world whose state is a position that actions change."""

    def __init__(self, levels=1):
        torch.nn.Module.__init__(self)
        self.levels = torch.nn.ModuleList(LineLevel(4.0**number) for number in range(1, levels))

    def step(self, state, action):
        return state + action[:, None]


def shorten(action):
    return action / action.norm(dim=-1, keepdim=True).clamp(min=1)


def line_planner(levels, goal):
    pushes, generator = directions(12, 2, 1.0), torch.Generator().manual_seed(0)
    return HierarchicalPlanner(LineWorld(levels), goal, pushes, shorten, generator, levels)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("goal", [(14.0, 5.0), (-3.0, 0.5)])
def test_plans_of_all_levels_lead_to_the_goal(levels, goal):
    goal = torch.tensor([[goal]])
    planner, state, world, distances = line_planner(levels, goal), torch.zeros(1, 1, 2), LineWorld(), []
    for _ in range(24):
        action, _ = planner(state)
        state = world.step(state, action)
        distances.append(float((state - goal).norm()))
    assert min(distances) < 1.0


def test_the_level_below_reaches_the_sub_goal_of_the_level_above():
    planner, state, world = line_planner(2, torch.tensor([[[30.0, 5.0]]])), torch.zeros(1, 1, 2), LineWorld()
    for step in range(4):
        action, imagined = planner(state)
        assert (imagined > 0) == (step == 0)
        state = world.step(state, action)
    wanted = planner.plans[1].states[:1]
    assert wanted.norm() > 3.5 and (state - wanted).norm() < 1.0


def test_a_level_aims_at_the_goal_itself_where_the_one_above_needs_one_step():
    goal = torch.tensor([[[3.0, 0.0]]])
    planner = line_planner(2, goal)
    planner(torch.zeros(1, 1, 2))
    assert planner.target(0).above is None and torch.equal(planner.target(0).state, goal)
    far = line_planner(2, 10 * goal)
    far(torch.zeros(1, 1, 2))
    assert far.target(0).above is far.above[0]


def test_plans_use_the_macro_actions_of_pushes_that_the_environment_allows():
    """Others would promise steps that nothing can take."""
    world = Hierarchical(SMALL, (LEVEL,)).build(data_of(8), 0).world
    pushes = directions(12, 2, 1.5)
    planner = HierarchicalPlanner(world, torch.zeros(1, 121, 8), pushes, shorten, torch.Generator(), 2)
    torch.testing.assert_close(planner.pushes[1], world.above[0].macro_actions(torch.cat([pushes, pushes], 1)))


def free(state, action):
    return state + action[:, None]


def walled(state, action):
    """Move, but not through a wall between x = 2 and 3 that is open where y > 4."""
    after = free(state, action)
    blocked = (after[..., 0] > 2) & (after[..., 0] < 4) & (after[..., 1] < 4)
    return torch.where(blocked[..., None], state, after)


@pytest.mark.parametrize(("step", "steps"), [(free, 6), (walled, 14)])
def test_a_tree_finds_the_shortest_way_around_a_wall(step, steps):
    goal = torch.tensor([[[6.0, 0.0]]])
    four = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    way = search_tree(step, torch.zeros(1, 1, 2), four, lambda x: squared_distance(x, goal)[:, 0], 4000)
    assert len(way.actions) == steps and torch.equal(way.states[-1:], goal)
    state = torch.zeros(1, 1, 2)
    for action, known in zip(way.actions, way.states, strict=True):
        state = step(state, action[None])
        assert torch.equal(state[0], known)


def test_a_tree_imagines_no_more_than_its_budget_and_returns_the_nearest_state():
    goal, four = torch.tensor([[[60.0, 0.0]]]), directions(4, 2, 1.0)
    way = search_tree(free, torch.zeros(1, 1, 2), four, lambda x: squared_distance(x, goal)[:, 0], 90)
    assert way.imagined <= 90 and len(way.actions) >= 3
    torch.testing.assert_close(way.states[-1], torch.tensor([[float(len(way.actions)), 0.0]]))


def test_a_tree_stays_where_nothing_is_nearer():
    way = search_tree(free, torch.zeros(1, 1, 2), directions(4, 2, 1.0), lambda x: x.square().mean((1, 2)), 100)
    assert len(way.actions) == 0 and way.states.shape == (0, 1, 2)


@pytest.fixture(scope="module")
def levels_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("levels") / "run"
    pretrain(dataclasses.replace(tiny_runs()["levels"], out=out))
    return out


@pytest.fixture
def few(monkeypatch):
    """Measure on few samples, and end episodes after a few steps."""
    monkeypatch.setattr(levels, "WALKS", 40)
    monkeypatch.setattr(HierarchicalPlanner.__init__, "__defaults__", (Search(4, 16, 1, budget=60),))
    for module in (success, levels, plans):
        monkeypatch.setattr(module, "run_episodes", lambda env, act, max_steps=5: run_episodes(env, act, 5))


def test_plan_compares_one_level_with_more(levels_run, few, tmp_path):
    out = tmp_path / "plan.json"
    assert main(["plan", str(levels_run), "--compare", "--episodes", "3", "--out", str(out)]) == 0
    names = [row["name"] for row in json.loads(out.read_text())["rows"]]
    assert names[-3:] == ["one level", "2 levels", "3 levels"]


def test_show_levels_draws_sub_goals_frames_energies_and_episodes(levels_run, few, tmp_path):
    assert main(["show", "levels", str(levels_run), "--count", "2", "--out", str(tmp_path / "levels.png")]) == 0
    drawn = {file.name for file in tmp_path.iterdir()}
    assert drawn >= {"levels.png", "levels-sub-goals.png", "levels-energy.png", "levels-episodes.png", "levels.html"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "{}", "--levels", "4"], "has 3 levels, not 4: give --levels 3"),
        (["plan", "{}", "--mode", "1"], "--mode has no effect on several levels: leave it out"),
        (["plan", "{}", "--env", "two-rooms"], "leave --env out"),
        (["plan", "{}", "--goal", "50", "4"], "each from 1 to 32, got 50 4"),
        (["diagnose", "{}"], "has several levels: type jepa plan"),
        (["show", "plan", "{}"], "jepa show levels"),
        (["explore", "{}"], "jepa show levels"),
    ],
)
def test_what_levels_cannot_do_is_told_in_one_sentence(words, message, levels_run, capsys):
    assert main([word.format(levels_run) for word in words]) == 1
    assert message in capsys.readouterr().err
