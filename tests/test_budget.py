"""A time budget becomes a number of steps, once per run."""

import pytest

from openjepa.cli.pretrain import pretrain
from openjepa.core.config import format_duration, parse_duration
from openjepa.core.errors import UserError
from openjepa.training import budget
from openjepa.training import run as runs
from openjepa.training.budget import FEW_STEPS, StepTiming, limit_to_budget, steps_in_budget, time_step
from openjepa.training.config import load_config
from openjepa.training.meters import Meters
from openjepa.training.setup import prepare_data
from tests.conftest import CPU, replace


@pytest.mark.parametrize(("text", "expected"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("", 0)])
def test_durations_are_parsed_as_people_write_them(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("time", [1.0, 48.0, 119.6, 120.0, 5400.0, 7200.0, 7800.0, 86_400.0])
def test_printed_durations_can_be_typed_back(time):
    assert parse_duration(format_duration(time)) == round(time)


@pytest.mark.parametrize("text", ["soon", "2", "h", "-1h", "2 h"])
def test_an_invalid_duration_is_refused(tiny, text):
    with pytest.raises(UserError, match=f"invalid duration '{text}': use 2h"):
        replace(tiny, budget=text)


def test_the_steps_fit_the_budget_and_stay_the_same_after_a_kill(tiny, monkeypatch):
    monkeypatch.setattr(runs, "time_step", lambda *_: StepTiming(0.0, 1.0, 0, 1e9))
    budgeted, on_step, calls = replace(tiny, steps=0, budget="20s", save_every=5), Meters.on_step, []

    def interrupt(self, finite, masks):
        on_step(self, finite, masks)
        calls.append(True)
        if len(calls) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Meters, "on_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrain(budgeted)
    first = load_config(tiny.out)
    assert 10 <= first.steps <= 19 and first.epochs == pytest.approx(first.steps / 6)
    monkeypatch.undo()
    pretrain(replace(budgeted, resume="yes"))
    resumed = load_config(tiny.out)
    assert (resumed.steps, resumed.epochs) == (first.steps, first.epochs)
    with pytest.raises(UserError, match="keeps the number of steps"):
        pretrain(replace(budgeted, resume="yes", budget="1h"))


def test_steps_and_budget_together_are_refused(tiny):
    with pytest.raises(UserError, match="--steps 5 and --budget 1h both set the length of the run: leave one out"):
        pretrain(replace(tiny, steps=5, budget="1h"))


def test_a_budget_too_short_for_any_training_is_refused_with_a_longer_one(tiny, monkeypatch):
    monkeypatch.setattr(runs, "time_step", lambda *_: StepTiming(0.5, 9.0, 0, 1e9))
    with pytest.raises(UserError, match="--budget 60s is too short, .*: try --budget 158m"):
        pretrain(replace(tiny, steps=0, budget="60s"))


@pytest.mark.parametrize(("time", "warned"), [("60s", True), ("4m", False)])
def test_a_budget_with_too_few_steps_to_learn_in_warns_with_a_longer_one(tiny, time, warned, monkeypatch, capsys):
    monkeypatch.setattr(budget.time, "perf_counter", lambda: 0.0)
    steps = steps_in_budget(replace(tiny, steps=0, budget=time), StepTiming(0.0, 0.96, 0, 1e9), CPU, 0.0)
    message = capsys.readouterr().err
    assert ("--budget 60s is enough for 60 steps on this machine" in message) == warned == (steps < FEW_STEPS)
    assert message.rstrip().endswith("or --budget 7m") or not warned  # enough for four hundred


def test_workers_that_share_cores_with_the_step_make_it_slower(tiny, monkeypatch):
    monkeypatch.setattr(budget, "median_step_seconds", lambda *_: 9.0)
    monkeypatch.setattr(budget.torch, "get_num_threads", lambda: 2)
    data, settings = prepare_data(replace(tiny, workers=2), CPU, tiny.data.listing(), None)
    for cores, expected in ((1, 18.0), (2, 9.0), (16, 9.0)):
        monkeypatch.setattr(budget, "process_cores", lambda cores=cores: cores)
        seconds = time_step(settings, data, CPU).step_seconds
        assert seconds > expected if cores < 3 else seconds == expected
        assert seconds == pytest.approx(expected, abs=1.0)
    assert StepTiming(1.0, 4.0, 2, 1e9, 5.0).step_seconds == 5.0
    assert StepTiming(1.0, 4.0, 0, 1e9, 9.0).step_seconds == 5.0


@pytest.mark.parametrize(("seconds", "expected"), [(1.0, 19), (0.1, 30)])
def test_a_budget_shortens_a_run_on_a_slow_machine_and_never_lengthens_it(tiny, seconds, expected, monkeypatch):
    monkeypatch.setattr(budget, "time_step", lambda *_: StepTiming(0.0, seconds, 0, 1e9))
    monkeypatch.setattr(budget.time, "perf_counter", lambda: 0.0)
    assert limit_to_budget(replace(tiny, steps=0, epochs=5.0), "20s").steps == expected


def test_an_existing_run_keeps_its_steps_on_a_slower_machine(tiny, monkeypatch):
    pretrain(tiny)
    monkeypatch.setattr(budget, "time_step", lambda *_: StepTiming(0.0, 1e9, 0, 1e9))
    assert limit_to_budget(replace(tiny, steps=0), "20s").steps == tiny.steps
