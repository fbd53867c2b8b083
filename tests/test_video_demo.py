"""Rendered motion from the command line: the demo, and probes on the same clips."""

import csv
from dataclasses import replace

import pytest
import torch

from openjepa.cli.demos import video
from openjepa.cli.settings import Demo
from openjepa.core.errors import UserError
from openjepa.data.synthetic.moving_scenes import TASKS
from openjepa.evaluation.labeled import split_labeled
from openjepa.evaluation.probes import logistic
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.tasks import moving
from openjepa.modalities.image import Image
from openjepa.modalities.video import Video

ENCODERS = ["this encoder", "this encoder, single frame", "this encoder, shuffled frames", "before training"]

BASELINES = ["raw pixels", "middle frame", "frame differences"]


@pytest.fixture
def few_clips(monkeypatch):
    monkeypatch.setattr(moving, "CLIPS", (24, 12))


def test_the_demo_names_every_task_and_every_control(tmp_path, monkeypatch):
    """With short probes, and without timing a step for the budget."""
    monkeypatch.setattr(video, "EPOCHS", 1)
    monkeypatch.setattr(logistic, "STRENGTHS", (1.0,))
    monkeypatch.setattr(video, "limit_to_budget", lambda config, budget: config)
    settings = Demo("video", tmp_path, samples=40, labeled=32, test=16, epochs=1.0, budget="1m")
    scores = {(each.task, each.features, each.metric) for each in video.video(settings)}
    measured = [(name, metric) for name in ENCODERS for metric in ("attentive", "logistic")]
    measured += [(name, "logistic") for name in BASELINES]
    assert scores == {(f"moving-{task}", *each) for task in TASKS for each in measured}
    with (tmp_path / "clips" / "labels.csv").open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 40
    video.draw(settings)
    assert (tmp_path / "features.png").stat().st_size > 10_000
    with pytest.raises(UserError, match="has 40 clips of an earlier demo, not 50: give another --out"):
        video.write_training_clips(tmp_path / "clips", replace(settings, samples=50))


@pytest.mark.parametrize("task", TASKS)
def test_training_and_test_clips_differ_and_all_have_the_label(few_clips, task):
    data = Video(frames=4, stride=1, size=(16, 16), patch=8)
    split = split_labeled(data, LabeledData(labels=f"moving-{task}"), 0)
    assert len(split.train.classes) == TASKS[task] and split.train.fingerprint != split.test.fingerprint
    train, test = (part.read(torch.arange(len(part)), None) for part in (split.train, split.test))
    assert train.views[0].shape[1:] == (4, 3, 16, 16) and min(train.label) >= 0
    assert not any(torch.equal(a, b) for a in train.views[0] for b in test.views[0])


def test_clips_are_gray_for_an_encoder_of_gray_clips(few_clips):
    data = Video(frames=4, stride=1, size=(16, 16), patch=8, channels=1)
    split = split_labeled(data, LabeledData(labels="moving-speed"), 0)
    assert split.train.read(torch.arange(2), None).views[0].shape == (2, 4, 1, 16, 16)


def test_rendered_motion_needs_an_encoder_of_video():
    with pytest.raises(UserError, match="moving-direction needs an encoder of video, got image"):
        split_labeled(Image(size=(16, 16), patch=8), LabeledData(labels="moving-direction"), 0)
