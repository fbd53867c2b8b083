"""List the files of a dataset in a fixed order, with a fingerprint."""

from __future__ import annotations

import errno
import mmap
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, check_roots
from openjepa.core.types import FileList
from openjepa.data.archives import ARCHIVE_SUFFIXES, COMPRESSED_SUFFIXES, check_complete, list_addresses
from openjepa.data.identity import FileGroup, content_fingerprint, earlier_fingerprint, order_key


class MappedPathList(Sequence[str]):
    """A list of paths in one memory-mapped file.

    A million paths open instantly, and workers share the memory.
    """

    def __init__(self, file: Path):
        self.file = file
        with file.open("rb") as stream:
            self.data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        count = int.from_bytes(self.data[:8], "little")
        self.ends = np.frombuffer(self.data, np.int64, count, offset=8)
        self.start = 8 + 8 * count

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        first = 0 if index == 0 else int(self.ends[index - 1])
        return os.fsdecode(self.data[self.start + first : self.start + int(self.ends[index])])

    def __reduce__(self):
        return MappedPathList, (self.file,)

    @staticmethod
    def write(file: Path, paths: list[str]) -> MappedPathList:
        """Write the list atomically and open it."""
        encoded = [os.fsencode(path) for path in paths]
        ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        with atomic_write(file) as temporary, temporary.open("wb") as stream:
            stream.write(len(encoded).to_bytes(8, "little"))
            stream.write(ends.tobytes())
            stream.write(b"".join(encoded))
        return MappedPathList(file)


def list_files(roots: Sequence[str], suffixes: frozenset[str], include_archives: bool = True) -> FileList:
    """List the files with these suffixes in folders, or named in text files, sorted.

    Symlinks are followed, each folder once. With `include_archives`, also list the members of tar and Parquet files
    that are named, or that lie in a folder without loose files of these suffixes. Archives are sorted; members keep
    their order.

    Raises:
        UserError: no root is given, a root does not exist, or nothing has one of the suffixes.
    """
    if not roots:
        raise UserError("no data given: name a folder or a file (for a run: --data.root FOLDER)")
    check_roots(roots)
    groups, listed = [], set()
    for number, root in enumerate(roots):
        files = files_under(root, suffixes, ARCHIVE_SUFFIXES if include_archives else frozenset())
        groups += group_files(
            number, root, {path: size for path, size in files.items() if path not in listed}, suffixes
        )
        listed |= files.keys()
    groups.sort(key=lambda group: bool(group.archive))  # loose files first
    paths = [path for group in groups for path in group.paths]
    if not paths:
        kinds = " ".join(sorted(suffix.lstrip(".") for suffix in suffixes))
        raise UserError(f"no images in {' '.join(roots)}: searched all sub-folders for files ending in {kinds}")
    return FileList(paths, partial(content_fingerprint, groups), partial(earlier_fingerprint, groups, tuple(roots)))


def group_files(number: int, root: str, sizes: dict[str, int], suffixes: frozenset[str]) -> Iterator[FileGroup]:
    """Sort the files of a root, and name them relative to it: the loose ones, then the members of each archive."""
    folder = naming_folder(root, sizes)
    loose = sorted((path for path in sizes if path_suffix(path) not in ARCHIVE_SUFFIXES), key=order_key)
    if loose:
        yield FileGroup(number, folder, loose, array("q", (sizes[path] for path in loose)))
    for archive in sorted(sizes.keys() - set(loose), key=order_key):
        members = dict(list_addresses(archive, suffixes))
        if members:
            yield FileGroup(number, folder, list(members), array("q", members.values()), archive)


def naming_folder(root: str, paths: Iterable[str]) -> str:
    """Return what the names of a root's files leave out: the folder, the archive, or what listed files share."""
    path = Path(root).expanduser()
    if path.is_dir() or path_suffix(str(path)) in ARCHIVE_SUFFIXES:
        return str(path)
    folders = {os.path.dirname(os.path.abspath(each)) for each in paths}  # noqa: PTH100, PTH120 (speed)
    return os.path.commonpath(folders) if folders else ""


def files_under(root: str, suffixes: frozenset[str], archive_suffixes: frozenset[str]) -> dict[str, int]:
    """Return path and size of the files of one root: those with the suffixes, or else its archives.

    Raises:
        UserError: the root does not exist, or is not a folder, an image, an archive or a list of paths.
    """
    path = Path(root).expanduser()
    if path.is_dir():
        if loose := dict(walk_files(str(path), suffixes)):
            return loose
        check_complete(path)
        return dict(walk_files(str(path), archive_suffixes))
    if path.is_file() and path.suffix.lower() == ".txt":
        return dict(read_path_list(path))
    if path.is_file() and path.suffix.lower() in suffixes | archive_suffixes:
        return {str(path): path.stat().st_size}
    if path.is_file() and path.name.lower().endswith(COMPRESSED_SUFFIXES):
        raise UserError(f"{root} is compressed, so single images cannot be read from it: decompress it to a .tar file")
    if not path.exists():
        raise UserError(f"{root} does not exist: check the path")
    raise UserError(
        f"{root} is not a folder, an image, a .tar or .parquet file, or a .txt file of paths: check the path"
    )


def path_suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 (speed)


def walk_files(root: str, suffixes: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Yield path and size of each regular file below a folder that has one of the suffixes."""
    folders = [(root, os.path.realpath(root))]
    visited = {folders[0][1]}
    while folders:
        folder, real_folder = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_symlink_loop(entry):
                    continue
                if entry.is_dir():
                    real = os.path.realpath(entry.path) if entry.is_symlink() else f"{real_folder}{os.sep}{entry.name}"
                    if real not in visited:
                        visited.add(real)
                        folders.append((entry.path, real))
                elif path_suffix(entry.name) in suffixes and entry.is_file():
                    yield entry.path, entry.stat().st_size


def is_symlink_loop(entry: os.DirEntry[str]) -> bool:
    """Return whether a symlink leads to itself. Like a dangling link, it does not count as a file."""
    try:
        entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return True
        raise
    return False


def read_path_list(file: Path) -> Iterator[tuple[str, int]]:
    """Yield path and size of the files named in a text file, one per line, relative to the text file.

    Raises:
        UserError: a line does not name a file.
    """
    for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        if line.strip():
            path = file.parent / line.strip()
            if not path.is_file():
                raise UserError(
                    f"{file} names {line.strip()}, which is not a file: remove the line or correct the path"
                )
            yield str(path), path.stat().st_size
