"""The collapse alarm is raised on a collapsed representation, once, with advice that applies."""

import pytest
import torch

from openjepa.data.loader import Steps
from openjepa.masking.multiblock import MultiBlock
from openjepa.methods.jepa import JEPA
from openjepa.nn.rank import feature_spread, rankme
from openjepa.training.collapse import ROWS_BEFORE_ALARM, CollapseAlarm
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from tests.conftest import CPU, MODALITIES

HEALTHY = {"target_std": 0.8, "feature_spread": 0.5, "rankme": 50.0}


def test_rankme_is_the_number_of_dimensions_in_use():
    x = torch.randn(512, 8, generator=torch.Generator().manual_seed(0))
    x = x - x.mean(0)
    assert rankme(torch.linalg.qr(x).Q) == pytest.approx(8, rel=1e-3)
    assert rankme(x[:, :1] @ torch.randn(1, 8) + 3) == pytest.approx(1, abs=0.01)
    assert rankme(torch.ones(16, 8)) == 0


def test_feature_spread_is_0_for_identical_features_and_1_for_random_ones():
    assert feature_spread(torch.ones(16, 8)) == pytest.approx(0, abs=1e-6)
    assert feature_spread(torch.randn(512, 8)) == pytest.approx(1, rel=0.05)


def test_the_alarm_is_raised_once_after_three_rows():
    alarm = CollapseAlarm()
    messages = [alarm.check({**HEALTHY, "target_std": 0.01}) for _ in range(6)]
    assert [message is not None for message in messages] == [False, False, True, False, False, False]
    assert "collapsing" in messages[2] and "try" in messages[2]


def test_a_short_dip_in_a_healthy_run_raises_no_alarm():
    alarm, low = CollapseAlarm(), {**HEALTHY, "target_std": 0.1}
    assert not any(alarm.check(row) for row in [low, low, HEALTHY] * 5)


def test_a_run_that_collapses_raises_the_alarm():
    """Without an EMA and with a high learning rate the targets collapse within a few dozen steps."""
    data = MODALITIES["series"]
    net = JEPA(dim=48, depth=2, num_heads=2, predictor_dim=24, predictor_depth=1).build(data)
    steps = Steps(data.synthetic(64, 0), MultiBlock(), data.layout, batch_size=32, total_steps=200, seed=0)
    config, alarm = Optim(lr=3e-2, start_lr=3e-2, ema_momentum=0.0, final_ema_momentum=0.0), CollapseAlarm()
    optimizer, message = build_optimizer(net, config), None
    for number in range(200):
        step = steps[number]
        output = train_step(net, optimizer, step.batch, config.at(number, 200), CPU, clip=1.0).output
        row = {"target_std": float(output.metrics["target_std"]), "feature_spread": feature_spread(output.features)}
        message = message or alarm.check({**row, "rankme": rankme(output.features)})
    assert message and "collapsing" in message


def test_advice_about_the_ema_encoder_is_given_only_if_there_is_one():
    """A masked autoencoder and VICReg have no EMA encoder, and no such settings."""
    messages = []
    for row in ({"rankme": 1.0}, {"rankme": 1.0, "target_std": 0.7}):
        alarm = CollapseAlarm()
        messages.append(next(filter(None, [alarm.check(row) for _ in range(ROWS_BEFORE_ALARM)])))
    assert "--optim.lr" in messages[0] and "momentum" not in messages[0]
    assert "--optim.ema-momentum" in messages[1]


def test_settings_that_are_already_on_are_not_advised():
    messages = []
    for standardize in (True, False):
        alarm = CollapseAlarm(JEPA(standardize=standardize))
        messages.append([alarm.check({"target_std": 0.1}) for _ in range(ROWS_BEFORE_ALARM)][-1])
    assert "standardize" not in messages[0]
    assert "try --method.standardize, a slower target" in messages[1]
