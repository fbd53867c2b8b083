"""Describe labeled files: their classes and splits, how these are known, what is left out and what looks wrong."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from openjepa.core.errors import UserError
from openjepa.core.fileio import expand_home
from openjepa.core.types import FileList
from openjepa.data.archives import parse_address
from openjepa.data.labels.columns import (
    FileIndex,
    choose_columns,
    find_file_column,
    holds_classes,
    label_by_table,
    with_header,
)
from openjepa.data.labels.folders import Assignment, label_by_folders, split_by_folders
from openjepa.data.labels.layouts import find_tables, join_tables, read_coco
from openjepa.data.labels.paths import Parts, relative_parts
from openjepa.data.labels.patterns import label_by_pattern
from openjepa.data.labels.tables import Table, read_table
from openjepa.data.never_data import LINKED, LeftOut

MIN_SHARE = 0.5  # of a table's rows that name files, so that it is about these files


class LabelOptions(NamedTuple):
    """How the user says what the labels are; all empty: they are found."""

    table: str = ""  # a file with a row for each sample
    label: str = ""  # its column of classes
    group: str = ""  # its column of groups
    pattern: str = ""  # regular expression for names
    class_depth: int = 1  # which folder below a split is the class
    folders_only: bool = False  # ignore tables beside the files


class LabeledFiles(NamedTuple):
    """Labeled files and their splits."""

    listing: FileList  # all files, also those without a label, with `labels`
    splits: tuple[str, ...]  # of each file: train, test, val, another part's name, or ""
    how: str  # how the classes are known
    names: dict[str, str]  # split -> what it is called on disk
    notes: tuple[str, ...]  # what may not be as meant
    by_folders: bool = False  # the folders are the classes

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the classes in order: those of the training data, if the data has splits."""
        trained = "train" if "train" in self.splits else ""
        pairs = zip(self.listing.labels, self.splits, strict=True)
        return tuple(sorted({label for label, split in pairs if label and split == trained}))

    def part(self, split: str) -> FileList:
        """Return the labeled files of a split, "" for those without one."""
        rows = [row for row, each in enumerate(self.splits) if each == split and self.listing.labels[row]]
        return select_files(self.listing, rows)

    def count(self, split: str) -> Counter[str]:
        """Count the files of each class in a split; "" counts those without a label."""
        pairs = zip(self.listing.labels, self.splits, strict=True)
        return Counter(label for label, each in pairs if each == split)

    def split_names(self) -> list[str]:
        """Return the splits, training data first."""
        order = ("", "train", "val", "test")
        return sorted(set(self.splits), key=lambda each: (order.index(each) if each in order else len(order), each))


def select_files(listing: FileList, rows: list[int]) -> FileList:
    """Return some files of a list, with a fingerprint of their own, which the labels and groups change, too."""
    paths, labels = [listing.paths[row] for row in rows], tuple(listing.labels[row] for row in rows)
    groups = tuple(listing.groups[row] for row in rows) if listing.groups else ()

    def fingerprint() -> str:
        digest = hashlib.sha256(listing.fingerprint.encode())
        digest.update(np.asarray(rows, np.int64).tobytes())
        digest.update("\0".join([*labels, *groups]).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:32]

    return FileList(paths, fingerprint, None, listing.left_out, listing.roots, labels, groups)


def label_files(listing: FileList, options: LabelOptions = LabelOptions()) -> LabeledFiles:  # noqa: B008
    """Find the labels of listed files: what the options say, else tables beside them, else their folders.

    Raises:
        UserError: the labels are ambiguous, and which flag decides.
    """
    files = relative_parts(listing)
    assigned = complete_splits(files, assign_labels(listing, files, options))
    assigned = drop_unlabeled_parts(assigned)
    labeled = dataclasses.replace(listing, labels=assigned.labels, groups=assigned.groups)
    notes = (*assigned.notes, *(linked_note(each) for each in listing.left_out if each.reason == LINKED))
    how = assigned.how
    if assigned.by_folders and any(parse_address(path) for path in listing.paths[:1]):
        how += ", or what label files in the archives say"
    return LabeledFiles(labeled, assigned.splits, how, assigned.names, notes, assigned.by_folders)


def label_if_possible(listing: FileList) -> LabeledFiles:
    """Find the labels of files that need none; ambiguous ones are no labels."""
    try:
        return label_files(listing)
    except UserError:
        empty = ("",) * len(listing.paths)
        return LabeledFiles(dataclasses.replace(listing, labels=empty), empty, "no labels", {}, ())


def drop_unlabeled_parts(assigned: Assignment) -> Assignment:
    """Return no labels for a part whose only folder is no class of the training data, as `test/test/`."""
    pairs = list(zip(assigned.labels, assigned.splits, strict=True))
    trained = {label for label, split in pairs if split == "train"}
    own = {split: {label for label, each in pairs if each == split and label} for split in set(assigned.splits)}
    unlabeled = {split for split, labels in own.items() if trained and len(labels) == 1 and not labels & trained}
    return assigned._replace(labels=tuple("" if split in unlabeled else label for label, split in pairs))


def linked_note(left_out: LeftOut) -> str:
    """Return the note about a folder that is a link to another one of the data."""
    return (
        f"{left_out.example} is a link to a folder that is read anyway: its {left_out.count:,} files are in both, "
        "so they are read once"
    )


def assign_labels(listing: FileList, files: list[Parts], options: LabelOptions) -> Assignment:
    """Return what the most explicit source says about the files."""
    if options.pattern:
        return label_by_pattern(files, options.pattern)
    if options.table:
        return label_by_named_table(files, options)
    folders = label_by_folders(files, options.class_depth)
    if options.folders_only or options.class_depth > 1:
        return folders
    return with_tables_beside(listing, files, folders)


def label_by_named_table(files: list[Parts], options: LabelOptions) -> Assignment:
    """Assign the labels of the table that the user named."""
    file, index = expand_home(options.table), FileIndex(files)
    table = (read_coco(file) if file.suffix.lower() == ".json" and file.is_file() else None) or read_table(file)
    table = with_header(table, index)
    column, share = find_file_column(table, index)
    if not share:
        first = next(iter(table.columns.values()))[0]
        raise UserError(f"{file} has no column that names files of the data, such as {files[0][-1]}; it has {first}")
    return label_by_table(table, choose_columns(table, column, options.label, options.group), index)


def with_tables_beside(listing: FileList, files: list[Parts], folders: Assignment) -> Assignment:
    """Return the labels of a table beside the files if folders say nothing, and the folders' if both say the same.

    Raises:
        UserError: both say something, and not the same.
    """
    index = FileIndex(files)
    tables = tables_about(listing, index)
    if not tables:
        return folders
    table, by_folders = join_tables(tables), len(set(folders.labels) - {""}) > 1
    column, _ = find_file_column(table, index)
    try:
        columns = choose_columns(table, column)
        if not holds_classes(table, columns):
            return folders._replace(notes=(*folders.notes, f"{table.file.name} has no column of classes"))
        by_table = label_by_table(table, columns, index)
    except UserError as error:
        if not by_folders:
            raise
        return folders._replace(notes=(*folders.notes, f"{table.file.name} is not used: {error}"))
    if not by_folders:
        return by_table
    if same_partition(folders.labels, by_table.labels):
        return by_table if any(by_table.splits) and not any(folders.splits) else folders
    raise UserError(
        f"the folders and {table.file} give different classes: type --data.labels {table.file} or --data.labels folders"
    )


def tables_about(listing: FileList, index: FileIndex) -> list[Table]:
    """Return the tables in the root folder whose rows name the files that are listed; none if tables are the data."""
    if len(listing.roots) != 1 or listing.paths[0].lower().endswith(".csv"):
        return []
    tables = [with_header(table, index) for table in find_tables(expand_home(listing.roots[0]))]
    return [table for table in tables if len(table) and find_file_column(table, index)[1] >= MIN_SHARE]


def same_partition(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Return whether two labelings divide the files that both label in the same way."""
    pairs = {(a, b) for a, b in zip(one, other, strict=True) if a and b}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def complete_splits(files: list[Parts], assigned: Assignment) -> Assignment:
    """Return the splits that the labels come with; where they say nothing, those of the folders."""
    splits, names = split_by_folders(files)
    if not any(splits):
        return assigned
    both = tuple(own or by_folder for own, by_folder in zip(assigned.splits, splits, strict=True))
    return assigned._replace(splits=both, names={**names, **assigned.names})


def describe(files: LabeledFiles) -> list[str]:
    """Return the description as lines: classes, splits with their counts, and notes.

    What is left out is printed where the files are listed.
    """
    classes = files.classes
    lines = [f"{len(classes):,} classes: {files.how}" if classes else "no classes"]
    for split in files.split_names():
        counts = files.count(split)
        unlabeled = counts.pop("", 0)
        name = files.names.get(split, split)
        title = f"{split} ({name})" if split and name not in (split, f"{split}/") else name or "files"
        text = f"{title}: {sum(counts.values()):,} labeled, {len(counts):,} classes"
        lines.append(text + (f"; {unlabeled:,} without a label" if unlabeled else ""))
    return [*lines, *(f"note: {note}" for note in files.notes)]


def to_json(files: LabeledFiles) -> dict[str, Any]:
    """Return the description as plain values."""
    counts = {split or "all": files.count(split) for split in files.split_names()}
    left_out: tuple[LeftOut, ...] = files.listing.left_out
    return {
        "classes": list(files.classes),
        "how": files.how,
        "splits": {
            split: {"labeled": sum(own.values()) - own[""], "unlabeled": own[""],
                    "classes": {name: own[name] for name in files.classes if own[name]}}
            for split, own in counts.items()
        },
        "groups": len(set(files.listing.groups)) if files.listing.groups else 0,
        "left_out": [each._asdict() for each in left_out],
        "notes": list(files.notes),
    }  # fmt: skip
