"""Render clips, train an encoder on them without labels, and probe it: direction, speed, collisions, reversed time."""

from __future__ import annotations

import dataclasses
import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from rich.progress import track
from torch import Tensor

from openjepa.cli.pretrain import pretrain
from openjepa.cli.settings import Demo
from openjepa.core.bootstrap import bootstrap_interval
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.types import Score
from openjepa.data.synthetic.moving_scenes import CHUNK, TASKS, MovingScenes, render_clips, write_clips
from openjepa.data.video_files import VideoArray
from openjepa.evaluation.controls import controlled_encoders
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.probes.attentive import EPOCHS, SWEEP, fit_classifiers, predict_classes
from openjepa.evaluation.probes.logistic import logistic_probe
from openjepa.evaluation.stored_tokens import StoredTokens, store_tokens
from openjepa.interop.pretrained import PretrainedEncoder, load_run, untrained_encoder
from openjepa.modalities.video import Video
from openjepa.recipes.video import tune_for_video
from openjepa.training.budget import limit_to_budget
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.viz.canvas import save_figure
from openjepa.viz.features import BASIS_IMAGES, features_figure
from openjepa.viz.inputs import read_images

FRAMES, SIDE, PATCH = 8, 32, 8  # frames of a clip; pixels of a frame's and a tubelet's side

HELD_OUT = 10_000_000  # number of the first test clip; training clips have lower numbers

FIGURE_CLIPS = 4

DEFAULTS: dict[str, Any] = {"samples": 12_000, "labeled": 4_000, "test": 1_000, "epochs": 40.0, "budget": "6m30s"}


def video(settings: Demo) -> list[Score]:
    """Return the accuracy per task of the trained encoder, with controls, of the untrained encoder and of baselines."""
    folder = settings.out / "clips"
    write_training_clips(folder, settings)
    if not (settings.out / "run" / "export" / "config.json").exists():
        config = dataclasses.replace(demo_config(settings, folder), resume="if-any", report=False)
        pretrain(limit_to_budget(config, settings.budget))
    trained = dataclasses.replace(load_run(settings.out / "run" / "export"), name="this encoder")
    labeled = render_clips(min(settings.labeled, settings.samples), FRAMES, SIDE, settings.seed)
    test = render_clips(settings.test, FRAMES, SIDE, settings.seed, HELD_OUT)
    scores = measure_encoders(trained, labeled, test, settings.seed)
    return scores + measure_baselines(trained, labeled, test, settings.seed)


def describe_split(settings: Demo) -> str:
    """Describe the clips that the probes were trained and tested on."""
    labeled = min(settings.labeled, settings.samples)
    return f"{labeled:,} clips with labels to train on, {settings.test:,} other clips to test"


def draw(settings: Demo) -> None:
    """Draw frames of clips and, below them, the first principal components of the tokens' features as colors."""
    trained = load_run(settings.out / "run" / "export")
    clips = read_images((str(settings.out / "clips"),), trained.data, BASIS_IMAGES, FIGURE_CLIPS)
    file = save_figure(features_figure(trained, clips), settings.out / "features.png")
    info(f"figure     {file}: frames of clips, and the features of their tubelets as colors")


def demo_config(settings: Demo, folder: Path) -> Pretrain:
    """Return the settings that are chosen for a folder of clips; here on a grid of 4×4×4 tubelets, without crops."""
    data = Video(root=(str(folder),), frames=FRAMES, stride=1, size=(SIDE, SIDE), patch=PATCH, crop_scale=(1.0, 1.0),
                 crop_aspect=(1.0, 1.0))  # fmt: skip
    config = tune_for_video(data)
    batch = min(config.batch_size, settings.samples)
    return dataclasses.replace(
        config, epochs=settings.epochs, batch_size=batch, seed=settings.seed, workers=1, out=settings.out / "run"
    )


def write_training_clips(folder: Path, settings: Demo) -> None:
    """Render the training clips and write them as arrays, like a user's, with a table of their labels.

    Raises UserError if the folder holds another number of clips.
    """
    if not folder.exists():
        unfinished = folder.with_name("clips-unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        progress = partial(track, description="rendering clips", console=console, disable=not console.is_terminal)
        write_clips(unfinished, settings.samples, FRAMES, SIDE, settings.seed, progress=progress)
        unfinished.rename(folder)
    stored = len(list(folder.glob("*.npy")))
    if stored != settings.samples:
        raise UserError(f"{folder} has {stored} clips of an earlier demo, not {settings.samples}: give another --out")


def measure_encoders(trained: PretrainedEncoder, labeled: MovingScenes, test: MovingScenes, seed: int) -> list[Score]:
    """Return accuracies of the encoder, of the same with single or shuffled frames, and of the encoder before training.

    A head that pools tokens by attention reads them, as in V-JEPA's evaluation; logistic regression reads their mean.
    """
    controlled = [each.encoder for each in controlled_encoders(trained) if each.trained]
    scores = []
    for encoder in [trained, *controlled, untrained_encoder(trained.config)]:
        info(f"probing    {encoder.name}")
        train, held_out = (encode_clips(encoder, part.clips) for part in (labeled, test))
        for task in TASKS:
            subject = Subject(task, encoder.name, labeled, test, seed)
            scores.append(subject.attentive(train, held_out))
            means = [tokens.tokens.float().mean(1) for tokens in (train, held_out)]
            scores.append(subject.logistic(means[0], means[1]))
    return scores


def measure_baselines(trained: PretrainedEncoder, labeled: MovingScenes, test: MovingScenes, seed: int) -> list[Score]:
    """Return accuracies of logistic regression on pixels and on frame differences."""
    scores = []
    for name, baseline in trained.data.baselines().items():
        features = [torch.cat([baseline(each) for each in part.clips.split(CHUNK)]) for part in (labeled, test)]
        scores += [Subject(task, name, labeled, test, seed).logistic(features[0], features[1]) for task in TASKS]
    return scores


def encode_clips(encoder: PretrainedEncoder, clips: UInt8[Tensor, "S F C H W"]) -> StoredTokens:
    """Compute the tokens of all clips."""
    data = VideoArray(encoder.data, clips, torch.zeros(len(clips), dtype=torch.long), "moving-scenes")
    stored = store_tokens(DatasetEncoder(encoder, data, choose_device("cpu")), torch.arange(len(clips)))
    if not isinstance(stored, StoredTokens):
        raise UserError(f"the tokens of {len(clips):,} clips need too much memory: give a smaller --labeled or --test")
    return stored


class Subject(NamedTuple):
    """Features of clips for one task; only the clips that have its label are used."""

    task: str
    name: str
    labeled: MovingScenes
    test: MovingScenes
    seed: int

    def rows(self) -> list[tuple[Int[Tensor, "R"], Int[Tensor, "R"]]]:
        """Return which clips have a label, to train and to test, and the labels."""
        labels = [getattr(part, self.task) for part in (self.labeled, self.test)]
        return [((label >= 0).nonzero()[:, 0], label[label >= 0]) for label in labels]

    def attentive(self, train: StoredTokens, held_out: StoredTokens) -> Score:
        """Train one attentive head, without a sweep, and return its accuracy."""
        (index, label), (test_index, truth) = self.rows()
        (head,) = fit_classifiers(train, index, label, TASKS[self.task], SWEEP[:1], EPOCHS, self.seed, augment=False)
        (predicted,) = predict_classes(held_out, test_index, [head])
        return self.score("attentive", predicted, truth)

    def logistic(self, train: Float[Tensor, "S D"], held_out: Float[Tensor, "Q D"]) -> Score:
        """Train a logistic regression, its strength chosen on a validation split, and return its accuracy."""
        (index, label), (test_index, truth) = self.rows()
        probe = logistic_probe(train[index], label, held_out[test_index], TASKS[self.task], self.seed)
        return self.score("logistic", probe.predicted, truth)

    def score(self, metric: str, predicted: Int[Tensor, "R"], truth: Int[Tensor, "R"]) -> Score:
        correct = (predicted == truth).float()
        low, high = bootstrap_interval(correct)
        value = 100 * correct.mean().item()
        return Score(f"moving-{self.task}", self.name, metric, value, 100 * low, 100 * high)
