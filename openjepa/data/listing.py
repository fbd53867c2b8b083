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


class MappedPathList(Sequence[str]):
    """A list of paths in one memory-mapped file: a million of them open at once, and workers share the memory."""

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
        """Stores the list and opens it. The file appears whole or not at all."""
        encoded = [os.fsencode(path) for path in paths]
        ends = np.cumsum([len(path) for path in encoded], dtype=np.int64)
        with atomic_write(file) as temporary, temporary.open("wb") as stream:
            stream.write(len(encoded).to_bytes(8, "little"))
            stream.write(ends.tobytes())
            stream.write(b"".join(encoded))
        return MappedPathList(file)


def list_files(roots: Sequence[str], suffixes: frozenset[str], inside: bool = True) -> FileList:
    """Every file with one of these suffixes below the folders, or named in text files, sorted; links are followed once.

    With `inside`, also those inside the tar and Parquet files named, or in folders that hold no files of these suffixes
    themselves: archives sorted, each in its own order. Mistake in a sentence where there is nothing to find.
    """
    if not roots:
        raise UserError("no data given: name a folder of images, for a run by --data.root FOLDER")
    found: dict[str, int] = {}
    for root in roots:
        found.update(files_under(root, suffixes, ARCHIVE_SUFFIXES if inside else frozenset()))
    packed = sorted(path for path in found if path_suffix(path) in ARCHIVE_SUFFIXES)
    loose = sorted(found.keys() - set(packed))
    sizes = {path: found[path] for path in loose}
    for archive in packed:
        sizes.update(list_addresses(archive, suffixes))
    if not sizes:
        kinds = " ".join(sorted(suffix.lstrip(".") for suffix in suffixes))
        raise UserError(f"no images in {' '.join(roots)}: looked for files ending in {kinds}, in all sub-folders")
    digest = hashlib.sha256(
        "\0".join(f"{path}\0{size}" for path, size in sizes.items()).encode("utf-8", "surrogateescape")
    )
    return FileList(list(sizes), digest.hexdigest()[:32])


def files_under(root: str, suffixes: frozenset[str], packed: frozenset[str]) -> dict[str, int]:
    """Path and size of what a root stands for: files of the suffixes, or else archives. Mistake if it is nothing."""
    path = Path(root).expanduser()
    if path.is_dir():
        if loose := dict(walk_files(str(path), suffixes)):
            return loose
        check_complete(path)
        return dict(walk_files(str(path), packed))
    if path.is_file() and path.suffix.lower() == ".txt":
        return dict(read_path_list(path))
    if path.is_file() and path.suffix.lower() in suffixes | packed:
        return {str(path): path.stat().st_size}
    if path.is_file() and path.name.lower().endswith(COMPRESSED_SUFFIXES):
        raise UserError(
            f"{root} is compressed, so that no picture in it can be read by itself: decompress it to a .tar file"
        )
    if not path.exists():
        raise UserError(f"{root} is not there: check its spelling")
    raise UserError(
        f"{root} is no picture, not a folder, a .tar or .parquet file, nor a .txt file of paths: check its spelling"
    )


def path_suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 (speed)


def walk_files(root: str, suffixes: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Path and size of every plain file below a folder with one of the suffixes."""
    folders = [(root, os.path.realpath(root))]
    seen = {folders[0][1]}
    while folders:
        folder, place = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_symlink_loop(entry):
                    continue
                if entry.is_dir():
                    real = os.path.realpath(entry.path) if entry.is_symlink() else f"{place}{os.sep}{entry.name}"
                    if real not in seen:
                        seen.add(real)
                        folders.append((entry.path, real))
                elif path_suffix(entry.name) in suffixes and entry.is_file():
                    yield entry.path, entry.stat().st_size


def is_symlink_loop(entry: os.DirEntry[str]) -> bool:
    """Whether a link leads to itself; like one that leads nowhere, it is no file."""
    try:
        entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return True
        raise
    return False


def read_path_list(file: Path) -> Iterator[tuple[str, int]]:
    """Path and size of the files that a text file names, one a line, relative to the text file."""
    for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        if line.strip():
            path = file.parent / line.strip()
            if not path.is_file():
                raise UserError(f"{file} names {line.strip()}, which is not a file: remove the line or mend the path")
            yield str(path), path.stat().st_size
