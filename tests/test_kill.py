"""Killed at any boundary, also with the power lost, a run goes on to the same end; `benchmarks/kills.py` takes them all."""

import dataclasses
import os
import signal

import pytest

from benchmarks.kills import WAYS, attempt, fresh, ran, small
from openjepa import durable
from tests.faults import Disk, boundaries, every, forked, outcome, same

STEP = 67  # boundaries from one kill to the next


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    settings = dataclasses.replace(small(folder), out=folder / "whole")
    assert forked(lambda: ran(settings)) == 0
    return settings, outcome(settings.out)


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_any_boundary_it_ends_as_if_nothing_had_been(way, undisturbed, tmp_path):
    (kind, beside), (settings, whole) = WAYS[way], undisturbed
    there = dataclasses.replace(settings, save_beside=beside, out=tmp_path / "place" / "run")
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
    monkeypatch.setattr(durable, "flush", lambda path: None)
    there = dataclasses.replace(undisturbed[0], save_beside=False, out=tmp_path / "place" / "run")
    names = boundaries(lambda: ran(there), fresh(there.out), tmp_path / "names.json")
    last = len(names) - names[::-1].index("step: targets")
    assert attempt("power", there, last) == -signal.SIGKILL
    assert not (there.out / "checkpoints").exists()
