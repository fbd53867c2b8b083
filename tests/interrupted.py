"""What a run on any kind of files must survive: kills at its boundaries, and a second process."""

import dataclasses
import signal
from pathlib import Path

import numpy as np

from benchmarks.kills import attempt, fresh, ran
from openjepa.training.config import Pretrain
from openjepa.training.log import read_metrics
from tests.faults import list_boundaries, load_outcome, run_in_fork, same_outcome, sample_every
from tests.ranks import start_ranks


def kill_everywhere(settings: Pretrain, folder: Path, every: int) -> None:
    """Kill a run at every n-th boundary and resume it; it must end as the undisturbed run does, bit for bit."""
    ran(settings)  # in this process, so that its forks are warmed up
    whole = load_outcome(settings.out)
    again = dataclasses.replace(settings, async_save=False, out=folder / "place" / "run")
    names = list_boundaries(lambda: ran(again), fresh(again.out), folder / "names.json")
    for at in sample_every(len(names) - 9, every):
        assert attempt("kill", again, at) == -signal.SIGKILL
        assert run_in_fork(lambda: ran(again)) == 0, names[at - 1]
        assert same_outcome(load_outcome(again.out), whole), names[at - 1]


def compare_two_ranks(settings: Pretrain, folder: Path) -> None:
    """Run in one process and in two; the losses must be the same."""
    one, two = (dataclasses.replace(settings, out=folder / name, resume="no") for name in ("one", "two"))
    ran(one)
    assert [process.wait(240) for process in start_ranks(two)] == [0, 0]
    losses = [[row["loss"] for row in read_metrics(each.out / "metrics.jsonl")] for each in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-6, rtol=0)
