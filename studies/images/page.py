"""Write the page of the comparison: CIFAR-10, scenes, and the settings that were tried."""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict

from openjepa.core.fileio import write_text
from studies.images.methods import MASKS

PROBES = ("linear", "logistic", "kNN", "1 % of labels", "10 % of labels")
SCENES = {  # column -> task and metric
    "count": ("scenes-count", "logistic"),
    "distance": ("scenes-distance", "logistic"),
    "kind": ("scenes-kind", "logistic"),
    "shape, mIoU": ("scenes-patches", "shape linear"),
    "depth, R²": ("scenes-patches", "depth linear"),
    "box center, R²": ("scenes-patches", "center linear"),
}
HEAD = """# Comparison of the image methods

Every method has the same time on one core ({minutes:g} minutes; on scenes {scene_minutes:g}), an encoder of the same
size (2.6 to 2.7 million weights), and the same probes. Device: {device}.

```bash
python -m studies.images.compare --data cifar10 --out runs/images     # resumes; {hours:.0f} hours of one core
```

## CIFAR-10

32 pixels, a grid of 8×8 patches. Accuracy in % on the 10,000 test images, which chose nothing: the mean of seeds 0 and
1, both in brackets. *Crops alone*: seed 0.

"""
NOTES = """
* Steps: as many as fit into the time, by one timing of each method alone.
* Linear: the best of a sweep of linear heads; logistic: logistic regression; kNN: 20 neighbors, by cosine; 1 % and
  10 % of labels: logistic regression on 5 random subsets. All on the mean token of the frozen encoder.
* LeJEPA, VICReg and S-JEA compare views that are flipped, have other colors (0.5) and show 20 to 100 % of an image.
  With *crops alone* their views are the same crops that all other methods see: 30 to 100 % of an image, not flipped.
* I-JEPA's recipes `cifar10-muon` and `cifar10-hours` also predict pixels; DMT-JEPA, IWM and CNN-JEPA do not.
* S-JEA is measured at both of its levels, level 2 together with level 1.
* Differences of less than about a point between two methods say nothing.

## Masks

I-JEPA without pixels, with the features of the last four layers as targets, and other masks: {minutes:g} minutes,
seed 0.

"""
ON_SCENES = """
## Scenes

8,000 rendered scenes of 3 to 10 objects, 48 pixels, a grid of 6×6 patches. The settings chosen for CIFAR-10, no trials,
seed 0 (I-JEPA and DMT-JEPA: the mean of seeds 0 and 1, both in brackets). Count, nearest distance and kind of the
objects: accuracy in % on 2,000 other scenes, from the mean token. Shape, depth and the box center of the object that a
patch shows (relative to the patch): from single patch tokens, on 500 other scenes. In square brackets: 95 % intervals
over scenes.

"""
TRIALS = """
## Settings that were tried

On CIFAR-10, {trial_minutes:g} minutes each, seed 0; logistic regression and kNN on a fifth of the training images. The
best of each method by logistic regression is the one above.

"""


def write_page(
    options: argparse.Namespace,
    tried: list[dict],
    measured: list[dict],
    baselines: dict[str, dict[str, list[dict]]],
    device: str,
) -> None:
    """Write docs/results/comparison.md from the results of all runs."""
    hours = sum(result["job"]["minutes"] for result in [*measured, *tried]) / 60
    cifar10 = {probe: ("", probe) for probe in PROBES}
    attempts = table(("method", "settings", "steps", "logistic", "kNN"))
    for result in tried:
        values = [f"{value_of(result['scores'][''], '', metric)['value']:.1f}" for metric in ("logistic", "kNN")]
        attempts += row(result["job"]["method"], result["job"]["trial"], f"{result['steps']:,}", *values)
    parts = [
        HEAD.format(minutes=options.minutes, scene_minutes=options.scene_minutes, device=device, hours=hours),
        results_table(part_of(measured, "cifar10"), baselines["cifar10"], cifar10),
        NOTES.format(minutes=options.minutes),
        results_table(part_of(measured, "cifar10", masks=True), {}, cifar10),
        ON_SCENES,
        results_table(part_of(measured, "scenes"), baselines["scenes"], SCENES),
        TRIALS.format(trial_minutes=options.trial_minutes),
        attempts,
    ]
    write_text(options.page, "".join(parts))


def part_of(measured: list[dict], data: str, masks: bool = False) -> list[dict]:
    """Return the results on some data: of the methods, or of I-JEPA with other masks."""
    jobs = [(each, each["job"]) for each in measured]
    return [each for each, job in jobs if job["data"] == data and (job["method"] == MASKS) == masks]


def results_table(measured: list[dict], baselines: dict[str, list[dict]], columns: dict[str, tuple[str, str]]) -> str:
    """Return a table of all encoders, the best by the column `logistic` or else the first one at the top."""
    rows: dict[tuple[str, str], list[list[dict]]] = defaultdict(list)
    steps = {}
    for result in measured:
        for which, scores in result["scores"].items():
            if scores:
                name = result["job"]["trial" if result["job"]["method"] == MASKS else "method"]
                rows[name, which].append(scores)
                steps[name] = f"{result['steps']:,}"
    leading = columns.get("logistic", next(iter(columns.values())))
    lines = table(("method", "steps", *columns))
    for (method, which), runs in sorted(rows.items(), key=lambda each: -mean_of(each[1], *leading)):
        level = f", {which}" if which.startswith("level") else ""
        lines += row(method + level, steps[method], *(cell(runs, *column) for column in columns.values()))
    for name, scores in baselines.items():
        lines += row(name, "", *(cell([scores], *column) for column in columns.values()))
    return lines


def table(columns: tuple[str, ...]) -> str:
    """Return the head of a table."""
    return row(*columns) + "|" + "---|" * len(columns) + "\n"


def row(*cells: str) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(cells) + " |\n"


def cell(runs: list[list[dict]], task: str, metric: str) -> str:
    """Return the mean of a metric over seeds, each seed if there are several, and the interval of a single one."""
    scores = [value_of(scores, task, metric) for scores in runs]
    digits = 1 if scores[0]["unit"] == "%" else 3
    values = [score["value"] for score in scores]
    text = f"{statistics.mean(values):.{digits}f}"
    if len(scores) > 1:
        text += f" ({', '.join(f'{value:.{digits}f}' for value in values)})"
    if task and scores[0]["low"] is not None:
        low, high = (statistics.mean(score[end] for score in scores) for end in ("low", "high"))
        text += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return text


def mean_of(runs: list[list[dict]], task: str, metric: str) -> float:
    """Return the mean of a metric over seeds."""
    return statistics.mean(value_of(scores, task, metric)["value"] for scores in runs)


def value_of(scores: list[dict], task: str, metric: str) -> dict:
    """Return the score of a metric; of a task, if there are several."""
    return next(score for score in scores if score["metric"] == metric and task in ("", score["task"]))
