"""Choose the settings of a run for its files and this machine."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from openjepa.core import registry
from openjepa.core.capabilities import Suggests
from openjepa.core.config import parse_duration
from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.data.image_io import Undecodable, read_image_file
from openjepa.data.image_values import form_of
from openjepa.masking.official import Official
from openjepa.masking.tube import Tube
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.modalities.video import Video
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import VIT_SIZES, ViTConfig
from openjepa.recipes.image_small import small_jepa, small_objective, small_schedule, tune_for_folders
from openjepa.training.config import Pretrain
from openjepa.training.device import has_native_bf16

SAMPLED_IMAGES = 64  # images whose size and channels are inspected

IMAGES_SEEN = {"cpu": 500_000, "gpu": 20_000_000}  # without --budget: images over all epochs of a run

FEW_IMAGES = 1_000  # the smallest data set that these settings were tested on

MAX_EPOCHS = 800  # without --budget

TARGET_STEPS = 20_000  # a long run has this many steps, up to twice as many: more time goes into larger batches

# with bf16: FLOP/s of one core, a rough value that only the batch size depends on
CORE_FLOPS = {True: 1.25e11, False: 6e10}


class AutoConfig(NamedTuple):
    """A chosen config, and the reasons to print, one line each."""

    config: Pretrain
    reasons: tuple[str, ...]


def choose_config(
    root: tuple[str, ...], budget: str = "", device: str = "auto", threads: int = 0, modality: str = "image"
) -> AutoConfig:
    """Choose the settings for a folder, a time budget, and so many CPU threads (0: all cores).

    On a CPU they follow the study of small data (docs/results/small-data.md); on a GPU, where nothing was studied, the
    paper.
    Raises UserError if the folder has fewer than 8 images.
    """
    if modality != "image":
        return choose_for_modality(modality, root)
    paths = Image(root=root).listing().paths
    if len(paths) < 8:
        raise UserError(
            f"too few images to learn from: {len(paths)} in {' '.join(root)}; "
            "give --data.root a folder with hundreds of images or more"
        )
    side, channels = inspect_images(paths)
    gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    size, patch = choose_geometry(side, gpu)
    data = Image(root=root, size=(size, size), patch=patch, channels=channels)
    cells = size // patch
    geometry = (
        f"{len(paths):,} images of about {side} pixels: crops of {size} pixels, patches of {patch}, "
        f"a grid of {cells}×{cells}"
    )
    config, reasons = (
        gpu_config(data, len(paths)) if gpu else cpu_config(data, len(paths), parse_duration(budget), threads)
    )
    if len(paths) < FEW_IMAGES:
        reasons += (f"{len(paths)} images are few: these settings were tested with {FEW_IMAGES:,} images or more",)
    return AutoConfig(config, (geometry, *reasons))


def choose_for_modality(name: str, root: tuple[str, ...]) -> AutoConfig:
    """Choose what the modality suggests for the files, and what `choose_settings` in recipes/NAME.py adds to that."""
    data = registry.find("modality", name)(root=root)
    data, reasons = data.suggest() if isinstance(data, Suggests) else (data, ())
    module = f"openjepa.recipes.{name.replace('-', '_')}"
    choose = getattr(import_module(module), "choose_settings", None) if find_spec(module) else None
    config, more = choose(data) if choose else (Pretrain(data), ())
    return AutoConfig(config, (*reasons, *more))


def start_from_run(chosen: AutoConfig, run: Pretrain, folder: Path) -> AutoConfig:
    """Take the networks, size and masks from the run whose weights a new run starts from (--init-from).

    Official masks are the exception: they require larger grids than most folders get. Flags still change everything.
    """
    if not isinstance(run.data, Image | Video) or type(run.data) is not type(chosen.config.data):
        return chosen
    data = dataclasses.replace(run.data, root=chosen.config.data.root)
    method, masks = first_two_masks(run.method, run.masks)
    masks = chosen.config.masks if isinstance(masks, Official) else masks
    config = dataclasses.replace(chosen.config, data=data, method=method, masks=masks)
    if isinstance(data, Video):
        return AutoConfig(config, (f"networks, clips and masks from {folder}: {data.describe()}",))
    geometry = f"networks and image size from {folder}: {data.size[0]}×{data.size[1]} pixels"
    return AutoConfig(config, (geometry, *chosen.reasons[2:]))


def first_two_masks(method: Any, masks: Any) -> tuple[Any, Any]:
    """Return V-JEPA's two masks of a clip for networks with more mask tokens, others unchanged.

    The files of V-JEPA 2 have two mask tokens for each source of clips that it was trained on.
    """
    if not isinstance(masks, Tube) or not isinstance(method, JEPA) or len(masks.blocks) <= len(Tube.blocks):
        return method, masks
    if masks.blocks != (Tube.blocks * len(masks.blocks))[: len(masks.blocks)]:
        return method, masks
    predictor = dataclasses.replace(method.predictor, mask_tokens=len(Tube.blocks))
    masks = dataclasses.replace(masks, blocks=Tube.blocks, scale=masks.scale[: len(Tube.blocks)])
    return dataclasses.replace(method, predictor=predictor), masks


def cpu_config(data: Image, count: int, time: float, threads: int = 0) -> AutoConfig:
    """Choose the settings for `count` images and `time` seconds (0: no budget) on a CPU; more time: larger batches."""
    small = small_jepa()
    config = tune_for_folders(Pretrain(data, small), small)
    flops_per_image = config.method.cost(data, config.masks.shapes(data.layout)).total
    flops_per_second = CORE_FLOPS[has_native_bf16(torch.device("cpu"))] * (threads or available_cores())
    images = round(time * flops_per_second / flops_per_image) if time else min(IMAGES_SEEN["cpu"], MAX_EPOCHS * count)
    epochs = max(1, round(images / count))
    images = images if time else epochs * count
    batch = min(power_of_two(count / 4), max(config.batch_size, min(256, power_of_two(images / TARGET_STEPS))))
    if time:
        length = f"batch size {batch} for this time; timing sets the number of steps"
    else:
        length = f"no --budget: {epochs * (count // batch):,} steps with batch size {batch}, about {images:,} images"
    config = dataclasses.replace(config, batch_size=batch, epochs=float(epochs))
    return AutoConfig(config, (*cpu_reasons(config), length))


def cpu_reasons(config: Pretrain) -> tuple[str, ...]:
    """Explain the networks, the optimizer and the EMA that are chosen on a CPU."""
    ema_steps = 1 / (1 - config.optim.final_ema_momentum)
    return (
        f"CPU: a ViT of width 192 and depth 6; {config.masks.mask_ratio:.0%} of each image is masked at random, "
        "its pixels are predicted, and its features at every third patch",
        f"Muon with learning rate {config.optim.lr:g}: three times that was still stable on four kinds of images",
        f"EMA over {config.optim.ema_rampup:.0%} of the steps so far, at most {ema_steps:.0f}: "
        "a few hundred steps are enough",
    )


def power_of_two(size: float) -> int:
    """Return the largest power of two that is not above `size`, at least 2."""
    return 2 ** int(np.log2(max(2.0, size)))


def gpu_config(data: Image, count: int) -> AutoConfig:
    """Choose the settings for `count` images on a GPU."""
    method = small_objective(JEPA(ViTConfig(**VIT_SIZES["small"]), PredictorConfig(dim=192, depth=6)))
    batch = min(256 if data.size[0] > 96 else 128, power_of_two(count / 4))
    epochs = float(max(1, min(MAX_EPOCHS, round(IMAGES_SEEN["gpu"] / count))))
    config = Pretrain(data, method, optim=small_schedule(), epochs=epochs, batch_size=batch)
    return AutoConfig(config, ("GPU: ViT-S with the paper's block masks and the targets of the small recipes",))


def inspect_images(paths: list[str]) -> tuple[int, int]:
    """Return the median shorter side, and the channels: 1 if all inspected images are gray, else 3.

    Where all have the same number of bands, and it is 2, above 4 or that of arrays, this number.
    Raises UserError if none of the inspected files is an image.
    """
    sides, bands, reasons = [], set(), []
    inspected = [paths[i] for i in np.linspace(0, len(paths) - 1, min(SAMPLED_IMAGES, len(paths))).astype(int)]
    for path in inspected:
        try:
            image = read_image_file(path, 0)
        except (Undecodable, OSError) as error:  # a run stops at a file that cannot be read
            reasons.append(str(error))
            continue
        count = form_of(image).bands
        sides.append(min(image[:2]))
        bands.add(3 if count == 4 and Path(path).suffix.lower() != ".npy" else count)  # of TIFF: RGB and one more
    if not sides:
        raise UserError(
            f"none of the {len(inspected)} files inspected is an image, the first is {paths[0]} ({reasons[0]}): "
            "does --data.root name the right folder?"
        )
    return int(np.median(sides)), bands.pop() if len(bands) == 1 else 3


def choose_geometry(side: int, gpu: bool) -> tuple[int, int]:
    """Return the size of a crop and of a patch, for grids of 8×8 to 14×14."""
    if side < 48:
        return 32, 4
    if side < 80:
        return 64, 8
    return (224, 16) if gpu and side >= 160 else (96, 8)
