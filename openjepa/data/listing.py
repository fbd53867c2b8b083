"""List the files of a dataset in a fixed order, with a fingerprint."""

from __future__ import annotations

import mmap
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from openjepa.core.console import info_once
from openjepa.core.distributed import is_main
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, check_roots, expand_home
from openjepa.core.types import FileList
from openjepa.data.archives import ARCHIVE_SUFFIXES, COMPRESSED_SUFFIXES, check_complete, list_addresses
from openjepa.data.identity import FileGroup, content_fingerprint, earlier_fingerprint, order_key
from openjepa.data.never_data import LeftOutFiles, describe_left_out
from openjepa.data.path_list import read_path_list
from openjepa.data.walking import Sniff, accepts, path_suffix, walk_files


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


def list_files(
    roots: Sequence[str],
    suffixes: frozenset[str],
    include_archives: bool = True,
    sniff: Sniff | None = None,
    kind: str = "image",
) -> FileList:
    """List the files with these suffixes in folders, or named in text files, sorted; say what is left out and why.

    Symlinks are followed, each folder once. With `include_archives`, also list the members of tar and Parquet files
    that are named, or that lie in a folder without loose files of these suffixes. Archives are sorted; members keep
    their order. Files whose names do not tell their format are read if `sniff` accepts their first bytes. Hidden
    files, companions, thumbnails and the outputs of commands are never data: see data/never_data.py. Messages call a
    file `kind`.

    Raises:
        UserError: no root is given, a root does not exist, or nothing has one of the suffixes.
    """
    archive_suffixes = ARCHIVE_SUFFIXES if include_archives else frozenset()
    return list_sources(
        roots,
        lambda root, left_out: files_under(root, suffixes, archive_suffixes, left_out, sniff, kind),
        suffixes,
        kind,
    )


def list_sources(
    roots: Sequence[str],
    find: Callable[[str, LeftOutFiles], dict[str, int]],
    suffixes: frozenset[str],
    kind: str,
    files_of: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> FileList:
    """List what `find` returns for each root, path and bytes, as `list_files` does.

    `files_of` returns the files that hold the contents of paths, where these are folders.
    Raises UserError if no root is given, or if nothing is listed.
    """
    if not roots:
        raise UserError("no data given: name a folder or a file (for a run: --data.root FOLDER)")
    check_roots(roots)
    groups, listed, left_out = [], set(), LeftOutFiles()
    for number, root in enumerate(roots):
        files = find(root, left_out)
        new = {path: size for path, size in files.items() if path not in listed}
        groups += group_files(number, root, new, suffixes, left_out, files_of)
        listed |= files.keys()
    groups.sort(key=lambda group: bool(group.archive))  # loose files first
    paths, reasons = [path for group in groups for path in group.paths], left_out.listed()
    if not paths:
        kinds = " ".join(sorted(suffix.lstrip(".") for suffix in suffixes))
        others = f"; left out: {describe_left_out(reasons)}" if reasons else ""
        raise UserError(
            f"no {kind}s in {' '.join(roots)}: searched all sub-folders for files ending in {kinds}{others}"
        )
    if reasons and is_main():
        info_once(f"left out   {describe_left_out(reasons)}")
    fingerprint, earlier = partial(content_fingerprint, groups), partial(earlier_fingerprint, groups, tuple(roots))
    return FileList(paths, fingerprint, earlier, reasons, tuple(roots))


def group_files(
    number: int,
    root: str,
    sizes: dict[str, int],
    suffixes: frozenset[str],
    left_out: LeftOutFiles,
    files_of: Callable[[Sequence[str]], Sequence[str]] | None = None,
) -> Iterator[FileGroup]:
    """Sort the files of a root, and name them relative to it: the loose ones, then the members of each archive."""
    folder = naming_folder(root, sizes)
    loose = sorted((path for path in sizes if path_suffix(path) not in ARCHIVE_SUFFIXES), key=order_key)
    if loose:
        contents = files_of(loose) if files_of else ()
        yield FileGroup(number, folder, loose, array("q", (sizes[path] for path in loose)), contents=contents)
    for archive in sorted(sizes.keys() - set(loose), key=order_key):
        members = dict(list_addresses(archive, suffixes, left_out))
        if members:
            yield FileGroup(number, folder, list(members), array("q", members.values()), archive)


def naming_folder(root: str, paths: Iterable[str]) -> str:
    """Return what the names of a root's files leave out: the folder, the archive, or what listed files share."""
    path = expand_home(root)
    if path.is_dir() or path_suffix(str(path)) in ARCHIVE_SUFFIXES:
        return str(path)
    folders = {os.path.dirname(os.path.abspath(each)) for each in paths}  # noqa: PTH100, PTH120 (speed)
    return os.path.commonpath(folders) if folders else ""


def files_under(
    root: str,
    suffixes: frozenset[str],
    archive_suffixes: frozenset[str],
    left_out: LeftOutFiles,
    sniff: Sniff | None = None,
    kind: str = "image",
) -> dict[str, int]:
    """Return path and size of the files of one root: those with the suffixes, or else its archives.

    Raises:
        UserError: the root does not exist, or is not a folder, a file of the kind, an archive or a list of paths.
    """
    path = expand_home(root)
    if path.is_dir():
        loose = LeftOutFiles()
        if files := dict(walk_files(str(path), suffixes, loose, sniff)):
            left_out.merge(loose)
            return files
        check_complete(path)
        return dict(walk_files(str(path), archive_suffixes, left_out))
    if path.is_file() and path.suffix.lower() == ".txt":
        return {each: Path(each).stat().st_size for each in read_path_list(path)}
    if path.is_file() and (path.suffix.lower() in suffixes | archive_suffixes or (sniff and accepts(path, sniff))):
        return {str(path): path.stat().st_size}
    if path.is_file() and path.name.lower().endswith(COMPRESSED_SUFFIXES):
        raise UserError(f"{root} is compressed, so single {kind}s cannot be read from it: decompress it to a .tar file")
    if not path.exists():
        raise UserError(f"{root} does not exist: check the path")
    article = "an" if kind[0] in "aeiou" else "a"
    raise UserError(
        f"{root} is not a folder, {article} {kind}, a .tar or .parquet file, or a .txt file of paths: check the path"
    )
