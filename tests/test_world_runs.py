"""World models and their stages: exact resume, two ranks like one process, kills between stages and inside one."""

import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest

from openjepa.core.errors import Interrupted
from openjepa.training.config import Pretrain, to_json
from openjepa.training.log import read_metrics
from openjepa.training.meters import Meters
from openjepa.training.run import pretrain
from openjepa.training.signals import StopSignals
from openjepa.training.stages import Stages, place_stage, run_stages
from tests.conftest import slow
from tests.faults import load_outcome, run_in_fork, same_outcome
from tests.ranks import rank_environments
from tests.ready import Ready
from tests.worlds import tiny_rooms, tiny_runs

STAGES = ("world model", "locator", "critic", "actor")

NAMES = (*STAGES, *tiny_runs())


def stage_settings(name, rooms_run, out, **changes) -> Pretrain:
    """Return the settings of one stage, which starts from the weights of the stage before it, or of another run."""
    if name in STAGES:
        number = STAGES.index(name) + 1
        settings = place_stage(tiny_rooms().runs[number - 1], rooms_run, number)
    else:
        settings = tiny_runs()[name]
    return replace(settings, out=out, log_every=1, **changes)


def stop_at(monkeypatch, stop):
    monkeypatch.setattr(StopSignals, "check", lambda self, step, device: signal.SIGTERM if step + 1 == stop else 0)


@pytest.mark.parametrize("stop", [3, pytest.param(1, marks=slow), pytest.param(5, marks=slow)])
@pytest.mark.parametrize("name", NAMES)
def test_a_stage_that_is_stopped_resumes_bit_exact(name, stop, rooms_run, tmp_path, monkeypatch):
    whole, parted = (
        stage_settings(name, rooms_run, tmp_path / each, steps=6, save_every=2) for each in ("whole", "parted")
    )
    pretrain(whole)
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        with pytest.raises(Interrupted, match="SIGTERM"):
            pretrain(parted)
    assert len(read_metrics(parted.out / "metrics.jsonl")) == stop
    pretrain(replace(parted, resume="yes"))
    assert same_outcome(load_outcome(parted.out), load_outcome(whole.out))


TWO_RANKS = """
import json, sys
from tests.small import small
small()
from openjepa.training.config import from_json
from openjepa.training.device import choose_device
from openjepa.training.parallel.launch import process_group
from openjepa.training.run import pretrain
with process_group(choose_device("cpu", "fp32").device):
    for each in json.loads(sys.argv[1]):
        pretrain(from_json(each))
"""


def test_two_ranks_have_the_losses_of_one_process(rooms_run, tmp_path):
    one, two = (
        {name: stage_settings(name, rooms_run, tmp_path / each / name, steps=4, batch_size=4) for name in NAMES}
        for each in ("one", "two")
    )
    for each in (one, two):  # all terms of the loss: directions of SIGReg must be those of the whole batch
        method = replace(each["world model"].method, sigreg=5.0, similarity=1.0, teacher_forcing=1.0)
        each["world model"] = replace(each["world model"], method=method)
    runs = json.dumps([to_json(each) for each in two.values()])
    processes = [Ready(TWO_RANKS, runs, env=each) for each in rank_environments(2)]
    for settings in one.values():
        pretrain(settings)
    assert [process.wait(timeout=240) for process in processes] == [0, 0]
    for name in NAMES:
        losses = [[row["loss"] for row in read_metrics(each[name].out / "metrics.jsonl")] for each in (one, two)]
        assert len(losses[0]) == 4
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6, err_msg=name)


def all_outcomes(out) -> list[tuple]:
    return [load_outcome(out / f"stage-{number}") for number in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def undisturbed(rooms_run):
    return all_outcomes(rooms_run)


def resumed() -> Stages:
    return Stages(tuple(replace(stage, resume="yes") for stage in tiny_rooms().runs))


@pytest.mark.parametrize("number", [2, pytest.param(3, marks=slow), pytest.param(4, marks=slow)])
def test_a_recipe_that_is_stopped_between_stages_goes_on_with_the_next(number, undisturbed, tmp_path):
    def stopping(settings):
        if settings.out.name == f"stage-{number}":
            raise KeyboardInterrupt
        return pretrain(settings)

    with pytest.raises(KeyboardInterrupt):
        run_stages(tiny_rooms(), tmp_path, stopping)
    assert not (tmp_path / f"stage-{number}").exists()
    ran = []
    run_stages(resumed(), tmp_path, lambda settings: ran.append(settings.out.name) or pretrain(settings))
    assert ran == [f"stage-{each}" for each in range(number, 5)]
    assert all(map(same_outcome, all_outcomes(tmp_path), undisturbed))


@pytest.mark.parametrize("step", [5, *(pytest.param(each, marks=slow) for each in range(1, 9) if each != 5)])
def test_a_recipe_that_is_killed_inside_a_stage_ends_with_the_same_weights(step, undisturbed, tmp_path):
    """Killed after the given step, counted over the stages of two steps: 5 is the first of the critic."""

    def killed() -> None:
        on_step, steps = Meters.on_step, iter(range(1, 100))

        def dying(self, *arguments):
            on_step(self, *arguments)
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        Meters.on_step = dying
        run_stages(tiny_rooms(), tmp_path, pretrain)

    assert run_in_fork(killed) == -signal.SIGKILL
    assert not (tmp_path / f"stage-{(step + 1) // 2}" / "export").exists()
    run_stages(resumed(), tmp_path, pretrain)
    assert all(map(same_outcome, all_outcomes(tmp_path), undisturbed))
