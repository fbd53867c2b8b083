"""The words that people call parts of a data set: training, test and validation data, pictures and masks."""

from __future__ import annotations

import re
from typing import NamedTuple

SPLIT_WORDS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout"),
}

SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}

# a word of its own in lower case, maybe joined with what it is a part of, as in `trainset` and `TestImages`
SPLIT_NAME = re.compile(
    rf"(?<![a-z])({'|'.join(sorted(SPLIT_OF_WORD, key=len, reverse=True))})"
    r"(?=$|[^a-z]|data|set|image|img|folder|sample)"
)

ABBREVIATION = re.compile(r"(?<=[a-z])(Tr|Ts)$")  # imagesTr and imagesTs, as medical data sets call them

# folders of pictures beside folders of what belongs to them: no classes
PICTURE_WORDS = frozenset({"image", "images", "img", "imgs", "input", "inputs", "jpegimages", "photos", "x"})
TARGET_WORDS = frozenset(
    {"mask", "masks", "label", "labels", "annotation", "annotations", "ann", "anns", "gt", "ground_truth",
     "groundtruth", "segmentation", "segmentations", "seg", "target", "targets", "depth", "y",
     "segmentationclass", "segmentationobject"}
)  # fmt: skip


class SplitName(NamedTuple):
    """A folder's name as a split: which one, and what remains of the name without the word."""

    split: str  # train, test or val
    rest: tuple[str, str]  # before and after the word; the splits of a data set have the same


def read_split_name(name: str) -> SplitName | None:
    """Read a name such as `train`, `Testing`, `seg_train` or `images-val`; return None if no word is a split."""
    if short := ABBREVIATION.search(name):
        return SplitName({"Tr": "train", "Ts": "test"}[short[1]], (name[: short.start()].lower(), ""))
    lower = name.lower()
    if match := SPLIT_NAME.search(lower):
        return SplitName(SPLIT_OF_WORD[match[1]], (lower[: match.start()], lower[match.end() :]))
    return None


def find_splits(names: list[str]) -> dict[str, str]:
    """Return the folders among `names` that are the splits of one data set, with their split.

    There must be training data and, under the same name but for the word, test or validation data, so that classes
    called `train` and `test tube` are not taken for splits. Otherwise empty.
    """
    readings = {name: reading for name in names if (reading := read_split_name(name))}
    for rest in sorted({reading.rest for reading in readings.values()}):
        parts = {name: reading.split for name, reading in readings.items() if reading.rest == rest}
        if list(parts.values()).count("train") == 1 and len(parts) > 1:
            first = {split: name for name, split in reversed(parts.items())}  # of `val` and `valid` the first one
            return {name: split if first[split] == name else f"{name}/" for name, split in parts.items()}
    return {}


def are_pictures_and_masks(names: list[str]) -> bool:
    """Return whether folders hold pictures and their masks or other targets, which are no classes."""
    words = {name.lower() if name.lower() in TARGET_WORDS else first_word(name) for name in names}
    return bool(words & PICTURE_WORDS) and bool(words & TARGET_WORDS) and words <= PICTURE_WORDS | TARGET_WORDS


def first_word(name: str) -> str:
    """Return the first word of a name in lower case: `images` of `imagesTr` and of `Images_2019`."""
    match = re.match(r"[A-Z]*[a-z]+|[A-Z]+", name)
    return match[0].lower() if match else name.lower()
