"""A run on video files or on folders of frames resumes bit-exact wherever it was killed; two processes equal one."""

import dataclasses

import pytest
from PIL import Image as Pillow

from benchmarks.kills import small
from openjepa.data.synthetic.moving_scenes import render_clips
from openjepa.masking.causal import Causal
from openjepa.modalities.video import Video
from tests.clips import encode
from tests.conftest import slow
from tests.interrupted import compare_two_ranks, kill_everywhere

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
    kill_everywhere(settings, tmp_path, STEP)


@pytest.mark.parametrize("settings", [pytest.param("files", marks=slow), "folders of frames"], indirect=True)
def test_two_ranks_equal_one(settings, tmp_path):
    compare_two_ranks(settings, tmp_path)
