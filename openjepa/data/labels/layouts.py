"""Read the label files of known data sets: Hugging Face's metadata, CUB, COCO, and tables beside the data."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError
from openjepa.core.outputs import output_names
from openjepa.data.labels.tables import MAX_TABLE_BYTES, Table, read_table, read_text
from openjepa.data.labels.words import read_split_name

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of Hugging Face's imagefolder

CUB_IMAGES, CUB_LABELS, CUB_CLASSES, CUB_SPLIT = (
    "images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt",
)  # fmt: skip

NO_LABELS = ("sample_submission", "submission", "sample")  # tables of Kaggle that are to be filled in


def find_tables(root: Path) -> list[Table]:
    """Return the tables in a root folder that may hold labels; the most specific layout alone."""
    if not root.is_dir():
        return []
    if (root / CUB_LABELS).is_file() and (root / CUB_IMAGES).is_file():
        return [read_cub(root)]
    folders = [root, *sorted(each for each in root.iterdir() if each.is_dir() and read_split_name(each.name))]
    if metadata := [folder / name for folder in folders for name in METADATA if (folder / name).is_file()]:
        return [in_folder(read_table(file), file.parent.relative_to(root)) for file in metadata]
    if coco := list(read_coco_files(root)):
        return coco
    outputs = output_names(str(root))
    files = [file for file in sorted(root.iterdir()) if file.name not in outputs]
    return [table for file in files if (table := plain_table(file))]


def in_folder(table: Table, folder: Path) -> Table:
    """Return a table whose files are relative to a folder; if the folder is a split, its rows are of that split."""
    split = read_split_name(folder.name)
    if not split:
        return table
    columns = {name: list(values) for name, values in table.columns.items()}
    if "file_name" in columns:
        columns["file_name"] = [f"{folder.as_posix()}/{value}" if value else "" for value in columns["file_name"]]
    return Table(table.file, {**columns, "split": [split.split] * len(table)})


def plain_table(file: Path) -> Table | None:
    """Read a .csv or .tsv that may hold labels; one called train or test has the labels of that split."""
    stem = file.stem.lower()
    if file.suffix.lower() not in (".csv", ".tsv") or stem.startswith((".", *NO_LABELS)) or not file.is_file():
        return None
    try:
        table = read_table(file)
    except UserError:  # a table beside the data need not be one of labels; --data.labels says what is wrong with it
        return None
    split = read_split_name(stem)
    if not split or "split" in table.columns:
        return table
    return Table(file, {**table.columns, "split": [split.split] * len(table)})


def read_cub(root: Path) -> Table:
    """Read the text files of CUB-200: numbers of images with their paths, classes and split."""

    def pairs(name: str) -> dict[str, str]:
        lines = read_text(root / name).splitlines() if (root / name).is_file() else []
        return dict(line.strip().split(maxsplit=1) for line in lines if len(line.split()) > 1)  # type: ignore[misc]

    images, labels, classes, training = map(pairs, (CUB_IMAGES, CUB_LABELS, CUB_CLASSES, CUB_SPLIT))
    rows = [number for number in images if number in labels]
    columns = {
        "file": [images[number] for number in rows],
        "label": [classes.get(labels[number], labels[number]) for number in rows],
    }
    if training:
        columns["split"] = ["train" if training.get(number) == "1" else "test" for number in rows]
    return Table(root / CUB_LABELS, columns)


def read_coco_files(root: Path) -> Iterator[Table]:
    """Yield the tables of the COCO annotations in a folder, or in its folder `annotations`."""
    for folder in (root, root / "annotations"):
        for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            if file.stat().st_size <= MAX_TABLE_BYTES and (table := read_coco(file)):
                yield table


def read_coco(file: Path) -> Table | None:
    """Read COCO annotations as a table of one category for each image; None if the file is something else.

    Raises:
        UserError: an image has several categories.
    """
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= content.keys():
        return None
    try:
        return coco_table(file, content)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is not as COCO's annotations are ({error!r}): give a .csv as --data.labels") from error


def coco_table(file: Path, content: dict[str, Any]) -> Table:
    """Return the table of COCO annotations. Raises UserError if an image has several categories."""
    names = {each["id"]: str(each["name"]) for each in content["categories"]}
    categories: defaultdict[Any, set[str]] = defaultdict(set)
    for each in content["annotations"]:
        categories[each["image_id"]].add(names[each["category_id"]])
    files = {each["id"]: str(each["file_name"]) for each in content["images"]}
    for number, own in categories.items():
        if len(own) > 1:
            raise UserError(
                f"{file} gives {files.get(number, number)} several categories ({', '.join(sorted(own)[:4])}): probes "
                "need one class for each image, give a table of one as --data.labels FILE"
            )
    columns = {
        "file_name": [files[number] for number in files if number in categories],
        "category": [next(iter(categories[number])) for number in files if number in categories],
    }
    if split := read_split_name(file.stem):
        columns["split"] = [split.split] * len(columns["file_name"])
    return Table(file, columns)


def join_tables(tables: list[Table]) -> Table:
    """Return the rows of several tables, such as those of the splits, with the columns that all of them have."""
    first, *others = tables
    if not others:
        return first
    names = [name for name in first.columns if all(name in table.columns for table in others)]
    return Table(first.file, {name: [cell for table in tables for cell in table.columns[name]] for name in names})
