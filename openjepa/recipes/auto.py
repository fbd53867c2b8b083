"""What to do with a folder when nobody said: sizes from a look at the images, effort from the machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from openjepa.core.config import parse_duration
from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.data.image_io import IMAGE_SUFFIXES, Undecodable, load_npy, open_image
from openjepa.data.listing import list_files
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.vit import VIT_SIZES
from openjepa.recipes.small import folders, objective, schedule
from openjepa.training.config import Pretrain
from openjepa.training.device import has_native_bf16
from openjepa.training.perf.flops import count_flops

LOOKS = 64  # images looked at

SEEN = {"cpu": 500_000, "gpu": 20_000_000}  # images a run shows where no time is given, all epochs together

FEWEST = 1_000  # images that anything was measured with

MOST = 800  # epochs, where no time is given

FEW = 20_000  # steps that a long run has, and up to twice as many: more time goes into larger batches

# to choose a batch by: floating-point operations a second on a core, with bf16 or without
RATE = {True: 1.25e11, False: 6e10}


class Chosen(NamedTuple):
    """A config, and why it is what it is, a line each."""

    config: Pretrain
    reasons: tuple[str, ...]


def chosen(root: tuple[str, ...], budget: str = "", device: str = "auto", threads: int = 0) -> Chosen:
    """A config for a folder, on this machine, in this time, with so many threads (0: all cores). Mistake in a sentence if the folder holds too little.

    On a CPU by the study of small data (docs/small-data.md); on a GPU, on which nothing was studied, by the paper.
    """
    paths = list_files(root, IMAGE_SUFFIXES).paths
    if len(paths) < 8:
        raise UserError(
            f"too few images to learn from: {len(paths)} in {' '.join(root)}; give --data.root a folder of hundreds or more"
        )
    side, channels = look(paths)
    gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    size, patch = geometry(side, gpu)
    data = Image(root=root, size=(size, size), patch=patch, channels=channels)
    seen = f"{len(paths):,} images of some {side} pixels: crops of {size}, patches of {patch}, a grid of {size // patch}×{size // patch}"
    config, reasons = on_gpu(data, len(paths)) if gpu else on_cpu(data, len(paths), parse_duration(budget), threads)
    few = (f"{len(paths)} images are few: nothing was measured with fewer than a thousand",) * (len(paths) < FEWEST)
    return Chosen(config, (seen, *reasons, *few))


def starting_from(found: Chosen, begun: Pretrain, where: Path) -> Chosen:
    """The same with the networks and pictures of weights that a run is to start from, and their masks but for the released
    ones, which want larger grids than most folders get. What is then typed changes it."""
    if not isinstance(begun.data, Image):
        return found
    data = dataclasses.replace(begun.data, root=found.config.data.root)
    masks = found.config.masks if begun.masks.sampler == "official" else begun.masks
    config = dataclasses.replace(found.config, data=data, method=begun.method, masks=masks)
    return Chosen(
        config, (f"networks and pictures as in {where}: {data.size[0]}×{data.size[1]} px", *found.reasons[2:])
    )


def on_cpu(data: Image, count: int, time: float, threads: int = 0) -> Chosen:
    """What folders are given, in larger batches where there is time for many steps. `time` in seconds, 0 if none was given."""
    small = JEPA(dim=192, depth=6, num_heads=3, predictor_dim=96)
    config = folders(Pretrain(data, small), small)
    cost = count_flops(config.method, data, config.masks.build(data.grid).shapes()).total
    rate = RATE[has_native_bf16(torch.device("cpu"))] * (threads or available_cores())
    images = round(time * rate / cost) if time else min(SEEN["cpu"], MOST * count)
    epochs = max(1, round(images / count))
    images = images if time else epochs * count
    batch = min(even(count / 4), max(config.batch_size, min(256, even(images / FEW))))
    span = 1 / (1 - config.optim.final_momentum)
    return Chosen(
        dataclasses.replace(config, batch_size=batch, epochs=float(epochs)),
        (
            f"a CPU: ViT 192×6, {config.masks.hidden:.0%} of each image hidden at random: pixels asked for, and features at every third place",
            f"Muon at {config.optim.lr:g}: at three times that, targets of four kinds of pictures still stayed wide",
            f"the target encoder an average over the last {config.optim.recent:.0%} of the steps so far, {span:.0f} at most: a few hundred steps are enough",
            f"in this time some {images:,} images, so {batch} a step; how many steps it holds is timed"
            if time
            else f"without --budget about {images:,} images, so {batch} a step: {epochs * (count // batch):,} steps",
        ),
    )


def even(size: float) -> int:
    """The power of two below, 2 at least."""
    return 2 ** int(np.log2(max(2.0, size)))


def on_gpu(data: Image, count: int) -> Chosen:
    method = objective(JEPA(**VIT_SIZES["small"], predictor_dim=192, predictor_depth=6))
    batch = min(256 if data.size[0] > 96 else 128, even(count / 4))
    epochs = float(max(1, min(MOST, round(SEEN["gpu"] / count))))
    config = Pretrain(data, method, optim=schedule(), epochs=epochs, batch_size=batch)
    return Chosen(config, ("a GPU: ViT-S and the paper's blocks, with the targets of the small recipes",))


def look(paths: list[str]) -> tuple[int, int]:
    """The typical shorter side, and one channel if all pictures looked at are grey, else three."""
    sides, grey, depth = [], [], 3
    for place in np.linspace(0, len(paths) - 1, min(LOOKS, len(paths))).astype(int):
        path = paths[place]
        try:
            if Path(path).suffix.lower() == ".npy":
                shape = load_npy(path).shape
                if len(shape) != 3:
                    raise UserError(
                        f"{path} is an array of shape {shape}: .npy files hold bytes of (height, width, channels)"
                    )
                sides.append(min(shape[:2]))
                grey.append(False)
                depth = shape[2]
                continue
            with open_image(path) as picture:
                sides.append(min(picture.size))
                grey.append(picture.mode in ("1", "L", "I", "I;16", "F"))
        except Undecodable:
            continue
    if not sides:
        raise UserError(
            f"none of the {min(LOOKS, len(paths))} files looked at is an image, the first is {paths[0]}: is this the right folder?"
        )
    return int(np.median(sides)), 1 if all(grey) else depth


def geometry(side: int, gpu: bool) -> tuple[int, int]:
    """Size of a crop and of a patch: grids of 8×8 to 14×14."""
    if side < 48:
        return 32, 4
    if side < 80:
        return 64, 8
    return (224, 16) if gpu and side >= 160 else (96, 8)
