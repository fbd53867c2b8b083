"""Runs of the comparison: what each trains on and for how long, and how it is measured, in a process of its own."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image as Pillow

from openjepa.core.fileio import write_text
from openjepa.core.types import Score
from openjepa.data.synthetic.scenes import TASKS, render
from openjepa.evaluation.dense import dense_scores, raw_patches
from openjepa.evaluation.measure import measure_encoders
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.interop.pretrained import PretrainedEncoder, load_run
from openjepa.methods.cnn_jepa import CNNJEPA
from openjepa.training.budget import time_step
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.run import pretrain
from openjepa.training.setup import prepare_data
from studies.images.methods import settings_of, without_augmentation

CROPS = ", crops alone"  # after the name of a method that is trained without augmentations
CHOICE = ProbeSettings(probes=("logistic", "knn"))  # on held-out training images
TESTS = ProbeSettings(probes=("linear", "logistic", "knn", "lowshot"), shots=(0.01, 0.1))
SCENES, SIDE, PATCH = 8_000, 48, 8  # rendered scenes to train on, and their size


class Job(NamedTuple):
    """A run of a method: its settings by name, its seed, how long it takes on one core, and what it trains on."""

    method: str
    trial: str
    seed: int
    minutes: float
    data: str = "cifar10"  # or "scenes"

    @property
    def folder(self) -> str:
        """Return a name for the folder of the run."""
        data = "" if self.data == "cifar10" else f"{self.data} "
        words = f"{self.minutes:g}min {data}{self.method} {self.trial} seed {self.seed}".lower()
        return "-".join("".join(each if each.isalnum() else " " for each in words).split())

    def settings(self, options: argparse.Namespace) -> Pretrain:
        """Return the settings of the run, without its number of steps."""
        settings = settings_of(self.method.removesuffix(CROPS), self.trial)
        settings = without_augmentation(settings) if self.method.endswith(CROPS) else settings
        root: dict[str, Any] = {"root": (str(options.data / "train"),)}
        if self.data == "scenes":
            settings = for_scenes(settings)
            root = {"root": (str(write_scenes(options.out / "scenes")),)}
        return dataclasses.replace(
            settings,
            data=dataclasses.replace(settings.data, **root),
            out=options.out / self.folder,
            seed=self.seed,
            threads=1,
            workers=0,
            resume="if-any",
        )


def for_scenes(settings: Pretrain) -> Pretrain:
    """Return the same run for scenes, whose patches are larger; convolutions halve the resolution once more."""
    method = settings.method
    if isinstance(method, CNNJEPA):
        encoder = dataclasses.replace(method.encoder, depths=(0, *method.encoder.depths))
        method = dataclasses.replace(method, encoder=encoder)
    data = dataclasses.replace(settings.data, size=(SIDE, SIDE), patch=PATCH)
    return dataclasses.replace(settings, data=data, method=method)


def write_scenes(folder: Path, chunk: int = 500) -> Path:
    """Render the training scenes as PNG files."""
    complete = folder.with_suffix(".complete")
    if not complete.exists():  # else a kill left a part of them
        folder.mkdir(parents=True, exist_ok=True)
        for first in range(0, SCENES, chunk):
            for number, image in enumerate(render(chunk, (SIDE, SIDE), 0, first).image, first):
                Pillow.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:06d}.png")
        complete.touch()
    return folder


def steps_of(job: Job, options: argparse.Namespace) -> int:
    """Return how many steps fit into the minutes of a run; each kind of step is timed once."""
    file = options.out / "seconds_per_step.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    name = f"{job.method}: {job.trial}" + ("" if job.data == "cifar10" else f" ({job.data})")
    if name not in known:
        settings, device = job.settings(options), choose_device("cpu")
        data, settings = prepare_data(settings, device, settings.data.listing(), options.out / "data")
        known[name] = time_step(settings, data, device, count=16).step_seconds
        write_text(file, json.dumps(known, indent=1))
    return round(60 * job.minutes / known[name])


def run(job: Job, steps: int, options: argparse.Namespace) -> None:
    """Train one run and measure it: on held-out training images or, after the whole time, on the test images."""
    settings = dataclasses.replace(job.settings(options), steps=steps)
    if not (settings.out / "export" / "config.json").exists():
        pretrain(settings)
    is_trial = job.data == "cifar10" and job.minutes == options.trial_minutes
    scores = {}
    for which in ("",) if is_trial else evaluated_encoders(settings):
        encoder = load_run(settings.out, which)
        if is_trial:
            measured = label_scores([encoder], CHOICE, root=(str(options.data / "train"),))
        elif job.data == "scenes":
            measured = scene_scores([encoder]) if which != "level2" else []  # its tokens are not patches
        else:
            measured = label_scores([encoder], TESTS, root=(str(options.data),))
        scores[which] = [score._asdict() for score in measured]
    result = {"job": job._asdict(), "steps": steps, "scores": scores}
    write_text(settings.out / "result.json", json.dumps(result, indent=1))


def label_scores(
    encoders: list[PretrainedEncoder], probes: ProbeSettings, pixels: bool = False, **labeled: Any
) -> list[Score]:
    """Return the scores of all probes on labeled data."""
    measurement = measure_encoders(encoders, dataclasses.replace(probes, data=LabeledData(**labeled)), pixels=pixels)
    assert measurement is not None
    return [result.score for result in measurement.results]


def scene_scores(encoders: list[PretrainedEncoder], pixels: bool = False) -> list[Score]:
    """Return the scores on the three tasks of the scenes, and those of their patches."""
    scores = []
    for task in TASKS:
        scores += label_scores(encoders, ProbeSettings(probes=("logistic",)), pixels, labels=f"scenes-{task}")
    for encoder in [*encoders, *([raw_patches(encoders[0].data)] if pixels else [])]:
        scores += dense_scores(encoder, choose_device("cpu"))
    return scores


def evaluated_encoders(settings: Pretrain) -> list[str]:
    """Return the names of the encoders to measure: without the context encoder, if its EMA is there."""
    names = list(settings.method.build(load_run(settings.out).data).encoders())
    return [name for name in names if name != "context"] or names


def start(job: Job, options: argparse.Namespace) -> dict:
    """Return the result of a run, which is trained and measured in a process of its own unless it is finished."""
    folder = options.out / job.folder
    result = folder / "result.json"
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        steps = steps_of(job, options)
        command = [sys.executable, "-m", "studies.images.compare", "--data", options.data, "--out", options.out]
        command += ["--trial-minutes", options.trial_minutes, "--one", json.dumps([*job, steps])]
        with (folder / "log.txt").open("a", encoding="utf-8") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run([str(word) for word in command], stdout=log, stderr=log, env=environment, check=True)
        print(f"finished {job.folder}", flush=True)
    return json.loads(result.read_text(encoding="utf-8"))


def start_all(jobs: list[Job], options: argparse.Namespace) -> list[dict]:
    """Return the results of several runs; `--together` runs train at the same time."""
    for job in jobs:  # timed alone, before the first of them trains
        if not (options.out / job.folder / "result.json").exists():
            steps_of(job, options)
    with ThreadPoolExecutor(options.together) as pool:
        return list(pool.map(lambda job: start(job, options), jobs))
