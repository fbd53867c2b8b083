"""Prediction of one modality that knows what another one perceives, and recipes on clips with sound."""

import dataclasses

import numpy as np
import pytest
import torch

from openjepa import load
from openjepa.cli.main import main
from openjepa.core.errors import UserError
from openjepa.core.types import Batch, Masks
from openjepa.data.wav_files import wav_content
from openjepa.methods.base import FrozenTeacher
from openjepa.methods.conditioned import Conditioned
from openjepa.methods.jepa import JEPA
from openjepa.modalities.audio import Audio
from openjepa.modalities.image import Image
from openjepa.modalities.pair import Pair
from openjepa.recipes.registry import make_recipe
from openjepa.training.config import Pretrain, load_config
from openjepa.training.stages import Stages
from tests.conftest import SMALL, SMALL_PREDICTOR

PICTURE = Image(size=(16, 16), patch=8, channels=1, mean=(0.5,), std=(0.25,))
SOUND = Audio(rate=4000, frames=32, bands=16, patch=8, mean=(-40.0,), std=(20.0,))
PAIR = Pair(first=PICTURE, second=SOUND)
METHOD = Conditioned(SMALL, predictor=SMALL_PREDICTOR)


def pairs_of(classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise whose lower half is dark or light, and a low or high tone that tells which."""
    pictures = torch.randint(90, 160, (len(classes), 1, 16, 16), dtype=torch.uint8)
    pictures[:, :, 8:] = (20 + 200 * classes).byte()[:, None, None, None]
    length = SOUND.synthetic(1, 0).read(torch.arange(1), None).views[0].shape[-1]
    time = torch.arange(length) / SOUND.rate
    tones = torch.sin(2 * torch.pi * (200 + 900 * classes[:, None]) * time)
    return pictures, tones[:, None]


def test_a_prediction_uses_the_other_modality_and_the_metric_says_so():
    """Only the sound tells what is hidden: with the sound of another sample the loss is far higher."""
    torch.manual_seed(0)
    net = METHOD.build(PAIR, 0)
    net.teachers["teacher"] = FrozenTeacher(JEPA(SMALL, SMALL_PREDICTOR).build(SOUND, 1).encoder(), SOUND, "")
    before = {name: value.clone() for name, value in net.teachers["teacher"].encoder.state_dict().items()}
    classes = torch.arange(16) % 2  # the next sample is always of the other class
    views = pairs_of(classes)
    lower_half = Masks(torch.tensor([[0, 1]]).expand(16, 2), torch.tensor([[[2, 3]]]).expand(16, 1, 2))
    batch = Batch(views, torch.arange(16), (lower_half,))
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=3e-3)
    targets = net.targets(batch)
    for _ in range(100):
        optimizer.zero_grad()
        output = net(batch, targets)
        output.loss.backward()
        optimizer.step()
    assert output.loss < 0.3 * output.metrics["other_condition_loss"]
    assert all(torch.equal(value, before[name]) for name, value in net.teachers["teacher"].encoder.state_dict().items())


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="--modality pair"):
        Pretrain(PICTURE, METHOD)
    with pytest.raises(UserError, match="--method.teacher-dim"):
        Pretrain(PAIR, dataclasses.replace(METHOD, teacher_dim=-1))
    net = dataclasses.replace(METHOD, teacher_dim=8).build(PAIR, 0)
    net.teachers["teacher"] = FrozenTeacher(JEPA(SMALL, SMALL_PREDICTOR).build(SOUND, 1).encoder(), SOUND, "")
    with pytest.raises(UserError, match=f"type --method.teacher-dim {SMALL.dim}"):
        net.targets(Batch(pairs_of(torch.arange(4) % 2), torch.arange(4)))


@pytest.mark.parametrize("name", ["jep-kd", "future-with-sound"])
def test_a_recipe_of_clips_and_sound_covers_the_same_seconds_of_both(name):
    stages = make_recipe(name)
    assert isinstance(stages, Stages)
    data = stages.runs[-1].data
    seconds = data.first.frames * data.first.stride / 25
    assert abs(data.second.frames * data.second.hop - seconds) < 0.1
    assert isinstance(stages.runs[0].data, Audio) and stages.runs[-1].method.teacher == "stage-1"


@pytest.mark.parametrize("name", ["jep-kd", "future-with-sound"])
def test_recipes_train_on_clips_of_speakers(name, jepa_data, tmp_path):
    """Every stage of both, on GRID's clips: the mouth is a fixed part of the frame, the sound comes from the clip."""
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'openjepa[video]'")
    clips = jepa_data("lip") / "clips"
    quick = ["--steps", "2", "--batch-size", "4", "--threads", "1", "--workers", "0", "--device", "cpu", "--no-report"]
    assert main(["pretrain", name, "--data.root", str(clips), "--out", str(tmp_path / "run"), *quick]) == 0
    last = sorted((tmp_path / "run").glob("stage-*"))[-1]
    clip = str(next(clips.glob("*.mpg")))
    encoder = load(last)
    assert encoder.features([clip]).shape == (1, 128)


def test_files_that_a_later_stage_lacks_are_missed_before_the_first_one_trains(tmp_path, capsys):
    (tmp_path / "sounds").mkdir()
    for number in range(8):
        (tmp_path / "sounds" / f"{number}.wav").write_bytes(wav_content(np.zeros(8000), 8000))
    command = ["pretrain", "jep-kd", "--data.root", str(tmp_path / "sounds"), "--out", str(tmp_path / "run")]
    assert main([*command, "--steps", "1", "--batch-size", "2"]) == 1
    assert "no videos in" in capsys.readouterr().err and not (tmp_path / "run" / "stage-1").exists()
    (tmp_path / "run" / "stage-1").mkdir(parents=True)
    with pytest.raises(UserError, match="it has stages: try .*stage-1"):
        load_config(tmp_path / "run")
