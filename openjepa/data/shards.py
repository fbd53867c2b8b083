"""Write a folder of images as tar shards."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image as Pillow

from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, read_json
from openjepa.core.processes import map_in_processes
from openjepa.data.archives import SHARDS_FILE, list_members, parse_address
from openjepa.data.image_formats import FORMAT_SUFFIXES, IMAGE_SUFFIXES, SNIFF_BYTES, sniff_format
from openjepa.data.image_io import Undecodable, read_bytes, read_image_file
from openjepa.data.image_values import is_deep_mode, upright_image
from openjepa.data.settings import Shards
from openjepa.data.walking import walk_files

MAX_JPEG_SIDE = 65_500  # pixels; the JPEG format allows no longer side


class Shard(NamedTuple):
    """One tar file to write."""

    file: Path
    images: tuple[tuple[str, str], ...]  # (path, name in the tar without suffix)
    size: int
    quality: int


def check_output_folder(settings: Shards) -> None:
    """Check that the output folder holds no images.

    Tar files in a folder with loose images are not read.

    Raises:
        UserError: the output folder is the input folder, lies in it, or holds images.
    """
    root, out = Path(settings.root).expanduser().resolve(), settings.out.resolve()
    if (
        out == root
        or (root.is_dir() and root in out.parents)
        or any(walk_files(str(out), IMAGE_SUFFIXES) if out.is_dir() else ())
    ):
        raise UserError(f"{settings.out} is among images, where shards would not be read: choose another output folder")


def is_written(shard: Shard) -> bool:
    """Return whether the tar file exists and is complete."""
    try:
        return shard.file.exists() and len(list_members(str(shard.file))) == len(shard.images)
    except UserError:
        return False


def shard_settings(settings: Shards) -> dict[str, int]:
    """Return the settings that determine the contents of the shards."""
    return {"size": settings.size, "quality": settings.quality if settings.size else 0, "samples": settings.samples}


def check_settings_unchanged(settings: Shards, origin: dict[str, str | int], earlier: str) -> None:
    """Record the data and settings of the shards in shards.json; `earlier` is what earlier versions wrote as data.

    Raises:
        UserError: the folder holds shards of other data or settings, or shards.json is damaged.
    """
    file = settings.out / SHARDS_FILE
    try:
        existing = read_json(file) if file.exists() else origin
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): remove {settings.out} and write the shards again") from error
    if existing.get("data") == earlier:
        existing["data"] = origin["data"]
    if changed := [name for name in origin if existing.get(name) != origin[name]]:
        raise UserError(
            f"{settings.out} holds shards with a different {' and '.join(changed)}: choose another output folder"
        )
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(origin), encoding="utf-8")


def plan_shards(settings: Shards, paths: list[str]) -> Iterator[Shard]:
    """Assign the images to tar files; depends on the list of paths alone."""
    names = list(unique_names(paths, settings.root))
    for number, first in enumerate(range(0, len(paths), settings.samples)):
        part = slice(first, first + settings.samples)
        file = settings.out / f"{settings.out.resolve().name}-{number:06d}.tar"
        yield Shard(file, tuple(zip(paths[part], names[part], strict=True)), settings.size, settings.quality)


def unique_names(paths: list[str], root: str) -> Iterator[str]:
    """Yield a unique name for each image: its folder and file name, without suffix and dots."""
    used: set[str] = set()
    for path in paths:
        address = parse_address(path)
        file = PurePosixPath(address.name if address else Path(path).as_posix())
        if address:  # names in foreign archives are not trusted: extracting ours must not write elsewhere
            file = PurePosixPath(*(part for part in file.parts if part not in ("/", "//", "..")))
        elif Path(root).expanduser().is_dir():
            file = file.relative_to(Path(root).expanduser().as_posix())
        else:
            file = PurePosixPath(file.parent.name, file.name)
        plain = name = str(file.with_name(file.stem.replace(".", "_")))
        copy = 1
        while name in used:
            copy += 1
            name = f"{plain}-{copy}"
        used.add(name)
        yield name


def write_shards(todo: list[Shard], workers: int) -> Iterator[int]:
    """Write the shards, in parallel if there are several; yield each one's number of undecodable images."""
    count = min(available_cores() if workers < 0 else workers, len(todo))
    if count < 2:
        yield from map(write_shard, todo)
        return
    yield from map_in_processes(write_shard, todo, count)


def write_shard(shard: Shard) -> int:
    """Write one tar file and its index; return the number of undecodable images.

    Undecodable images are copied unchanged.
    """
    undecodable = 0
    with atomic_write(shard.file) as temporary, tarfile.open(temporary, "w") as tar:
        for path, name in shard.images:
            address = parse_address(path)
            content = read_bytes(path)
            suffix = file_suffix(content, address.name if address else path)
            if shard.size and suffix.lower() != ".npy":
                try:
                    if resized := shrink_to_jpeg(path, shard.size, shard.quality):
                        content, suffix = resized, ".jpg"
                except Undecodable:
                    undecodable += 1
            member = tarfile.TarInfo(name + suffix)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    list_members(str(shard.file))
    return undecodable


def file_suffix(content: bytes, name: str) -> str:
    """Return the suffix of a name, or the first one of its format if the name has none (Parquet rows).

    Members of a tar without an image suffix are not read.
    """
    suffix = PurePosixPath(name).suffix
    if suffix.lower() in IMAGE_SUFFIXES:
        return suffix
    return FORMAT_SUFFIXES.get(sniff_format(content[:SNIFF_BYTES]), (".jpg",))[0]


def shrink_to_jpeg(path: str, size: int, quality: int) -> bytes:
    """Encode an image upright as JPEG with a shorter side of `size`.

    Return no bytes if the image is not larger than that, too long for a JPEG file, or has more than 8 bits per value or
    other bands than gray and RGB, which a JPEG file cannot hold.

    Raises:
        Undecodable: the image cannot be decoded.
    """
    image = read_image_file(path, 0).content
    if not isinstance(image, Pillow.Image) or is_deep_mode(image):
        return b""
    with image:
        gray, side = image.mode in ("1", "L"), min(image.size)
        if side <= size:
            return b""
        upright = upright_image(image, 1 if gray else 3, side / size)
    scale = size / min(upright.size)
    sides = round(upright.size[0] * scale), round(upright.size[1] * scale)
    if max(sides) > MAX_JPEG_SIDE:
        return b""
    stream = io.BytesIO()
    upright.resize(sides, Pillow.Resampling.BICUBIC, reducing_gap=3.0).save(stream, "JPEG", quality=quality)
    return stream.getvalue()
