"""Block-causal dynamics on a frozen encoder: what sees what, what is trained, and that the loss falls."""

import pytest
import torch

from openjepa.core.types import Batch
from openjepa.methods.world_model import WorldModel
from openjepa.methods.world_transformer import WorldTransformer
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.block_causal import BlockCausal, BlockCausalConfig, block_causal_mask
from openjepa.nn.convnet import ConvNetConfig
from openjepa.nn.world import encode_steps
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from tests.conftest import CPU

DATA = Trajectory(episodes=64, steps=3)

SMALL = BlockCausalConfig(dim=32, depth=2, num_heads=2)


def batch_of(count=8):
    samples = DATA.synthetic(64, 0).read(torch.arange(count), None)
    return Batch(samples.views, torch.arange(count), conditions=samples.conditions)


def build():
    return WorldTransformer(WorldModel(ConvNetConfig(hidden=8, depth=1)), SMALL).build(DATA, 0)


def test_a_later_frame_or_action_leaves_earlier_predictions_bit_equal():
    torch.manual_seed(0)
    network = BlockCausal(SMALL, 4, 2, (2, 3))
    states, actions = torch.randn(2, 4, 6, 4), torch.randn(2, 4, 2)
    with torch.no_grad():
        before = network(states, actions)
        states[:, 3], actions[:, 2] = 0.0, 0.0
        after = network(states, actions)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2], after[:, 2])


def test_a_prediction_depends_on_all_earlier_frames():
    torch.manual_seed(0)
    network = BlockCausal(SMALL, 4, 2, (2, 3))
    states, actions = torch.randn(1, 4, 6, 4, requires_grad=True), torch.randn(1, 4, 2)
    network(states, actions)[0, 3, 0, 0].backward()
    assert states.grad is not None and (states.grad[0].abs().sum((1, 2)) > 0).all()


@pytest.mark.parametrize("count", [1, 3])
def test_the_mask_lets_a_step_see_itself_and_what_came_before(count):
    mask = block_causal_mask(3, count)
    for i in range(3 * count):
        assert mask[i].tolist() == [j // count <= i // count for j in range(3 * count)]


def test_the_loss_falls_and_the_encoder_stays():
    method, batch, config = build(), batch_of(), Optim(lr=2e-3)
    before = {name: value.clone() for name, value in method.world.perception.state_dict().items()}
    optimizer = build_optimizer(method, config)
    losses = [
        float(train_step(method, optimizer, batch, config.at(200, 1000)._replace(lr=2e-3), CPU, clip=5.0).output.loss)
        for _ in range(30)
    ]
    assert min(losses[-5:]) < 0.9 * losses[0], losses
    assert all(torch.equal(value, before[name]) for name, value in method.world.perception.state_dict().items())


def test_a_step_of_the_world_is_the_first_prediction():
    method, batch = build(), batch_of(2)
    targets = method.targets(batch)
    assert batch.conditions is not None
    with torch.no_grad():
        first = encode_steps(method.world, DATA.tokens(batch.views[0]), 4)[:, 0]
        step = method.world.step(first, batch.conditions[:, 0])
        expected = method.world.transformer(targets[:, :-1], batch.conditions)[:, 0]
    torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-5)
