"""Tell data sets apart by the names and contents of their files, wherever the files are.

A data set keeps its fingerprint when its folder is moved, copied or reached through a link. It gets another one when a
file is added, removed, renamed or changed, also if size and times stay the same.
"""

from __future__ import annotations

import hashlib
import os
import time
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from openjepa.core.cpus import available_cores
from openjepa.core.fileio import expand_home, file_version

MAX_HASHED_BYTES = 2**32  # of larger data sets a sample is read: a disk may deliver no more than 0.1 GB/s

SAMPLED_FILES = 2048  # evenly spaced in the list

SAMPLED_BLOCKS, BLOCK_BYTES = 16, 2**17  # of a larger file, evenly spaced: 2 MiB

THREADS = 8  # at least: they also hide the latency of a disk or a network

FILES_PER_TASK = 64

RACY_SECONDS = 2.0  # a file changed within this time may change again without a newer time

fingerprints: dict[bytes, str] = {}  # of this process: versions of all files -> fingerprint


class FileGroup(NamedTuple):
    """Files in a fixed order that are named relative to one folder, or the members of one archive."""

    root: int  # number of the root that they belong to, from 0
    folder: str  # which begins every path and is no part of the names; the archive if that is the root
    paths: Sequence[str]
    sizes: Sequence[int]  # bytes
    archive: str = ""  # whose members they are
    contents: Sequence[str] = ()  # files that hold the contents, where paths are folders

    def names(self) -> Iterator[str]:
        """Yield the names, alike on every system: relative to the folder, with slashes, composed (NFC)."""
        prefix = self.folder if self.folder.endswith(os.sep) else f"{self.folder}{os.sep}"
        for path in self.paths:
            whole = path if path.startswith(prefix) else os.path.abspath(path)  # noqa: PTH100 (speed); of a list of paths
            yield portable_name("." if path == self.folder else whole.removeprefix(prefix))

    def stored_files(self) -> Sequence[str]:
        """Return the files on disk that hold the contents."""
        return [self.archive] if self.archive else self.contents or self.paths


def portable_name(name: str) -> str:
    """Write a name with slashes and composed characters, as no two systems do by themselves."""
    name = name if os.sep == "/" else name.replace(os.sep, "/")
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def order_key(path: str) -> tuple[str, str]:
    """Return what files are sorted by: an order that is the same on every system."""
    return portable_name(path), path


def content_fingerprint(groups: Sequence[FileGroup]) -> str:
    """Hash the names, sizes and contents of all files, in their order.

    Of data sets above MAX_HASHED_BYTES the contents of SAMPLED_FILES files are hashed, and of those that are larger
    than SAMPLED_BLOCKS blocks these blocks alone; the names and sizes are always those of all files. Contents that a
    process has hashed are not read again before a file's times, size or inode change.
    """
    files = [path for group in groups for path in group.stored_files()]
    versions = [safe_version(path) for path in files]
    names = hashlib.sha256()
    for group in groups:
        lines = (f"{group.root}/{name}\0{size}\0" for name, size in zip(group.names(), group.sizes, strict=True))
        names.update("".join(lines).encode("utf-8", "surrogateescape"))
    key = hashlib.sha256(repr((names.digest(), files, versions)).encode("utf-8", "surrogateescape")).digest()
    if key in fingerprints:
        return fingerprints[key]
    fingerprint = hash_contents(names.digest(), files, [version[0] for version in versions])
    if time.time() - max((version[2] for version in versions), default=0) / 1e9 > RACY_SECONDS:
        fingerprints[key] = fingerprint
    return fingerprint


def hash_contents(names: bytes, files: Sequence[str], sizes: Sequence[int]) -> str:
    """Hash the contents of all files, or of a sample of them if they are large, after the hash of their names."""
    digest, sampled = hashlib.sha256(names), sum(sizes) > MAX_HASHED_BYTES
    if sampled:
        files = [files[number] for number in evenly_spaced(len(files), SAMPLED_FILES)]
    tasks = [files[first : first + FILES_PER_TASK] for first in range(0, len(files), FILES_PER_TASK)]
    with ThreadPoolExecutor(max(THREADS, available_cores())) as pool:
        for part in pool.map(lambda task: b"".join(hash_file(file, sampled) for file in task), tasks):
            digest.update(part)
    return digest.hexdigest()[:32]


def hash_file(file: str, sampled: bool = False) -> bytes:
    """Hash the bytes of a file, or of evenly spaced blocks of it; of a file that cannot be read, the reason."""
    digest = hashlib.sha256()
    try:
        with open(file, "rb", buffering=0) as stream:  # noqa: PTH123 (speed)
            size = os.fstat(stream.fileno()).st_size if sampled else 0
            if size <= SAMPLED_BLOCKS * BLOCK_BYTES:
                while block := stream.read(BLOCK_BYTES):
                    digest.update(block)
            else:
                for start in np.linspace(0, size - BLOCK_BYTES, SAMPLED_BLOCKS).astype(np.int64).tolist():
                    stream.seek(start)
                    digest.update(stream.read(BLOCK_BYTES))
    except OSError as error:  # decoding reports it; the same file, readable later, is another content
        digest.update(f"errno {error.errno}".encode())
    return digest.digest()


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices below `total`, with the first and the last, or all of them."""
    return sorted({round(index) for index in np.linspace(0, total - 1, min(count, total))})


def safe_version(path: str) -> tuple[int, ...]:
    """Return the version of a file, zeros if it is gone."""
    try:
        return file_version(path)
    except OSError:
        return 0, 0, 0, 0


def earlier_fingerprint(groups: Sequence[FileGroup], now: Sequence[str], then: Sequence[str]) -> str:
    """Return what versions before content fingerprints recorded for these files: a hash of paths and sizes.

    `now` are the roots of the files, `then` the roots as they were given when the fingerprint was recorded. Empty if
    their numbers differ.
    """
    if len(now) != len(then):
        return ""
    lines = (
        f"{earlier_path(path, now[group.root], then[group.root])}\0{size}"
        for group in groups
        for path, size in zip(group.paths, group.sizes, strict=True)
    )
    return hashlib.sha256("\0".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def earlier_path(path: str, now: str, then: str) -> str:
    """Return the path that a file had when its root was given as `then`: a folder, an archive or a list of paths."""
    root, before = expand_home(now), expand_home(then)
    if root.is_dir():
        return f"{before}{path.removeprefix(str(root))}"
    if path.startswith(f"{root.parent}{os.sep}"):
        return str(before.parent / path[len(str(root.parent)) + 1 :])
    return path
