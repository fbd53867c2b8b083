"""Read images inside tar and Parquet files without extracting them."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from openjepa.core.console import warn
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.data.parquet import list_rows, read_row

ARCHIVE_SUFFIXES = frozenset({".tar", ".parquet"})

COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

ADDRESS = re.compile(r"(.+?\.(?:tar|parquet))/(\d{1,18})\+(\d{1,18})/(.+)", re.DOTALL | re.IGNORECASE)

FORMAT = 1  # of the index files

MAX_INDEX_BYTES = 2**30  # larger index files are ignored and rebuilt

MAX_LABEL_LENGTH = 256  # bytes of a label file (KEY.cls) in a tar

TAR_BLOCK = tarfile.BLOCKSIZE

SHARDS_FILE = "shards.json"  # written by `jepa shards` beside its tar files: their settings and count


class MemberAddress(NamedTuple):
    """The address of an image in an archive."""

    archive: str
    first: int  # tar: offset in bytes; Parquet: row group
    second: int  # tar: size in bytes; Parquet: row in the group
    name: str  # with its folder, if it has one


class Member(NamedTuple):
    """One member of an archive: the two numbers of its address, its size and its name."""

    first: int
    second: int
    size: int  # for the fingerprint
    name: str  # with its folder


def parse_address(path: str) -> MemberAddress | None:
    """Parse an address of the form ARCHIVE/FIRST+SECOND/NAME; return None for a plain path."""
    match = ADDRESS.fullmatch(path)
    return MemberAddress(match[1], int(match[2]), int(match[3]), match[4]) if match else None


def label_folder(path: str) -> str:
    """Return the name of the folder an image is in (its label, if there are labels).

    For an archive member without a folder, that is the folder of the archive.
    """
    address = parse_address(path)
    if address is None:
        return Path(path).parent.name
    return PurePosixPath(address.name).parent.name or Path(address.archive).parent.name


def member_size(address: MemberAddress) -> int:
    """Return the bytes of a tar member; 0 for a Parquet row, whose size is unknown before it is read."""
    return 0 if is_parquet(address.archive) else address.second


def read_member(address: MemberAddress) -> bytes:
    """Return an image's bytes.

    Raises:
        OSError: they cannot be read, or the archive has changed since it was listed.
    """
    if is_parquet(address.archive):
        return read_row(address.archive, address.first, address.second)
    return read_tar_member(address)


def is_parquet(archive: str) -> bool:
    return archive.lower().endswith(".parquet")


def list_addresses(archive: str, suffixes: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Yield address and size of every image in an archive, in the archive's order.

    Raises:
        UserError: the archive is damaged.
    """
    any_name = is_parquet(archive)  # its rows are images whatever their names
    for first, second, size, name in list_members(archive):
        if any_name or PurePosixPath(name).suffix.lower() in suffixes:
            yield f"{archive}/{first}+{second}/{name}", size


def check_complete(folder: Path) -> None:
    """Check that `jepa shards` finished writing a folder.

    Raises:
        UserError: tar files are missing, or shards.json is damaged.
    """
    try:
        settings = read_json(folder / SHARDS_FILE) if (folder / SHARDS_FILE).is_file() else {}
        expected = -(-int(settings.get("count", 0)) // int(settings.get("samples", 1)))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{folder / SHARDS_FILE} is damaged ({error}): write the shards again, or remove it") from error
    if (count := len(list(folder.glob("*.tar")))) < expected:
        raise UserError(
            f"{folder} has {count} of {expected} tar files: run the same jepa shards command again to finish it"
        )


def list_members(archive: str) -> list[Member]:
    """List the members of an archive: from its index file, else by scanning it and writing the index.

    An index is ignored when the size or the modification time of its archive has changed.
    """
    status, file = Path(archive).stat(), Path(archive).with_name(f".{Path(archive).name}.index")
    stamp = {"format": FORMAT, "bytes": status.st_size, "time": status.st_mtime_ns}
    if (indexed := read_index(file, stamp)) is not None:
        return indexed
    members = [Member(*each) for each in (list_rows if is_parquet(archive) else list_tar_members)(archive)]
    try:
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps({**stamp, "members": members}))
    except OSError as error:
        warn(f"cannot write the index {file.name} ({error.strerror}): {archive} will be scanned again every time")
    return members


def read_index(file: Path, stamp: dict[str, int]) -> list[Member] | None:
    """Return the members listed in an index; None if it is damaged or its stamp does not match."""
    try:
        content = read_json(file, MAX_INDEX_BYTES)
        if any(content.get(name) != value for name, value in stamp.items()):
            return None
        members = [Member(*each) for each in content["members"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    valid = all(type(each) is int and 0 <= each < 10**18 for member in members for each in member[:3])
    return members if valid and all(type(member.name) is str and member.name for member in members) else None


def list_tar_members(archive: str) -> Iterator[Member]:
    """Yield the regular files of a tar, without links and devices.

    Of two files with the same name the later one counts, as when extracting. As in webdataset, the content of KEY.cls
    is the label of KEY.jpg; the label becomes the folder of the image.
    """
    extents = {name: extent for name, extent in list_tar_files(archive) if extent}
    labels = {
        name.removesuffix(".cls"): read_bytes(archive, *extent).decode(errors="replace").strip().replace("/", "-")
        for name, extent in extents.items()
        if name.endswith(".cls") and extent[1] <= MAX_LABEL_LENGTH
    }
    for name, (offset, count) in extents.items():
        folder, slash, last = name.rpartition("/")
        label = labels.get(f"{folder}{slash}{last.split('.')[0]}")
        yield Member(offset, count, count, f"{label}/{last}" if label else name)


def list_tar_files(archive: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield name, offset and size of each regular file.

    Raises:
        UserError: the tar is truncated, damaged or holds sparse files.
    """
    try:
        with tarfile.open(archive, "r:", errors="surrogateescape") as tar:
            while member := tar.next():
                tar.members.clear()  # pyright: ignore (tarfile would keep a million of them in memory)
                if member.issparse():
                    raise UserError(
                        f"{archive} holds the sparse file {member.name}: create the archive again without --sparse"
                    )
                if member.isreg() and member.name:
                    yield member.name, (member.offset_data, member.size)
            end = tar.offset  # pyright: ignore
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise UserError(f"{archive} is not a complete tar file ({error}): copy or create it again") from error
    # after the last member a tar has zeros, or nothing
    if any(read_bytes(archive, end - TAR_BLOCK, 2 * TAR_BLOCK)[TAR_BLOCK:]):
        raise UserError(f"{archive} is damaged at byte {end}: copy or create it again")


def read_tar_member(address: MemberAddress) -> bytes:
    """Return the bytes of a member after checking that its tar header still precedes them."""
    content = read_bytes(address.archive, address.first - TAR_BLOCK, TAR_BLOCK + address.second)
    try:
        header = tarfile.TarInfo.frombuf(content[:TAR_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise OSError(
            0, f"no member starts at byte {address.first}: the archive has changed since it was listed"
        ) from error
    if header.size != address.second or len(content) != TAR_BLOCK + address.second:
        raise OSError(0, f"byte {address.first} starts another member: the archive has changed since it was listed")
    return content[TAR_BLOCK:]


def read_bytes(file: str, start: int, count: int) -> bytes:
    """Return `count` bytes of a file from `start`, or as many of them as exist."""
    with open(file, "rb", buffering=0) as stream:  # noqa: PTH123 (speed)
        if not 0 <= start < os.fstat(stream.fileno()).st_size:
            return b""
        stream.seek(start)
        return stream.read(count)
