"""A time that a run may take becomes a number of steps, once."""

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
def test_times_are_read_as_people_write_them(text, expected):
    assert parse_duration(text) == expected


@pytest.mark.parametrize("time", [1.0, 48.0, 119.6, 120.0, 5400.0, 7200.0, 7800.0, 86_400.0])
def test_times_that_are_said_can_be_typed(time):
    assert parse_duration(format_duration(time)) == round(time)


@pytest.mark.parametrize("text", ["soon", "2", "h", "-1h", "2 h"])
def test_what_is_no_time_is_refused(tiny, text):
    with pytest.raises(UserError, match="is no time: times are written 2h"):
        replace(tiny, budget=text)


def test_the_steps_fit_the_time_and_stay_what_they_were_after_a_kill(tiny, monkeypatch):
    monkeypatch.setattr(runs, "time_step", lambda *_: StepTiming(0.0, 1.0, 0, 1e9))
    asked, took, taken = replace(tiny, steps=0, budget="20s", save_every=5), Meters.on_step, []

    def killed(self, finite, masks):
        took(self, finite, masks)
        taken.append(True)
        if len(taken) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(Meters, "on_step", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(asked)
    first = load_config(tiny.out)
    assert 10 <= first.steps <= 19 and first.epochs == pytest.approx(first.steps / 6)
    monkeypatch.undo()
    pretrain(replace(asked, resume="yes"))
    again = load_config(tiny.out)
    assert (again.steps, again.epochs) == (first.steps, first.epochs)
    with pytest.raises(UserError, match="keeps the number of steps"):
        pretrain(replace(asked, resume="yes", budget="1h"))


def test_two_lengths_of_one_run_are_refused(tiny):
    with pytest.raises(UserError, match="are two lengths of one run"):
        pretrain(replace(tiny, steps=5, budget="1h"))


def test_a_time_too_short_for_anything_says_what_to_type(tiny, monkeypatch):
    monkeypatch.setattr(runs, "time_step", lambda *_: StepTiming(0.5, 9.0, 0, 1e9))
    with pytest.raises(UserError, match="60s is too short: try --budget 158m"):
        pretrain(replace(tiny, steps=0, budget="60s"))


@pytest.mark.parametrize(("time", "warned"), [("60s", True), ("4m", False)])
def test_a_time_that_holds_too_few_steps_to_learn_in_says_what_to_type(tiny, time, warned, monkeypatch, capsys):
    monkeypatch.setattr(budget.time, "perf_counter", lambda: 0.0)
    held = steps_in_budget(replace(tiny, steps=0, budget=time), StepTiming(0.0, 0.96, 0, 1e9), CPU, 0.0)
    assert ("60s hold 60 steps here" in (said := capsys.readouterr().err)) == warned == (held < FEW_STEPS)
    assert said.rstrip().endswith("try --budget 7m") or not warned  # of four hundred


def test_workers_on_the_cores_that_compute_make_a_step_longer(tiny, monkeypatch):
    monkeypatch.setattr(budget, "timed_steps", lambda *_: 9.0)
    monkeypatch.setattr(budget.torch, "get_num_threads", lambda: 2)
    data, settings = prepare_data(replace(tiny, workers=2), CPU, tiny.data.listing(), None)
    for cores, expected in ((1, 18.0), (2, 9.0), (16, 9.0)):
        monkeypatch.setattr(budget, "available_cores", lambda cores=cores: cores)
        pace = time_step(settings, data, CPU)
        assert pace.step > expected if cores < 3 else pace.step == expected
        assert pace.step == pytest.approx(expected, abs=1.0)
    assert StepTiming(1.0, 4.0, 2, 1e9, 5.0).step == 5.0 and StepTiming(1.0, 4.0, 0, 1e9, 9.0).step == 5.0


@pytest.mark.parametrize(("seconds", "expected"), [(1.0, 19), (0.1, 30)])
def test_a_slow_machine_takes_fewer_of_the_steps_and_a_fast_one_no_more(tiny, seconds, expected, monkeypatch):
    monkeypatch.setattr(budget, "time_step", lambda *_: StepTiming(0.0, seconds, 0, 1e9))
    monkeypatch.setattr(budget.time, "perf_counter", lambda: 0.0)
    asked = replace(tiny, steps=0, epochs=5.0)
    assert limit_to_budget(asked, "20s").steps == expected


def test_a_run_that_was_begun_keeps_its_steps_on_a_slower_machine(tiny, monkeypatch):
    pretrain(tiny)
    monkeypatch.setattr(budget, "time_step", lambda *_: StepTiming(0.0, 1e9, 0, 1e9))
    assert limit_to_budget(replace(tiny, steps=0), "20s").steps == tiny.steps
