"""Read images inside tar and Parquet files without extracting them."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from openjepa.core.console import warn
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, file_version, read_json
from openjepa.data.never_data import NO_SUFFIX, SECOND_PICTURE, LeftOutFiles, reason_in_path
from openjepa.data.parquet import list_rows, read_row
from openjepa.data.webdataset import LABEL_SUFFIXES, MAX_LABEL_BYTES, LabelFiles, find_second_pictures

ARCHIVE_SUFFIXES = frozenset({".tar", ".parquet"})

COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

ADDRESS = re.compile(r"(.+?\.(?:tar|parquet))/(\d{1,18})\+(\d{1,18})/(.+)", re.DOTALL | re.IGNORECASE)

FORMAT = 3  # of the index files; 1 knew an archive by its size and modification time, 2 read other labels

MAX_INDEX_BYTES = 2**30  # larger index files are ignored and rebuilt

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


def list_addresses(archive: str, suffixes: frozenset[str], left_out: LeftOutFiles) -> Iterator[tuple[str, int]]:
    """Yield address and size of every image in an archive, in the archive's order: one of each sample of a webdataset.

    Raises:
        UserError: the archive is damaged.
    """
    any_name = is_parquet(archive)  # its rows are images whatever their names
    members = list_members(archive)
    pictures = [each for each in members if any_name or PurePosixPath(each.name).suffix.lower() in suffixes]
    seconds = set() if any_name else find_second_pictures(each.name for each in pictures if not reason_of(each))
    for each in members:
        suffix = PurePosixPath(each.name).suffix.lower()
        is_picture = any_name or suffix in suffixes
        if any_name or not (reason := reason_of(each) or (SECOND_PICTURE if each.name in seconds else "")):
            if is_picture:
                yield f"{archive}/{each.first}+{each.second}/{each.name}", each.size
            elif suffix not in LABEL_SUFFIXES:
                left_out.add(suffix or NO_SUFFIX, f"{archive}/{each.name}")
        else:
            left_out.add(reason, f"{archive}/{each.name}")


def reason_of(member: Member) -> str:
    """Return why a member is never data; empty if it may be."""
    return reason_in_path(part for part in PurePosixPath(member.name).parts if part not in (".", ".."))


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

    An index is ignored when its archive has been changed or replaced, also if size and modification time are the same.
    """
    file = Path(archive).with_name(f".{Path(archive).name}.index")
    stamp = {"format": FORMAT, "version": list(file_version(archive))}
    if (indexed := read_index(file, stamp)) is not None:
        return indexed
    members = [Member(*each) for each in (list_rows if is_parquet(archive) else list_tar_members)(archive)]
    try:
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps({**stamp, "members": members}), encoding="utf-8")
    except OSError as error:
        warn(f"cannot write the index {file.name} ({error.strerror}): {archive} will be scanned again every time")
    return members


def read_index(file: Path, stamp: dict[str, Any]) -> list[Member] | None:
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

    Of two files with the same name the later one counts, as when extracting. As in webdataset, the content of KEY.cls,
    or of KEY.json, is the label of KEY.jpg; the label becomes the folder of the image.
    """
    extents = {name: extent for name, extent in list_tar_files(archive) if extent}
    labels = LabelFiles()
    for name in sorted(extents, key=lambda name: not name.lower().endswith(".cls")):  # KEY.cls before KEY.json
        offset, count = extents[name]
        if PurePosixPath(name).suffix.lower() in LABEL_SUFFIXES and count <= MAX_LABEL_BYTES:
            labels.add(name, read_bytes(archive, offset, count))
    for name, (offset, count) in extents.items():
        last = name.rpartition("/")[2]
        label = "" if PurePosixPath(name).suffix.lower() in LABEL_SUFFIXES else labels.label_of(name)
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
