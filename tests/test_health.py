import pytest
import torch

from openjepa.data.loader import Steps
from openjepa.masking.config import Masking
from openjepa.methods.jepa import JEPA
from openjepa.nn.rank import feature_spread, rankme
from openjepa.training.collapse import ROWS_BEFORE_ALARM, CollapseAlarm
from openjepa.training.optim import Optim, build_optimizer
from openjepa.training.step import train_step
from tests.conftest import CPU, MODALITIES


def test_rankme_counts_the_directions_in_use():
    x = torch.randn(512, 8, generator=torch.Generator().manual_seed(0))
    x = x - x.mean(0)
    assert rankme(torch.linalg.qr(x).Q) == pytest.approx(8, rel=1e-3)
    assert rankme(x[:, :1] @ torch.randn(1, 8) + 3) == pytest.approx(1, abs=0.01)
    assert rankme(torch.ones(16, 8)) == 0


def test_spread_is_nothing_when_all_look_alike():
    assert feature_spread(torch.ones(16, 8)) == pytest.approx(0, abs=1e-6)
    assert feature_spread(torch.randn(512, 8)) == pytest.approx(1, rel=0.05)


def test_the_alarm_speaks_once_after_three_rows():
    alarm, dying = CollapseAlarm(), {"target_std": 0.01, "feature_spread": 0.5, "rankme": 50.0}
    spoken = [alarm.check(dying) for _ in range(6)]
    assert [message is not None for message in spoken] == [False, False, True, False, False, False]
    assert "collapsing" in spoken[2] and "try" in spoken[2]


def test_the_alarm_is_silent_on_a_healthy_run_and_forgets_a_dip():
    alarm = CollapseAlarm()
    well, ill = (
        {"target_std": 0.8, "feature_spread": 0.5, "rankme": 50.0},
        {"target_std": 0.1, "feature_spread": 0.5, "rankme": 50.0},
    )
    assert not any(alarm.check(row) for row in [ill, ill, well] * 5)


def test_a_run_that_collapses_sets_it_off():
    """One-pixel-like patches, no slow average, a high rate: the targets die within a few dozen steps."""
    data = MODALITIES["series"]
    net = JEPA(dim=48, depth=2, num_heads=2, predictor_dim=24, predictor_depth=1).build(data)
    steps = Steps(data.synthetic(64, 0), Masking().build(data.grid), batch_size=32, total=200, seed=0)
    config, alarm = Optim(lr=3e-2, start_lr=3e-2, ema_momentum=0.0, final_ema_momentum=0.0), CollapseAlarm()
    optimizer, message = build_optimizer(net, config), None
    for number in range(200):
        step = steps[number]
        output = train_step(net, optimizer, step.batch, step.masks, config.at(number, 200), CPU, clip=1.0).output
        row = {"target_std": float(output.metrics["target_std"]), "feature_spread": feature_spread(output.features)}
        message = message or alarm.check({**row, "rankme": rankme(output.features)})
    assert message and "collapsing" in message


def test_advice_about_an_average_is_given_where_there_is_one():
    """A masked autoencoder and joint embedding have no averaged target, and no such settings."""
    said = []
    for row in ({"rankme": 1.0}, {"rankme": 1.0, "target_std": 0.7}):
        alarm = CollapseAlarm()
        said.append(next(filter(None, [alarm.check(row) for _ in range(ROWS_BEFORE_ALARM)])))
    assert "--optim.lr" in said[0] and "momentum" not in said[0] and "--optim.ema-momentum" in said[1]


def test_what_is_done_already_is_not_advised():
    said = []
    for standardise in (True, False):
        alarm = CollapseAlarm(JEPA(standardize=standardise))
        said.append([alarm.check({"target_std": 0.1}) for _ in range(ROWS_BEFORE_ALARM)][-1])
    assert "standardize" not in said[0] and "try --method.standardize, a slower target" in said[1]
