"""Choose the settings of a run from its files and this machine."""

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
from openjepa.recipes.image_small import for_folders, small_objective, small_schedule
from openjepa.training.config import Pretrain
from openjepa.training.device import has_native_bf16
from openjepa.training.perf.flops import count_flops

SAMPLED_IMAGES = 64  # images looked at

IMAGES_SEEN = {"cpu": 500_000, "gpu": 20_000_000}  # images a run shows where no time is given, all epochs together

FEW_IMAGES = 1_000  # images that anything was measured with

MAX_EPOCHS = 800  # epochs, where no time is given

TARGET_STEPS = 20_000  # steps that a long run has, and up to twice as many: more time goes into larger batches

# to choose a batch by: floating-point operations a second on a core, with bf16 or without
CORE_FLOPS = {True: 1.25e11, False: 6e10}


class AutoConfig(NamedTuple):
    """A config, and why it is what it is, a line each."""

    config: Pretrain
    reasons: tuple[str, ...]


def choose_config(root: tuple[str, ...], budget: str = "", device: str = "auto", threads: int = 0) -> AutoConfig:
    """A config for a folder, on this machine, in this time, with so many threads (0: all cores). Mistake in a sentence if the folder holds too little.

    On a CPU by the study of small data (docs/small-data.md); on a GPU, on which nothing was studied, by the paper.
    """
    paths = list_files(root, IMAGE_SUFFIXES).paths
    if len(paths) < 8:
        raise UserError(
            f"too few images to learn from: {len(paths)} in {' '.join(root)}; give --data.root a folder of hundreds or more"
        )
    side, channels = sample_images(paths)
    gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    size, patch = choose_geometry(side, gpu)
    data = Image(root=root, size=(size, size), patch=patch, channels=channels)
    seen = f"{len(paths):,} images of some {side} pixels: crops of {size}, patches of {patch}, a grid of {size // patch}×{size // patch}"
    config, reasons = (
        gpu_config(data, len(paths)) if gpu else cpu_config(data, len(paths), parse_duration(budget), threads)
    )
    few = (f"{len(paths)} images are few: nothing was measured with fewer than a thousand",) * (len(paths) < FEW_IMAGES)
    return AutoConfig(config, (seen, *reasons, *few))


def start_from_run(found: AutoConfig, begun: Pretrain, where: Path) -> AutoConfig:
    """The same with the networks and pictures of weights that a run is to start from, and their masks but for the released
    ones, which want larger grids than most folders get. What is then typed changes it."""
    if not isinstance(begun.data, Image):
        return found
    data = dataclasses.replace(begun.data, root=found.config.data.root)
    masks = found.config.masks if begun.masks.sampler == "official" else begun.masks
    config = dataclasses.replace(found.config, data=data, method=begun.method, masks=masks)
    return AutoConfig(
        config, (f"networks and pictures as in {where}: {data.size[0]}×{data.size[1]} px", *found.reasons[2:])
    )


def cpu_config(data: Image, count: int, time: float, threads: int = 0) -> AutoConfig:
    """What folders are given, in larger batches where there is time for many steps. `time` in seconds, 0 if none was given."""
    small = JEPA(dim=192, depth=6, num_heads=3, predictor_dim=96)
    config = for_folders(Pretrain(data, small), small)
    cost = count_flops(config.method, data, config.masks.build(data.grid).shapes()).total
    rate = CORE_FLOPS[has_native_bf16(torch.device("cpu"))] * (threads or available_cores())
    images = round(time * rate / cost) if time else min(IMAGES_SEEN["cpu"], MAX_EPOCHS * count)
    epochs = max(1, round(images / count))
    images = images if time else epochs * count
    batch = min(power_of_two(count / 4), max(config.batch_size, min(256, power_of_two(images / TARGET_STEPS))))
    span = 1 / (1 - config.optim.final_ema_momentum)
    return AutoConfig(
        dataclasses.replace(config, batch_size=batch, epochs=float(epochs)),
        (
            f"a CPU: ViT 192×6, {config.masks.mask_ratio:.0%} of each image hidden at random: pixels asked for, and features at every third place",
            f"Muon at {config.optim.lr:g}: at three times that, targets of four kinds of pictures still stayed wide",
            f"the target encoder an average over the last {config.optim.ema_rampup:.0%} of the steps so far, {span:.0f} at most: a few hundred steps are enough",
            f"in this time some {images:,} images, so {batch} a step; how many steps it holds is timed"
            if time
            else f"without --budget about {images:,} images, so {batch} a step: {epochs * (count // batch):,} steps",
        ),
    )


def power_of_two(size: float) -> int:
    """The power of two below, 2 at least."""
    return 2 ** int(np.log2(max(2.0, size)))


def gpu_config(data: Image, count: int) -> AutoConfig:
    method = small_objective(JEPA(**VIT_SIZES["small"], predictor_dim=192, predictor_depth=6))
    batch = min(256 if data.size[0] > 96 else 128, power_of_two(count / 4))
    epochs = float(max(1, min(MAX_EPOCHS, round(IMAGES_SEEN["gpu"] / count))))
    config = Pretrain(data, method, optim=small_schedule(), epochs=epochs, batch_size=batch)
    return AutoConfig(config, ("a GPU: ViT-S and the paper's blocks, with the targets of the small recipes",))


def sample_images(paths: list[str]) -> tuple[int, int]:
    """The typical shorter side, and one channel if all pictures looked at are grey, else three."""
    sides, grey, depth = [], [], 3
    for place in np.linspace(0, len(paths) - 1, min(SAMPLED_IMAGES, len(paths))).astype(int):
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
            f"none of the {min(SAMPLED_IMAGES, len(paths))} files looked at is an image, the first is {paths[0]}: is this the right folder?"
        )
    return int(np.median(sides)), 1 if all(grey) else depth


def choose_geometry(side: int, gpu: bool) -> tuple[int, int]:
    """Size of a crop and of a patch: grids of 8×8 to 14×14."""
    if side < 48:
        return 32, 4
    if side < 80:
        return 64, 8
    return (224, 16) if gpu and side >= 160 else (96, 8)
