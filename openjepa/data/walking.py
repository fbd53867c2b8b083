"""Walk through folders in a fixed order and tell data from what lies beside it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from openjepa.core.outputs import is_output_folder, output_names
from openjepa.data.never_data import LINKED, NO_SUFFIX, OUTPUT, LeftOutFiles, needs_sniffing, reason_to_leave_out

SNIFFED_BYTES = 512  # of a file whose name does not tell its format

# what jepa keeps beside data: marks of outputs, locks, and the lists of what archives hold
BOOKKEEPING = re.compile(r"\.openjepa-output|lock|shards\.json|\..+\.(?:tar|parquet)\.index", re.IGNORECASE)

Sniff = Callable[[bytes], bool]  # the first bytes of a file -> whether the modality reads it


def path_suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 (speed)


def walk_files(
    root: str, suffixes: frozenset[str], left_out: LeftOutFiles | None = None, sniff: Sniff | None = None
) -> Iterator[tuple[str, int]]:
    """Yield path and size of each regular file below a folder that is data and has one of the suffixes.

    Each folder is read once, also if links lead to it. All other files are counted in `left_out`.
    """
    left_out = LeftOutFiles() if left_out is None else left_out
    folders = [(root, os.path.realpath(root))]
    visited = {folders[0][1]}
    while folders:
        folder, real_folder = folders.pop()
        entries = sorted_entries(folder)
        names = frozenset(entry.name for entry in entries)
        if folder != root and is_output_folder(names):
            left_out.add_folder(OUTPUT, folder)
            continue
        outputs = output_names(folder)
        for entry in entries:
            is_folder = entry.is_dir()
            if reason := reason_of_entry(entry, is_folder, outputs):
                (left_out.add_folder if is_folder else left_out.add)(reason, entry.path)
            elif is_folder:
                real = os.path.realpath(entry.path) if entry.is_symlink() else f"{real_folder}{os.sep}{entry.name}"
                if real in visited:
                    left_out.add_folder(LINKED, entry.path)
                else:
                    visited.add(real)
                    folders.append((entry.path, real))
            elif is_data_file(entry, suffixes, sniff):
                yield entry.path, entry.stat().st_size
            elif entry.is_file():
                left_out.add(path_suffix(entry.name) or NO_SUFFIX, entry.path)


def sorted_entries(folder: str) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name, links last, so that nothing depends on the order of their creation."""
    with os.scandir(folder) as entries:
        data = [entry for entry in entries if not BOOKKEEPING.fullmatch(entry.name) and not is_symlink_loop(entry)]
    return sorted(data, key=lambda entry: (entry.is_symlink(), entry.name))


def reason_of_entry(entry: os.DirEntry[str], is_folder: bool, outputs: frozenset[str]) -> str:
    """Return why an entry is never data; empty if it may be."""
    if outputs and entry.name.replace("\n", "\\n") in outputs:
        return OUTPUT
    return reason_to_leave_out(entry.name, is_folder)


def is_data_file(entry: os.DirEntry[str], suffixes: frozenset[str], sniff: Sniff | None) -> bool:
    """Return whether an entry is a regular file that the modality reads."""
    suffix = path_suffix(entry.name)
    if suffix in suffixes:
        return entry.is_file()
    return bool(sniff) and needs_sniffing(suffix) and entry.is_file() and accepts(Path(entry.path), sniff)


def accepts(file: Path, sniff: Sniff) -> bool:
    """Return whether the first bytes of a file are those of a format that the modality reads."""
    try:
        with file.open("rb") as stream:
            return sniff(stream.read(SNIFFED_BYTES))
    except OSError:
        return False


def is_symlink_loop(entry: os.DirEntry[str]) -> bool:
    """Return whether a symlink leads to itself. Like a dangling link, it does not count as a file."""
    try:
        entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return True
        raise
    return False
