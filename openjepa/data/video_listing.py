"""List videos: files, folders of frames, the lines `path label` of a table without a header, members of archives."""

from __future__ import annotations

import dataclasses
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from openjepa.core.errors import UserError
from openjepa.core.fileio import expand_home
from openjepa.core.types import FileList
from openjepa.data.archives import ARCHIVE_SUFFIXES
from openjepa.data.listing import files_under, list_sources
from openjepa.data.never_data import LeftOutFiles
from openjepa.data.path_list import read_text, shorten, spellings
from openjepa.data.video_folders import FRAME_SUFFIXES, frames_in_folder
from openjepa.data.video_formats import VIDEO_SUFFIXES, is_video
from openjepa.data.walking import walk_files

MIN_FRAMES = 2  # images in a folder that is a clip

NOT_FRAMES = "images outside folders of frames"

LABEL = re.compile(r"(.*[^\s,])[ \t]*[ ,\t][ \t]*([^ ,\t]+)")  # a path, a separator, a label


def list_videos(roots: Sequence[str]) -> FileList:
    """List the videos of folders, archives and tables; a folder without video files may hold folders of frames.

    A table is a .csv file without a header whose lines are `path label` or `path`, separated by a space, a comma or a
    tab, with paths relative to its folder; the labels become those of the list.

    Raises:
        UserError: a root does not exist, holds no videos, or a line of a table names none.
    """
    labels: dict[str, str] = {}

    def find(root: str, left_out: LeftOutFiles) -> dict[str, int]:
        path = expand_home(root)
        if path.is_file() and path.suffix.lower() == ".csv":
            table = read_table(path)
            labels.update(table)
            return {each: stored_bytes(each) for each in table}
        frames = frame_folders(path, left_out) if path.is_dir() and not has_videos(path) else {}
        return frames or files_under(root, VIDEO_SUFFIXES, ARCHIVE_SUFFIXES, left_out, is_video, "video")

    listing = list_sources(roots, find, VIDEO_SUFFIXES, "video", files_with_contents)
    if not any(labels.values()):
        return listing
    return dataclasses.replace(listing, labels=tuple(labels.get(path, "") for path in listing.paths))


def has_videos(folder: Path) -> bool:
    """Return whether a folder, or one below it, has a video file."""
    return any(True for _ in walk_files(str(folder), VIDEO_SUFFIXES, sniff=is_video))


def frame_folders(root: Path, left_out: LeftOutFiles) -> dict[str, int]:
    """Return the folders of frames below a folder, and the bytes of their frames.

    A folder of frames has MIN_FRAMES images or more, and no folders with images in it.
    """
    others, sizes = LeftOutFiles(), defaultdict(list)
    for file, size in walk_files(str(root), FRAME_SUFFIXES, others):
        sizes[os.path.dirname(file)].append((size, file))  # noqa: PTH120 (speed)
    above = {str(parent) for folder in sizes for parent in Path(folder).parents}
    clips = {folder: own for folder, own in sizes.items() if len(own) >= MIN_FRAMES and folder not in above}
    if clips:
        left_out.merge(others)
        for folder in sizes.keys() - clips.keys():
            left_out.add(NOT_FRAMES, min(file for _, file in sizes[folder]), len(sizes[folder]))
    return {folder: sum(size for size, _ in own) for folder, own in clips.items()}


def files_with_contents(paths: Sequence[str]) -> Sequence[str]:
    """Return the frames of folders, and files as they are."""
    return [file for path in paths for file in (frames_in_folder(path) if os.path.isdir(path) else [path])]  # noqa: PTH112


def stored_bytes(path: str) -> int:
    """Return the bytes of a file, or of the frames in a folder."""
    files = frames_in_folder(path) if os.path.isdir(path) else [path]  # noqa: PTH112 (speed)
    return sum(os.stat(file).st_size for file in files)  # noqa: PTH116 (speed)


def read_table(file: Path) -> dict[str, str]:
    """Return path and label of each line of a table; "" without labels.

    Raises:
        UserError: a line names no file or folder, a path has two labels, or some lines have labels and others none.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip("\ufeff \t"):
            continue
        path, label = split_line(file, line, number)
        if table.setdefault(path, label) != label:
            raise UserError(f"line {number} of {file} gives {path} the label {label!r}, an earlier one {table[path]!r}")
    if not table:
        raise UserError(f"{file} names no video: write lines of path and label, without a header")
    if "" in table.values() and any(table.values()):
        path = next(path for path, label in table.items() if not label)
        raise UserError(f"{file} has labels, but none for {path}: write one behind every path, or behind none")
    return table


def split_line(file: Path, line: str, number: int) -> tuple[str, str]:
    """Return the path and the label of a line. Raises UserError if it names no file or folder."""
    for text, label in readings(line):
        if path := next((each for each in spellings(file.parent, text) if os.path.exists(each)), None):  # noqa: PTH110
            return path, label
    header = ": a table has no header, remove it" if number == 1 else ": correct the path or remove the line"
    raise UserError(f"line {number} of {file} is {shorten(line)!r}, which names no file or folder{header}")


def readings(line: str) -> Iterator[tuple[str, str]]:
    """Yield the paths and labels that a line may mean."""
    if match := LABEL.fullmatch(line.strip("\ufeff \t")):
        yield match[1], match[2].strip("\"'")
    yield line, ""
