"""How fast the probes are, on made-up features: 32 linear heads, nearest neighbours, logistic regression.

    python benchmarks/evaluate.py                   50,000 × 768 to train on, 10,000 to test on, ten classes
    python benchmarks/evaluate.py --device cuda --rows 1280000 --width 1280 --classes 1000

Prints seconds, and the most memory the process has held so far.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.evaluate import linear, logistic, neighbours

RECIPE = linear.Recipe(lr_multipliers=tuple(10.0 / 2**n for n in range(8)), weight_decays=(0.0, 5e-4))


def heads(train: linear.Labelled, classes: int, device: torch.device) -> None:
    """All 32 heads, 30 epochs."""
    steps = -(-len(train.label) // RECIPE.batch_size)
    batches = linear.rows(train, torch.arange(len(train.label)), RECIPE, 0)
    width = {"last": train.kinds["last"].shape[1]}
    linear.fit(batches, steps, linear.sweep(RECIPE, ("last",)), width, classes, RECIPE, device=device)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    generator, device = torch.Generator().manual_seed(0), torch.device(options.device)
    centres = torch.randn(options.classes, options.width, generator=generator)

    def made(count: int) -> linear.Labelled:
        label = torch.randint(options.classes, (count,), generator=generator)
        return linear.Labelled(
            {"last": centres[label] + 8 * torch.randn(count, options.width, generator=generator)}, label
        )

    train, test = made(options.rows), made(options.queries)
    x, y, q = (each.to(device) for each in (train.kinds["last"], train.label, test.kinds["last"]))
    tasks: dict[str, Callable[[], object]] = {
        f"{len(linear.sweep(RECIPE, ('last',)))} linear heads, {RECIPE.epochs} epochs": lambda: heads(
            train, options.classes, device
        ),
        "kNN": lambda: neighbours.predict(x, y, q, options.classes),
        "logistic, one strength": lambda: logistic.fit(x, y, options.classes, 1e-3),
    }
    print(
        f"{options.rows} × {options.width} to train on, {options.queries} to test on, {options.classes} classes, {torch.get_num_threads()} threads"
    )
    found = {}
    for name, task in tasks.items():
        began = time.perf_counter()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        found[name] = {"seconds": seconds, "gib": gib}
        print(f"{name:32} {seconds:8.1f} s   {gib:.2f} GiB")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
