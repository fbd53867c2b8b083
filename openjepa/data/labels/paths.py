"""Paths relative to the root they were listed from, as the parts that carry labels; the same for archives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from openjepa.core.fileio import expand_home
from openjepa.core.types import FileList
from openjepa.data.archives import parse_address
from openjepa.data.labels.words import read_split_name

Parts = tuple[str, ...]  # folders and name


def relative_parts(listing: FileList) -> list[Parts]:
    """Return the folders and the name of each file, relative to the root that it was listed from.

    A member of an archive has the folders of its archive and its own ones. The name of an archive is a folder only if
    it names a split, as `train-00000-of-00002.parquet` does, which becomes `train-*`.
    """
    roots = [root_folder(root) for root in listing.roots]
    return [parts_of(path, roots) for path in listing.paths]


def root_folder(root: str) -> str:
    """Return the folder that paths of a root are relative to: the root, or the folder of a file or list."""
    path = expand_home(root)
    return str(path if path.is_dir() else path.parent)


def parts_of(path: str, roots: Sequence[str]) -> Parts:
    """Return the parts of one path or address."""
    address = parse_address(path)
    if address is None:
        return PurePosixPath(strip_root(path, roots).replace(os.sep, "/")).parts
    *folders, name = PurePosixPath(strip_root(address.archive, roots).replace(os.sep, "/")).parts
    stem = name.partition(".")[0]
    split = read_split_name(stem)
    own = [f"{stem[: len(stem) - len(split.rest[1])]}-*"] if split and not split.rest[0] else []
    members = [part for part in PurePosixPath(address.name).parts if part not in (".", "..", "/")]
    return (*folders, *own, *members)


def strip_root(path: str, roots: Sequence[str]) -> str:
    """Remove the root that a path starts with, the longest one; without a root, all but the last two parts."""
    matching = [root for root in roots if path.startswith(root.rstrip(os.sep) + os.sep)]
    if matching:
        return path[len(max(matching, key=len).rstrip(os.sep)) + 1 :]
    if "." in roots:
        return path.removeprefix(f".{os.sep}")
    return str(PurePosixPath(*PurePosixPath(path).parts[-2:]))
