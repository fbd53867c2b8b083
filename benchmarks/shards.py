"""Time random reads of images from files, tar files and Parquet, and the listing of a million images.

    python benchmarks/shards.py --photos FOLDER --images 1000000

One thread. The photographs, repeated to 1,000, are read as training crops of 224 px in random order, the formats in
turn. The million are members of 1 KB, a thousand per tar file. Everything is in the page cache: disks and networks
are not measured.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.cli.shards import shards as make_shards
from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.data.image_io import IMAGE_SUFFIXES, read_bytes
from openjepa.data.listing import list_files
from openjepa.data.settings import Shards
from openjepa.modalities.image import Image

COUNT, BATCH = 1000, 50


def kinds(photos: str, folder: Path) -> dict[str, str]:
    """Write the photographs in every format."""
    paths = list_files((photos,), IMAGE_SUFFIXES).paths
    files = folder / "files"
    files.mkdir()
    for number in range(COUNT):
        (files / f"{number:04d}.jpg").write_bytes(read_bytes(paths[number % len(paths)]))
    cells = [{"bytes": file.read_bytes(), "path": file.name} for file in sorted(files.iterdir())]
    found = {"files": str(files), "tar files": str(make_shards(Shards(str(files), folder / "tar")))}
    for rows in (100, 1000):
        found[f"Parquet, row groups of {rows}"] = name = str(folder / f"{rows}.parquet")
        parquet.write_table(arrow.table({"image": cells}), name, row_group_size=rows)
    began = time.perf_counter()
    found["tar files, shrunk to 256 px"] = str(make_shards(Shards(str(files), folder / "small", size=256, workers=1)))
    print(f"shrunk at {COUNT / (time.perf_counter() - began):.0f} images/s")
    return found


def rates(found: dict[str, str], rounds: int) -> None:
    """Print the crops per second of every format, the median of several rounds."""
    data = {name: Image(root=(root,), size=(224, 224), patch=16) for name, root in found.items()}
    sets = {name: config.dataset(config.listing()) for name, config in data.items()}
    taken: dict[str, list[float]] = {name: [] for name in sets}
    for turn in range(rounds):
        index = torch.from_numpy(epoch_order(0, turn, COUNT)[: 4 * BATCH])
        for name, own in sets.items():
            began = time.perf_counter()
            for part in index.split(BATCH):
                own.read(part, CounterRNG.of(0, turn, part.numpy()))
            taken[name].append(time.perf_counter() - began)
    print("| images in | crops/s | of files |\n|---|---|---|")
    plain = statistics.median(taken["files"])
    for name, each in taken.items():
        middle = statistics.median(each)
        print(f"| {name} | {4 * BATCH / middle:.0f} | {plain / middle:.2f} |")


def many(folder: Path, count: int) -> None:
    """Time listing tar files of a thousand members each, without and with their indexes."""
    folder.mkdir()
    content = np.random.default_rng(0).bytes(1000)
    for number in range(count // 1000):
        with tarfile.open(folder / f"{number:06d}.tar", "w") as tar:
            for place in range(1000):
                member = tarfile.TarInfo(f"{number:06d}{place:03d}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for state in ("without indexes", "with indexes"):
        began = time.perf_counter()
        found = len(list_files((str(folder),), IMAGE_SUFFIXES).paths)
        print(f"{found:,} images in {count // 1000:,} tar files, {state}: {time.perf_counter() - began:.1f} s")
    kept = sum(file.stat().st_size for file in folder.glob(".*.index"))
    print(f"indexes: {kept / count:.0f} bytes per image")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", required=True)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    rates(kinds(options.photos, folder), options.rounds)
    many(folder / "many", options.images)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
