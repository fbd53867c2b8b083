"""Find the samples of a tar in webdataset's layout: which pictures belong together, and their labels."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

LABEL_SUFFIXES = frozenset({".cls", ".json"})

LABEL_KEYS = ("label", "cls", "class", "class_name", "label_name", "category", "target")

MAX_LABEL_BYTES = 2**16  # larger label files are not read

FIRST_FIELDS = ("jpg", "jpeg", "png", "webp", "image", "img", "rgb", "input")  # preferred picture of a sample


class Stem(NamedTuple):
    """The name of a member without its suffix, and webdataset's key: without everything after the first dot."""

    folder: str
    stem: str
    key: str
    field: str  # what follows the key, without the dot


def split_name(name: str) -> Stem:
    """Split a member's name; `a/b.seg.png` has the folder `a`, the stem `b.seg`, the key `b`, the field `seg.png`."""
    path = PurePosixPath(name)
    key, _, field = path.name.partition(".")
    return Stem(str(path.parent), path.stem, key, field)


def find_second_pictures(names: Iterable[str]) -> set[str]:
    """Return the pictures that belong to the sample of another picture, as `KEY.seg.png` beside `KEY.jpg`.

    Names that only share a beginning, such as `scene.1.jpg` and `scene.2.jpg`, are samples of their own: the parts of
    a sample have the same fields in many samples.
    """
    samples: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for name in names:
        stem = split_name(name)
        samples[stem.folder, stem.key].append(name)
    fields = Counter(split_name(name).field for pictures in samples.values() for name in pictures)
    seconds: set[str] = set()
    for (_, key), pictures in samples.items():
        if len(pictures) > 1:
            seconds.update(second_pictures_of(key, pictures, fields))
    return seconds


def second_pictures_of(key: str, pictures: list[str], fields: Counter[str]) -> Iterator[str]:
    """Yield the pictures of one key that are not its first one; none if they are samples of their own."""
    plain = [name for name in pictures if split_name(name).stem == key]
    if not plain and any(fields[split_name(name).field] == 1 for name in pictures):
        return
    first = min(plain or pictures, key=field_rank)
    # beside KEY.jpg, KEY.1.jpg is a part of the sample only if other samples have such a part, or it has no number
    for name in pictures:
        field = split_name(name).field
        if name != first and (fields[field] > 1 or not field.split(".")[0].isdecimal()):
            yield name


def field_rank(name: str) -> tuple[int, str]:
    """Rank the pictures of a sample: plain suffixes first, then names such as `image.png`, then by name."""
    first = split_name(name).field.split(".")[0].lower()
    return FIRST_FIELDS.index(first) if first in FIRST_FIELDS else len(FIRST_FIELDS), name


class LabelFiles:
    """Labels by the name of their file: the picture with the same stem, or else with the same key, has the label."""

    def __init__(self) -> None:
        self.by_stem: dict[tuple[str, str], str] = {}
        self.by_key: dict[tuple[str, str], set[str]] = defaultdict(set)

    def add(self, name: str, content: bytes) -> None:
        """Read a label file; one without a label, or of a picture that has one, is ignored."""
        stem = split_name(name)
        if (stem.folder, stem.stem) not in self.by_stem and (label := read_label(name, content)):
            self.by_stem[stem.folder, stem.stem] = label
            self.by_key[stem.folder, stem.key].add(label)

    def label_of(self, name: str) -> str:
        """Return the label of a picture; empty if it has none, or if its key has several."""
        stem = split_name(name)
        if label := self.by_stem.get((stem.folder, stem.stem)):
            return label
        labels = self.by_key.get((stem.folder, stem.key), set())
        return next(iter(labels)) if len(labels) == 1 else ""


def read_label(name: str, content: bytes) -> str:
    """Return the label in a `.cls` or `.json` file as text for a folder's name; empty without one."""
    text = content.decode("utf-8-sig", errors="replace").strip()
    if name.lower().endswith(".json"):
        try:
            text = label_in_json(json.loads(text))
        except (ValueError, RecursionError):
            return ""
    return text.replace("/", "-").strip()


def label_in_json(content: Any) -> str:
    """Return the label of a sample's JSON: a plain value, or the value of a key such as `label`."""
    if isinstance(content, dict):
        content = next((content[key] for key in LABEL_KEYS if key in content), None)
    if isinstance(content, bool) or not isinstance(content, str | int):
        return ""
    return str(content)
