"""A run on video files or on folders of frames resumes bit-exact wherever it was killed; two processes equal one."""

import dataclasses
import signal

import numpy as np
import pytest
from PIL import Image as Pillow

from benchmarks.kills import attempt, fresh, ran, small
from openjepa.data.synthetic.moving_scenes import render_clips
from openjepa.masking.causal import Causal
from openjepa.modalities.video import Video
from openjepa.training.log import read_metrics
from tests.clips import encode
from tests.conftest import slow
from tests.faults import list_boundaries, load_outcome, run_in_fork, same_outcome, sample_every
from tests.ranks import start_ranks

KINDS = ("files", pytest.param("folders of frames", marks=slow))

STEP = 151  # boundaries between two kills


@pytest.fixture(scope="module", params=KINDS)
def settings(request, tmp_path_factory):
    """Return settings of nine steps on random windows and crops of 32 clips."""
    folder = tmp_path_factory.mktemp("clips")
    root, base = folder / "clips", small(folder)
    root.mkdir()
    if request.param == "files":
        pytest.importorskip("av", reason="video files need PyAV: pip install 'openjepa[video]'")
        for number in range(32):
            (root / f"{number:02d}.mp4").write_bytes(encode(count=16 + number % 5))
    else:
        for number, clip in enumerate(render_clips(32, 12, 32, seed=7).clips):
            (root / f"{number:02d}").mkdir()
            for time, frame in enumerate(clip.permute(0, 2, 3, 1).numpy()):
                Pillow.fromarray(frame).save(root / f"{number:02d}" / f"{time:03d}.png")
    data = Video(root=(str(root),), frames=4, stride=2, size=(32, 32), patch=8)
    return dataclasses.replace(base, data=data, masks=Causal(), batch_size=8, out=folder / "whole")


def test_a_run_killed_at_any_boundary_resumes_bit_exact(settings, tmp_path):
    ran(settings)  # in this process, so that its forks are warmed up
    whole = load_outcome(settings.out)
    again = dataclasses.replace(settings, async_save=False, out=tmp_path / "place" / "run")
    names = list_boundaries(lambda: ran(again), fresh(again.out), tmp_path / "names.json")
    for at in sample_every(len(names) - 9, STEP):
        assert attempt("kill", again, at) == -signal.SIGKILL
        assert run_in_fork(lambda: ran(again)) == 0, names[at - 1]
        assert same_outcome(load_outcome(again.out), whole), names[at - 1]


@pytest.mark.parametrize("settings", [pytest.param("files", marks=slow), "folders of frames"], indirect=True)
def test_two_ranks_equal_one(settings, tmp_path):
    one, two = (dataclasses.replace(settings, out=tmp_path / name, resume="no") for name in ("one", "two"))
    ran(one)
    assert [process.wait(240) for process in start_ranks(two)] == [0, 0]
    losses = [[row["loss"] for row in read_metrics(each.out / "metrics.jsonl")] for each in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-6, rtol=0)
