"""Write a folder of pictures as tar shards."""

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

from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.data.archives import SHARDS_FILE, list_members, parse_address
from openjepa.data.image_io import IMAGE_SUFFIXES, Undecodable, open_image, read_bytes, upright_image
from openjepa.data.listing import walk_files

MAX_JPEG_SIDE = 65_500  # pixels of a side that a JPEG file can have


@dataclass(frozen=True)
class Shards:
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


def check_output_folder(settings: Shards) -> None:
    """Mistake if the shards would lie among pictures, where nobody would look for them."""
    root, out = Path(settings.root).expanduser().resolve(), settings.out.resolve()
    if (
        out == root
        or (root.is_dir() and root in out.parents)
        or any(walk_files(str(out), IMAGE_SUFFIXES) if out.is_dir() else ())
    ):
        raise UserError(
            f"{settings.out} is a place of pictures, among which shards are not looked for: give another folder"
        )


def is_written(shard: Shard) -> bool:
    """Whether the tar file is there, and whole."""
    try:
        return shard.file.exists() and len(list_members(str(shard.file))) == len(shard.pictures)
    except UserError:
        return False


def shard_settings(settings: Shards) -> dict[str, int]:
    """What the contents of the shards depend on."""
    return {"size": settings.size, "quality": settings.quality if settings.size else 0, "samples": settings.samples}


def check_settings_unchanged(settings: Shards, this: dict[str, str | int]) -> None:
    """Writes down what the shards are made of. Mistake if those that are there are made of something else."""
    file = settings.out / SHARDS_FILE
    try:
        there = read_json(file) if file.exists() else this
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): remove {settings.out} and make it again") from error
    if other := [name for name in this if there.get(name) != this[name]]:
        raise UserError(f"{settings.out} holds shards of other {' and '.join(other)}: give another folder")
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(this))


def plan_shards(settings: Shards, paths: list[str]) -> Iterator[Shard]:
    """Which pictures go into which file: a function of the list alone."""
    names = list(unique_names(paths, settings.root))
    for number, first in enumerate(range(0, len(paths), settings.samples)):
        own = slice(first, first + settings.samples)
        file = settings.out / f"{settings.out.resolve().name}-{number:06d}.tar"
        yield Shard(file, tuple(zip(paths[own], names[own], strict=True)), settings.size, settings.quality)


def unique_names(paths: list[str], root: str) -> Iterator[str]:
    """A name for each picture in its folder, without its ending and unlike all others."""
    taken: set[str] = set()
    for path in paths:
        place = parse_address(path)
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


def write_shards(todo: list[Shard], workers: int) -> Iterator[int]:
    """Writes each, in several processes where there are several; how many pictures of it could not be decoded."""
    count = min(available_cores() if workers < 0 else workers, len(todo))
    if count < 2:
        yield from map(write_shard, todo)
        return
    with ProcessPoolExecutor(count, multiprocessing.get_context("forkserver")) as pool:
        yield from pool.map(write_shard, todo)


def write_shard(shard: Shard) -> int:
    """Writes one tar file and its index; how many of its pictures could not be decoded."""
    kept = 0
    with atomic_write(shard.file) as temporary, tarfile.open(temporary, "w") as tar:
        for path, name in shard.pictures:
            place = parse_address(path)
            ending, content = file_suffix(path, place.name if place else path), read_bytes(path)
            if shard.size and ending.lower() != ".npy":
                try:
                    if made := shrink_to_jpeg(path, shard.size, shard.quality):
                        content, ending = made, ".jpg"
                except Undecodable:
                    kept += 1
            member = tarfile.TarInfo(name + ending)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    list_members(str(shard.file))
    return kept


def file_suffix(path: str, name: str) -> str:
    """The ending of a name, or, of rows that have none, by what the picture is; without an ending it would not be found again."""
    ending = PurePosixPath(name).suffix
    if ending.lower() in IMAGE_SUFFIXES:
        return ending
    try:
        with open_image(path) as picture:
            return f".{(picture.format or 'JPEG').lower()}"
    except Undecodable:
        return ".jpg"


def shrink_to_jpeg(path: str, size: int, quality: int) -> bytes:
    """The picture, upright, as a JPEG file whose shorter side is `size`; nothing if it is no larger, or too long for a JPEG file.

    Undecodable if it cannot be had.
    """
    with open_image(path) as picture:
        grey, side = picture.mode in ("1", "L"), min(picture.size)
        if side <= size:
            return b""
        seen = upright_image(picture, 1 if grey else 3, side / size)
    share = size / min(seen.size)
    sides = round(seen.size[0] * share), round(seen.size[1] * share)
    if max(sides) > MAX_JPEG_SIDE:
        return b""
    stream = io.BytesIO()
    seen.resize(sides, Pillow.Resampling.BICUBIC, reducing_gap=3.0).save(stream, "JPEG", quality=quality)
    return stream.getvalue()
