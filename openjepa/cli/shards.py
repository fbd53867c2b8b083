"""Command `jepa shards`: write a folder of pictures as tar shards."""

from __future__ import annotations

from pathlib import Path

import tyro
from rich.progress import track

from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import lock_folder
from openjepa.data.image_io import IMAGE_SUFFIXES
from openjepa.data.listing import list_files
from openjepa.data.shards import (
    Shards,
    check_output_folder,
    check_settings_unchanged,
    is_written,
    plan_shards,
    shard_settings,
    write_shards,
)


def make_shards(settings: Shards) -> Path:
    """The folder of tar files. A run on them is the run on what they were made of, bit for bit, unless `size` changes pictures.

    Each file appears whole or not at all. Names keep their folders, so that labels stay; their dots become underscores, as
    webdataset wants it. Mistake if the folder holds other shards.
    """
    if settings.samples < 1 or settings.size < 0 or not 1 <= settings.quality <= 100 or settings.workers < -1:
        raise UserError(
            "want --samples of 1 or more, --size of 0 or more, --quality from 1 to 100, --workers of -1 or more"
        )
    listing = list_files((settings.root,), IMAGE_SUFFIXES)
    check_output_folder(settings)
    with lock_folder(settings.out, "writing"):
        check_settings_unchanged(
            settings, {"data": listing.fingerprint, "count": len(listing.paths), **shard_settings(settings)}
        )
        for left in settings.out.glob(".*.tar.[0-9]*"):  # by a process that was killed
            left.unlink()
        todo = [shard for shard in plan_shards(settings, listing.paths) if not is_written(shard)]
        kept = sum(track(write_shards(todo, settings.workers), "writing", len(todo), console=console, disable=not todo))
    count = -(-len(listing.paths) // settings.samples)
    info(
        f"shards     {len(listing.paths):,} pictures in {count:,} tar files below {settings.out}, {len(todo):,} of them written now"
    )
    if kept:
        info(f"{kept:,} could not be decoded and are there as they were: jepa doctor {settings.root} names them")
    return settings.out


def main(arguments: list[str]) -> None:
    """Parse the settings and write the shards."""
    make_shards(tyro.cli(Shards, prog="jepa shards", args=arguments))
