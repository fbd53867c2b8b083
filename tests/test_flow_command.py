"""The command that estimates optical flow between two frames, and its measure."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import openjepa
from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.core.fileio import read_json
from openjepa.data.flow_files import Flow, read_flow, write_flow
from openjepa.evaluation.flow import end_point_error
from openjepa.masking.random import Random
from openjepa.training.config import Pretrain
from openjepa.training.run import pretrain
from tests.conftest import METHODS, MODALITIES, replace
from tests.test_mc_jepa import DATA, METHOD


@pytest.fixture
def frames(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("first.png", "second.png"):
        Pillow.fromarray(generator.integers(0, 256, (20, 28, 3), np.uint8)).save(tmp_path / name)
    uv = np.zeros((2, 20, 28), np.float32)
    uv[0] = 3.0
    write_flow(tmp_path / "true.flo", Flow(uv, np.ones((20, 28), bool)))
    return tmp_path


def test_the_end_point_error_of_the_truth_is_0_and_counts_known_pixels_alone():
    uv, valid = np.zeros((2, 4, 5), np.float32), np.ones((4, 5), bool)
    uv[:, 0, 0], valid[0, 0] = 100.0, False
    assert end_point_error(uv, Flow(uv, valid)) == 0
    other = np.zeros_like(uv)
    other[0], other[1] = 3.0, 4.0
    assert end_point_error(other, Flow(uv, valid)) == pytest.approx(5.0)
    with pytest.raises(UserError, match="unknown at every pixel"):
        end_point_error(uv, Flow(uv, np.zeros((4, 5), bool)))
    with pytest.raises(UserError, match="same frames"):
        end_point_error(uv[:, 1:], Flow(uv, valid))


def test_flow_is_written_as_a_file_and_in_colors(photos, frames, capsys):
    pretrain(Pretrain(replace(DATA, root=(str(photos),)), METHOD, Random(), steps=1, batch_size=8, out=frames / "run"))
    command = ["flow", str(frames / "run"), str(frames / "first.png"), str(frames / "second.png")]
    assert main([*command, "--truth", str(frames / "true.flo"), "--out", str(frames / "out.flo")]) == 0
    assert "no motion: 3.000" in capsys.readouterr().out
    assert read_flow(frames / "out.flo").uv.shape == (2, 20, 28)
    assert (frames / "out-colors.png").stat().st_size > 1000
    Pillow.open(frames / "first.png").crop((0, 0, 20, 20)).save(frames / "first.png")
    assert main(command) == 1
    assert "different sizes" in capsys.readouterr().err
    assert main([*command[:2], str(frames / "true.flo"), str(frames / "second.png")]) == 1
    assert "true.flo" in capsys.readouterr().err
    assert main([*command[:2], str(frames / "none.png"), str(frames / "second.png")]) == 1
    assert "none.png is not a file" in capsys.readouterr().err


def test_the_settings_of_the_command_have_its_name_in_python():
    settings = openjepa.Flow(run="runs/motion", first=Path("a.png"), second=Path("b.png"))
    assert settings.truth is None and callable(openjepa.flow)


def test_a_run_of_another_method_estimates_no_flow(photos, frames, capsys):
    data = replace(MODALITIES["image"], root=(str(photos),))
    pretrain(Pretrain(data, METHODS["mae"], Random(), steps=1, batch_size=8, out=frames / "run"))
    assert main(["flow", str(frames / "run"), str(frames / "first.png"), str(frames / "second.png")]) == 1
    assert "give a run of --method mc-jepa" in capsys.readouterr().err
    assert read_json(frames / "run" / "config.json")
