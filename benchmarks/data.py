"""Time what surrounds a training step: masks, crops, decoding and a long list of files.

    python benchmarks/data.py                      masks, packed crops, a list of a million paths
    python benchmarks/data.py --photos FOLDER      also JPEG files to 224 px views

One thread throughout. Figures are printed, not asserted.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout
from openjepa.data.image_io import IMAGE_SUFFIXES
from openjepa.data.listing import MappedPathList, list_files
from openjepa.masking.multiblock import MultiBlock
from openjepa.masking.official import Official
from openjepa.modalities.image import Image


def seconds(function, least: float = 1.0) -> float:
    """Return the median seconds per call over about a second of calls."""
    function()
    measured = []
    while sum(measured) < least:
        start = time.perf_counter()
        function()
        measured.append(time.perf_counter() - start)
    return float(np.median(measured))


def masks() -> None:
    for grid in ((8, 8), (14, 14), (16, 16), (28, 28)):
        for sampler, masker in (("multiblock", MultiBlock()), ("official", Official(min_keep=8))):
            rng = CounterRNG.of(0, 3, np.arange(128))
            measured = seconds(
                lambda masker=masker, rng=rng, grid=grid: masker(Layout.grid(*grid), None, None, rng, 0.0)
            )
            print(f"masks      {sampler:9} {grid[0]}×{grid[1]:<3} {measured / 128 * 1e6:6.1f} µs an image, batch 128")


def crops() -> None:
    for size in (32, 64, 96):
        config = Image(size=(size, size), patch=size // 8, mean=(0.5,) * 3, std=(0.25,) * 3)
        data = config.synthetic(256, 0)
        index, rng = torch.arange(128), CounterRNG.of(0, 0, np.arange(128))
        measured = seconds(lambda data=data, index=index, rng=rng: data.read(index, rng))
        print(f"crops      packed {size:3} px {128 / measured:8.0f} images/s")


def photos(folder: str) -> None:
    config = Image(root=(folder,), size=(224, 224), patch=16)
    data = config.dataset(config.listing())
    index = torch.arange(min(64, len(data)))
    numbers = iter(range(10**6))
    measured = seconds(lambda: data.read(index, CounterRNG.of(0, 0, next(numbers) * 64 + np.arange(len(index)))), 8.0)
    print(f"decode     JPEG files to crops of 224 px: {len(index) / measured:.0f} images/s on one core")


def million(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for part in range(count // 1000):
            below = Path(folder) / f"{part:04d}"
            below.mkdir()
            for number in range(1000):
                os.close(os.open(below / f"{number:04d}.jpg", os.O_CREAT))
        start = time.perf_counter()
        listing = list_files((folder,), IMAGE_SUFFIXES)
        stored = MappedPathList.write(Path(folder) / "paths", listing.paths)
        indexed = time.perf_counter() - start
        start = time.perf_counter()
        again = MappedPathList(stored.file)
        last = again[len(again) - 1]
        opened = time.perf_counter() - start
        assert last == listing.paths[-1]
    print(
        f"index      {len(again):,} files listed, fingerprinted and stored in {indexed:.1f} s, "
        f"opened again in {opened:.4f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos")
    parser.add_argument("--files", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    masks()
    crops()
    if options.photos:
        photos(options.photos)
    million(options.files)


if __name__ == "__main__":
    main()
