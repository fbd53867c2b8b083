"""List videos: files, folders of frames, members of archives, or the lines of a table `path label`."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from openjepa.core.errors import UserError
from openjepa.core.fileio import expand_home
from openjepa.core.types import FileList
from openjepa.data.listing import files_under, list_files
from openjepa.data.never_data import LeftOutFiles
from openjepa.data.video_folders import FRAME_SUFFIXES
from openjepa.data.video_formats import CONTAINER_SUFFIXES, VIDEO_SUFFIXES

MIN_FRAMES = 2  # images of a folder that is a clip

LINE = re.compile(r"(.+?)[ ,;\t]+(\S+)")


def list_videos(roots: Sequence[str]) -> FileList:
    """List the video files below some folders, or if there are no such files, the folders of frames.

    A .csv file without a header line has the path of a video and its label in each line. Raises UserError if no video
    is below the roots.
    """
    if any(root.lower().endswith(".csv") for root in roots):
        return list_table(roots)
    if has_videos(roots):
        return list_files(roots, VIDEO_SUFFIXES, samples="videos")
    images = list_files(roots, FRAME_SUFFIXES, include_archives=False, samples="videos")
    counts = Counter(str(Path(path).parent) for path in images.paths)
    folders = [folder for folder, count in counts.items() if count >= MIN_FRAMES]
    if not folders:
        raise UserError(
            f"no videos in {' '.join(roots)}: neither files ending in {' '.join(sorted(CONTAINER_SUFFIXES))} "
            f"nor folders with at least {MIN_FRAMES} images, the frames of a clip"
        )
    return dataclasses.replace(images, paths=folders)


def has_videos(roots: Sequence[str]) -> bool:
    """Return whether a video file, an archive or a list of paths is below the roots."""
    for root in roots:
        path = expand_home(root)
        if not path.is_dir():
            return True
        if files_under(root, VIDEO_SUFFIXES, frozenset({".tar", ".parquet"}), LeftOutFiles()):
            return True
    return False


def list_table(roots: Sequence[str]) -> FileList:
    """List the videos that a .csv file without a header names, with their labels."""
    if len(roots) > 1:
        raise UserError(f"give one table of videos, got {' '.join(roots)}")
    table = expand_home(roots[0])
    if not table.is_file():
        raise UserError(f"{table} does not exist: check the path")
    pairs = [read_line(table, number, line) for number, line in enumerate(read_lines(table), 1)]
    if not pairs:
        raise UserError(f"{table} is empty: each line needs the path of a video and its label")
    paths = [path for path, _ in pairs]
    files = list_files(sorted(set(paths)), VIDEO_SUFFIXES, samples="videos")
    return FileList(paths, partial(table_fingerprint, files, pairs), None, files.left_out, (str(table.parent),),
                    tuple(label for _, label in pairs))  # fmt: skip


def read_lines(table: Path) -> list[str]:
    """Return the lines of a table that are not empty."""
    return [line for line in table.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if line.strip()]


def read_line(table: Path, number: int, line: str) -> tuple[str, str]:
    """Return path and label of a line; a relative path is relative to the table. Raises UserError."""
    match = LINE.fullmatch(line.strip())
    if not match:
        raise UserError(f"line {number} of {table} is {line!r}: each line needs the path of a video and its label")
    path = str(table.parent / match[1])
    if not Path(path).exists():
        raise UserError(f"line {number} of {table} names {path}, which does not exist")
    return path, match[2]


def table_fingerprint(files: FileList, pairs: list[tuple[str, str]]) -> str:
    """Hash the contents of the files and the order and labels of the lines."""
    names = "\0".join(f"{Path(path).name}\0{label}" for path, label in pairs).encode("utf-8", "surrogateescape")
    return hashlib.sha256(files.fingerprint.encode() + names).hexdigest()[:32]
