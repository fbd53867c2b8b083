"""Train every image method for equal time on one core, and measure all with the same probes.

    python -m studies.images.compare --data cifar10 --out runs/images

CIFAR-10 in folders train/ and test/. Each method tries three settings for a shorter time at seed 0. The best on a fifth
of the training images is trained for the whole time with two seeds and measured on the test images, which choose
nothing. The same settings are then trained on rendered scenes, without trials. The step of each run is timed once,
alone, and turned into a number of steps. Finished parts are kept: call it again to go on.
Writes docs/results/comparison.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from openjepa.core.fileio import write_text
from openjepa.core.types import Score
from openjepa.interop.pretrained import load_run
from openjepa.training.perf.allocator import retain_freed_memory
from studies.images.jobs import CROPS, TESTS, Job, label_scores, run, scene_scores, start_all
from studies.images.methods import MASKS, VIEWS, mask_runs, trials
from studies.images.page import write_page

TRIAL_MINUTES, MINUTES, SCENE_MINUTES = 2.0, 10.0, 5.0  # of one core
SEEDS = (0, 1)
TWO_SEEDS_ON_SCENES = ("I-JEPA", "DMT-JEPA")  # features of patches are what DMT-JEPA claims to improve


def choose_settings(results: list[dict]) -> dict[str, str]:
    """Return for each method the settings with the highest accuracy on held-out training images."""
    best: dict[str, dict] = {}
    for result in results:
        method = result["job"]["method"]
        if method not in best or accuracy(result) > accuracy(best[method]):
            best[method] = result
    for method, result in best.items():
        print(f"{method}: {result['job']['trial']} ({accuracy(result):.1f} %)", flush=True)
    return {method: result["job"]["trial"] for method, result in best.items()}


def accuracy(result: dict) -> float:
    """Return the accuracy by which settings are chosen: of logistic regression on held-out training images."""
    return next(score["value"] for score in result["scores"][""] if score["metric"] == "logistic")


def measure_baselines(job: Job, options: argparse.Namespace) -> dict[str, list[dict]]:
    """Return the scores of the encoder before training and of raw inputs, on the data of a run; measured once."""
    file = options.out / job.folder / "baselines.json"
    if not file.exists():
        untrained = load_run(file.parent).untrained
        assert untrained is not None
        measured: list[Score] = (
            scene_scores([untrained()], pixels=True)
            if job.data == "scenes"
            else label_scores([untrained()], TESTS, pixels=True, root=(str(options.data),))
        )
        scores: dict[str, list[dict]] = {}
        for score in measured:
            scores.setdefault(score.features, []).append(score._asdict())
        write_text(file, json.dumps(scores, indent=1))
    return json.loads(file.read_text(encoding="utf-8"))


def describe_device() -> str:
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and test/, class folders in each")
    parser.add_argument("--out", type=Path, default=Path("runs/images"))
    parser.add_argument("--page", type=Path, default=Path("docs/results/comparison.md"))
    parser.add_argument("--methods", nargs="+", default=list(trials()))
    parser.add_argument("--trials-only", action="store_true", help="choose settings, and stop")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of one core, of a measured run")
    parser.add_argument("--scene-minutes", type=float, default=SCENE_MINUTES, help="of one core, of a run on scenes")
    parser.add_argument("--trial-minutes", type=float, default=TRIAL_MINUTES, help="of one core, to choose settings")
    parser.add_argument("--together", type=int, default=1, help="runs at the same time")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.minutes == options.trial_minutes:
        parser.error("--minutes must differ from --trial-minutes: folders of runs are named by their minutes")
    retain_freed_memory()  # as `jepa` does
    torch.set_num_threads(1)
    if options.one:
        *job, steps = json.loads(options.one)
        return run(Job(*job), steps, options)
    options.out.mkdir(parents=True, exist_ok=True)
    tried = [Job(each, trial, 0, options.trial_minutes) for each in options.methods for trial in trials()[each]]
    results = start_all(tried, options)
    rows = choose_settings(results)
    if options.trials_only:
        return
    images = [Job(*row, seed, options.minutes) for row in rows.items() for seed in SEEDS]
    images += [Job(method + CROPS, rows[method], 0, options.minutes) for method in VIEWS if method in rows]
    images += [Job(MASKS, trial, 0, options.minutes) for trial in mask_runs() if "I-JEPA" in rows]
    scenes = [Job(*row, 0, options.scene_minutes, "scenes") for row in rows.items()]
    scenes += [job._replace(seed=1) for job in scenes if job.method in TWO_SEEDS_ON_SCENES]
    measured = start_all([*images, *scenes], options)
    baselines = {job.data: measure_baselines(job, options) for job in (images[0], scenes[0])}
    write_page(options, results, measured, baselines, describe_device())


if __name__ == "__main__":
    main()
