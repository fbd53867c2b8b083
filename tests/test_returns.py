"""Plan towards a goal in gymnasium: the critic that is learned in imagination, actions, returns, messages."""

import dataclasses
import json

import pytest
import torch

from openjepa.cli.main import main
from openjepa.cli.plan import plan
from openjepa.core.bootstrap import bootstrap_interval
from openjepa.core.errors import UserError
from openjepa.methods.world_model import WorldModel
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.convnet import ConvNetConfig
from openjepa.planning import gym_system, imagined_values, intrinsic, probes
from openjepa.planning.collect import collect_episodes
from openjepa.planning.envs.gym import GymEnv
from openjepa.planning.envs.gym_batch import GymBatch
from openjepa.planning.imagined_values import Imagination, learn_values
from openjepa.planning.intrinsic import distance_to, learn_ends, learn_rewards
from openjepa.planning.planners.mppi import mppi
from openjepa.planning.planners.plan import bound_plans
from openjepa.planning.recorded import Recorded, encode_recorded
from openjepa.planning.returns import act_randomly, run_batch
from openjepa.planning.settings import Collect, Plan
from openjepa.recipes.trajectory import choose_settings
from openjepa.training.run import pretrain

pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'openjepa[control]'")


class Line(torch.nn.Module):
    """A world on a line: an action of 1 or -1 moves the only value of a latent by 0.1."""

    def dynamics(self, latents, actions):
        return latents + 0.1 * actions[:, None]


def line_rows(count=200):
    return torch.linspace(-1, 1, count)[:, None, None]


def never(rows):
    return rows.new_zeros(len(rows))


@pytest.fixture
def short_learning(monkeypatch):
    """Learn in fewer updates, of a nearer future."""
    short = {"UPDATES": 120, "TARGET_RATE": 0.2, "DISCOUNT": 0.8, "HIDDEN": 32, "ROWS": 64, "RATE": 5e-3}
    for name, value in short.items():
        monkeypatch.setattr(imagined_values, name, value)


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    """Collect a few episodes, train two steps, and return the folder of the run."""
    folder = tmp_path_factory.mktemp("cartpole")
    collect_episodes(Collect(env="CartPole-v1", out=folder / "episodes", episodes=6))
    data, _ = Trajectory(root=(str(folder / "episodes"),)).suggest()
    config, _ = choose_settings(data.measure(data.dataset(data.listing())))
    method = WorldModel(ConvNetConfig(dim=8, hidden=8, depth=1, latent="vector"), dynamics="mlp")
    short = {"steps": 2, "batch_size": 8, "device": "cpu", "precision": "fp32", "report": False, "workers": 0}
    pretrain(dataclasses.replace(config, method=method, out=folder / "run", **short))
    return folder / "run"


def test_values_are_lower_the_fewer_steps_lead_to_the_goal(short_learning):
    cost = distance_to(torch.zeros(1, 1))
    values = learn_values(Imagination(Line(), line_rows(), cost, never, torch.tensor([[1.0], [-1.0]])))
    near, middle, far = values(torch.tensor([0.0, 0.5, 1.0])[:, None, None]).tolist()
    assert near < middle < far


def test_states_from_which_the_episode_ends_are_worst(short_learning):
    rows = line_rows()
    cost = lambda latents: latents.abs().mean((1, 2))  # noqa: E731
    values = learn_values(
        Imagination(Line(), rows, cost, lambda each: (each[:, 0, 0] > 0.45).float(), torch.ones(1, 1))
    )
    doomed, free = values(torch.tensor([0.4, -0.9])[:, None, None]).tolist()
    assert free < 0.7 < doomed
    assert values(torch.full((1, 1, 1), 0.5)).item() == pytest.approx(rows.abs().max().item())


def test_ends_and_rewards_are_read_from_latents(monkeypatch):
    monkeypatch.setattr(intrinsic, "STEPS", 150)
    monkeypatch.setattr(probes, "STEPS", 150)
    rows = line_rows()
    terminated = rows[:, 0, 0] > 0.8
    probability = learn_ends(rows, terminated)(rows)
    assert probability[-1] > 0.7 and probability[:120].max() < 0.3
    assert not learn_ends(rows, torch.zeros(len(rows), dtype=torch.bool))(rows).any()
    rewards = -rows[:, 0, 0].square()
    cost = learn_rewards(Recorded(rows, None, rewards, terminated))
    assert torch.corrcoef(torch.stack([cost(rows), -rewards]))[0, 1] > 0.99
    assert learn_rewards(Recorded(rows, None, torch.ones(len(rows)), terminated)) is None


def test_planned_values_become_actions_of_the_environment():
    pole, pendulum = GymEnv("CartPole-v1"), GymEnv("Pendulum-v1")
    assert pole.decode(torch.tensor([[0.2, -3.0], [-1.0, 0.1]])).tolist() == [[1, 0], [0, 1]]
    assert pendulum.decode(torch.tensor([[-5.0], [0.0], [0.5], [2.0]])).flatten().tolist() == [-2, 0, 1, 2]
    assert gym_system.candidate_actions(pendulum).flatten().tolist() == [-2, 0, 2]
    assert torch.equal(gym_system.candidate_actions(pole), torch.eye(2))


def test_plans_stay_within_the_bounds_that_the_next_plan_starts_from():
    def cost(actions):
        return -actions.clamp(-1, 1).sum((2, 3)) - 0.1 * actions.sum((2, 3))

    start, generator = torch.zeros(1, 3, 1), torch.Generator().manual_seed(0)
    bounded = bound_plans(mppi, lambda values: values.clamp(-1, 1))(cost, start, generator)
    assert bounded.actions.abs().max() <= 1 < mppi(cost, start, generator).actions.abs().max()


def test_episodes_that_have_ended_stand_still_and_returns_are_sums_of_rewards():
    seeds = [0, 1, 2]
    batch = GymBatch("CartPole-v1", seeds)
    row = run_batch(batch, act_randomly(seeds), "random")
    assert torch.equal(batch.returns, batch.steps.float()) and len(set(row.returns)) > 1
    before = batch.states()
    batch.step(torch.eye(2)[[0, 0, 0]])
    assert torch.equal(batch.states(), before)
    assert row.low <= row.mean_return <= row.high
    assert run_batch(GymBatch("CartPole-v1", seeds), act_randomly(seeds), "random") == row


def test_the_interval_of_equal_returns_has_no_width_and_that_of_others_holds_the_mean():
    assert bootstrap_interval(torch.full((5,), 500.0)) == (500, 500)
    low, high = bootstrap_interval(torch.arange(100.0))
    assert 42 < low < 49.5 < high < 57


def test_recorded_latents_know_where_episodes_were_terminated(cartpole):
    system = gym_system.load_gym_system(str(cartpole), "CartPole-v1", (), False, 0)
    recorded = encode_recorded(system.world, system.modality)
    assert recorded.terminated.sum() == 6 and len(recorded.latents) == len(recorded.states) == len(recorded.rewards)
    assert torch.equal(recorded.rewards.isnan(), recorded.terminated)


def test_the_table_has_the_agent_beside_random_and_known_and_the_file_says_the_same(cartpole, tmp_path, monkeypatch):
    monkeypatch.setattr(imagined_values, "UPDATES", 3)
    rows = plan(Plan(str(cartpole), env="CartPole-v1", episodes=2, iterations=1, samples=8, out=tmp_path / "plan.json"))
    assert [row.name for row in rows] == ["random", "known controller", "mode 2, mppi"]
    assert rows[1].mean_return == 500 and rows[2].imagined_steps > 0
    content = json.loads((tmp_path / "plan.json").read_text())
    assert content["rows"][2]["returns"] == rows[2].returns


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "type --env"),
        (["--env", "CartPol-v1"], "type for example CartPole-v1"),
        (["--env", "Pendulum-v1"], "whose episodes the run was trained on"),
        (["--env", "CartPole-v1", "--goal", "0", "0"], "--goal has 2 values, but the recorded states have 4"),
        (["--env", "CartPole-v1", "--mode", "1"], "--mode has no effect in an environment of gymnasium"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_what_to_type(cartpole, arguments, message, capsys):
    assert main(["plan", str(cartpole), *arguments]) != 0
    output = capsys.readouterr()
    assert message in " ".join((output.err + output.out).split())


def test_an_environment_without_goal_and_rewards_needs_a_goal(cartpole, monkeypatch):
    monkeypatch.setattr(gym_system, "GOALS", {})
    with pytest.raises(UserError, match="type --goal and the 4 values"):
        gym_system.load_gym_system(str(cartpole), "CartPole-v1", (), False, 0)
    gym_system.load_gym_system(str(cartpole), "CartPole-v1", (0.0, 0.0, 0.0, 0.0), False, 0)


@pytest.mark.parametrize("words", [["diagnose"], ["show", "plan"], ["show", "value"]])
def test_a_run_in_gymnasium_is_no_run_in_rooms(words, cartpole, capsys):
    assert main([*words, str(cartpole)]) == 1
    assert "was not trained in rooms: give the run of jepa pretrain world-rooms" in capsys.readouterr().err
