"""Time the probes on synthetic features: 32 linear heads, nearest neighbors, logistic regression.

    python benchmarks/evaluate.py                   50,000 × 768 to train on, 10,000 to test on, ten classes
    python benchmarks/evaluate.py --scaling     the heads alone, with half and a quarter of the rows and of the heads
    python benchmarks/evaluate.py --device cuda --rows 1280000 --width 1280 --classes 1000

Prints seconds, and the peak memory of the process so far.
"""

import argparse
import dataclasses
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.evaluation.probes.knn import knn_predict
from openjepa.evaluation.probes.linear import LabeledFeatures, feature_batches, fit_heads, sweep_heads
from openjepa.evaluation.probes.linear_recipes import LinearRecipe
from openjepa.evaluation.probes.logistic import fit_logistic

RECIPE = LinearRecipe(lr_multipliers=tuple(10.0 / 2**n for n in range(8)), weight_decays=(0.0, 5e-4))


def heads(train: LabeledFeatures, classes: int, device: torch.device, share: float = 1.0, epochs: int = 30) -> None:
    """Train all 32 heads, or every second or fourth of them, for 30 epochs."""
    steps, recipe = -(-len(train.label) // RECIPE.batch_size), dataclasses.replace(RECIPE, epochs=epochs)
    batches = feature_batches(train, torch.arange(len(train.label)), recipe, 0)
    width = {"last": train.kinds["last"].shape[1]}
    chosen = sweep_heads(recipe, ("last",))[:: round(1 / share)]
    fit_heads(batches, steps, chosen, width, classes, recipe, device=device)


def scaling(train: LabeledFeatures, classes: int, device: torch.device) -> dict[str, float]:
    """Return the seconds of three epochs for parts of the rows and heads: the median of three turns."""
    measured: dict[str, list[float]] = {}
    for _ in range(3):
        for rows, share in [(1.0, 1.0), (0.5, 1.0), (0.25, 1.0), (1.0, 0.5), (1.0, 0.25)]:
            count = int(rows * len(train.label))
            part = LabeledFeatures({"last": train.kinds["last"][:count]}, train.label[:count])
            start = time.perf_counter()
            heads(part, classes, device, share, epochs=3)
            if device.type == "cuda":
                torch.cuda.synchronize()
            name = f"{count} rows, {round(32 * share)} heads"
            measured.setdefault(name, []).append(time.perf_counter() - start)
    found = {name: statistics.median(times) for name, times in measured.items()}
    for name, seconds in found.items():
        print(f"{name:32} {seconds:8.2f} s   {seconds / next(iter(found.values())):.2f} of the whole")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    generator, device = torch.Generator().manual_seed(0), torch.device(options.device)
    centers = torch.randn(options.classes, options.width, generator=generator)

    def labeled_features(count: int) -> LabeledFeatures:
        label = torch.randint(options.classes, (count,), generator=generator)
        return LabeledFeatures(
            {"last": centers[label] + 8 * torch.randn(count, options.width, generator=generator)}, label
        )

    train, test = labeled_features(options.rows), labeled_features(options.queries)
    x, y, q = (each.to(device) for each in (train.kinds["last"], train.label, test.kinds["last"]))
    tasks: dict[str, Callable[[], object]] = {
        f"{len(sweep_heads(RECIPE, ('last',)))} linear heads, {RECIPE.epochs} epochs": lambda: heads(
            train, options.classes, device
        ),
        "kNN": lambda: knn_predict(x, y, q, options.classes),
        "logistic, one strength": lambda: fit_logistic(x, y, options.classes, 1e-3),
    }
    print(
        f"{options.rows} × {options.width} to train on, {options.queries} to test on, {options.classes} classes, "
        f"{torch.get_num_threads()} threads"
    )
    found: dict = {}
    if options.scaling:
        found, tasks = scaling(train, options.classes, device), {}
    for name, task in tasks.items():
        start = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        found[name] = {"seconds": seconds, "gib": gib}
        print(f"{name:32} {seconds:8.1f} s   {gib:.2f} GiB")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
