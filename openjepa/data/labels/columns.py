"""Label files by a table: find its column of files, of labels, of splits and of groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from openjepa.core.errors import UserError
from openjepa.data.labels.folders import Assignment
from openjepa.data.labels.paths import Parts
from openjepa.data.labels.tables import Table
from openjepa.data.labels.words import SPLIT_OF_WORD

LABEL_NAMES = ("label", "class", "labels", "class_name", "classname", "label_name", "category", "target", "species",
               "breed", "diagnosis", "dx", "y")  # fmt: skip

SPLIT_NAMES = ("split", "set", "subset", "partition", "fold_name")

GROUP_NAMES = ("group", "subject", "subject_id", "patient", "patient_id", "patientid", "person", "speaker", "lesion_id",
               "recording", "sequence", "site", "animal_id", "user_id")  # fmt: skip

SAMPLED_ROWS = 300  # rows that are looked at to find the column of files


class FileIndex:
    """Finds files by what a table calls them: a path relative to anything above the file, its name or its stem."""

    def __init__(self, files: Sequence[Parts]):
        self.files = files
        self.by_name: defaultdict[str, list[int]] = defaultdict(list)
        self.by_stem: defaultdict[str, list[int]] = defaultdict(list)
        for number, parts in enumerate(files):
            self.by_name[parts[-1]].append(number)
            self.by_stem[PurePosixPath(parts[-1]).stem].append(number)

    def find(self, value: str) -> list[int]:
        """Return the files that a value of a table may mean: one if it is clear, several if it is not."""
        parts = tuple(
            part for part in value.strip().strip("\"'").replace("\\", "/").split("/") if part not in ("", ".")
        )
        if not parts:
            return []
        candidates = self.by_name.get(parts[-1]) or self.by_stem.get(parts[-1]) or self.by_stem.get(stem_of(parts[-1]))
        if not candidates or len(candidates) == 1:
            return candidates or []
        folders = parts[:-1]
        depth = max(shared_end(self.files[each][:-1], folders) for each in candidates)
        return [each for each in candidates if shared_end(self.files[each][:-1], folders) == depth]


def stem_of(name: str) -> str:
    """Return a name without a suffix of a picture that has since been converted: `1.dcm` names `1.png`."""
    return PurePosixPath(name).stem


def shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many of the last parts of two paths are equal."""
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count


def with_header(table: Table, index: FileIndex) -> Table:
    """Return the table; one whose header line names a file has no header, as the lists of video people."""
    if not any(index.find(name) for name in table.columns):
        return table
    columns = enumerate(table.columns.items(), 1)
    return Table(table.file, {f"column {number}": [name, *values] for number, (name, values) in columns})


class TableColumns(NamedTuple):
    """The columns of a table that say file, label, split and group; an empty name: no such column."""

    file: str
    label: str
    split: str
    group: str


def find_file_column(table: Table, index: FileIndex) -> tuple[str, float]:
    """Return the column whose values name files best, and the fraction of its values that do."""
    step = max(1, len(table) // SAMPLED_ROWS)
    shares = {}
    for name, values in table.columns.items():
        sample = [value for value in values[::step] if value]
        shares[name] = sum(bool(index.find(value)) for value in sample) / max(1, len(sample))
    best = max(shares, key=lambda name: shares[name], default="")
    return best, shares.get(best, 0.0)


def choose_columns(table: Table, file: str, label: str = "", group: str = "") -> TableColumns:
    """Choose the columns; `label` and `group` name those that the user chose.

    Raises:
        UserError: a named column does not exist, or several columns may be the label.
    """
    for flag, name in (("--data.label", label), ("--data.group", group)):
        if name and name not in table.columns:
            raise UserError(f"{table.file} has no column {name} for {flag}: choose from {', '.join(table.columns)}")
    split = next((name for name in table.columns if name.lower() in SPLIT_NAMES and holds_splits(table, name)), "")
    rest = [name for name in table.columns if name not in (file, split, group)]
    by_lower = {name.lower(): name for name in reversed(rest)}
    named = [by_lower[name] for name in LABEL_NAMES if name in by_lower]
    chosen = label or (named[0] if named else rest[0] if len(rest) == 1 else "")
    if not chosen and not one_hot_columns(table, rest):
        raise UserError(
            f"{table.file} has several columns that may be the label ({', '.join(rest[:12])}): "
            f"type --data.labels {table.file} --data.label COLUMN"
        )
    return TableColumns(file, chosen, split, group)


def holds_classes(table: Table, columns: TableColumns) -> bool:
    """Return whether the column of labels is called so, or repeats its values, as sizes and hashes do not."""
    values = set(table.columns.get(columns.label, []))
    return columns.label.lower() in ("", *LABEL_NAMES) or len(values) <= len(table) / 2


def holds_splits(table: Table, name: str) -> bool:
    """Return whether a column's values are the names of splits."""
    return {value.lower() for value in table.columns[name]} - {""} <= set(SPLIT_OF_WORD)


def one_hot_columns(table: Table, names: list[str]) -> list[str]:
    """Return columns of 0 and 1 if exactly one of them is 1 in every row; otherwise no columns."""
    binary = [name for name in names if {value.removesuffix(".0") for value in table.columns[name]} <= {"0", "1"}]
    rows = zip(*(table.columns[name] for name in binary), strict=True) if len(binary) > 1 else ()
    counts = [sum(value.startswith("1") for value in row) for row in rows]
    return binary if counts and all(count == 1 for count in counts) else []


def label_by_table(table: Table, columns: TableColumns, index: FileIndex) -> Assignment:
    """Assign what a table says to the files.

    Raises:
        UserError: a row may mean several files, the rows of a file differ, or no row names a file.
    """
    labels, splits, groups = ([""] * len(index.files) for _ in range(3))
    missing, example, labels_of_rows = 0, "", row_labels(table, columns)
    for row, value in enumerate(table.columns[columns.file]):
        files = index.find(value)
        if len(files) > 1:
            names = ", ".join("/".join(index.files[each]) for each in files[:2])
            raise UserError(f"row {row + 2} of {table.file} names {value}, which may be {names}: give paths")
        if not files:
            missing, example = missing + 1, example or value
            continue
        label, number = labels_of_rows[row], files[0]
        if labels[number] not in ("", label):
            raise UserError(
                f"{table.file} gives {value} two labels, {labels[number]} and {label}: a file needs one label"
            )
        labels[number] = label
        splits[number] = SPLIT_OF_WORD.get(table.columns[columns.split][row].lower(), "") if columns.split else ""
        groups[number] = table.columns[columns.group][row] if columns.group else ""
    if not any(labels) and missing == len(table):
        raise UserError(f"no row of {table.file} names a file of the data: {columns.file} is {example}, for instance")
    if not any(labels):
        raise UserError(
            f"the column {columns.label} of {table.file} is empty: type --data.labels {table.file} --data.label COLUMN"
        )
    notes = tuple(notes_on_rows(table, columns, labels, missing, example))
    how = f"classes are the column {columns.label or 'that is 1'} of {table.file.name}"
    return Assignment(tuple(labels), tuple(splits), how, {}, notes, tuple(groups) if columns.group else ())


def row_labels(table: Table, columns: TableColumns) -> list[str]:
    """Return the label of each row: the cell, or the name of the column that is 1."""
    if columns.label:
        return [value.replace("/", "-") for value in table.columns[columns.label]]
    names = one_hot_columns(table, [name for name in table.columns if name not in columns])
    rows = zip(*(table.columns[name] for name in names), strict=True)
    return [next(name for name, value in zip(names, row, strict=True) if value.startswith("1")) for row in rows]


def notes_on_rows(table: Table, columns: TableColumns, labels: list[str], missing: int, example: str) -> Iterator[str]:
    """Yield what does not fit between rows and files, and a column that may say which files belong together."""
    if missing:
        yield f"{missing:,} rows of {table.file.name} name no file of the data, e.g. {example}"
    classes = {each for each in labels if each}
    if len(classes) > 100 and len(classes) > sum(map(bool, labels)) / 2:
        yield f"{columns.label} has {len(classes):,} different values: are these classes?"
    together = [name for name in table.columns if name.lower() in GROUP_NAMES]
    if together and not columns.group:
        yield f"--data.group {together[0]} --data.split groups keeps files of one {together[0]} together"
