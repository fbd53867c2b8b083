"""Name the files of results after the data, so that two data sets whose folders share a name keep their own."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openjepa.core.errors import UserError
from openjepa.data.identity import portable_name
from openjepa.evaluation.scores import read_scores
from openjepa.evaluation.settings import LabeledData

MAX_NAME_BYTES = 180  # a file system allows 255, and endings are added

ROOTS = "roots"  # in the files: absolute paths of the data


def absolute_roots(roots: Sequence[str]) -> list[str]:
    """Return the absolute paths of data, without links: two names of one folder are the same data."""
    paths = [os.path.realpath(os.path.expanduser(root)) for root in roots]  # noqa: PTH111
    return [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths]  # can be written to a file


def results_folder(run: str, kind: str) -> Path:
    """Return the default folder of results: in the run, or named after weights that are no folder."""
    if Path(run).is_dir():
        return Path(run) / kind
    return Path(kind) / re.sub(r"[^\w.-]+", "-", run).strip("-.")[-MAX_NAME_BYTES:]


def choose_name(folder: Path, labeled: LabeledData, images: Sequence[str]) -> str:
    """Return the name of the result files of this data in a folder: its own earlier ones, or a name that is free.

    `images` are the fingerprints of the data, which stay the same when the data set is moved. Names that differ in
    nothing but upper and lower case count as one, as they do on other systems.
    """
    existing = {portable_name(file.stem).casefold(): file for file in sorted(folder.glob("*.json"))}
    for name in possible_names(labeled):
        file = existing.get(portable_name(name).casefold())
        if file is None:
            return name
        if holds_same_data(file, labeled, images):
            return file.stem
    raise AssertionError("the last name is a hash of the path")


def possible_names(labeled: LabeledData) -> Iterator[str]:
    """Yield names from short to long: the folder, with the folders above it, with a hash of its path and the split."""
    own, roots = labeled.name.replace("/", "-"), absolute_roots(labeled.root or labeled.test)  # columns may be a/b
    whole = hashlib.sha256("\0".join([*roots, *labeled.split_names]).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    above = Path(roots[0]).parts[1:] if roots else ()
    if labeled.has_classes:
        above = above[:-1]
    name = own
    for part in ("", *reversed(above)):
        name = f"{part}-{name}" if part else name
        if len(os.fsencode(name)) > MAX_NAME_BYTES:
            break
        yield name
    short = os.fsencode(own)[: MAX_NAME_BYTES - 9].decode(errors="ignore")
    yield f"{short}-{whole}"


def holds_same_data(file: Path, labeled: LabeledData, images: Sequence[str]) -> bool:
    """Return whether a file holds results of the same data: the same contents, or the same place.

    A damaged file counts as the same: reading its scores reports the damage.
    """
    try:
        content: dict[str, Any] = read_scores(file)
        about = content.get("about", {})
        if about.get("images") == list(images):
            return True
        before = content.get(ROOTS) or content.get("settings", {}).get("data", {}).get("root", [])
        return absolute_roots(before) == absolute_roots(labeled.root or labeled.test)
    except (UserError, AttributeError, TypeError):
        return True
