"""List the files of a dataset in a fixed order, with a fingerprint."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.types import FileList
from openjepa.data.archives import ARCHIVE_SUFFIXES, COMPRESSED_SUFFIXES, check_complete, list_addresses
from openjepa.data.path_list import read_path_list


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
    all_sizes: dict[str, int] = {}
    for root in roots:
        all_sizes.update(files_under(root, suffixes, ARCHIVE_SUFFIXES if include_archives else frozenset()))
    archives = sorted(path for path in all_sizes if path_suffix(path) in ARCHIVE_SUFFIXES)
    loose = sorted(all_sizes.keys() - set(archives))
    sizes = {path: all_sizes[path] for path in loose}
    for archive in archives:
        sizes.update(list_addresses(archive, suffixes))
    if not sizes:
        kinds = " ".join(sorted(suffix.lstrip(".") for suffix in suffixes))
        raise UserError(f"no images in {' '.join(roots)}: searched all sub-folders for files ending in {kinds}")
    digest = hashlib.sha256(
        "\0".join(f"{path}\0{size}" for path, size in sizes.items()).encode("utf-8", "surrogateescape")
    )
    return FileList(list(sizes), digest.hexdigest()[:32])


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
        return {each: Path(each).stat().st_size for each in read_path_list(path)}
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
