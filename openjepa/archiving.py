"""`jepa shards make`: a folder of pictures as tar files, which disks and networks like better, in the same order."""

from __future__ import annotations

import io
import json
import multiprocessing
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

import tyro
from PIL import Image as Pillow
from rich.progress import track

from openjepa.archives import NOTE, inside, members
from openjepa.core.console import console, info
from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, lock_folder, read_json
from openjepa.data import list_files, walk
from openjepa.pictures import SUFFIXES, Undecodable, opened, read_bytes, upright

LONGEST = 65_500  # pixels of a side that a JPEG file can have


@dataclass(frozen=True)
class Make:
    """Writes the pictures of a folder, or of other archives, into tar files. Called again, it goes on where it stopped."""

    root: Annotated[str, tyro.conf.Positional]  # a folder, a text file of paths, a .tar or .parquet file
    out: Annotated[Path, tyro.conf.Positional]  # a folder for OUT-000000.tar and so on
    size: int = 0  # pixels of the shorter side to which larger pictures are made smaller; 0: every file as it is
    quality: int = 95  # of the JPEG files that are then written
    samples: int = 1000  # pictures in a tar file
    workers: int = -1  # processes; -1: one for each core


class Shard(NamedTuple):
    """A tar file to be written."""

    file: Path
    pictures: tuple[tuple[str, str], ...]  # path, and the name it gets, which has no ending yet
    size: int
    quality: int


def make(settings: Make) -> Path:
    """The folder of tar files. A run on them is the run on what they were made of, bit for bit, unless `size` changes pictures.

    Each file appears whole or not at all. Names keep their folders, so that labels stay; their dots become underscores, as
    webdataset wants it. Mistake if the folder holds other shards.
    """
    if settings.samples < 1 or settings.size < 0 or not 1 <= settings.quality <= 100 or settings.workers < -1:
        raise UserError(
            "want --samples of 1 or more, --size of 0 or more, --quality from 1 to 100, --workers of -1 or more"
        )
    listing = list_files((settings.root,), SUFFIXES)
    apart(settings)
    with lock_folder(settings.out, "writing"):
        agree(settings, {"data": listing.fingerprint, "count": len(listing.paths), **choices(settings)})
        for left in settings.out.glob(".*.tar.[0-9]*"):  # by a process that was killed
            left.unlink()
        todo = [shard for shard in shards(settings, listing.paths) if not done_already(shard)]
        kept = sum(track(written(todo, settings.workers), "writing", len(todo), console=console, disable=not todo))
    count = -(-len(listing.paths) // settings.samples)
    info(
        f"shards     {len(listing.paths):,} pictures in {count:,} tar files below {settings.out}, {len(todo):,} of them written now"
    )
    if kept:
        info(f"{kept:,} could not be decoded and are there as they were: jepa doctor {settings.root} names them")
    return settings.out


def apart(settings: Make) -> None:
    """Mistake if the shards would lie among pictures, where nobody would look for them."""
    root, out = Path(settings.root).expanduser().resolve(), settings.out.resolve()
    if out == root or (root.is_dir() and root in out.parents) or any(walk(str(out), SUFFIXES) if out.is_dir() else ()):
        raise UserError(
            f"{settings.out} is a place of pictures, among which shards are not looked for: give another folder"
        )


def done_already(shard: Shard) -> bool:
    """Whether the tar file is there, and whole."""
    try:
        return shard.file.exists() and len(members(str(shard.file))) == len(shard.pictures)
    except UserError:
        return False


def choices(settings: Make) -> dict[str, int]:
    """What the contents of the shards depend on."""
    return {"size": settings.size, "quality": settings.quality if settings.size else 0, "samples": settings.samples}


def agree(settings: Make, this: dict[str, str | int]) -> None:
    """Writes down what the shards are made of. Mistake if those that are there are made of something else."""
    file = settings.out / NOTE
    try:
        there = read_json(file) if file.exists() else this
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): remove {settings.out} and make it again") from error
    if other := [name for name in this if there.get(name) != this[name]]:
        raise UserError(f"{settings.out} holds shards of other {' and '.join(other)}: give another folder")
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(this))


def shards(settings: Make, paths: list[str]) -> Iterator[Shard]:
    """Which pictures go into which file: a function of the list alone."""
    names = list(named(paths, settings.root))
    for number, first in enumerate(range(0, len(paths), settings.samples)):
        own = slice(first, first + settings.samples)
        file = settings.out / f"{settings.out.resolve().name}-{number:06d}.tar"
        yield Shard(file, tuple(zip(paths[own], names[own], strict=True)), settings.size, settings.quality)


def named(paths: list[str], root: str) -> Iterator[str]:
    """A name for each picture in its folder, without its ending and unlike all others."""
    taken: set[str] = set()
    for path in paths:
        place = inside(path)
        own = PurePosixPath(place.name if place else path)
        if place:  # a name from somebody else's archive, which must not lead anybody who extracts ours elsewhere
            own = PurePosixPath(*(step for step in own.parts if step not in ("/", "//", "..")))
        elif Path(root).expanduser().is_dir():
            own = own.relative_to(Path(root).expanduser())
        else:
            own = PurePosixPath(own.parent.name, own.name)
        plain = name = str(own.with_name(own.stem.replace(".", "_")))
        turn = 1
        while name in taken:
            turn += 1
            name = f"{plain}-{turn}"
        taken.add(name)
        yield name


def written(todo: list[Shard], workers: int) -> Iterator[int]:
    """Writes each, in several processes where there are several; how many pictures of it could not be decoded."""
    count = min(available_cores() if workers < 0 else workers, len(todo))
    if count < 2:
        yield from map(write, todo)
        return
    with ProcessPoolExecutor(count, multiprocessing.get_context("forkserver")) as pool:
        yield from pool.map(write, todo)


def write(shard: Shard) -> int:
    """Writes one tar file and its index; how many of its pictures could not be decoded."""
    kept = 0
    with atomic_write(shard.file) as temporary, tarfile.open(temporary, "w") as tar:
        for path, name in shard.pictures:
            place = inside(path)
            ending, content = ending_of(path, place.name if place else path), read_bytes(path)
            if shard.size and ending.lower() != ".npy":
                try:
                    if made := smaller(path, shard.size, shard.quality):
                        content, ending = made, ".jpg"
                except Undecodable:
                    kept += 1
            member = tarfile.TarInfo(name + ending)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    members(str(shard.file))
    return kept


def ending_of(path: str, name: str) -> str:
    """The ending of a name, or, of rows that have none, by what the picture is; without an ending it would not be found again."""
    ending = PurePosixPath(name).suffix
    if ending.lower() in SUFFIXES:
        return ending
    try:
        with opened(path) as picture:
            return f".{(picture.format or 'JPEG').lower()}"
    except Undecodable:
        return ".jpg"


def smaller(path: str, size: int, quality: int) -> bytes:
    """The picture, upright, as a JPEG file whose shorter side is `size`; nothing if it is no larger, or too long for a JPEG file.

    Undecodable if it cannot be had.
    """
    with opened(path) as picture:
        grey, side = picture.mode in ("1", "L"), min(picture.size)
        if side <= size:
            return b""
        seen = upright(picture, 1 if grey else 3, side / size)
    share = size / min(seen.size)
    sides = round(seen.size[0] * share), round(seen.size[1] * share)
    if max(sides) > LONGEST:
        return b""
    stream = io.BytesIO()
    seen.resize(sides, Pillow.Resampling.BICUBIC, reducing_gap=3.0).save(stream, "JPEG", quality=quality)
    return stream.getvalue()
