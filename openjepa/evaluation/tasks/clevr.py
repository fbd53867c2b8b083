"""Clevr/Count and Clevr/Dist: pictures of a CLEVR_v1.0 folder, labeled by its scene files.   S samples"""

from __future__ import annotations

import bisect
import hashlib
import json
from pathlib import Path
from typing import Literal

import torch

from openjepa.core.errors import UserError
from openjepa.data.image_files import ImageFiles
from openjepa.data.synthetic.scenes import COUNTS, DISTANCES
from openjepa.modalities.image import Image

ClevrTask = Literal["count", "dist"]


def scene_label(scene: dict, task: ClevrTask) -> int:
    """Count: the number of objects less three, 8 classes. Dist: the depth of the nearest object's centre, 6 classes.

    Source: VISSL's datasets of that name, from Zhai et al. (2020): depth is the third of `pixel_coords`; a depth on an
    edge belongs to the class below it.
    """
    objects = scene["objects"]
    if task == "dist":
        return bisect.bisect_left(DISTANCES, min(each["pixel_coords"][2] for each in objects))
    if not COUNTS[0] <= len(objects) <= COUNTS[1]:
        raise UserError(f"{scene['image_filename']} has {len(objects)} objects: CLEVR has {COUNTS[0]} to {COUNTS[1]}")
    return len(objects) - COUNTS[0]


class ClevrImages(ImageFiles):
    """One part of CLEVR, labelled for a task. VISSL squashed the whole picture: `eval_crop="squash"`."""

    def __init__(self, config: Image, root: Path, part: Literal["train", "val"], task: ClevrTask):
        file = root / "scenes" / f"CLEVR_{part}_scenes.json"
        if not file.is_file():
            raise UserError(f"{root} is no CLEVR_v1.0 folder: it has no {file.relative_to(root)}")
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
