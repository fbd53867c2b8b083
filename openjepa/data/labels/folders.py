"""Label files by their folders, as ImageFolder does: the first folder below a split is the class."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

from openjepa.core.errors import UserError
from openjepa.data.labels.paths import Parts
from openjepa.data.labels.words import are_pictures_and_masks, find_splits


class Assignment(NamedTuple):
    """The class, the split and the group of every file, and how they are known."""

    labels: tuple[str, ...]  # "" of a file without a class
    splits: tuple[str, ...]  # train, test, val, another name of a part, or "" without splits
    how: str  # where the classes come from, for the output
    names: dict[str, str] = {}  # noqa: RUF012  split -> what it is called on disk; never written to
    notes: tuple[str, ...] = ()  # what may not be as meant
    groups: tuple[str, ...] = ()
    by_folders: bool = False  # the folders are the classes


def label_by_folders(files: list[Parts], class_depth: int = 1) -> Assignment:
    """Assign class and split by folders; `class_depth`: which folder below the split is the class.

    Folders that hold nothing but one folder are skipped, as an unpacked archive has them. Understood are
    SPLIT/CLASS/…, CLASS/… and CLASS/SPLIT/…, at any depth below the class.

    Raises:
        UserError: the folders hold pictures and their masks instead of classes.
    """
    files = [tuple(unicodedata.normalize("NFC", each) for each in parts) for parts in files]
    skipped = count_single_folders(files)
    folders = find_splits(folders_at(files, skipped))
    if not folders:
        return label_without_splits(files, skipped, class_depth)
    starts = {name: skipped + 1 + count_single_folders(below(files, skipped, name), skipped + 1) for name in folders}
    labels = []
    for parts in files:
        start = starts.get(parts[skipped], len(parts)) + class_depth - 1
        labels.append(parts[start] if start < len(parts) - 1 else "")
    splits, names = split_by_folders(files)
    order = [split for split in ("train", "val", "test") if split in names]
    how = f"classes are the folders below {', '.join(names[split] for split in order)}"
    doubts = tuple(find_doubts(files, labels, class_depth))
    return Assignment(tuple(labels), splits, how, names, doubts, by_folders=True)


def split_by_folders(files: list[Parts]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return each file's split by its folder, "" if no folders are splits, and the folder of each split.

    The split of files in other folders beside those of the splits is the name of their folder.
    """
    skipped = count_single_folders(files)
    folders = find_splits(folders_at(files, skipped))
    if not folders:
        return ("",) * len(files), {}
    names = [parts[skipped] if len(parts) > skipped + 1 else "" for parts in files]
    on_disk = {split: name if name.endswith("*") else f"{name}/" for name, split in folders.items()}
    return tuple(folders.get(name, name and f"{name}/") for name in names), on_disk


def folders_at(files: list[Parts], depth: int) -> list[str]:
    """Return the names of the folders at a depth, sorted."""
    return sorted({parts[depth] for parts in files if len(parts) > depth + 1})


def label_without_splits(files: list[Parts], skipped: int, class_depth: int) -> Assignment:
    """Assign classes by the first folder; if every class has folders of splits, those, too."""
    start = skipped + class_depth - 1
    labels = tuple(parts[start] if start < len(parts) - 1 else "" for parts in files)
    above = "/".join(files[0][:skipped]) if skipped and files else ""
    how = f"classes are the folders below {above}/" if above else "classes are the folders"
    classes = sorted(set(labels) - {""})
    if are_pictures_and_masks(classes):
        raise UserError(
            f"the folders {', '.join(classes)} look like pictures and what belongs to them, not like classes: give the "
            "folder of the pictures, with their labels as --data.labels FILE"
        )
    inner = {label: find_splits(sorted(own)) for label, own in inner_folders(files, labels, start).items()}
    if classes and all(inner.values()):
        splits = tuple(
            inner[label].get(parts[start + 1], "") if label and len(parts) > start + 2 else ""
            for parts, label in zip(files, labels, strict=True)
        )
        names = {split: f"CLASS/{name}/" for name, split in inner[classes[0]].items()}
        return Assignment(labels, splits, f"{how}, divided by the folders below them", names, by_folders=True)
    doubts = tuple(find_doubts(files, list(labels), class_depth))
    return Assignment(labels, ("",) * len(files), how, notes=doubts, by_folders=True)


def inner_folders(files: list[Parts], labels: tuple[str, ...], start: int) -> dict[str, set[str]]:
    """Return for each class the folders directly below its folder, which is at depth `start`."""
    inner: dict[str, set[str]] = {label: set() for label in labels if label}
    for parts, label in zip(files, labels, strict=True):
        if label and len(parts) > start + 2:
            inner[label].add(parts[start + 1])
    return inner


def count_single_folders(files: list[Parts], start: int = 0) -> int:
    """Return how many folders below depth `start` hold nothing but one folder."""
    count = 0
    while True:
        depth = start + count
        names = {parts[depth] for parts in files if len(parts) > depth + 1}
        below_it = {parts[depth + 1] for parts in files if len(parts) > depth + 2}
        only_one = len(names) == 1 and all(len(parts) > depth + 1 for parts in files)
        if not only_one or not below_it or any(len(parts) == depth + 2 for parts in files):
            return count
        count += 1


def below(files: list[Parts], depth: int, name: str) -> list[Parts]:
    """Return the files whose folder at a depth has this name."""
    return [parts for parts in files if len(parts) > depth + 1 and parts[depth] == name]


def find_doubts(files: list[Parts], labels: list[str], class_depth: int) -> list[str]:
    """Return what makes other folders plausible as classes: the same names below each class."""
    inner: dict[str, set[str]] = {label: set() for label in labels if label}
    for parts, label in zip(files, labels, strict=True):
        depth = parts.index(label) if label in parts else len(parts)
        if label and len(parts) > depth + 2:
            inner[label].add(parts[depth + 1])
    shared = set.intersection(*inner.values()) if len(inner) > 1 else set()
    if len(shared) < 2:
        return []
    names = ", ".join(sorted(shared)[:4])
    return [
        f"every class folder has the same folders ({names}): if these are the classes, "
        f"type --data.class-depth {class_depth + 1}"
    ]
