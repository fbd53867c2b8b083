"""Pack small images into one memory-mapped file.   C channels  H height  W width"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from openjepa.core.fileio import atomic_write
from openjepa.core.protocols import Dataset
from openjepa.core.types import Skipped
from openjepa.data.image_files import ImageArray, ImageFiles, view_type
from openjepa.data.image_io import Undecodable, decode_image, image_size

MAX_PACKED_SIDE = 96  # pixels; datasets with a longer side are not packed


def is_worth_packing(files: ImageFiles) -> bool:
    """Return whether all of up to 64 evenly spaced images are small enough to pack."""
    sizes = []
    for index in np.linspace(0, len(files) - 1, min(64, len(files))).astype(int).tolist():
        try:
            sizes.append(max(image_size(files.paths[index], files.config.channels)))
        except Undecodable:
            continue
    return bool(sizes) and max(sizes) <= MAX_PACKED_SIDE


def pack_images(files: ImageFiles, cache: Path) -> Dataset:
    """Decode all images once into one memory-mapped file.

    Return `files` unchanged if one of them is too large.
    """
    channels, value_range = files.config.channels, files.config.value_range
    scaled = hashlib.sha256(repr(value_range).encode()).hexdigest()[:12] if len(value_range) > 1 else ""
    name = "-".join(filter(None, (files.fingerprint, str(channels), scaled)))
    store, index = cache / f"{name}.pixels", cache / f"{name}.json"
    if not index.exists():
        sizes, reasons = measure_sizes(files)
        if sizes.max() > MAX_PACKED_SIDE:
            return files
        shape = (len(files), channels, *sizes.max(0).tolist())
        with atomic_write(store) as temporary:
            array = np.memmap(temporary, view_type(files.config), "w+", shape=shape)
            for number, path in enumerate(files.paths):
                try:
                    image = decode_image(path, channels, value_range)
                    array[number, :, : image.shape[1], : image.shape[2]] = image
                except Undecodable as error:
                    reasons[number] = str(error)
            array.flush()
            del array  # Windows gives no name to a mapped file
        with atomic_write(index) as temporary:
            text = json.dumps({"shape": shape, "sizes": sizes.tolist(), "bad": reasons})
            temporary.write_text(text, encoding="utf-8")
    return PackedImages(files, store, index)


def measure_sizes(files: ImageFiles) -> tuple[np.ndarray, dict[int, str]]:
    """Return (height, width) of every image from its header, and why some have none, by index."""
    sizes, reasons = np.zeros((len(files), 2), np.int64), {}
    for number, path in enumerate(files.paths):
        try:
            sizes[number] = image_size(path, files.config.channels)
        except Undecodable as error:
            reasons[number] = str(error)
    return sizes, reasons


class PackedImages(ImageArray):
    """Images packed by `pack_images`, memory-mapped. A worker maps the file again instead of copying it."""

    def __init__(self, files: ImageFiles, store: Path, index: Path):
        self.source_files = files, store, index
        content = json.loads(index.read_text(encoding="utf-8"))
        shape = content["shape"]
        dtype = torch.uint8 if view_type(files.config) is np.uint8 else torch.float32
        array = torch.from_file(str(store), shared=False, size=int(np.prod(shape)), dtype=dtype).view(*shape)
        undecodable = {int(key): Skipped(files.paths[int(key)], reason) for key, reason in content["bad"].items()}
        label = files.label.clone()
        label[list(undecodable)] = -1
        sizes = torch.tensor(content["sizes"])
        super().__init__(files.config, array, label, files.fingerprint, files.classes, sizes, undecodable)

    def source(self, index: int) -> str:
        return self.source_files[0].source(index)

    def __reduce__(self):
        return PackedImages, self.source_files
