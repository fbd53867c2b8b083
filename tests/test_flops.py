"""What a step costs, counted by hand and by torch."""

import dataclasses

import pytest
from torch.utils.flop_counter import FlopCounterMode

from openjepa.cli.pretrain import pretrain
from openjepa.data.loader import Steps
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.stack import mask_shapes
from openjepa.methods.decoder import Decoder
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import VIT_SIZES, ViTConfig
from openjepa.recipes.decoder import BLOCK_MASK
from openjepa.recipes.registry import load_recipe
from openjepa.training import loop as training_loop
from openjepa.training.config import load_config
from openjepa.training.log import read_metrics
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.setup import build_steps
from openjepa.training.step import train_step
from tests.conftest import CPU

DATA = Image(size=(32, 32), patch=4, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.mark.parametrize("name", ["cifar10", "cifar10-minutes", "cifar10-hours", "mae-cifar10", "vicreg-cifar10"])
def test_the_work_of_a_step_is_what_torch_counts(name):
    """But for the gradient of the stem's input, which nobody needs and we count."""
    run = dataclasses.replace(load_recipe(name), data=DATA)
    method = run.method.build(DATA, 0)
    step = Steps(
        DATA.synthetic(8, 0),
        run.masks,
        DATA.layout,
        batch_size=4,
        total_steps=1,
        seed=0,
        num_views=method.num_views,
    )[0]
    with FlopCounterMode(display=False) as counter:
        train_step(method, build_optimizer(method, run.optim), step.batch, run.optim.at(0, 1), CPU)
    assert counter.get_total_flops() == pytest.approx(
        4 * run.method.cost(DATA, mask_shapes(step.batch.masks)).total, rel=0.01
    )


def test_features_at_every_third_place_are_work_there_alone():
    base = load_recipe("cifar10-minutes")
    every = dataclasses.replace(base, data=DATA, method=dataclasses.replace(base.method, target_stride=3))
    net = every.method.build(DATA, 0)
    step = Steps(DATA.synthetic(8, 0), every.masks, DATA.layout, batch_size=4, total_steps=1, seed=0)[0]
    with FlopCounterMode(display=False) as counter:
        train_step(net, build_optimizer(net, every.optim), step.batch, every.optim.at(0, 1), CPU)
    counted = 4 * every.method.cost(DATA, mask_shapes(step.batch.masks)).total
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.01)
    assert counted < 4 * base.method.cost(DATA, mask_shapes(step.batch.masks)).total


def test_convolutions_are_counted():
    """But for the gradient of the first convolution's input, of a few channels, which we count."""
    data = dataclasses.replace(DATA, stem="convolutions")
    method = JEPA(ViTConfig(dim=96, depth=2, num_heads=2), PredictorConfig(dim=24, depth=1))
    net = method.build(data, 0)
    step = Steps(data.synthetic(8, 0), MultiBlock(), data.layout, batch_size=4, total_steps=1, seed=0)[0]
    with FlopCounterMode(display=False) as counter:
        train_step(net, build_optimizer(net, Optim()), step.batch, Optim().at(0, 1), CPU)
    expected = 4 * method.cost(data, mask_shapes(step.batch.masks)).total
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("size", "patch", "shape", "expected"),
    [
        ("small", 16, (51, 4, 33), (9.1, 6.9, 44.5)),
        ("base", 16, (51, 4, 33), (34.9, 26.7, 44.7)),
        ("large", 16, (51, 4, 33), (122.5, 93.8, 44.8)),
        ("huge", 14, (69, 4, 43.5), (333.2, 263.6, 60.8)),
    ],
)
def test_the_parts_of_the_paper_s_models_cost_what_was_calculated_apart(size, patch, shape, expected):
    """GFLOP per image for target, context and predictor, with the context sizes of the official sampler."""
    data = Image(size=(224, 224), patch=patch)
    method = JEPA(ViTConfig(**VIT_SIZES[size]), PredictorConfig(dim=384, depth=12))
    found = method.cost(data, [(shape[0], shape[1], round(shape[2]))])
    assert [part / 1e9 for part in found] == pytest.approx(expected, rel=0.03)


def test_a_run_says_what_share_of_the_ceiling_it_reaches(tiny, monkeypatch):
    """All that was asked of every step since the last row, masks of several sizes included, over the time it took."""
    monkeypatch.setattr(training_loop, "matmul_rate", lambda *_: 1e9)
    out = pretrain(tiny)
    settings = load_config(out)
    steps = build_steps(settings, settings.data.dataset(settings.data.listing(), out / "data"), 1)
    shapes = [mask_shapes(steps[number].batch.masks) for number in range(12)]
    work = [tiny.method.cost(settings.data, each).total for each in shapes]
    assert len(set(work)) > 1
    for row in read_metrics(out / "metrics.jsonl"):
        mean = (work[row["step"] - 2] + work[row["step"] - 1]) / 2
        assert row["share_of_ceiling"] == pytest.approx(row["samples_per_second"] * mean / 1e9)


@pytest.mark.parametrize("condition", ["features", "prediction"])
def test_a_decoder_is_counted_with_the_frozen_networks_that_it_asks(condition):
    """But for time and condition, a vector a sample each, and the gradient of the noise, which nobody needs."""
    encoder, predictor = ViTConfig(dim=96, depth=2, num_heads=2), PredictorConfig(dim=48, depth=2)
    method = Decoder(encoder, predictor, condition=condition, decoder_dim=64, decoder_depth=2)
    net = method.build(DATA, 0)
    step = Steps(DATA.synthetic(8, 0), BLOCK_MASK, DATA.layout, batch_size=4, total_steps=1, seed=0)[0]
    with FlopCounterMode(display=False) as counter:
        train_step(net, build_optimizer(net, Optim()), step.batch, Optim().at(0, 1), CPU)
    counted = 4 * method.cost(DATA, mask_shapes(step.batch.masks)).total
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.02)
