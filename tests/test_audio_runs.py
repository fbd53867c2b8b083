"""A run on recordings resumes bit-exact wherever it was killed; two processes equal one; damaged files are refused."""

import dataclasses

import pytest
import torch

from benchmarks import fuzz_audio
from benchmarks.kills import small
from openjepa.data.loader import Steps
from openjepa.data.synthetic.sounds import write_sounds
from openjepa.masking.spectrogram import Spectrogram
from openjepa.modalities.audio import Audio
from openjepa.training.optim import build_optimizer
from openjepa.training.step import train_step
from tests.conftest import CPU
from tests.interrupted import compare_two_ranks, kill_everywhere
from tests.mutants import run_cases

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
    kill_everywhere(settings, tmp_path, STEP)


def test_two_ranks_equal_one(settings, tmp_path):
    compare_two_ranks(settings, tmp_path)


def test_mutated_recordings_are_refused_or_decoded_and_the_doctor_agrees(tmp_path):
    torch.set_num_threads(1)
    outcomes = run_cases(150, fuzz_audio.Sounds(tmp_path, seed=2), tmp_path / "notes")
    assert outcomes.keys() <= fuzz_audio.Sounds.accepted and len(outcomes) > 2 and sum(outcomes.values()) == 150, (
        outcomes
    )


def test_a_step_computes_spectrograms_once_and_learns_the_same(settings, monkeypatch):
    """Targets and predictions start from the same spectrograms; without that, loss and weights are the same bits."""
    data, calls = dataclasses.replace(settings.data, mean=(-40.0,), std=(20.0,)), []
    monkeypatch.setattr(
        Audio, "decibels", lambda self, view, compute=Audio.decibels: calls.append(1) or compute(self, view)
    )
    batch = Steps(data.synthetic(16, 0), settings.masks, data.layout, batch_size=8, total_steps=1, seed=0)[0].batch
    losses, weights = [], []
    for prepares in (True, False):
        if not prepares:
            monkeypatch.setattr("openjepa.training.step.Prepares", type(None))
        method = settings.method.build(data, 0)
        optim = settings.optim
        calls.clear()
        result = train_step(method, build_optimizer(method, optim), batch, optim.at(0, 1), CPU)
        assert (len(calls) == 1) is prepares
        losses.append(result.output.loss)
        weights.append(torch.cat([each.flatten() for each in method.state_dict().values()]))
    assert torch.equal(*losses) and torch.equal(*weights)
