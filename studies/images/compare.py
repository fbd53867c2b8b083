"""Train every image method for equal time on one core, and measure all with the same probes.

    python -m studies.images.compare --data cifar10 --out runs/images

CIFAR-10 in folders train/ and test/. Each method tries three settings for a shorter time at seed 0. The best on a fifth
of the training images is trained for the whole time with two seeds and measured on the test images, which choose
nothing. The step of each run is timed once, alone, and turned into a number of steps. Finished parts are kept: call it
again to go on. Writes docs/comparison.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from openjepa.core.fileio import write_text
from openjepa.evaluation.measure import measure_encoders
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.interop.pretrained import load_run
from openjepa.training.budget import time_step
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.run import pretrain
from openjepa.training.setup import prepare_data
from studies.images.methods import VIEWS, trials, without_augmentation
from studies.images.page import write_page

TRIAL_MINUTES, MINUTES = 4.0, 10.0  # of one core
SEEDS = (0, 1)
CROPS = ", crops alone"  # after the name of a method that is trained without augmentations
TESTS = ProbeSettings(probes=("linear", "logistic", "knn", "lowshot"), shots=(0.01, 0.1))
CHOICE = ProbeSettings(probes=("logistic", "knn"))  # on held-out training images


class Job(NamedTuple):
    """A run of a method: its settings by name, its seed, and how long it takes on one core."""

    method: str
    trial: str
    seed: int
    minutes: float

    @property
    def folder(self) -> str:
        """Return a name for the folder of the run."""
        words = f"{self.minutes:g}min {self.method} {self.trial} seed {self.seed}".lower()
        return "-".join("".join(each if each.isalnum() else " " for each in words).split())

    def settings(self, options: argparse.Namespace) -> Pretrain:
        """Return the settings of the run, without its number of steps."""
        settings = trials()[self.method.removesuffix(CROPS)][self.trial]
        settings = without_augmentation(settings) if self.method.endswith(CROPS) else settings
        return dataclasses.replace(
            settings,
            data=dataclasses.replace(settings.data, root=(str(options.data / "train"),)),
            out=options.out / self.folder,
            seed=self.seed,
            threads=1,
            workers=0,
            resume="if-any",
        )


def steps_of(job: Job, options: argparse.Namespace) -> int:
    """Return how many steps fit into the minutes of a run; each kind of step is timed once."""
    file = options.out / "seconds_per_step.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    name = f"{job.method}: {job.trial}"
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
    is_trial = job.minutes == options.trial_minutes
    root, probes = (options.data / "train", CHOICE) if is_trial else (options.data, TESTS)
    probes = dataclasses.replace(probes, data=LabeledData(root=(str(root),)))
    scores = {}
    for which in ("",) if is_trial else evaluated_encoders(settings):
        measurement = measure_encoders([load_run(settings.out, which)], probes, pixels=False)
        assert measurement is not None
        scores[which] = [result.score._asdict() for result in measurement.results]
    result = {"job": job._asdict(), "steps": steps, "scores": scores}
    write_text(settings.out / "result.json", json.dumps(result, indent=1))


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


def measure_baselines(options: argparse.Namespace) -> dict[str, list[dict]]:
    """Return the scores of the encoder before training and of raw pixels on the test images; measured once."""
    file = options.out / "baselines.json"
    if not file.exists():
        trained = load_run(options.out / Job("I-JEPA", "cifar10-muon", 0, options.trial_minutes).folder)
        assert trained.untrained is not None
        probes = dataclasses.replace(TESTS, data=LabeledData(root=(str(options.data),)))
        measurement = measure_encoders([trained.untrained()], probes, pixels=True)
        assert measurement is not None
        scores: dict[str, list[dict]] = {}
        for result in measurement.results:
            scores.setdefault(result.score.features, []).append(result.score._asdict())
        write_text(file, json.dumps(scores, indent=1))
    return json.loads(file.read_text(encoding="utf-8"))


def describe_device() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def accuracy(result: dict) -> float:
    """Return the accuracy by which settings are chosen: of logistic regression on held-out training images."""
    return next(score["value"] for score in result["scores"][""] if score["metric"] == "logistic")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/, class folders in each")
    parser.add_argument("--out", type=Path, default=Path("runs/images"))
    parser.add_argument("--page", type=Path, default=Path("docs/comparison.md"))
    parser.add_argument("--methods", nargs="+", default=list(trials()))
    parser.add_argument("--trials-only", action="store_true", help="choose settings, and stop")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of one core, of a measured run")
    parser.add_argument("--trial-minutes", type=float, default=TRIAL_MINUTES, help="of one core, to choose settings")
    parser.add_argument("--together", type=int, default=1, help="runs at the same time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one:
        *job, steps = json.loads(options.one)
        return run(Job(*job), steps, options)
    options.out.mkdir(parents=True, exist_ok=True)
    tried = [Job(each, trial, 0, options.trial_minutes) for each in options.methods for trial in trials()[each]]
    results = start_all(tried, options)
    best: dict[str, dict] = {}
    for result in results:
        method = result["job"]["method"]
        if method not in best or accuracy(result) > accuracy(best[method]):
            best[method] = result
    for method, result in best.items():
        print(f"{method}: {result['job']['trial']} ({accuracy(result):.1f} %)", flush=True)
    if options.trials_only:
        return
    rows = [(method, each["job"]["trial"]) for method, each in best.items()]
    rows += [(method + CROPS, trial) for method, trial in rows if method in VIEWS]
    final = [Job(method, trial, seed, options.minutes) for method, trial in rows for seed in SEEDS]
    write_page(options, results, start_all(final, options), measure_baselines(options), describe_device())


if __name__ == "__main__":
    main()
