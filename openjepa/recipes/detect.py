"""Tell the modality of a run from its files: by suffix, and for arrays also by type of value and number of axes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core import registry
from openjepa.core.errors import UserError
from openjepa.data.archives import ARCHIVE_SUFFIXES
from openjepa.data.path_list import read_path_list
from openjepa.data.walking import path_suffix, walk_files

COUNTED_FILES = 20_000  # files whose names are counted

SAMPLED_FILES = 64  # files of each suffix that are looked at


def detect_modality(root: tuple[str, ...], skip_damaged: bool = False) -> str:
    """Return the name of the modality that reads most of the files below `root`.

    A few files of another kind, such as a table of labels beside images, do not matter. Without a file that any
    modality reads it is `image`, whose listing says what it looked for. Raises UserError if another modality reads
    more than a quarter as many: the user then names one; or if an array is damaged, unless such are skipped.
    """
    modalities = {name: registry.find("modality", name) for name in registry.names("modality")}
    suffixes = frozenset().union(*(getattr(cls, "suffixes", ()) for cls in modalities.values()))
    by_suffix: dict[str, list[str]] = defaultdict(list)
    for file in islice(sample_files(root, suffixes), COUNTED_FILES):
        by_suffix[path_suffix(file)].append(file)
    counts, examples = defaultdict[str, float](float), dict[str, str]()
    for files in by_suffix.values():
        sample = files[:SAMPLED_FILES]
        for name, cls in modalities.items():
            if readable := [file for file in sample if reads(cls, file, skip_damaged)]:
                counts[name] += len(files) * len(readable) / len(sample)
                examples.setdefault(name, readable[0])
    candidates = [name for name in modalities if 4 * counts[name] > max(counts.values())]
    if len(candidates) > 1:
        which = ", ".join(f"{name} reads {examples[name]}" for name in candidates)
        raise UserError(f"the modality is ambiguous ({which}): add --modality {' or --modality '.join(candidates)}")
    return candidates[0] if candidates else "image"


def sample_files(root: tuple[str, ...], suffixes: frozenset[str]) -> Iterator[str]:
    """Yield files below folders, archives and single files; the names in a .txt file are its lines."""
    for each in root:
        path = Path(each).expanduser()
        if path.suffix.lower() == ".txt" and path.is_file():
            yield from read_path_list(path)
        elif path.is_file():
            yield str(path)
        elif path.is_dir():
            yield from (file for file, _ in walk_files(str(path), suffixes | ARCHIVE_SUFFIXES))


def reads(modality: Any, file: str, skip_damaged: bool = False) -> bool:
    """Return whether a modality reads a file: its suffix fits and, of an array, type of value and number of axes."""
    suffix = path_suffix(file)
    if suffix in ARCHIVE_SUFFIXES:
        return getattr(modality, "archives", False)
    if suffix not in getattr(modality, "suffixes", ()):
        return False
    try:
        return suffix != ".npy" or array_kind(file) in modality.arrays
    except UserError:
        if skip_damaged:
            return False
        raise


def array_kind(file: str) -> tuple[str, int]:
    """Return the kind of an array's values (u: unsigned integers, f: floats …) and its number of axes."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{file} is not a .npy array that can be read ({error}): repair or remove it") from error
    return array.dtype.kind, array.ndim
