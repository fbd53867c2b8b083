"""Clevr/Count and Clevr/Dist: the images of a CLEVR_v1.0 folder, labeled by its scene files."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from openjepa.core.errors import UserError
from openjepa.data.image_files import ImageFiles
from openjepa.data.synthetic.scenes import COUNTS, DISTANCES
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluation.features import raw_pixel_features
from openjepa.evaluation.labeled import Baselines, Split, require_own_split
from openjepa.evaluation.settings import LabeledData
from openjepa.modalities.image import Image

ClevrOption = Literal["count", "dist"]


def scene_label(scene: dict, task: ClevrOption) -> int:
    """Return the class of a scene for a task.

    count: the number of objects minus 3, 8 classes. dist: the depth of the nearest object's center, in 6 bins.
    Source: VISSL's datasets of the same names, after Zhai et al. (2020). Depth is the third entry of `pixel_coords`; a
    depth on the edge of two bins belongs to the lower one.
    Raises UserError if the number of objects is not one of CLEVR's.
    """
    objects = scene["objects"]
    if task == "dist":
        return bisect.bisect_left(DISTANCES, min(each["pixel_coords"][2] for each in objects))
    if not COUNTS[0] <= len(objects) <= COUNTS[1]:
        name = scene["image_filename"]
        raise UserError(f"{name} has {len(objects)} objects, but CLEVR scenes have {COUNTS[0]} to {COUNTS[1]}")
    return len(objects) - COUNTS[0]


class ClevrImages(ImageFiles):
    """One split of CLEVR, labeled for a task. To resize the whole image as VISSL does, use `eval_crop="squash"`."""

    def __init__(self, config: Image, root: Path, part: Literal["train", "val"], task: ClevrOption):
        file = root / "scenes" / f"CLEVR_{part}_scenes.json"
        if not file.is_file():
            raise UserError(f"{root} is not a CLEVR_v1.0 folder: {file.relative_to(root)} is missing")
        scenes = json.loads(file.read_text())["scenes"]
        paths = [str(root / "images" / part / scene["image_filename"]) for scene in scenes]
        self.labels = torch.tensor([scene_label(scene, task) for scene in scenes])
        content = "\0".join(
            [task, *(f"{path}\0{number}" for path, number in zip(paths, self.labels.tolist(), strict=True))]
        )
        super().__init__(config, paths, hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()[:32])
        self.names = tuple(str(number) for number in range(*{"count": (3, 11), "dist": (0, 6)}[task]))

    @property
    def classes(self) -> tuple[str, ...]:
        return self.names

    @property
    def label(self) -> torch.Tensor:
        return self.labels


@dataclass(frozen=True)
class Clevr:
    """Clevr/Count or Clevr/Dist: trained on the folder's training images, tested on its validation images."""

    options: ClassVar[tuple[str, ...]] = ("count", "dist")
    needs_root: ClassVar[bool] = True
    baselines: ClassVar[Baselines] = {"raw pixels": raw_pixel_features}
    option: ClevrOption

    def split(self, modality: Image, labeled: LabeledData, seed: int) -> Split:
        """Load both parts. Raises UserError unless --data.root is one CLEVR_v1.0 folder."""
        require_own_split(labeled)
        if len(labeled.root) != 1:
            got = f"--data.labels {labeled.labels}, got {list(labeled.root)}"
            raise UserError(f"--data.root must be one CLEVR_v1.0 folder for {got}")
        (root,) = labeled.root
        modality = dataclasses.replace(modality, root=(root,), eval_crop=labeled.eval_crop)
        folder = Path(root).expanduser()
        train, val = (ThreadedDataset(ClevrImages(modality, folder, part, self.option)) for part in ("train", "val"))
        return Split(train, val, "val")
