"""Files whose classes are their folders, or stand in a table or in their names: see jepa labels."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int

from openjepa.core.capabilities import plural_of
from openjepa.core.console import info_once, warn
from openjepa.core.errors import UserError
from openjepa.core.fileio import expand_home
from openjepa.core.protocols import Dataset, Modality
from openjepa.core.types import FileList
from openjepa.data.labels.describe import LabeledFiles, LabelOptions, describe, label_files
from openjepa.data.labels.overlap import find_overlap
from openjepa.data.labels.parts import join_parts
from openjepa.data.labels.paths import relative_parts
from openjepa.data.labels.patterns import advise
from openjepa.data.labels.words import find_splits
from openjepa.data.never_data import reason_to_leave_out
from openjepa.data.wrappers import Relabeled, Subset, ThreadedDataset
from openjepa.evaluation.labeled import Baselines, Split
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.splits import Fold, balanced_split, innermost, random_split, sample_values, split_by
from openjepa.interop.inputs import replace_root


@dataclass(frozen=True)
class Folders:
    """Files with classes; the test data are a part of their own, a random fifth, or folds."""

    options: ClassVar[tuple[str, ...]] = ("",)
    needs_root: ClassVar[bool] = True
    baselines: ClassVar[Baselines] = {}
    option: str = ""

    def split(self, modality: Modality, labeled: LabeledData, seed: int) -> Split:
        """Split labeled data into training and test data, prepared as `modality` says.

        The test data are the test folder or, if it has no labels, the validation folder, or else a random fifth.
        Raises UserError if there are not at least two classes.
        """
        files = describe_data(modality, labeled)
        info_once("\n".join(f"data       {line}" for line in describe(files)))
        train, test, how = choose_parts(files)
        check_classes(files, train, plural_of(modality))
        modality = replace_root(modality, files.listing.roots, labeled.eval_crop)
        if test is None:
            return split_one(load_files(modality, train), labeled, seed, plural_of(modality), how)
        if labeled.split != "auto":
            raise UserError(
                f"{files.listing.roots[0]} has its own test data ({how}): leave --data.split {labeled.split} out, "
                "or give one part as --data.root"
            )
        return split_parts(modality, train, test, how)


def describe_data(modality: Any, labeled: LabeledData) -> LabeledFiles:
    """List the files of labeled data with their classes and splits.

    Raises UserError if no data or only one of --data.train and --data.test is given, or if labels are ambiguous.
    """
    options = LabelOptions(
        table="" if labeled.labels in ("auto", "folders") else labeled.labels,
        label=labeled.label,
        group=labeled.group,
        pattern=labeled.pattern,
        class_depth=labeled.class_depth,
        folders_only=labeled.labels == "folders",
    )
    if (labeled.label or labeled.group) and not options.table:
        raise UserError("--data.label and --data.group name columns of a table: give it as --data.labels FILE")
    if not labeled.train and not labeled.test:
        return label_files(list_root(modality, labeled.root), options)
    if labeled.root or not (labeled.train and labeled.test):
        raise UserError("--data.train and --data.test are given together, and without --data.root")
    return join_parts(*(label_files(list_root(modality, each), options) for each in (labeled.train, labeled.test)))


def list_root(modality: Any, root: tuple[str, ...]) -> FileList:
    """List the files of some folders; those of splits one by one, so that a link to the same files is in both."""
    root = tuple(str(expand_home(each)) for each in root)
    folders = split_folders(root)
    listing = dataclasses.replace(modality, root=folders or root).listing()
    return dataclasses.replace(listing, roots=root)


def split_folders(root: tuple[str, ...]) -> tuple[str, ...]:
    """Return the folders below a root if some of them are splits, but not those that are never data."""
    if len(root) != 1 or not Path(root[0]).is_dir():
        return ()
    names = [each.name for each in sorted(Path(root[0]).iterdir()) if each.is_dir()]
    names = [name for name in names if not reason_to_leave_out(name, is_folder=True)]
    return tuple(str(Path(root[0]) / name) for name in names) if find_splits(names) else ()


def choose_parts(files: LabeledFiles) -> tuple[FileList, FileList | None, str]:
    """Return the training data and the test data, and how the test data are called.

    Without test data that have labels, the validation data are used; None if a part of the training data must be.
    """
    if "train" not in files.splits:
        return files.part(""), None, ""
    train, skipped = files.part("train"), []
    for split in ("test", "val"):
        name = files.names.get(split, split)
        part = files.part(split)
        if set(part.labels) & set(train.labels) or len(set(part.labels)) > 1:
            return train, part, name + "".join(f"; {each} has no labels" for each in skipped)
        if split in files.splits:
            skipped.append(name)
    return train, None, "".join(f"; {each} has no labels" for each in skipped)


def check_classes(files: LabeledFiles, train: FileList, plural: str) -> None:
    """Raise UserError if the training data has fewer than two classes, or files outside the folders of classes."""
    root = files.listing.roots[0]
    classes = sorted(set(train.labels))
    if len(classes) < 2:
        single = f"only one class ({classes[0]})" if classes else "no labels"
        advice = advise(relative_parts(files.listing))
        raise UserError(
            f"{root} has {single}: --data.root needs a sub-folder of {plural} for each class, or {advice}; "
            f"jepa labels {root} lists what is found"
        )
    if max(Counter(train.labels).values()) < 2:
        raise UserError(f"{root} has one of the {plural} for each class: nothing is left to test on, add some")
    split = "train" if "train" in files.splits else ""
    loose = [
        path
        for path, label, own in zip(files.listing.paths, files.listing.labels, files.splits, strict=True)
        if not label and own in ("", split)
    ]
    if loose and files.by_folders:
        raise UserError(f"{len(loose)} {plural}, e.g. {loose[0]}, are outside the class folders: move or remove them")


def load_files(modality: Any, files: FileList) -> Dataset:
    """Open labeled files; threads read them."""
    return ThreadedDataset(modality.dataset(files))


def split_one(data: Dataset, labeled: LabeledData, seed: int, plural: str, how: str) -> Split:
    """Divide data without test data of their own: by folds, or by holding out a random fifth."""
    if labeled.split in ("auto", "random"):
        split = split_at_random(data, seed, plural)
        return split._replace(how=split.how + how)
    return Split(data, data, f"{labeled.split}, every {plural[:-1]} tested once{how}")


def split_at_random(data: Dataset, seed: int, plural: str) -> Split:
    """Hold out a random fifth of the data for testing, or of the recordings if they have several windows."""
    groups, labels = sample_values(data, "groups"), sample_values(data, "label")
    if groups is not None and len(groups.unique()) < len(data):
        fold, how = hold_out_groups(groups, seed), f"a random fifth of the {group_word(data)}, held out"
    else:
        (fold,) = random_split(len(data), seed) if labels is None else balanced_split(labels, seed)
        how = "a random fifth, held out"
    train, test = Subset(data, fold.train), Subset(data, fold.test)
    if labels is not None:
        present = [{data.classes[each] for each in labels[rows].unique().tolist() if each >= 0} for rows in fold]
        warn_of_missing_classes(data.classes, present[1], how, plural)
        if untrained := sorted(set(data.classes) - present[0]):
            warn(f"training data: no {plural} of {len(untrained)} classes, e.g. {untrained[0]}: all of them are tested")
        warn_of_overlap(*([data.source(row) for row in rows.tolist()] for rows in fold))
    return Split(train, test, how)


def group_word(data: Dataset) -> str:
    """Return what groups of samples are called."""
    labels = getattr(innermost(data), "file_labels", None)
    return "groups" if labels is not None and labels.groups is not None else "recordings"


def hold_out_groups(groups: Int[torch.Tensor, "S"], seed: int) -> Fold:
    """Hold out a random fifth of the groups, because samples of one group may share values."""
    names = groups.unique()
    (fold,) = random_split(len(names), seed)
    return split_by(torch.isin(groups, names[fold.test]))


def split_parts(modality: Any, train: FileList, test: FileList, how: str) -> Split:
    """Load separate training and test data. Raises UserError if test has classes that train does not have."""
    parts = [load_files(modality, part) for part in (train, test)]
    if unknown := sorted(set(parts[1].classes) - set(parts[0].classes)):
        names = ", ".join(unknown[:3])
        raise UserError(f"{how} has class folders that train does not have ({names}): use the same names in both")
    warn_of_missing_classes(parts[0].classes, set(parts[1].classes), how, plural_of(modality))
    warn_of_overlap(train.paths, test.paths)
    return Split(parts[0], Relabeled(parts[1], parts[0].classes), how)


def warn_of_missing_classes(classes: tuple[str, ...], tested: set[str], how: str, plural: str) -> None:
    """Warn of classes without test samples."""
    if missing := sorted(set(classes) - tested):
        warn(
            f"test data ({how}): no {plural} of {len(missing)} classes, e.g. {missing[0]}; accuracy is over the others"
        )


def warn_of_overlap(train: list[str], test: list[str]) -> None:
    """Warn of files in both parts that have the same contents."""
    if same := find_overlap(train, test):
        one, other = same[0]
        warn(
            f"{len(same):,} of {len(test):,} test files are also training files, e.g. {other} is {one}: "
            "scores are too high"
        )
