"""Write the page of the comparison: a table of all methods, and one of the settings that were tried."""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict

from openjepa.core.fileio import write_text

METRICS = {  # column -> metric of the scores
    "linear": "linear",
    "logistic": "logistic",
    "kNN": "kNN",
    "1 % of labels": "1 % of labels",
    "10 % of labels": "10 % of labels",
}
HEAD = """# Comparison of the image methods

Every method has the same time on one core, an encoder of the same size, and the same probes. CIFAR-10, 32 pixels, a
grid of 8×8 patches; accuracy in % on the 10,000 test images, which chose nothing; mean of seeds 0 and 1, both in
brackets.

```bash
python -m studies.images.compare --data cifar10 --out runs/images     # resumes; about {hours:.0f} hours of one core
```

| method | encoder | steps | {columns} |
|---|---|---|{rule}
"""
NOTES = """
* Steps: as many as fit into {minutes:g} minutes of one core of the machine, timed alone. Device: {device}.
* Linear: the best of a sweep of linear heads; logistic: logistic regression; kNN: 20 neighbors, by cosine; 1 % and
  10 % of labels: logistic regression on 5 random subsets. All on the mean token of the frozen encoder.
* LeJEPA, VICReg and S-JEA compare views that are flipped, have other colors (0.5) and show 20 to 100 % of an image.
  With *crops alone* their views are the same crops that all other methods see: 30 to 100 % of an image, not flipped.
* I-JEPA is the recipe `cifar10-muon`, which also predicts pixels (weight 1); DMT-JEPA, IWM and CNN-JEPA do not.
* One run a seed: differences of less than about a point say nothing.

## Settings that were tried

{trial_minutes:g} minutes each, seed 0; logistic regression and kNN on a fifth of the training images. The best of each
method by logistic regression is the one above.

| method | settings | steps | logistic | kNN |
|---|---|---|---|---|
"""


def write_page(
    options: argparse.Namespace, tried: list[dict], measured: list[dict], baselines: dict[str, list[dict]], device: str
) -> None:
    """Write docs/comparison.md from the results of all runs."""
    rows: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for result in measured:
        for which, scores in result["scores"].items():
            rows[result["job"]["method"], which].append({"steps": result["steps"], "scores": scores})
    ordered = sorted(rows.items(), key=lambda row: -mean_of(row[1], "logistic"))
    lines = [
        f"| {method} | {which} | {runs[0]['steps']:,} | "
        + " | ".join(cell(runs, each) for each in METRICS.values())
        + " |"
        for (method, which), runs in ordered
    ]
    for name, scores in baselines.items():
        lines.append(
            f"| {name} | | | " + " | ".join(cell([{"scores": scores}], each) for each in METRICS.values()) + " |"
        )
    hours = (options.minutes * len(measured) + options.trial_minutes * len(tried)) / 60
    head = HEAD.format(hours=hours, columns=" | ".join(METRICS), rule="---|" * len(METRICS))
    notes = NOTES.format(minutes=options.minutes, trial_minutes=options.trial_minutes, device=device)
    attempts = [
        f"| {result['job']['method']} | {result['job']['trial']} | {result['steps']:,} | "
        + " | ".join(f"{value_of(result['scores'][''], metric):.1f}" for metric in ("logistic", "kNN"))
        + " |"
        for result in tried
    ]
    write_text(options.page, head + "\n".join(lines) + "\n" + notes + "\n".join(attempts) + "\n")


def cell(runs: list[dict], metric: str) -> str:
    """Return the mean of a metric over seeds, and each seed if there are several."""
    values = [value_of(run["scores"], metric) for run in runs]
    each = f" ({', '.join(f'{value:.1f}' for value in values)})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{each}"


def mean_of(runs: list[dict], metric: str) -> float:
    """Return the mean of a metric over seeds."""
    return statistics.mean(value_of(run["scores"], metric) for run in runs)


def value_of(scores: list[dict], metric: str) -> float:
    """Return the value of a metric."""
    return next(score["value"] for score in scores if score["metric"] == metric)
