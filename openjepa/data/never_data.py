"""What lies beside data on a disk and is never data: hidden files, companions, thumbnails, our own outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

HIDDEN = "hidden files"
COMPANION = "macOS companion files (._*)"
SYSTEM = "files of the system or of other programs"
OUTPUT = "files written by jepa"
LINKED = "files behind links to folders that are read anyway"
SECOND_PICTURE = "further pictures of a sample"
NO_SUFFIX = "."  # files without an ending; a reason that starts with a dot is an ending that no modality reads

SYSTEM_FOLDERS = frozenset(
    {
        "__macosx",  # zip archives of macOS
        "@eadir", "#recycle", "#snapshot", "@recycle", "@tmp",  # network disks
        "$recycle.bin", "system volume information", "recycler", "lost+found", "found.000",
        "thumbnails", "thumbs", "_thumbs", "__pycache__", "node_modules",
    }
)  # fmt: skip

SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini"})

MAX_COUNTED = 10_000  # files that are counted in one folder that is left out

SHOWN_ENDINGS = 6


class LeftOut(NamedTuple):
    """Files of one reason that are not read."""

    reason: str
    count: int
    example: str


def reason_to_leave_out(name: str, is_folder: bool) -> str:
    """Return why a file or folder of this name is never data; empty if it may be."""
    if name.startswith("._"):
        return COMPANION
    if name.startswith(".") and name != "." and name.strip("."):
        return HIDDEN
    lower = name.lower()
    if lower in (SYSTEM_FOLDERS if is_folder else SYSTEM_FILES) or (is_folder and lower.endswith(".lrdata")):
        return SYSTEM
    return ""


def reason_in_path(parts: Iterable[str]) -> str:
    """Return why a member of an archive is never data, by its folders and its name; empty if it may be."""
    *folders, name = parts
    reasons = (reason_to_leave_out(each, is_folder=True) for each in folders)
    return next(filter(None, reasons), "") or reason_to_leave_out(name, is_folder=False)


def needs_sniffing(suffix: str) -> bool:
    """Return whether a suffix says nothing about the format: none, as in a hash, or one such as `.jpg?w=300`."""
    return not re.fullmatch(r"\.[a-z][a-z0-9_-]{0,9}", suffix) or suffix in (".php", ".tmp", ".bak", ".orig")


class LeftOutFiles:
    """Counts the files that are not read, by reason."""

    def __init__(self) -> None:
        self.counts: dict[str, LeftOut] = {}

    def add(self, reason: str, path: str, count: int = 1) -> None:
        """Count a file, or the files of a folder."""
        before = self.counts.get(reason, LeftOut(reason, 0, path))
        self.counts[reason] = before._replace(count=before.count + count)

    def add_folder(self, reason: str, folder: str) -> None:
        """Count the files below a folder that is left out as a whole."""
        if count := sum(1 for _ in islice(iter_files(folder), MAX_COUNTED)):
            self.add(reason, folder, count)

    def merge(self, other: LeftOutFiles) -> None:
        """Add what another walk left out."""
        for each in other.counts.values():
            self.add(each.reason, each.example, each.count)

    def listed(self) -> tuple[LeftOut, ...]:
        """Return the reasons, the most frequent first."""
        return tuple(sorted(self.counts.values(), key=lambda each: (-each.count, each.reason)))


def iter_files(folder: str) -> Iterator[Path]:
    """Yield the files below a folder."""
    return (file for file in Path(folder).rglob("*") if file.is_file())


def describe_left_out(left_out: Iterable[LeftOut]) -> str:
    """Say how many files are not read and why, in one line; empty if all are."""
    reasons = list(left_out)
    parts = [
        f"{each.count:,}{'+' * (each.count == MAX_COUNTED)} {each.reason} (e.g. {each.example})"
        for each in reasons
        if not each.reason.startswith(".")
    ]
    if others := [each for each in reasons if each.reason.startswith(".")]:
        endings = ", ".join(describe_ending(each) for each in others[:SHOWN_ENDINGS])
        parts.append(f"other files: {endings}")
    return "; ".join(parts)


def describe_ending(files: LeftOut) -> str:
    """Return how many files have an ending that is not read."""
    return f"{files.count:,} {'without ending' if files.reason == NO_SUFFIX else files.reason}"
