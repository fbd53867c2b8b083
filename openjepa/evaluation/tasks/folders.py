"""Images, signals or other files whose class is the folder that holds them."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Int

from openjepa.core.capabilities import plural_of
from openjepa.core.console import warn
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Modality
from openjepa.data.archives import ARCHIVE_SUFFIXES, label_folder
from openjepa.data.image_io import IMAGE_SUFFIXES
from openjepa.data.listing import walk_files
from openjepa.data.wrappers import Relabeled, Subset, ThreadedDataset
from openjepa.evaluation.labeled import Baselines, Split
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.splits import Fold, random_split, sample_values, split_by
from openjepa.interop.inputs import replace_root

TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclass(frozen=True)
class Folders:
    """Sub-folders are classes; the test data are a folder of their own, a random fifth, or folds."""

    options: ClassVar[tuple[str, ...]] = ("",)
    needs_root: ClassVar[bool] = True
    baselines: ClassVar[Baselines] = {}
    option: str = ""

    def split(self, modality: Modality, labeled: LabeledData, seed: int) -> Split:
        """Split labeled data into training and test data, prepared as `modality` says.

        The test data are the test folder (or val, valid, validation), the test shards of a data set in Hugging Face's
        layout, or a random fifth. Raises UserError if the folders do not define at least two classes.
        """
        root = tuple(str(Path(each).expanduser()) for each in labeled.root)
        modality = replace_root(modality, root, labeled.eval_crop)
        if parts := separate_parts(root):
            train, test, how = parts
            if labeled.split != "auto":
                raise UserError(
                    f"{root[0]} has its own test data ({how}): leave --data.split {labeled.split} out, "
                    "or give one part as --data.root"
                )
            return split_folders(modality, train, test, how)
        data = load_labeled(modality, root)
        if labeled.split in ("auto", "random"):
            return split_at_random(data, seed, plural_of(modality))
        return Split(data, data, f"{labeled.split}, every {plural_of(modality)[:-1]} tested once")


def separate_parts(root: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...], str] | None:
    """Return the paths of the training data and of the test data, and how they are named; None if they are one."""
    folder = Path(root[0]) if len(root) == 1 else None
    tests = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()] if folder else []
    if folder and tests and (folder / "train").is_dir():
        return (str(folder / "train"),), (str(tests[0]),), f"{tests[0].name}/"
    if folder and folder.is_dir() and (train := list_split_archives(folder, "train")):
        for name in TEST_FOLDERS:
            if test := list_split_archives(folder, name):
                return train, test, f"{name}-*"
    return None


def split_at_random(data: Dataset, seed: int, plural: str) -> Split:
    """Hold out a random fifth of the data for testing, or of the recordings if they have several windows."""
    groups = sample_values(data, "groups")
    (fold,), how = random_split(len(data), seed), "a random fifth, held out"
    if groups is not None and len(groups.unique()) < len(data):
        fold, how = hold_out_groups(groups, seed), "a random fifth of the recordings, held out"
    train, test = Subset(data, fold.train), Subset(data, fold.test)
    tested = {label_folder(test.source(row)) for row in range(len(test))}
    warn_of_missing_classes(data.classes, tested, how, plural)
    return Split(train, test, how)


def hold_out_groups(groups: Int[torch.Tensor, "S"], seed: int) -> Fold:
    """Hold out a random fifth of the groups, because samples of one group may share values."""
    names = groups.unique()
    (fold,) = random_split(len(names), seed)
    return split_by(torch.isin(groups, names[fold.test]))


def list_split_archives(folder: Path, name: str) -> tuple[str, ...]:
    """List the tar and Parquet files of one split, named as Hugging Face does: train-00000-of-00002.parquet.

    Empty if the folder also contains image files.
    """
    if any(walk_files(str(folder), IMAGE_SUFFIXES)):
        return ()
    files = (file for file in folder.rglob(f"{name}*") if re.match(rf"{name}[-_.]", file.name))
    return tuple(sorted(str(file) for file in files if file.suffix.lower() in ARCHIVE_SUFFIXES))


def split_folders(modality: Modality, train: tuple[str, ...], test: tuple[str, ...], how: str) -> Split:
    """Load separate training and test data. Raises UserError if test has classes that train does not have."""
    parts = [load_labeled(modality, part) for part in (train, test)]
    if unknown := sorted(set(parts[1].classes) - set(parts[0].classes)):
        names = ", ".join(unknown[:3])
        raise UserError(f"{how} has class folders that train does not have ({names}): use the same names in both")
    warn_of_missing_classes(parts[0].classes, set(parts[1].classes), how, plural_of(modality))
    return Split(parts[0], Relabeled(parts[1], parts[0].classes), how)


def warn_of_missing_classes(classes: tuple[str, ...], tested: set[str], how: str, plural: str) -> None:
    """Warn of classes without test samples."""
    if missing := sorted(set(classes) - tested):
        warn(
            f"test data ({how}): no {plural} of {len(missing)} classes, e.g. {missing[0]}; accuracy is over the others"
        )


def load_labeled(modality: Modality, root: tuple[str, ...]) -> Dataset:
    """Load the labeled files below folders.

    Raises UserError if there is only one class, or if files lie next to the class folders instead of inside them.
    """
    modality = dataclasses.replace(modality, root=root)  # type: ignore[type-var]
    listing = modality.listing()
    data = ThreadedDataset(modality.dataset(listing))
    folders = {Path(each).resolve() for each in root}
    loose = [path for path in listing.paths if Path(path).parent.resolve() in folders]
    if len(data.classes) < 2:
        raise UserError(
            f"{root[0]} has only one class: --data.root needs a sub-folder of {plural_of(modality)} for each class"
        )
    if loose:
        raise UserError(
            f"{len(loose)} {plural_of(modality)}, e.g. {loose[0]}, are outside the class folders: move or remove them"
        )
    return data
