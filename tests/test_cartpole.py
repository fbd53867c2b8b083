"""Carts with poles as tensors: gymnasium's steps exactly, rows that do not mix, ends of episodes, the controller."""

import numpy as np
import pytest
import torch

from openjepa.data.synthetic.cart_pole import has_fallen, push
from openjepa.planning.controllers import balance_cart
from openjepa.planning.envs.cartpole import MAX_STEPS, START, CartPoleEnv, draw_starts


def one_hot(action):
    return torch.eye(2)[torch.as_tensor(action)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_steps_equal_those_of_gymnasium(seed):
    gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install 'openjepa[control]'")
    oracle = gymnasium.make("CartPole-v1").unwrapped
    oracle.reset(seed=seed)
    env = CartPoleEnv(torch.from_numpy(np.array([oracle.state], np.float64)))
    actions = np.random.default_rng(seed).integers(0, 2, 100)
    for step, action in enumerate(actions.tolist()):
        _, _, terminated, _, _ = oracle.step(action)
        state = env.step(one_hot([action]))
        np.testing.assert_allclose(state[0].numpy(), oracle.state, rtol=1e-12, atol=1e-13)
        assert bool(has_fallen(state)) == terminated
        if terminated:
            assert step > 5
            return
    pytest.fail("the pole never fell")


def test_the_rows_of_a_batch_do_not_change_each_other():
    state, force = draw_starts(6, 0), torch.tensor([10.0, -10.0, 10.0, 10.0, -10.0, -10.0])
    together = push(state, force)
    for row in range(6):
        torch.testing.assert_close(push(state[row : row + 1], force[row : row + 1])[0], together[row])


def test_a_push_and_its_mirror_image_lead_to_mirror_images():
    state = draw_starts(8, 1)
    torch.testing.assert_close(push(-state, torch.full((8,), -10.0)), -push(state, torch.full((8,), 10.0)))


def test_a_cart_whose_pole_has_fallen_stands_still():
    env = CartPoleEnv(torch.tensor([[0.0, 1.0, 0.3, 1.0], [2.5, 1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]))
    before = env.observe()
    after = env.step(one_hot([1, 1, 1]))
    assert has_fallen(before).tolist() == [True, True, False]
    assert torch.equal(after[:2], before[:2]) and not torch.equal(after[2], before[2])


def test_starts_are_a_function_of_the_seed_and_small():
    starts = draw_starts(500, 3)
    assert torch.equal(starts[:10], draw_starts(10, 3)) and not torch.equal(starts, draw_starts(500, 4))
    assert starts.abs().max() <= START and starts.mean(0).abs().max() < 0.01


def test_the_known_controller_balances_every_pole_and_constant_pushes_balance_none():
    controlled, constant = CartPoleEnv(draw_starts(64, 0)), CartPoleEnv(draw_starts(64, 0))
    for _ in range(MAX_STEPS):
        controlled.step(balance_cart(controlled.observe()))
        constant.step(one_hot([1] * 64))
    assert not has_fallen(controlled.observe()).any() and has_fallen(constant.observe()).all()
