"""Rendered scenes, labeled with the count, the nearest distance or the kind of their objects."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int

from openjepa.core.errors import UserError
from openjepa.data.image_files import ImageArray
from openjepa.data.synthetic import scenes as synthetic
from openjepa.evaluation.features import raw_pixel_features
from openjepa.evaluation.labeled import Baselines, Split, require_own_split
from openjepa.evaluation.settings import LabeledData
from openjepa.modalities.image import Image

SCENES = (6_000, 2_000)  # rendered scenes to train and test on

HELD_OUT = 10_000_000  # number of the first test scene; training scenes are numbered from 0


@dataclass(frozen=True)
class Scenes:
    """Training scenes, numbered from 0, and test scenes, numbered from `HELD_OUT`."""

    options: ClassVar[tuple[str, ...]] = tuple(synthetic.TASKS)
    needs_root: ClassVar[bool] = False
    baselines: ClassVar[Baselines] = {"raw pixels": raw_pixel_features}
    option: str

    def split(self, modality: Image, labeled: LabeledData, seed: int) -> Split:
        """Render training and test scenes at the size of the encoder's input."""
        require_own_split(labeled)
        parts, classes = [], tuple(map(str, range(synthetic.TASKS[self.option])))
        for count, first in zip(SCENES, (0, HELD_OUT), strict=True):
            scenes = render_cached(count, rendered_size(modality), seed, first)
            fingerprint = f"scenes-{self.option}-{count}-{first}-{seed}"
            parts.append(scene_dataset(scenes, modality, getattr(scenes, self.option), fingerprint, classes))
        return Split(parts[0], parts[1], "rendered")


render_cached = functools.lru_cache(maxsize=len(SCENES))(synthetic.render)  # tasks and encoders share the scenes


def scene_dataset(
    scenes: synthetic.Scenes,
    modality: Image,
    label: Int[torch.Tensor, "S"],
    fingerprint: str,
    classes: tuple[str, ...] = (),
) -> ImageArray:
    """Convert rendered scenes to labeled images, RGB or grayscale. Raises UserError for other numbers of channels."""
    if modality.channels not in (1, 3):
        raise UserError(
            f"rendered scenes have 3 channels or 1, this encoder needs {modality.channels}: give --data.root FOLDER"
        )
    image = scenes.image
    if modality.channels == 1:
        image = image.float().mean(1, keepdim=True).round().to(torch.uint8)
    return ImageArray(dataclasses.replace(modality, eval_crop="squash"), image, label, fingerprint, classes)


def rendered_size(modality: Image) -> tuple[int, int]:
    """Return the size to render scenes at: the encoder's input size, at most 96 pixels; larger inputs are upscaled."""
    return min(96, modality.size[0]), min(96, modality.size[1])
