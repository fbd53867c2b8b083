"""Read pictures inside tar and Parquet files, without extracting them."""

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

FORMAT = 1

MAX_INDEX_BYTES = 2**30  # bytes of an index that are read

MAX_LABEL_LENGTH = 256  # bytes that a label in a tar may have

TAR_BLOCK = tarfile.BLOCKSIZE

SHARDS_FILE = "shards.json"  # what `jepa shards` writes down of a folder of tar files


class MemberAddress(NamedTuple):
    """Where a picture is."""

    archive: str
    first: int  # byte of a tar file; row group of a Parquet file
    second: int  # bytes; row of the group
    name: str  # with its folder, if it has one


class Member(NamedTuple):
    """What an archive holds: both numbers of an address, a size for the fingerprint, the name with its folder."""

    first: int
    second: int
    size: int
    name: str


def parse_address(path: str) -> MemberAddress | None:
    """What an address says; nothing of a plain path."""
    found = ADDRESS.fullmatch(path)
    return MemberAddress(found[1], int(found[2]), int(found[3]), found[4]) if found else None


def label_folder(path: str) -> str:
    """The folder that a picture is in, its label where there are labels; of one that is in none, its archive's."""
    place = parse_address(path)
    if place is None:
        return Path(path).parent.name
    return PurePosixPath(place.name).parent.name or Path(place.archive).parent.name


def member_size(place: MemberAddress) -> int:
    """Bytes of a picture, as far as they are known before it is read."""
    return 0 if is_parquet(place.archive) else place.second


def read_member(place: MemberAddress) -> bytes:
    """A picture's bytes. OSError if they cannot be had, or are not those that were listed."""
    if is_parquet(place.archive):
        return read_row(place.archive, place.first, place.second)
    return read_tar_member(place)


def is_parquet(archive: str) -> bool:
    return archive.lower().endswith(".parquet")


def list_addresses(archive: str, suffixes: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Address and size of every picture of an archive, in its order. Mistake in a sentence if it is damaged."""
    every = is_parquet(archive)  # whose rows are pictures, whatever their names
    for first, second, weight, name in list_members(archive):
        if every or PurePosixPath(name).suffix.lower() in suffixes:
            yield f"{archive}/{first}+{second}/{name}", weight


def check_complete(folder: Path) -> None:
    """Mistake if `jepa shards` was stopped before all tar files of a folder were there."""
    try:
        said = read_json(folder / SHARDS_FILE) if (folder / SHARDS_FILE).is_file() else {}
        wanted = -(-int(said.get("count", 0)) // int(said.get("samples", 1)))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{folder / SHARDS_FILE} is damaged ({error}): make the shards again, or remove it") from error
    if (there := len(list(folder.glob("*.tar")))) < wanted:
        raise UserError(
            f"{folder} has {there} of {wanted} tar files: let jepa shards go on, by the command that began it"
        )


def list_members(archive: str) -> list[Member]:
    """What an archive holds: by the index beside it, or by looking through it, which leaves an index.

    An index is of no use once size or time of its archive have changed.
    """
    status, file = Path(archive).stat(), Path(archive).with_name(f".{Path(archive).name}.index")
    this = {"format": FORMAT, "bytes": status.st_size, "time": status.st_mtime_ns}
    if (kept := read_index(file, this)) is not None:
        return kept
    found = [Member(*each) for each in (list_rows if is_parquet(archive) else tar_members)(archive)]
    try:
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps({**this, "members": found}))
    except OSError as error:
        warn(f"{archive} is looked through every time: its index {file.name} cannot be kept ({error.strerror})")
    return found


def read_index(file: Path, this: dict[str, int]) -> list[Member] | None:
    """What an index lists, if it is whole and of this very archive."""
    try:
        content = read_json(file, MAX_INDEX_BYTES)
        if any(content.get(name) != value for name, value in this.items()):
            return None
        found = [Member(*each) for each in content["members"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    good = all(type(each) is int and 0 <= each < 10**18 for member in found for each in member[:3])
    return found if good and all(type(member.name) is str and member.name for member in found) else None


def tar_members(archive: str) -> Iterator[Member]:
    """Plain files of a tar, links and devices left out; of two of one name the later counts, as if they were extracted.

    What a file KEY.cls says is the label of KEY.jpg, as in webdataset, and becomes its folder.
    """
    found = {name: place for name, place in tar_files(archive) if place}
    labels = {
        name.removesuffix(".cls"): read_bytes(archive, *place).decode(errors="replace").strip().replace("/", "-")
        for name, place in found.items()
        if name.endswith(".cls") and place[1] <= MAX_LABEL_LENGTH
    }
    for name, (offset, count) in found.items():
        folder, slash, last = name.rpartition("/")
        label = labels.get(f"{folder}{slash}{last.split('.')[0]}")
        yield Member(offset, count, count, f"{label}/{last}" if label else name)


def tar_files(archive: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, first byte and size of every plain file. Mistake unless the tar is whole."""
    try:
        with tarfile.open(archive, "r:", errors="surrogateescape") as tar:
            while member := tar.next():
                tar.members.clear()  # pyright: ignore (or a million of them would stay)
                if member.issparse():
                    raise UserError(f"{archive} holds {member.name} with holes in it: make it again without --sparse")
                if member.isreg() and member.name:
                    yield member.name, (member.offset_data, member.size)
            end = tar.offset  # pyright: ignore
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise UserError(f"{archive} is not a whole tar file ({error}): copy or make it again") from error
    if any(
        read_bytes(archive, end - TAR_BLOCK, 2 * TAR_BLOCK)[TAR_BLOCK:]
    ):  # where it ends there are zeros, or nothing
        raise UserError(f"{archive} is damaged at byte {end}: copy or make it again")


def read_tar_member(place: MemberAddress) -> bytes:
    """The bytes of a member, if its header still stands before them."""
    content = read_bytes(place.archive, place.first - TAR_BLOCK, TAR_BLOCK + place.second)
    try:
        header = tarfile.TarInfo.frombuf(content[:TAR_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise OSError(
            0, f"nothing begins at byte {place.first}: the archive has changed since it was listed"
        ) from error
    if header.size != place.second or len(content) != TAR_BLOCK + place.second:
        raise OSError(0, f"at byte {place.first} is something else: the archive has changed since it was listed")
    return content[TAR_BLOCK:]


def read_bytes(file: str, start: int, count: int) -> bytes:
    """Some bytes of a file, or as many of them as there are."""
    handle = os.open(file, os.O_RDONLY)
    try:
        return os.pread(handle, count, start) if start >= 0 else b""
    finally:
        os.close(handle)
