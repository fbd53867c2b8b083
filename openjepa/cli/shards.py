"""Command `jepa shards`: pack a folder of images into tar shards."""

from __future__ import annotations

from pathlib import Path

from rich.progress import track

from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import lock_folder
from openjepa.data.settings import Shards
from openjepa.data.shards import (
    check_output_folder,
    check_settings_unchanged,
    is_written,
    plan_shards,
    shard_settings,
    write_shards,
)
from openjepa.modalities.image import Image


def shards(settings: Shards) -> Path:
    """Write the images into tar shards and return the folder; resume where an earlier call stopped.

    A run on the shards equals, bit for bit, the run on the images, unless `size` shrinks them. Each tar file appears
    whole or not at all. Names keep their folders, and with them the labels; dots in names become underscores, as
    webdataset requires. Raises UserError if the folder holds other shards.
    """
    check_limits(settings)
    listing = Image(root=(settings.root,)).listing()
    check_output_folder(settings)
    with lock_folder(settings.out, "writing"):
        earlier = listing.earlier((settings.root,)) if listing.earlier else ""
        check_settings_unchanged(
            settings, {"data": listing.fingerprint, "count": len(listing.paths), **shard_settings(settings)}, earlier
        )
        for partial in settings.out.glob(".*.tar.[0-9]*"):  # left by a process that was killed
            partial.unlink()
        todo = [shard for shard in plan_shards(settings, listing.paths) if not is_written(shard)]
        written = write_shards(todo, settings.workers)
        undecodable = sum(
            track(written, "writing", len(todo), console=console, disable=not (todo and console.is_terminal))
        )
    count = -(-len(listing.paths) // settings.samples)
    info(
        f"shards     {len(listing.paths):,} images in {count:,} tar files in {settings.out}; {len(todo):,} written now"
    )
    if undecodable:
        info(f"{undecodable:,} files cannot be decoded, copied as they are: jepa doctor {settings.root} lists them")
    return settings.out


def check_limits(settings: Shards) -> None:
    """Raise UserError if a setting is out of range."""
    limits = {
        "--samples must be >= 1": (settings.samples, settings.samples >= 1),
        "--size must be >= 0 (0 = keep every file as it is)": (settings.size, settings.size >= 0),
        "--quality must be from 1 to 100": (settings.quality, 1 <= settings.quality <= 100),
        "--workers must be >= -1 (-1 = one process per core)": (settings.workers, settings.workers >= -1),
    }
    for limit, (value, holds) in limits.items():
        if not holds:
            raise UserError(f"{limit}, got {value}")
