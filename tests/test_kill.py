"""Killed at any boundary, even by a power loss, a run resumes to the same end; `benchmarks/kills.py` tries all."""

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
from openjepa.core import fileio
from openjepa.core.errors import Interrupted
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.meters import Meters
from tests.conftest import slow
from tests.faults import Boundaries, Disk, list_boundaries, load_outcome, run_in_fork, same_outcome, sample_every
from tests.ranks import RUN, processes_with_variable, settings_argument

STEP = 101  # boundaries between two kills


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    settings = dataclasses.replace(small(folder), out=folder / "whole")
    ran(settings)  # in this process, so that its forks are warmed up
    return settings, load_outcome(settings.out)


@pytest.mark.parametrize("way", [pytest.param(way, marks=[] if way == "power lost" else slow) for way in WAYS])
def test_a_run_killed_at_any_boundary_resumes_bit_exact(way, undisturbed, tmp_path, curves):
    (kind, async_save), (settings, whole) = WAYS[way], undisturbed
    settings = dataclasses.replace(settings, async_save=async_save, out=tmp_path / "place" / "run")
    names = list_boundaries(lambda: ran(settings), fresh(settings.out), tmp_path / "names.json")
    assert len(names) > 200
    for at in sample_every(len(names) - 9, STEP):  # a background save reaches its boundaries sooner or later
        assert attempt(kind, settings, at) == -signal.SIGKILL
        label = f"{names[at - 1]}, boundary {at}"
        assert run_in_fork(lambda: ran(settings)) == 0, label
        assert same_outcome(load_outcome(settings.out), whole), label


def test_the_disk_model_forgets_what_was_not_flushed(tmp_path):
    """It keeps a name if the folder was flushed, and contents if the file was."""
    root = tmp_path / "disk"
    (root / "folder").mkdir(parents=True)
    (root / "old").write_text("old")

    def work() -> None:
        disk = Disk(root)
        (root / "old").write_text("not flushed")
        for name in ("contents alone", "both"):
            with (root / "folder" / name).open("w") as stream:
                stream.write(name)
                stream.flush()
                os.fsync(stream.fileno())
            if name == "both":
                (root / "folder" / "contents alone").unlink()
                handle = os.open(root / "folder", os.O_RDONLY)
                os.fsync(handle)
        (root / "name alone").touch()
        (root / "old").rename(root / "moved")
        handle = os.open(root, os.O_RDONLY)
        os.fsync(handle)
        (root / "name alone").write_text("lost")
        (root / "moved").rename(root / "moved again")
        disk.after_power_loss(tmp_path / "left")

    assert run_in_fork(work) == 0
    left = {str(path.relative_to(tmp_path / "left")): path for path in (tmp_path / "left").rglob("*")}
    assert left.keys() == {"folder", "folder/both", "name alone", "moved"}
    assert left["folder/both"].read_text() == "both" and left["name alone"].read_text() == ""
    assert left["moved"].read_text() == "old"


def test_the_kill_test_detects_a_save_that_is_not_flushed(undisturbed, tmp_path, monkeypatch):
    """Without flushes, a run that lost power has no checkpoint."""
    monkeypatch.setattr(fileio, "fsync_path", lambda path: None)
    settings = dataclasses.replace(undisturbed[0], async_save=False, out=tmp_path / "place" / "run")
    names = list_boundaries(lambda: ran(settings), fresh(settings.out), tmp_path / "names.json")
    last = len(names) - names[::-1].index("step: targets")
    assert attempt("power", settings, last) == -signal.SIGKILL
    assert not (settings.out / "checkpoints").exists()


def run_with_signal(settings, folder, at, number=signal.SIGTERM, again=0) -> int:
    """Run, send a signal at the n-th boundary and once more `again` boundaries later; return the exit status."""

    def work() -> None:
        boundaries = Boundaries(folder, at, lambda _: send())

        def send() -> None:
            boundaries.at, boundaries.action = at + again, lambda _: os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)

        try:
            ran(settings)
        except Interrupted as stop:
            os._exit(128 + stop.signal_number)

    return run_in_fork(work)


def boundary_of_each_name(names: list[str], skip: int) -> dict[str, int]:
    """Return the number of one boundary of each name, the first `skip` of that name left out if there are more."""
    by_name: dict[str, list[int]] = {}
    for number, name in enumerate(names, 1):
        by_name.setdefault(name, []).append(number)
    return {name: numbers[min(skip, len(numbers) - 1)] for name, numbers in by_name.items()}


@pytest.mark.parametrize("stride", [pytest.param(1, marks=slow), 9])
def test_sigterm_in_any_phase_loses_no_step(stride, undisturbed, tmp_path):
    """A training run saves and exits with 143; before and after training, it dies of the signal or just ends."""
    settings, whole = undisturbed
    settings = dataclasses.replace(settings, async_save=False, out=tmp_path / "place" / "run")
    names = list_boundaries(lambda: ran(settings), fresh(settings.out), tmp_path / "names.json")
    phases, last = boundary_of_each_name(names, skip=5), len(names) - names[::-1].index("step: targets")
    for name, at in list(phases.items())[::stride]:
        status = run_with_signal(settings, fresh(settings.out), at)
        training = names.index("step: getitem") < at <= last
        assert status == 128 + signal.SIGTERM if training else status in (0, -signal.SIGTERM), name
        if training:
            started = names[:at].count("step: getitem")
            saved = int(list_checkpoints(settings.out / "checkpoints")[0].name.removeprefix("step-"))
            assert saved in (started, started + 1), name  # the current step is saved, or, if it was over, the next
        assert run_in_fork(lambda: ran(settings)) == 0 and same_outcome(load_outcome(settings.out), whole), name


def test_a_second_signal_ends_the_run_at_once_and_nothing_is_lost(undisturbed, tmp_path):
    settings, whole = undisturbed
    settings = dataclasses.replace(settings, out=tmp_path / "place" / "run")
    names = list_boundaries(lambda: ran(settings), fresh(settings.out), tmp_path / "names.json")
    for again in (1, 15):
        at = boundary_of_each_name(names, 5)["step: forward"]
        assert run_with_signal(settings, fresh(settings.out), at, again=again) == -signal.SIGTERM
        assert run_in_fork(lambda: ran(settings)) == 0 and same_outcome(load_outcome(settings.out), whole)


def test_no_worker_outlives_a_killed_run(undisturbed, tmp_path, monkeypatch):
    mark = f"KILLED_{os.getpid()}_{tmp_path.name}"
    monkeypatch.setenv(mark, "1")
    settings = dataclasses.replace(
        undisturbed[0], workers=2, steps=10_000, save_every=10_000, log_every=5, out=tmp_path / "run"
    )
    process = subprocess.Popen([sys.executable, "-c", RUN, settings_argument(settings)])
    until = time.monotonic() + 90
    while not (settings.out / "metrics.jsonl").exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    assert len(processes_with_variable(mark)) > 2
    process.kill()
    process.wait()
    while processes_with_variable(mark):
        assert time.monotonic() < until, "workers are still running"
        time.sleep(0.2)


@pytest.mark.slow
def test_memory_files_and_threads_do_not_grow_over_two_thousand_steps(undisturbed, tmp_path, monkeypatch):
    samples = []
    report = Meters.report

    def report_and_sample(*arguments) -> None:
        report(*arguments)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        samples.append(
            (pages * os.sysconf("SC_PAGESIZE"), len(list(Path("/proc/self/fd").iterdir())), threading.active_count())
        )

    monkeypatch.setattr(Meters, "report", report_and_sample)
    pretrain(dataclasses.replace(undisturbed[0], steps=2000, save_every=100, log_every=20, out=tmp_path / "run"))
    memory, files, threads = (list(column) for column in zip(*samples[25:], strict=True))
    slope = np.polyfit(np.arange(len(memory)) * 20, memory, 1)[0]
    print(f"{slope:.0f} bytes a step, {max(files)} files, {max(threads)} threads")
    assert slope < 1024, f"{slope:.0f} bytes a step"
    assert max(files) <= files[0] + 2 and max(threads) <= threads[0] + 1  # a save may be pending
