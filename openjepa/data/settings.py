"""Settings of `jepa shards`; without torch, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass

from openjepa.core.arguments import Folder, Output


@dataclass(frozen=True)
class Shards:
    """Pack the images of a folder or of other archives into tar files.

    Run the same command again to resume after an interruption.
    """

    root: Folder  # folder, .txt file of paths, .tar or .parquet file
    out: Output  # output folder OUT, for OUT-000000.tar, OUT-000001.tar, …
    size: int = 0  # resize larger images to this shorter side in pixels and store them as JPEG; 0: copy files unchanged
    quality: int = 95  # JPEG quality of resized images, 1 to 100
    samples: int = 1000  # images per tar file
    workers: int = -1  # processes; -1: one per core
