"""Split labeled data into what a probe trains on and what it is tested on."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int

from openjepa.core.console import warn
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.rng import epoch_order
from openjepa.data.archives import ARCHIVE_SUFFIXES, label_folder
from openjepa.data.image_files import ImageArray
from openjepa.data.image_io import IMAGE_SUFFIXES
from openjepa.data.listing import walk_files
from openjepa.data.synthetic.scenes import TASKS, Scenes, render
from openjepa.data.wrappers import Relabeled, Subset, ThreadedDataset
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.tasks.clevr import ClevrImages
from openjepa.modalities.image import Image

TEST_FOLDERS = ("test", "val", "valid", "validation")

RENDERED_TASKS = {f"scenes-{task}": task for task in TASKS}

SCENES = (6_000, 2_000)  # rendered scenes to train and test on

HELD_OUT = 10_000_000  # number of the first test scene; training scenes are numbered from 0

HELD_OUT_FRACTION = 0.2  # held out for testing if the data has no test folder


class Split(NamedTuple):
    """Training and test data with the same classes."""

    train: Dataset
    test: Dataset
    how: str  # how the test data was chosen, for the output


def split_labeled(modality: Image, labeled: LabeledData, seed: int) -> Split:
    """Split labeled data into training and test data, prepared as `modality` says.

    The test data are the test folder (or val, valid, validation), the test shards of a data set in Hugging Face's
    layout, or a random fifth. Raises UserError if the folders do not define at least two classes.
    """
    root = tuple(str(Path(each).expanduser()) for each in labeled.root)
    modality = dataclasses.replace(modality, root=root, eval_crop=labeled.eval_crop)
    folder = Path(root[0]) if len(root) == 1 else None
    if labeled.labels in RENDERED_TASKS:
        return render_split(modality, RENDERED_TASKS[labeled.labels], seed)
    if labeled.labels != "folders":
        if folder is None:
            raise UserError(
                f"--data.root must be one CLEVR_v1.0 folder for --data.labels {labeled.labels}, got {list(root)}"
            )
        task = "count" if labeled.labels == "clevr-count" else "dist"
        train, val = (ThreadedDataset(ClevrImages(modality, folder, part, task)) for part in ("train", "val"))
        return Split(train, val, "val")
    tests = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()] if folder else []
    if folder and tests and (folder / "train").is_dir():
        return split_folders(modality, (str(folder / "train"),), (str(tests[0]),), f"{tests[0].name}/")
    if folder and folder.is_dir() and (train := list_split_archives(folder, "train")):
        for name in TEST_FOLDERS:
            if test := list_split_archives(folder, name):
                return split_folders(modality, train, test, f"{name}-*")
    return split_at_random(load_labeled(modality, root), seed)


def split_at_random(data: Dataset, seed: int) -> Split:
    """Hold out a random fifth of the data for testing."""
    shuffled = torch.from_numpy(epoch_order(seed, 0, len(data)))
    count, how = max(1, int(len(data) * HELD_OUT_FRACTION)), "a random fifth, held out"
    test = Subset(data, shuffled[:count])
    warn_of_missing_classes(data.classes, {label_folder(test.source(row)) for row in range(count)}, how)
    return Split(Subset(data, shuffled[count:]), test, how)


def render_split(modality: Image, task: str, seed: int) -> Split:
    """Render training scenes, numbered from 0, and test scenes, numbered from `HELD_OUT`."""
    parts = []
    for count, first in zip(SCENES, (0, HELD_OUT), strict=True):
        scenes = render_cached(count, rendered_size(modality), seed, first)
        classes = tuple(map(str, range(TASKS[task])))
        fingerprint = f"scenes-{task}-{count}-{first}-{seed}"
        parts.append(scene_dataset(scenes, modality, getattr(scenes, task), fingerprint, classes))
    return Split(parts[0], parts[1], "rendered")


render_cached = functools.lru_cache(maxsize=len(SCENES))(render)  # tasks and encoders share the scenes


def scene_dataset(
    scenes: Scenes, modality: Image, label: Int[torch.Tensor, "S"], fingerprint: str, classes: tuple[str, ...] = ()
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


def list_split_archives(folder: Path, name: str) -> tuple[str, ...]:
    """List the tar and Parquet files of one split, named as Hugging Face does: train-00000-of-00002.parquet.

    Empty if the folder also contains image files.
    """
    if any(walk_files(str(folder), IMAGE_SUFFIXES)):
        return ()
    files = (file for file in folder.rglob(f"{name}*") if re.match(rf"{name}[-_.]", file.name))
    return tuple(sorted(str(file) for file in files if file.suffix.lower() in ARCHIVE_SUFFIXES))


def split_folders(modality: Image, train: tuple[str, ...], test: tuple[str, ...], how: str) -> Split:
    """Load separate training and test data. Raises UserError if test has classes that train does not have."""
    parts = [load_labeled(modality, part) for part in (train, test)]
    if unknown := sorted(set(parts[1].classes) - set(parts[0].classes)):
        names = ", ".join(unknown[:3])
        raise UserError(f"{how} has class folders that train does not have ({names}): use the same names in both")
    warn_of_missing_classes(parts[0].classes, set(parts[1].classes), how)
    return Split(parts[0], Relabeled(parts[1], parts[0].classes), how)


def warn_of_missing_classes(classes: tuple[str, ...], tested: set[str], how: str) -> None:
    """Warn of classes without test images."""
    if missing := sorted(set(classes) - tested):
        warn(f"test data ({how}): no images of {len(missing)} classes, e.g. {missing[0]}; accuracy is over the others")


def load_labeled(modality: Image, root: tuple[str, ...]) -> Dataset:
    """Load the labeled images below folders.

    Raises UserError if there is only one class, or if images lie next to the class folders instead of inside them.
    """
    modality = dataclasses.replace(modality, root=root)
    listing = modality.listing()
    data = ThreadedDataset(modality.dataset(listing))
    folders = {Path(each).resolve() for each in root}
    loose = [path for path in listing.paths if Path(path).parent.resolve() in folders]
    if len(data.classes) < 2:
        raise UserError(f"{root[0]} has only one class: --data.root needs a sub-folder of images for each class")
    if loose:
        raise UserError(f"{len(loose)} images, e.g. {loose[0]}, are outside the class folders: move or remove them")
    return data
