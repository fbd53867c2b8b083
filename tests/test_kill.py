"""Killed at any boundary, also with the power lost, a run goes on to the same end; `benchmarks/kills.py` takes them all."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.kills import WAYS, attempt, fresh, ran, small
from openjepa.cli.pretrain import pretrain
from openjepa.core import fileio as durable
from openjepa.core.errors import Interrupted
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.meters import Meters
from tests.conftest import slow
from tests.faults import Boundaries, Disk, boundaries, every, forked, outcome, same
from tests.ranks import RUN, bearing, dump

STEP = 67  # boundaries from one kill to the next


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    settings = dataclasses.replace(small(folder), out=folder / "whole")
    ran(settings)  # in this process, whose copies then need not be warmed up again
    return settings, outcome(settings.out)


@pytest.mark.parametrize("way", [pytest.param(way, marks=[] if way.startswith("power") else slow) for way in WAYS])
def test_killed_at_any_boundary_it_ends_as_if_nothing_had_been(way, undisturbed, tmp_path, curves):
    (kind, beside), (settings, whole) = WAYS[way], undisturbed
    there = dataclasses.replace(settings, async_save=beside, out=tmp_path / "place" / "run")
    names = boundaries(lambda: ran(there), fresh(there.out), tmp_path / "names.json")
    assert len(names) > 200
    for at in every(len(names) - 9, STEP):  # a save beside the training has its boundaries now sooner, now later
        assert attempt(kind, there, at) == -signal.SIGKILL
        assert forked(lambda: ran(there)) == 0 and same(outcome(there.out), whole), f"{names[at - 1]}, boundary {at}"


def test_the_model_of_a_disk_forgets_what_was_not_flushed(tmp_path):
    """A name is there when its folder was flushed, contents when the file was."""
    place = tmp_path / "disk"
    (place / "folder").mkdir(parents=True)
    (place / "old").write_text("old")

    def work() -> None:
        disk = Disk(place)
        (place / "old").write_text("not flushed")
        for name in ("contents alone", "both"):
            with (place / "folder" / name).open("w") as stream:
                stream.write(name)
                stream.flush()
                os.fsync(stream.fileno())
            if name == "both":
                (place / "folder" / "contents alone").unlink()
                handle = os.open(place / "folder", os.O_RDONLY)
                os.fsync(handle)
        (place / "name alone").touch()
        (place / "old").rename(place / "moved")
        handle = os.open(place, os.O_RDONLY)
        os.fsync(handle)
        (place / "name alone").write_text("lost")
        (place / "moved").rename(place / "moved again")
        disk.after_power_loss(tmp_path / "left")

    assert forked(work) == 0
    left = {str(path.relative_to(tmp_path / "left")): path for path in (tmp_path / "left").rglob("*")}
    assert left.keys() == {"folder", "folder/both", "name alone", "moved"}
    assert left["folder/both"].read_text() == "both" and left["name alone"].read_text() == ""
    assert left["moved"].read_text() == "old"


def test_a_save_that_is_not_flushed_would_be_found_out(undisturbed, tmp_path, monkeypatch):
    """The test above can fail: without flushes, a run that lost the power ends elsewhere or not at all."""
    monkeypatch.setattr(durable, "fsync_path", lambda path: None)
    there = dataclasses.replace(undisturbed[0], async_save=False, out=tmp_path / "place" / "run")
    names = boundaries(lambda: ran(there), fresh(there.out), tmp_path / "names.json")
    last = len(names) - names[::-1].index("step: targets")
    assert attempt("power", there, last) == -signal.SIGKILL
    assert not (there.out / "checkpoints").exists()


def stopped(settings, folder, at, number=signal.SIGTERM, again=0) -> int:
    """The status of a run that is sent a signal at its n-th boundary, and once more so many boundaries later."""

    def work() -> None:
        found = Boundaries(folder, at, lambda _: ask())

        def ask() -> None:
            found.at, found.then = at + again, lambda _: os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)

        try:
            ran(settings)
        except Interrupted as stop:
            os._exit(128 + stop.number)

    return forked(work)


def places(names: list[str], skip: int) -> dict[str, int]:
    """The number of a boundary of each name, not the first few of them where there are more."""
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names, 1):
        found.setdefault(name, []).append(number)
    return {name: numbers[min(skip, len(numbers) - 1)] for name, numbers in found.items()}


@pytest.mark.parametrize("among", [pytest.param(1, marks=slow), 3])
def test_sigterm_in_every_phase_loses_no_step(among, undisturbed, tmp_path):
    """In each phase, or in every third. While it trains, the run saves and leaves with 143; before and after, it dies as any process does, or just ends."""
    settings, whole = undisturbed
    there = dataclasses.replace(settings, async_save=False, out=tmp_path / "place" / "run")
    names = boundaries(lambda: ran(there), fresh(there.out), tmp_path / "names.json")
    phases, last = places(names, skip=5), len(names) - names[::-1].index("step: targets")
    for name, at in list(phases.items())[::among]:
        status = stopped(there, fresh(there.out), at)
        training = names.index("step: getitem") < at <= last
        assert status == 128 + signal.SIGTERM if training else status in (0, -signal.SIGTERM), name
        if training:
            taken, begun = list_checkpoints(there.out / "checkpoints")[0], names[:at].count("step: getitem")
            steps = int(taken.name.removeprefix("step-"))
            assert steps in (begun, begun + 1), (
                name
            )  # the step under way is ended and saved, or, if it was over, the next one
        assert forked(lambda: ran(there)) == 0 and same(outcome(there.out), whole), name


def test_asked_twice_it_leaves_at_once_and_nothing_is_lost(undisturbed, tmp_path):
    settings, whole = undisturbed
    there = dataclasses.replace(settings, out=tmp_path / "place" / "run")
    names = boundaries(lambda: ran(there), fresh(there.out), tmp_path / "names.json")
    for again in (1, 15):
        assert stopped(there, fresh(there.out), places(names, 5)["step: forward"], again=again) == -signal.SIGTERM
        assert forked(lambda: ran(there)) == 0 and same(outcome(there.out), whole)


def test_no_worker_outlives_a_run_that_was_killed(undisturbed, tmp_path, monkeypatch):
    mark = f"KILLED_{os.getpid()}_{tmp_path.name}"
    monkeypatch.setenv(mark, "1")
    there = dataclasses.replace(
        undisturbed[0], workers=2, steps=10_000, save_every=10_000, log_every=5, out=tmp_path / "run"
    )
    process = subprocess.Popen([sys.executable, "-c", RUN, dump(there)])
    until = time.monotonic() + 90
    while not (there.out / "metrics.jsonl").exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    assert len(bearing(mark)) > 2
    process.kill()
    process.wait()
    while bearing(mark):
        assert time.monotonic() < until, "workers are left"
        time.sleep(0.2)


@pytest.mark.slow
def test_two_thousand_steps_hold_no_more_memory_files_and_threads_than_five_hundred(undisturbed, tmp_path, monkeypatch):
    seen = []
    report = Meters.report

    def noted(*arguments) -> None:
        report(*arguments)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        seen.append(
            (pages * os.sysconf("SC_PAGESIZE"), len(list(Path("/proc/self/fd").iterdir())), threading.active_count())
        )

    monkeypatch.setattr(Meters, "report", noted)
    pretrain(dataclasses.replace(undisturbed[0], steps=2000, save_every=100, log_every=20, out=tmp_path / "run"))
    memory, files, threads = (list(column) for column in zip(*seen[25:], strict=True))
    slope = np.polyfit(np.arange(len(memory)) * 20, memory, 1)[0]
    print(f"{slope:.0f} bytes a step, {max(files)} files, {max(threads)} threads")
    assert slope < 1024, f"{slope:.0f} bytes a step"
    assert max(files) <= files[0] + 2 and max(threads) <= threads[0] + 1  # a save may be under way
