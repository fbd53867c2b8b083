"""Time a training step, the loader and the mask samplers, one call per line of input; `benchmarks/pairs.py` compares
two checkouts.

echo "step muon bf16" | python benchmarks/speed.py     prints the seconds of one timing; without input, the names
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from PIL import Image as Pillow

from openjepa.core.registry import find
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout
from openjepa.data.synthetic.scenes import render
from openjepa.modalities.image import Image
from openjepa.recipes.registry import load_recipe
from openjepa.training.device import Device
from openjepa.training.optim import build_optimizer
from openjepa.training.setup import build_model
from openjepa.training.step import train_step

MEAN_STD = (0.5,) * 3, (0.25,) * 3


def training_step(recipe: str, bf16: bool) -> Callable[[], object]:
    """Return a function that takes one training step of a recipe on rendered scenes, on one thread."""
    settings = load_recipe(recipe)
    data = replace(settings.data, mean=MEAN_STD[0], std=MEAN_STD[1])
    settings = replace(settings, data=data, steps=100)
    device = Device(torch.device("cpu"), bf16)
    method, steps = build_model(settings, data.synthetic(2 * settings.batch_size, 0), device)
    optimizer, step = build_optimizer(method, settings.optim), steps[0]
    hyperparameters = settings.optim.at(0, 100)
    return lambda: train_step(method, optimizer, step.batch, hyperparameters, device)


def loading(folder: Path, side: int) -> Callable[[], object]:
    """Return a function that reads one batch of 64 random crops of PNG files."""
    for number, image in enumerate(render(64, (side, side), seed=1).image):
        Pillow.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{number:03d}.png")
    data = Image(root=(str(folder),), size=(96, 96), patch=8, mean=MEAN_STD[0], std=MEAN_STD[1])
    dataset, index = data.dataset(data.listing()), torch.arange(64)
    return lambda: dataset.read(index, CounterRNG.of(0, 0, np.arange(64)))


def masking(sampler: str) -> Callable[[], object]:
    """Return a function that draws the masks of 20 steps of 128 samples on a 14×14 grid."""
    masker, layout = find("masks", sampler)(), Layout.grid(14, 14)
    rngs = [CounterRNG.of(0, step, 128 * step + np.arange(128)) for step in range(20)]
    return lambda: [masker(layout, None, None, rng, 0.0) for rng in rngs]


def timings(folder: Path) -> dict[str, Callable[[], object]]:
    """Return what can be timed, by name."""
    names = {"multiblock": "multiblock", "official": "official", "random": "random"}
    return {
        "step cifar10 fp32": training_step("cifar10", False),
        "step muon bf16": training_step("cifar10-muon", True),
        "loader": loading(folder, 128),
        **{f"masks {name}": masking(sampler) for name, sampler in names.items()},
    }


def main() -> None:
    """Answer each name on standard input with the seconds that one timing takes."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        functions = timings(Path(folder))
        for function in functions.values():
            function()
        print(*functions, sep=",", flush=True)
        for line in sys.stdin:
            function, count = functions[line.strip()], 3
            start = time.perf_counter()
            for _ in range(count):
                function()
            print((time.perf_counter() - start) / count, flush=True)


if __name__ == "__main__":
    main()
