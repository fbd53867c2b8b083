"""A run on recordings resumes bit-exact wherever it was killed; two processes equal one; damaged files are refused."""

import dataclasses
import signal

import numpy as np
import pytest
import torch

from benchmarks import fuzz_audio
from benchmarks.kills import attempt, fresh, ran, small
from openjepa.data.synthetic.sounds import write_sounds
from openjepa.masking.spectrogram import Spectrogram
from openjepa.modalities.audio import Audio
from openjepa.training.log import read_metrics
from tests.faults import list_boundaries, load_outcome, run_in_fork, same_outcome, sample_every
from tests.mutants import run_cases
from tests.ranks import start_ranks

STEP = 151  # boundaries between two kills


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Return settings of nine steps on random stretches of 32 recordings."""
    folder = tmp_path_factory.mktemp("recordings")
    write_sounds(folder / "sounds", 32, 4000, 3000, 0)
    data = Audio(
        (str(folder / "sounds"),), rate=4000, frames=64, bands=32, patch=4, gain=6.0, equalizer=6.0, speed=(0.8, 1.25)
    )
    return dataclasses.replace(small(folder), data=data, masks=Spectrogram(), batch_size=8, out=folder / "whole")


def test_a_run_killed_at_any_boundary_resumes_bit_exact(settings, tmp_path):
    ran(settings)  # in this process, so that its forks are warmed up
    whole = load_outcome(settings.out)
    again = dataclasses.replace(settings, async_save=False, out=tmp_path / "place" / "run")
    names = list_boundaries(lambda: ran(again), fresh(again.out), tmp_path / "names.json")
    for at in sample_every(len(names) - 9, STEP):
        assert attempt("kill", again, at) == -signal.SIGKILL
        assert run_in_fork(lambda: ran(again)) == 0, names[at - 1]
        assert same_outcome(load_outcome(again.out), whole), names[at - 1]


def test_two_ranks_equal_one(settings, tmp_path):
    one, two = (dataclasses.replace(settings, out=tmp_path / name, resume="no") for name in ("one", "two"))
    ran(one)
    assert [process.wait(240) for process in start_ranks(two)] == [0, 0]
    losses = [[row["loss"] for row in read_metrics(each.out / "metrics.jsonl")] for each in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-6, rtol=0)


def test_mutated_recordings_are_refused_or_decoded_and_the_doctor_agrees(tmp_path):
    torch.set_num_threads(1)
    outcomes = run_cases(150, fuzz_audio.Sounds(tmp_path, seed=2), tmp_path / "notes")
    assert outcomes.keys() <= fuzz_audio.Sounds.accepted and len(outcomes) > 2 and sum(outcomes.values()) == 150, (
        outcomes
    )
