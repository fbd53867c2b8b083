"""What to do with a folder when nobody said: sizes from a look at the images, effort from the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from openjepa import pictures
from openjepa.config import Pretrain
from openjepa.data import list_files
from openjepa.encoder import SIZES
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.recipes.small import objective, schedule
from openjepa.types import Mistake

LOOKS = 64  # images looked at
SEEN = {"cpu": 1_000_000, "gpu": 20_000_000}  # images a run shows, all epochs together


def chosen(root: tuple[str, ...]) -> Pretrain:
    """A config for a folder, on this machine. Mistake in a sentence if the folder holds too little."""
    paths = list_files(root, pictures.SUFFIXES).paths
    if len(paths) < 8:
        raise Mistake(
            f"too few images to learn from: {len(paths)} in {' '.join(root)}; give --data.root a folder of hundreds or more"
        )
    side, channels = look(paths)
    gpu = torch.cuda.is_available()
    size, patch = geometry(side, gpu)
    batch = min(256 if gpu and size > 96 else 128, 2 ** int(np.log2(max(2, len(paths) // 4))))
    epochs = min(800.0, max(1.0, round(SEEN["gpu" if gpu else "cpu"] / len(paths))))
    method = (
        JEPA(**SIZES["small"], predictor_dim=192, predictor_depth=6)
        if gpu
        else JEPA(dim=192, depth=6, num_heads=3, predictor_dim=96, predictor_depth=4)
    )
    data = Image(root=root, size=(size, size), patch=patch, channels=channels)
    return Pretrain(data, objective(method), optim=schedule(), epochs=epochs, batch_size=batch)


def look(paths: list[str]) -> tuple[int, int]:
    """The typical shorter side, and one channel if all pictures looked at are grey, else three."""
    sides, grey, depth = [], [], 3
    for place in np.linspace(0, len(paths) - 1, min(LOOKS, len(paths))).astype(int):
        path = paths[place]
        if Path(path).suffix.lower() == ".npy":
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            sides.append(min(shape[:2]))
            grey.append(False)
            depth = shape[2]
            continue
        try:
            with pictures.opened(path) as picture:
                sides.append(min(picture.size))
                grey.append(picture.mode in ("1", "L", "I", "I;16", "F"))
        except pictures.Undecodable:
            continue
    if not sides:
        raise Mistake(
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
