"""Labeled data: what a probe trains on and what it is tested on."""

from __future__ import annotations

import dataclasses
import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Int

from openjepa.core.console import warn
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.rng import epoch_order
from openjepa.data.archives import ARCHIVE_SUFFIXES, label_folder
from openjepa.data.crops import EvalCrop
from openjepa.data.image_files import ImageArray
from openjepa.data.image_io import IMAGE_SUFFIXES
from openjepa.data.listing import walk_files
from openjepa.data.synthetic.scenes import TASKS, Scenes, render
from openjepa.data.wrappers import Relabeled, Subset, ThreadedDataset
from openjepa.evaluation.tasks.clevr import ClevrImages
from openjepa.modalities.image import Image

TEST_FOLDERS = ("test", "val", "valid", "validation")

LabelSource = Literal["folders", "clevr-count", "clevr-dist", "scenes-count", "scenes-distance", "scenes-kind"]

RENDERED_TASKS = {f"scenes-{task}": task for task in TASKS}

SCENES, HELD_OUT = (6_000, 2_000), 10_000_000  # scenes to train and test on; numbers that no training scene has

HELD_OUT_FRACTION = 0.2  # share held out for testing where the folder has no test folder


@dataclass(frozen=True)
class LabeledData:
    """Labelled data: sub-folders are classes, or CLEVR's scenes."""

    root: tuple[str, ...] = ()  # a folder of class folders, or of train/ and test/ (or val/) with class folders in each
    labels: LabelSource = "folders"  # clevr-…: root is a CLEVR_v1.0 folder; scenes-…: rendered, no root
    eval_crop: EvalCrop = "crop"  # largest centred box; its middle 7/8, as 256 → 224; the whole picture squashed

    @property
    def name(self) -> str:
        """What results are filed under."""
        own = Path(self.root[0]).absolute().name if self.root else ""
        return own if self.labels == "folders" else self.labels


class Split(NamedTuple):
    """Two parts of labelled data that share their classes."""

    train: Dataset
    test: Dataset
    how: str  # a word on how they were told apart


def split_labeled(modality: Image, labelled: LabeledData, seed: int) -> Split:
    """The parts, pictures cut as `modality` says. Mistake in a sentence where the folders cannot be told apart."""
    root = tuple(str(Path(each).expanduser()) for each in labelled.root)
    modality = dataclasses.replace(modality, root=root, eval_crop=labelled.eval_crop)
    folder = Path(root[0]) if len(root) == 1 else None
    if labelled.labels in RENDERED_TASKS:
        return rendered_split(modality, RENDERED_TASKS[labelled.labels], seed)
    if labelled.labels != "folders":
        if folder is None:
            raise UserError("give --data.root the one folder CLEVR_v1.0")
        task = "count" if labelled.labels == "clevr-count" else "dist"
        train, val = (ThreadedDataset(ClevrImages(modality, folder, part, task)) for part in ("train", "val"))
        return Split(train, val, "val")
    tests = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()] if folder else []
    if folder and tests and (folder / "train").is_dir():
        return split_of_parts(modality, (str(folder / "train"),), (str(tests[0]),), f"{tests[0].name}/")
    if folder and folder.is_dir() and (train := list_split_archives(folder, "train")):
        for name in TEST_FOLDERS:
            if test := list_split_archives(folder, name):
                return split_of_parts(modality, train, test, f"{name}-*")
    whole = labeled_images(modality, root)
    shuffled = torch.from_numpy(epoch_order(seed, 0, len(whole)))
    held, how = max(1, int(len(whole) * HELD_OUT_FRACTION)), "a fifth held out at random"
    test = Subset(whole, shuffled[:held])
    warn_of_missing_classes(whole.classes, {label_folder(test.source(place)) for place in range(held)}, how)
    return Split(Subset(whole, shuffled[held:]), test, how)


def rendered_split(modality: Image, task: str, seed: int) -> Split:
    """Scenes of the package's renderer, numbered from 0 for training and far beyond for testing."""
    parts = []
    for count, first in zip(SCENES, (0, HELD_OUT), strict=True):
        scenes, classes = (
            render_cached(count, rendered_size(modality), seed, first),
            tuple(map(str, range(TASKS[task]))),
        )
        fingerprint = f"scenes-{task}-{count}-{first}-{seed}"
        parts.append(scene_dataset(scenes, modality, getattr(scenes, task), fingerprint, classes))
    return Split(parts[0], parts[1], "rendered")


render_cached = functools.lru_cache(maxsize=len(SCENES))(render)  # the same scenes serve every task and every encoder


def scene_dataset(
    scenes: Scenes, modality: Image, label: Int[torch.Tensor, "S"], fingerprint: str, classes: tuple[str, ...] = ()
) -> ImageArray:
    """Whole scenes as an encoder wants its pictures, in colour or grey. Mistake if it wants other channels."""
    if modality.channels not in (1, 3):
        raise UserError(
            f"scenes have colours, and this encoder wants {modality.channels} channels: probe it on a folder"
        )
    image = scenes.image
    if modality.channels == 1:
        image = image.float().mean(1, keepdim=True).round().to(torch.uint8)
    return ImageArray(dataclasses.replace(modality, eval_crop="squash"), image, label, fingerprint, classes)


def rendered_size(modality: Image) -> tuple[int, int]:
    """The size an encoder was trained at; larger ones are rendered at 96 pixels and enlarged."""
    return min(96, modality.size[0]), min(96, modality.size[1])


def list_split_archives(folder: Path, name: str) -> tuple[str, ...]:
    """Tar and Parquet files of one part, as Hugging Face names them: train-00000-of-00002.parquet. None among loose pictures."""
    if any(walk_files(str(folder), IMAGE_SUFFIXES)):
        return ()
    files = (file for file in folder.rglob(f"{name}*") if re.match(rf"{name}[-_.]", file.name))
    return tuple(sorted(str(file) for file in files if file.suffix.lower() in ARCHIVE_SUFFIXES))


def split_of_parts(modality: Image, train: tuple[str, ...], test: tuple[str, ...], how: str) -> Split:
    parts = [labeled_images(modality, part) for part in (train, test)]
    if alien := sorted(set(parts[1].classes) - set(parts[0].classes)):
        raise UserError(f"{how} has class folders that train has not ({', '.join(alien[:3])}): their names must agree")
    warn_of_missing_classes(parts[0].classes, set(parts[1].classes), how)
    return Split(parts[0], Relabeled(parts[1], parts[0].classes), how)


def warn_of_missing_classes(classes: tuple[str, ...], tested: set[str], how: str) -> None:
    """Warns of classes that are not tested."""
    if missing := sorted(set(classes) - tested):
        warn(
            f"{how} has no images of {len(missing)} of the classes, among them {missing[0]}: accuracy is over the rest"
        )


def labeled_images(modality: Image, root: tuple[str, ...]) -> Dataset:
    """The labelled pictures below a folder. Mistake if there is one class only, or if some lie beside the classes."""
    there = dataclasses.replace(modality, root=root)
    listing = there.listing()
    data = ThreadedDataset(there.dataset(listing))
    folders = {Path(each).resolve() for each in root}
    loose = [path for path in listing.paths if Path(path).parent.resolve() in folders]
    if len(data.classes) < 2:
        raise UserError(
            f"all images are in one folder, so there is nothing to tell apart: want a sub-folder for each class below {root[0]}"
        )
    if loose:
        raise UserError(
            f"{len(loose)} images, the first {loose[0]}, lie beside the class folders and have no label: move them elsewhere"
        )
    return data
