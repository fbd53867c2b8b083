"""The collapse alarm is raised on a collapsed representation, once, with advice that applies."""

from dataclasses import dataclass

import pytest
import torch

from openjepa.core.types import Signal
from openjepa.data.loader import Steps
from openjepa.masking.multiblock import MultiBlock
from openjepa.methods.base import MethodConfig
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.nn.rank import feature_spread, rankme
from openjepa.training.collapse import ROWS_BEFORE_ALARM, CollapseAlarm
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from tests.conftest import CPU, METHODS, MODALITIES

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
    alarm = CollapseAlarm(JEPA())
    messages = [alarm.check({**HEALTHY, "target_std": 0.01}) for _ in range(6)]
    assert [message is not None for message in messages] == [False, False, True, False, False, False]
    assert "collapsing" in messages[2] and "try" in messages[2]


def test_a_short_dip_in_a_healthy_run_raises_no_alarm():
    alarm, low = CollapseAlarm(JEPA()), {**HEALTHY, "target_std": 0.1}
    assert not any(alarm.check(row) for row in [low, low, HEALTHY] * 5)


def test_a_run_that_collapses_raises_the_alarm():
    """Without an EMA and with a high learning rate the targets collapse within a few dozen steps."""
    data = MODALITIES["series"]
    net = METHODS["released"].build(data)
    steps = Steps(data.synthetic(64, 0), MultiBlock(), data.layout, batch_size=32, total_steps=200, seed=0)
    config, alarm = Optim(lr=3e-2, start_lr=3e-2, ema_momentum=0.0, final_ema_momentum=0.0), CollapseAlarm(JEPA())
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
    for method in (MAE(), JEPA()):
        alarm = CollapseAlarm(method)
        messages.append(next(filter(None, [alarm.check({"rankme": 1.0}) for _ in range(ROWS_BEFORE_ALARM)])))
    assert "--optim.lr" in messages[0] and "momentum" not in messages[0]
    assert "--optim.ema-momentum" in messages[1]


def test_settings_that_are_already_on_are_not_advised():
    messages = []
    for transforms in (("standardize",), (), ("center",)):
        alarm = CollapseAlarm(JEPA(target_transforms=transforms))
        messages.append([alarm.check({"target_std": 0.1}) for _ in range(ROWS_BEFORE_ALARM)][-1])
    assert "standardize" not in messages[0]
    assert "try --method.target-transforms standardize, a slower target" in messages[1]
    assert "try --method.target-transforms center standardize, a slower target" in messages[2]


def test_a_method_of_a_plug_in_names_its_own_signals_and_advice():
    @dataclass(frozen=True)
    class Own(MethodConfig):
        def signals(self):
            return (Signal("gap", "more than 2", 1.0, "levels do not differ"),)

        def advice(self):
            return "try more levels"

    alarm = CollapseAlarm(Own())
    messages = [alarm.check({"gap": 0.5, "rankme": 0.0}) for _ in range(ROWS_BEFORE_ALARM)]
    assert messages[-1] == (
        "the representation is collapsing: levels do not differ (gap 0.5, healthy more than 2); try more levels"
    )
