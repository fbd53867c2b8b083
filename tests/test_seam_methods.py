"""Methods on more than grids: padding, tokenizers that mix neighbors, networks that are not ViTs, FLOPs not counted."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from openjepa.cli.bench import Bench, bench
from openjepa.core.types import Masks, Output, Tokens
from openjepa.data.loader import Steps
from openjepa.masking.random import Random
from openjepa.methods.base import BaseMethod, MethodConfig
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.methods.vicreg import VICReg
from openjepa.nn.expander import ExpanderConfig
from openjepa.nn.predictor import Predictor, PredictorConfig
from openjepa.nn.vit import ViTConfig
from openjepa.training.budget import StepTiming, describe_throughput, time_step
from openjepa.training.config import Pretrain
from openjepa.training.meters import Meters
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from tests.conftest import CPU, MODALITIES
from tests.tiny.nearest import Nearest
from tests.tiny.points import Points
from tests.tiny.ring import NODES, Ring
from tests.tiny.volume import Volume

ENCODER, PREDICTOR = ViTConfig(dim=24, depth=2, num_heads=2), PredictorConfig(dim=12, depth=1)
BOTH = ("center", "standardize")
METHODS = {
    "jepa": JEPA(ENCODER, PREDICTOR, target_layers=(0, 1), target_transforms=BOTH),
    "jepa, rotary": JEPA(replace(ENCODER, positions="rope"), PREDICTOR, loss="cosine"),
    "jepa, squared": JEPA(ENCODER, PREDICTOR, loss="squared_l2"),
    "jepa, target tokens, pixels": JEPA(
        ENCODER,
        PREDICTOR,
        target_transforms=BOTH,
        target_input="targets_only",
        target_stride=2,
        pixel_loss_weight=1.0,
    ),
    "mae": MAE(ENCODER, PREDICTOR),
    "vicreg": VICReg(ENCODER, ExpanderConfig(dim=16, depth=2)),
    "vicreg, masked": VICReg(ENCODER, ExpanderConfig(dim=16, depth=2), masked=True),
}


def point_batch(method: str, count: int = 8):
    """Return the networks of a method and a batch of ragged sets of points."""
    data, net = Points(), METHODS[method].build(Points())
    masks = Random(mask_ratio=0.5)
    step = Steps(data.synthetic(64, 0), masks, data.layout, batch_size=count, total_steps=9, seed=0)[0]
    views = step.batch.views * net.num_views
    return net, step.batch._replace(views=views)


@pytest.mark.parametrize("method", METHODS)
def test_what_padding_holds_changes_nothing(method):
    """Neither loss nor metrics nor features nor gradients depend on the values and positions of padding."""
    net, batch = point_batch(method)
    results = []
    for fill in (0.0, 7.0):
        view = batch.views[0].clone()
        view[..., :3] = torch.where(view[..., 3:] != 0, view[..., :3], fill)
        filled = batch._replace(views=(view,) * net.num_views)
        net.zero_grad()
        output = net(filled, net.targets(filled))
        output.loss.backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        results.append((output.loss.detach(), output.metrics, output.features, gradients))
    assert not batch.views[0][..., 3].all() and results[0][0] > 0
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_more_padding_changes_nothing(method):
    """Padding two more tokens, and contexts and targets by one more each, gives the same loss."""
    net, batch = point_batch(method)
    view = nn.functional.pad(batch.views[0], (0, 0, 0, 2))
    longer = batch._replace(views=(view,) * net.num_views, masks=tuple(map(pad_masks, batch.masks)))
    losses = [net(each, net.targets(each)).loss for each in (batch, longer)]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-4)


def pad_masks(masks: Masks) -> Masks:
    """Append a padded token, whose index is that of the first one, to contexts and targets."""
    context, target, context_valid, target_valid = masks
    assert context_valid is not None and target_valid is not None
    return Masks(
        torch.cat([context, context[..., :1]], -1),
        torch.cat([target, target[..., :1]], -1),
        nn.functional.pad(context_valid, (0, 1)),
        nn.functional.pad(target_valid, (0, 1)),
    )


@pytest.mark.parametrize("masks", [Random(mask_ratio=0.5), Nearest()])
@pytest.mark.parametrize("method", ["jepa", "jepa, rotary", "mae"])
def test_methods_learn_from_ragged_sets(method, masks):
    data, net = Points(), METHODS[method].build(Points())
    steps = Steps(data.synthetic(64, 0), masks, data.layout, batch_size=16, total_steps=40, seed=0)
    optim, losses, step = Optim(lr=3e-3, ema_momentum=1.0), [], steps[0]
    optimizer = build_optimizer(net, optim)
    for number in range(40):
        losses.append(train_step(net, optimizer, step.batch, optim.at(number, 40), CPU, clip=1.0).output.loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("data", [Ring(), Volume()])
@pytest.mark.parametrize("method", METHODS)
def test_methods_build_and_train_on_graphs_and_volumes(method, data):
    run = Pretrain(data, METHODS[method], Random(mask_ratio=0.5))
    net = run.method.build(data)
    dataset = data.synthetic(64, 0)
    step = Steps(dataset, run.masks, data.layout, batch_size=8, total_steps=9, seed=0)[0]
    batch = step.batch._replace(views=step.batch.views * net.num_views)
    result = train_step(net, build_optimizer(net, Optim()), batch, Optim().at(1, 9), CPU)
    assert result.output.loss.isfinite() and result.finite
    assert run.method.cost(data, [(8, 1, 8)]).total > 0 and run.method.encoder_cost(data) > 0


def test_target_features_of_target_tokens_alone_do_not_depend_on_their_neighbors():
    """A tokenizer that mixes neighbors does not see the tokens that are not targets."""
    data, net = Ring(), METHODS["jepa, target tokens, pixels"].build(Ring())
    step = Steps(data.synthetic(64, 0), Random(mask_ratio=0.5), data.layout, batch_size=8, total_steps=9, seed=0)[0]
    index = step.batch.masks[0].target[:, 0, ::2]
    outside = torch.ones(8, NODES, dtype=torch.bool).scatter(1, index, False)
    changed = torch.where(outside[..., None], 5.0, step.batch.views[0])
    one, other = (
        net.targets(step.batch._replace(views=(view,))).x[..., :24] for view in (step.batch.views[0], changed)
    )
    assert torch.equal(one, other) and one[~outside].any() and not one[outside].any()


def test_padded_queries_do_not_change_the_predictions_of_others():
    predictor = Predictor(8, 8, 12, 1, 2)
    nn.init.normal_(predictor.mask_token)
    context = Tokens(torch.randn(2, 3, 8), torch.rand(2, 3, 2))
    where, valid = torch.rand(2, 2, 5, 2), torch.ones(2, 2, 5, dtype=torch.bool)
    valid[..., 3:] = False
    padded, short = predictor(context, where, valid=valid), predictor(context, where[:, :, :3])
    torch.testing.assert_close(padded[:, :, :3], short, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(predictor(context, where)[:, :, :3], short, atol=1e-4)


# A method without a ViT, whose FLOPs are not counted


@dataclass(frozen=True)
class Mean(MethodConfig):
    """Learn the mean raw token: a method with settings of its own alone."""

    scale: float = 1.0

    def build(self, modality, seed: int = 0) -> BaseMethod:
        return MeanNetwork(modality)


class MeanNetwork(BaseMethod):
    def __init__(self, modality):
        super().__init__()
        self.modality, self.layer = modality, nn.Linear(modality.token_dim, 4)

    def forward(self, batch, targets) -> Output:
        x = self.layer(self.modality.tokens(batch.views[0]).x).mean(1)
        return Output((x - 1).square().mean(), {}, x.detach())

    def encoders(self) -> dict[str, nn.Module]:
        return {"layer": self.layer}


def test_a_method_without_a_count_of_flops_is_timed_and_logged_without_them(tiny, capsys):
    own = replace(tiny, data=MODALITIES["image"], method=Mean(), workers=0)
    assert own.method.describe() == "Mean" and own.method.cost(own.data, []) is None
    timing = time_step(own, own.data.synthetic(64, 0), CPU, count=3)
    assert timing.flops is None and "does not count" in describe_throughput(timing, CPU)
    meters = Meters(own, CPU, ceiling=1e9)
    net = own.method.build(own.data)
    step = Steps(own.data.synthetic(64, 0), own.masks, own.data.layout, batch_size=16, total_steps=2, seed=0)[0]
    result = train_step(net, build_optimizer(net, own.optim), step.batch, own.optim.at(0, 2), CPU)
    meters.on_step(result.finite, step.batch)
    row = meters.row({0: 0.5}, {0: result}, own.optim.at(0, 2))
    assert "share_of_ceiling" not in row and row["loss"] == 0.5
    found = bench(Bench(own.data, own.method, batch_size=8, count=3, threads=1, device="cpu"))
    assert found["flops"] is None and "share_of_ceiling" not in found
    assert "does not count its FLOPs" in capsys.readouterr().out


def test_counted_flops_are_a_share_of_the_machine():
    timing = StepTiming(0.0, 1.0, 0, 2e9)
    assert "2 GFLOP/s" in describe_throughput(timing, CPU)
