"""Image datasets: files, an array, or a packed memory map.

B batch  S samples  C channels  H height  W width
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.protocols import Dataset
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples, Skipped
from openjepa.data.archives import label_folder
from openjepa.data.crops import Crops, resample
from openjepa.data.file_labels import FileLabels, number_names
from openjepa.data.image_io import Undecodable, decode_image, image_size, read_image_file
from openjepa.data.image_values import EncodedImage, crop_file
from openjepa.data.listing import MappedPathList

MAX_REPLACEMENTS = 16  # consecutive undecodable files before the run stops

FILES_IN_MEMORY = 16  # encoded files held in memory at a time

MAX_PACKED_SIDE = 96  # pixels; datasets with a longer side are not packed

View = Real[np.ndarray, "C h w"]


@runtime_checkable
class ImageViews(Protocol):
    """The part of the image modality that a dataset needs: view size, range of values, cropping and augmentation."""

    @property
    def channels(self) -> int: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def value_range(self) -> tuple[float, ...]: ...
    def crops(self, height: Float[Tensor, "B"], width: Float[Tensor, "B"], rng: CounterRNG | None) -> Crops: ...
    def augment(self, views: Real[Tensor, "B C H W"], rng: CounterRNG | None) -> Real[Tensor, "B C H W"]: ...


class ImageArray:
    """Images in memory or in a memory map.

    Images smaller than the array are padded; `sizes` holds their true (height, width).
    """

    def __init__(
        self,
        config: ImageViews,
        array: Real[Tensor, "S C H W"],
        label: Int[Tensor, "S"],
        fingerprint: str,
        classes: tuple[str, ...] = (),
        sizes: Int[Tensor, "S 2"] | None = None,
        undecodable: dict[int, Skipped] | None = None,
    ):
        self.config, self.array, self.label, self.fingerprint, self.classes = config, array, label, fingerprint, classes
        self.sizes = torch.tensor(array.shape[2:]).expand(len(array), 2) if sizes is None else sizes
        self.undecodable = undecodable or {}  # by index

    def __len__(self) -> int:
        return len(self.array)

    def source(self, index: int) -> str:
        return str(index)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Crop and augment a batch; without `rng`, return the evaluation views."""
        index, skipped = self.replace_undecodable(index, rng)
        height, width = self.sizes[index].float().unbind(1)
        views = resample(self.array[index], self.config.crops(height, width, rng), self.config.size)
        return Samples((self.config.augment(views, rng),), self.label[index], tuple(skipped))

    def replace_undecodable(
        self, index: Int[Tensor, "B"], rng: CounterRNG | None
    ) -> tuple[Int[Tensor, "B"], list[Skipped]]:
        """Replace undecodable samples by random ones, and list them. Without `rng`, only list them."""
        index, skipped = index.clone(), []
        for row, sample in enumerate(index.tolist() if self.undecodable else []):
            attempt = 0
            while sample in self.undecodable:
                bad = self.undecodable[sample]
                skipped.append(bad)
                if rng is None:
                    break
                sample = replacement_index(rng.select(np.array([row])), attempt, len(self), bad)
                attempt += 1
            index[row] = sample
        return index, skipped


class ImageFiles:
    """Images in files.

    Training replaces an undecodable file by one that depends only on (seed, n, attempt).
    """

    decodes_files: ClassVar[bool] = True

    def __init__(
        self,
        config: ImageViews,
        paths: MappedPathList | list[str],
        fingerprint: str | Callable[[], str],
        labels: FileLabels | None = None,
    ):
        self.config, self.paths, self.compute_fingerprint, self.file_labels = config, paths, fingerprint, labels

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of the files; figures do not need it, and it takes time."""
        if not isinstance(self.compute_fingerprint, str):
            self.compute_fingerprint = self.compute_fingerprint()
        return self.compute_fingerprint

    @property
    def groups(self) -> Int[Tensor, "S"] | None:
        """Return the number of each image's group, if groups are known."""
        return self.file_labels.groups if self.file_labels else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "compute_fingerprint": self.fingerprint}  # without the list of files behind it

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folder_labels[0]

    @property
    def label(self) -> Int[Tensor, "S"]:
        return self.folder_labels[1]

    @cached_property
    def folder_labels(self) -> tuple[tuple[str, ...], Int[Tensor, "S"]]:
        """Return the sorted names of the classes, or of the files' folders, and each file's index into them."""
        if self.file_labels and self.file_labels.names:
            return number_names(self.file_labels.names)
        return number_names([label_folder(path) for path in self.paths])

    def __len__(self) -> int:
        return len(self.paths)

    def source(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Decode, crop and augment a batch; without `rng`, return the evaluation views with their labels."""
        views, label, skipped = [], torch.full((len(index),), -1), []
        for rows in torch.arange(len(index)).split(FILES_IN_MEMORY):
            part_rng = rng.select(rows.numpy()) if rng else None
            part = self.read_views(index[rows].tolist(), part_rng)
            for row, (view, undecodable) in zip(rows.tolist(), part, strict=True):
                views.append(view)
                skipped.extend(undecodable)
                if rng is None and not undecodable:
                    label[row] = self.label[index[row]]
        return Samples((self.config.augment(torch.from_numpy(np.stack(views)), rng),), label, tuple(skipped))

    def read_views(self, index: list[int], rng: CounterRNG | None) -> Iterator[tuple[View, list[Skipped]]]:
        """Yield a view of each sample, with the files skipped on the way to it."""
        for row, view in enumerate(self.decode_crops(index, rng)):
            skipped: list[Skipped] = []
            while isinstance(view, Skipped):
                skipped.append(view)
                if rng is None:
                    view = np.zeros((self.config.channels, *self.config.size), view_type(self.config))
                    break
                row_rng = rng.select(np.array([row]))
                replacement = replacement_index(row_rng, len(skipped) - 1, len(self), view)
                (view,) = self.decode_crops([replacement], row_rng)
            yield view, skipped

    def decode_crops(self, index: list[int], rng: CounterRNG | None) -> Iterator[View | Skipped]:
        """Yield a view of each file, or why it has none.

        All headers are read before the first file is decoded: one batched call makes all crops.
        """
        files = deque(self.read_header(sample) for sample in index)
        sides = torch.tensor([(1, 1) if isinstance(file, Skipped) else file[:2] for file in files], dtype=torch.float32)
        crop, row = self.config.crops(sides[:, 0], sides[:, 1], rng), 0
        while files:
            view = files.popleft()  # drops our reference, which frees the decoded image
            if isinstance(view, EncodedImage):
                try:
                    view = crop_file(view, self.config.channels, crop, row, self.config.size, self.config.value_range)
                except Undecodable as error:
                    view = Skipped(self.paths[index[row]], str(error))
            yield view
            row += 1

    def read_header(self, index: int) -> EncodedImage | Skipped:
        """Read one file and its size; return why it was skipped if it is not an image."""
        try:
            return read_image_file(self.paths[index], self.config.channels)
        except Undecodable as error:
            return Skipped(self.paths[index], str(error))


def view_type(config: ImageViews) -> type[np.generic]:
    """Return the type of a view's values: bytes, or floats on the same scale where a range of values is known."""
    return np.float32 if len(config.value_range) > 1 else np.uint8


def replacement_index(rng: CounterRNG, attempt: int, count: int, bad: Skipped) -> int:
    """Draw the sample that replaces an undecodable one.

    Raises:
        UserError: MAX_REPLACEMENTS files in a row were undecodable.
    """
    if attempt == MAX_REPLACEMENTS:
        raise UserError(
            f"{MAX_REPLACEMENTS} files in a row cannot be decoded, the last is {bad.path} ({bad.reason}): "
            "run jepa doctor on the folder"
        )
    return int(rng.fold_in(0).uniform(f"replacement {attempt}") * count)  # the same for every view of the sample


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
