"""A time that a run may take becomes a number of steps, once."""

import pytest

from openjepa import config, runs
from openjepa.runs import Pace
from openjepa.types import Mistake
from tests.conftest import replace


@pytest.mark.parametrize(("text", "expected"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("", 0)])
def test_times_are_read_as_people_write_them(text, expected):
    assert config.seconds(text) == expected


@pytest.mark.parametrize("text", ["soon", "2", "h", "-1h", "2 h"])
def test_what_is_no_time_is_refused(tiny, text):
    with pytest.raises(Mistake, match="is no time: try --budget"):
        replace(tiny, budget=text)


def test_the_steps_fit_the_time_and_stay_what_they_were_after_a_kill(tiny, monkeypatch):
    monkeypatch.setattr(runs, "paced", lambda *_: Pace(0.0, 1.0, 0))
    asked = replace(tiny, steps=0, budget="20s", save_every=5)
    monkeypatch.setattr(runs, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        runs.pretrain(asked)
    first = config.load(tiny.out)
    assert first.steps in (18, 19) and first.epochs == pytest.approx(first.steps * 16 / 96)
    monkeypatch.undo()
    runs.pretrain(replace(asked, resume="yes"))
    assert config.load(tiny.out).steps == first.steps


def test_a_time_too_short_for_anything_says_what_to_type(tiny, monkeypatch):
    monkeypatch.setattr(runs, "paced", lambda *_: Pace(0.5, 9.0, 0))
    with pytest.raises(Mistake, match="60s is too short: try --budget 158m"):
        runs.pretrain(replace(tiny, steps=0, budget="60s"))
