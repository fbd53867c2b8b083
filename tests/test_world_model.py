"""World models: roll-outs, gradients through both branches, EMA targets, refused settings, a training step."""

import dataclasses

import pytest
import torch

from openjepa.core.errors import UserError
from openjepa.core.types import Batch
from openjepa.methods import world_model
from openjepa.methods.world_model import WorldModel, spread_terms
from openjepa.modalities.trajectory import Trajectory
from openjepa.nn.convnet import ConvNetConfig
from openjepa.training.config import Pretrain
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from tests.conftest import CPU

DATA = Trajectory(episodes=64, steps=4)

VECTOR = ConvNetConfig(dim=32, hidden=8, depth=1, latent="vector")

MODELS = {
    "map": WorldModel(ConvNetConfig(hidden=8, depth=1), teacher_forcing=1.0, similarity=1.0),
    "map, EMA target": WorldModel(ConvNetConfig(hidden=8, depth=1), target="ema"),
    "map, SIGReg": WorldModel(ConvNetConfig(hidden=8, depth=1), sigreg=1.0, variance=0.0, covariance=0.0),
    "vector, MLP": WorldModel(VECTOR, dynamics="mlp"),
    "vector, GRU": WorldModel(VECTOR, dynamics="gru"),
}
every_model = pytest.mark.parametrize("name", MODELS)


def batch_of(count=16, first=0):
    samples = DATA.synthetic(64, 0).read(torch.arange(first, first + count), None)
    return Batch(samples.views, torch.arange(count), conditions=samples.conditions)


@every_model
def test_the_loss_falls(name):
    method, batch = MODELS[name].build(DATA, 0), batch_of()
    config = Optim(lr=2e-3, ema_momentum=0.99)
    optimizer = build_optimizer(method, config)
    losses = [
        float(train_step(method, optimizer, batch, config.at(200, 1000)._replace(lr=2e-3), CPU, clip=5.0).output.loss)
        for _ in range(40)
    ]
    assert min(losses[-5:]) < 0.8 * losses[0], losses


@every_model
def test_an_imagined_state_depends_on_the_actions_before_it_alone(name):
    method, batch = MODELS[name].build(DATA, 0), batch_of(3)
    torch.nn.init.normal_(getattr(method.world.dynamics, "out", torch.nn.Linear(1, 1)).weight, std=0.1)
    states = method.encode(method.world, batch.views[0])
    assert batch.conditions is not None
    changed = batch.conditions.clone()
    changed[:, 2] += 1.0
    one, other = (method.world.unroll(states[:, 0], actions) for actions in (batch.conditions, changed))
    assert torch.equal(one[:, :2], other[:, :2])
    assert not torch.equal(one[:, 2], other[:, 2]) and not torch.equal(one[:, 3], other[:, 3])
    assert torch.equal(one[:, :1], method.world.unroll(states[:, 0], batch.conditions[:, :1]))


def test_a_frame_does_not_change_the_latent_of_another():
    method, batch = MODELS["map"].build(DATA, 0), batch_of(2)
    frames = batch.views[0].clone()
    frames[:, 1] = 255 - frames[:, 1]
    one, other = (method.encode(method.world, each) for each in (batch.views[0], frames))
    assert torch.equal(one[:, [0, 2, 3, 4]], other[:, [0, 2, 3, 4]]) and not torch.equal(one[:, 1], other[:, 1])


def test_a_change_of_a_cell_reaches_neighbors_within_three_cells_in_one_imagined_step():
    """A wall can only stop the dot by what is near: dynamics on maps are local."""
    method = MODELS["map"].build(DATA, 0)
    torch.nn.init.normal_(method.world.dynamics.out.weight, std=0.1)  # type: ignore[union-attr, arg-type]
    state = torch.randn(1, 121, 16, generator=torch.Generator().manual_seed(0))
    changed = state.clone()
    changed[:, 60] += 1.0  # row 5, column 5
    action = torch.tensor([[1.0, 0.0]])
    moved = (method.world.step(state, action) - method.world.step(changed, action)).abs().sum(-1) > 0
    rows, columns = moved.view(11, 11).nonzero(as_tuple=True)
    assert rows.min() == columns.min() == 2 and rows.max() == columns.max() == 8


def test_targets_of_an_ema_encoder_have_no_gradient_and_follow_the_encoder():
    method, batch = MODELS["map, EMA target"].build(DATA, 0), batch_of(4)
    targets = method.targets(batch)
    assert targets is not None and not targets.requires_grad
    with torch.no_grad():
        for parameter in method.world.perception.parameters():
            parameter.add_(1.0)
    before = next(method.target_encoder.parameters()).clone()  # type: ignore[union-attr]
    method.after_step(0.75)
    after = next(method.target_encoder.parameters())  # type: ignore[union-attr]
    torch.testing.assert_close(after, before + 0.25)


def test_sigreg_takes_some_features_of_a_large_batch_drawn_anew_for_each_batch(monkeypatch):
    monkeypatch.setattr(world_model, "ROWS", 10)
    method = MODELS["map, SIGReg"].build(DATA, 0)
    taken = []
    for seed in (0, 0, 1):
        features = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
        spread_terms(method.config, features, seed)["sigreg"].backward()
        taken.append(features.grad.abs().sum(1) > 0)  # type: ignore[union-attr]
    assert [int(each.sum()) for each in taken] == [10, 10, 10]
    assert torch.equal(taken[0], taken[1]) and not torch.equal(taken[0], taken[2])


def test_dynamics_that_do_not_fit_the_latents_are_refused_with_what_to_type():
    with pytest.raises(UserError, match="dynamics gru does not fit --method.encoder.latent map: local needs a map"):
        Pretrain(DATA, WorldModel(dynamics="gru"))


def test_windows_with_a_stride_show_every_so_manyth_observation_of_a_longer_walk():
    dense, sparse = Trajectory(steps=8), dataclasses.replace(DATA, steps=4, stride=2)
    one, two = (each.synthetic(8, 3).read(torch.arange(8), None) for each in (dense, sparse))
    assert torch.equal(one.views[0][:, ::2], two.views[0])
    assert one.conditions is not None and two.conditions is not None and torch.equal(one.conditions, two.conditions)


def test_tokens_are_the_cells_of_each_frame_and_scaled():
    frames = torch.randint(0, 256, (2, 5, 2, 33, 33), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tokens = DATA.tokens(frames)
    assert tokens.x.shape == (2, 5 * 121, 18) and DATA.layout.count == 605
    time, row, column = 3, 4, 7
    cell = frames[1, time, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].float() / 255
    number = time * 121 + row * 11 + column
    torch.testing.assert_close(tokens.x[1, number].view(2, 3, 3), cell / torch.tensor([0.1, 0.4])[:, None, None])
    assert tokens.pos[1, number].tolist() == [time, row, column]
