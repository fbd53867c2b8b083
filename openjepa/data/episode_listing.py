"""List episodes: .npz files, folders with `actions.npy`, LeRobot data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from openjepa.core.fileio import expand_home
from openjepa.core.types import FileList
from openjepa.data.episode import Episode
from openjepa.data.episode_folder import ACTIONS, STATES, open_folder
from openjepa.data.episode_lerobot import is_lerobot, lerobot_files, open_lerobot
from openjepa.data.episode_npz import open_npz
from openjepa.data.listing import files_under, list_sources
from openjepa.data.never_data import LeftOutFiles
from openjepa.data.video_folders import frames_in_folder
from openjepa.data.walking import walk_files

SUFFIXES = frozenset({".npz"})


def list_episodes(roots: Sequence[str]) -> FileList:
    """List the files and folders of episodes below some folders; a folder may be a LeRobot data set itself.

    A folder that holds .npz files, or one below it, is searched for these alone. Raises UserError if none is listed.
    """
    return list_sources(roots, find_episodes, SUFFIXES | {ACTIONS}, "episode", files_with_contents)


def find_episodes(root: str, left_out: LeftOutFiles) -> dict[str, int]:
    """Return path and bytes of each .npz file, each folder of an episode, or the data set that the root is."""
    path = expand_home(root)
    if is_lerobot(path):
        return {str(path): stored_bytes(lerobot_files(path))}
    others = LeftOutFiles()
    if not path.is_dir() or any(True for _ in walk_files(str(path), SUFFIXES, others)):
        return files_under(root, SUFFIXES, frozenset(), left_out, kind="episode")
    arrays = [file for file, _ in walk_files(str(path), frozenset({".npy"}), others)]
    folders = [os.path.dirname(file) for file in arrays if os.path.basename(file) == ACTIONS]  # noqa: PTH119, PTH120
    if not folders:
        left_out.merge(others)
    return {folder: stored_bytes(folder_files(folder)) for folder in folders}


def folder_files(folder: str) -> list[str]:
    """Return the files of an episode's folder."""
    arrays = [Path(folder, name) for name in (ACTIONS, STATES)]
    return [*(str(file) for file in arrays if file.is_file()), *frames_in_folder(folder)]


def files_with_contents(paths: Sequence[str]) -> Sequence[str]:
    """Return the files that hold the contents of listed files and folders."""
    return [file for path in paths for file in contents_of(path)]


def contents_of(path: str) -> list[str]:
    if not Path(path).is_dir():
        return [path]
    return lerobot_files(Path(path)) if is_lerobot(Path(path)) else folder_files(path)


def stored_bytes(files: Sequence[str]) -> int:
    return sum(Path(file).stat().st_size for file in files)


def open_episodes(path: str, channels: int, camera: str) -> Iterator[Episode]:
    """Yield the episodes of a listed file or folder. Raises UserError if they cannot be read."""
    if not Path(path).is_dir():
        yield from open_npz(path)
    elif is_lerobot(Path(path)):
        yield from open_lerobot(path, channels, camera)
    else:
        yield open_folder(path, channels)
