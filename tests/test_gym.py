"""Environments of gymnasium: actions and observations as they are stored, repeatable episodes, refused names."""

import sys

import numpy as np
import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.planning.controllers import CONTROLLERS, controller_of, swing_up
from openjepa.planning.envs.gym import GymEnv, require_gymnasium

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'openjepa[control]'")


def test_a_discrete_action_is_a_one_hot_vector_and_pushes_as_its_number_does():
    env, oracle = GymEnv("CartPole-v1"), gymnasium.make("CartPole-v1")
    assert env.action_dim == 2
    state, (expected, _) = env.reset(7).state, oracle.reset(seed=7)
    assert np.array_equal(state, expected)
    for action in (0, 1, 1, 0):
        after = env.step(np.eye(2, dtype=np.float32)[action])
        expected, reward, terminated, truncated, _ = oracle.step(action)
        assert np.array_equal(after.observation.state, expected)
        assert (after.reward, after.terminated, after.truncated) == (reward, terminated, truncated)


def test_continuous_actions_are_taken_as_they_are():
    env, oracle = GymEnv("Pendulum-v1"), gymnasium.make("Pendulum-v1")
    env.reset(3), oracle.reset(seed=3)
    action = np.array([1.3], np.float32)
    after, expected = env.step(action), oracle.step(action)
    assert np.array_equal(after.observation.state, expected[0]) and after.reward == pytest.approx(expected[1])
    assert env.action_dim == 1 and env.max_steps == 200


def test_uniform_values_become_actions_within_the_bounds():
    pendulum, cart = GymEnv("Pendulum-v1"), GymEnv("CartPole-v1")
    values = np.linspace(0, 0.999, 50, dtype=np.float32)[:, None]
    torques = np.concatenate([pendulum.action_of(each) for each in values])
    assert torques.min() == -2 and 1.9 < torques.max() <= 2 and (np.diff(torques) > 0).all()
    pushes = np.stack([cart.action_of(np.repeat(each, 2)) for each in values])
    assert (pushes.sum(1) == 1).all() and pushes[:25, 0].all() and pushes[25:, 1].all()


def test_frames_have_the_size_that_was_chosen_and_show_the_state():
    pytest.importorskip("pygame", reason="pygame is not installed: pip install 'openjepa[control]'")
    env = GymEnv("Pendulum-v1", pixels=24)
    first = env.reset(0)
    assert first.frame.shape == (24, 24, 3) and first.frame.dtype == np.uint8 and first.state.shape == (3,)
    later = [env.step(np.array([2.0], np.float32)).observation.frame for _ in range(5)]
    assert not np.array_equal(first.frame, later[-1])
    assert np.array_equal(first.frame, env.reset(0).frame)


@pytest.mark.parametrize("name", ["CartPol-v1", "my.own/Env-v0", ""])
def test_an_unknown_environment_is_refused_with_a_name_to_type(name):
    with pytest.raises(UserError, match="type for example CartPole-v1"):
        GymEnv(name)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UserError, match=r"pip install 'openjepa\[control\]'"):
        require_gymnasium()


def test_an_environment_without_a_known_controller_is_refused():
    with pytest.raises(UserError, match="only of CartPole-v1, Pendulum-v1: type --policy random"):
        controller_of("MountainCar-v0")


def test_a_pendulum_that_hangs_still_is_swung_up_and_held():
    env = GymEnv("Pendulum-v1")
    env.reset(0)
    env.env.unwrapped.state = np.array([np.pi, 0.0])
    state = torch.tensor([[-1.0, 0.0, 0.0]])
    for _ in range(150):
        state = torch.from_numpy(env.step(swing_up(state)[0].numpy()).observation.state)[None]
    assert state[0, 0] > 0.99 and abs(state[0, 2]) < 0.1


def test_controllers_give_actions_that_their_environment_takes():
    for name, controller in CONTROLLERS.items():
        env = GymEnv(name)
        action = controller(torch.from_numpy(env.reset(0).state)[None])[0].numpy()
        assert action.shape == (env.action_dim,) and env.env.action_space.contains(
            int(action.argmax()) if env.is_discrete else action
        )
