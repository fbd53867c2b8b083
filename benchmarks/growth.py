"""Plot how cost grows: a step with tokens, batch and width; loading with workers; startup with files.

    python benchmarks/growth.py --out growth.png                    (--photos FOLDER: loading, too)

Prints each point (median of three) and the exponent of the last doubling: 1 is linear. --threads 0 is torch's default.
"""

import argparse
import dataclasses
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.core.cpus import available_cores
from openjepa.data.image_io import IMAGE_SUFFIXES
from openjepa.data.listing import list_files
from openjepa.data.loader import Steps, load_steps
from openjepa.modalities.image import Image
from openjepa.recipes.registry import load_recipe
from openjepa.training.config import Pretrain
from openjepa.training.device import choose_device
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.perf.bench import prepare_bench_data, time_steps

BASE = dataclasses.replace(load_recipe("cifar10-minutes"), batch_size=32, workers=0)
STEPS, ROUNDS = 8, 3


def step(run: Pretrain) -> float:
    """Return the median seconds per step on rendered scenes."""
    device = choose_device()
    data, run = prepare_bench_data(run, device)
    return time_steps(run, data, device, STEPS)["step"]


def tokens(count: int) -> float:
    side = 8 * math.isqrt(count)
    return step(dataclasses.replace(BASE, data=Image(size=(side, side), patch=8)))


def batch(size: int) -> float:
    return step(dataclasses.replace(BASE, batch_size=size))


def width(dim: int) -> float:
    method = dataclasses.replace(
        BASE.method,
        encoder=dataclasses.replace(BASE.method.encoder, dim=dim, num_heads=dim // 64),
        predictor=dataclasses.replace(BASE.method.predictor, dim=dim // 2),
    )
    return step(dataclasses.replace(BASE, method=method))


def loading(workers: int, folder: str) -> float:
    """Return photographs per second to crops of 224 px for a number of workers; long enough to average out bursts."""
    config = Image(root=(folder,), size=(224, 224), patch=16)
    data, ahead, counted = config.dataset(config.listing()), 4 * workers, 8 * workers
    steps = Steps(data, BASE.masks, config.layout, batch_size=32, total_steps=2 * ahead + counted, seed=0)
    made = load_steps(steps, 0, workers, pin=False)
    for _ in range(ahead):  # the prefetched batches
        next(made)
    began = time.perf_counter()
    for _ in range(counted):
        next(made)
    return counted * 32 / (time.perf_counter() - began)


def starting(files: int) -> float:
    """Return the seconds to list and fingerprint a number of files."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            below = Path(folder) / f"{number // 1000:04d}"
            below.mkdir(exist_ok=True)
            os.close(os.open(below / f"{number % 1000:04d}.jpg", os.O_CREAT))
        began = time.perf_counter()
        list_files((folder,), IMAGE_SUFFIXES)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("growth.png"))
    parser.add_argument("--photos")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    retain_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    studies: dict[str, tuple[Callable[[int], float], list[int], str]] = {
        "tokens": (tokens, [16, 64, 144, 256, 400, 784], "s a step"),
        "batch": (batch, [8, 16, 32, 64, 128, 256], "s a step"),
        "width": (width, [64, 128, 192, 256, 384, 512], "s a step"),
        "files": (starting, [1_000, 10_000, 100_000], "s to list"),
    }
    if options.photos:
        studies["workers"] = (
            lambda count: loading(count, options.photos),
            [count for count in (1, 2, 4, 8, 16) if count <= available_cores()],
            "photographs/s",
        )

    found = {}
    for name, (measure, points, unit) in studies.items():
        rounds = [[measure(point) for point in points] for _ in range(ROUNDS)]  # in turn: a machine's speed drifts
        found[name] = {
            point: statistics.median(each) for point, each in zip(points, zip(*rounds, strict=True), strict=True)
        }
        values = "  ".join(f"{point:,}: {value:.3g}" for point, value in found[name].items())
        print(f"{name:8} {values} {unit}; exponent {power(found[name]):.2f}", flush=True)
    options.out.with_suffix(".json").write_text(json.dumps(found, indent=1))
    draw(found, {name: unit for name, (_, _, unit) in studies.items()}, options.out)


def power(curve: dict[int, float]) -> float:
    """Return the exponent between the last two points: 1 is linear."""
    if len(curve) < 2:
        return math.nan
    (x, y), (last_x, last_y) = list(curve.items())[-2:]
    return math.log(last_y / y) / math.log(last_x / x)


def draw(found: dict[str, dict[int, float]], units: dict[str, str], out: Path) -> None:
    """Draw a panel per curve, with a dotted line of exponent 1 through its first point."""
    figure = Figure(figsize=(3.2 * len(found), 3.2), layout="constrained")
    for number, (name, curve) in enumerate(found.items()):
        points, first = list(curve), next(iter(curve))
        axes = figure.add_subplot(1, len(found), number + 1)
        axes.plot(points, list(curve.values()), marker="o")
        axes.plot(points, [curve[first] * point / first for point in points], linestyle=":", color="gray")
        axes.set(xscale="log", yscale="log", xlabel=name, ylabel=units[name], title=f"last exponent {power(curve):.2f}")
        axes.set_xticks(points, [f"{point:,}" for point in points], fontsize=8)
        axes.set_yticks(list(curve.values()), [f"{value:.3g}" for value in curve.values()], fontsize=8)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
