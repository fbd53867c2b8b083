"""Datasets of pictures: in files, in an array, packed into one memory-mapped file.   B batch  S samples  C channels  H height  W width"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.protocols import Dataset
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples, Skipped
from openjepa.data.archives import label_folder
from openjepa.data.crops import Crops, resample
from openjepa.data.image_io import EncodedImage, Undecodable, crop_file, decode_image, image_size, read_image_file
from openjepa.data.listing import MappedPathList

MAX_REPLACEMENTS = 16  # replacements tried for a file that cannot be decoded

FILES_IN_MEMORY = 16  # files that are held in memory at a time

MAX_PACKED_SIDE = 96  # longest side of pictures that are packed into one file, pixels

View = UInt8[np.ndarray, "C h w"]


@runtime_checkable
class ImageViews(Protocol):
    """What a dataset of pictures needs to know of the modality: the size of a view and how it is cropped and augmented."""

    @property
    def channels(self) -> int: ...
    @property
    def size(self) -> tuple[int, int]: ...
    def crops(self, height: Float[Tensor, "B"], width: Float[Tensor, "B"], draws: CounterRNG | None) -> Crops: ...
    def augment(self, views: UInt8[Tensor, "B C H W"], draws: CounterRNG | None) -> UInt8[Tensor, "B C H W"]: ...


class ImageArray:
    """Pictures in memory or in a memory map; smaller ones than the array are padded, and `sizes` says where they end."""

    def __init__(
        self,
        config: ImageViews,
        array: UInt8[Tensor, "S C H W"],
        label: Int[Tensor, "S"],
        fingerprint: str,
        classes: tuple[str, ...] = (),
        sizes: Int[Tensor, "S 2"] | None = None,
        bad: dict[int, Skipped] | None = None,
    ):
        self.config, self.array, self.label, self.fingerprint, self.classes = config, array, label, fingerprint, classes
        self.sizes = torch.tensor(array.shape[2:]).expand(len(array), 2) if sizes is None else sizes
        self.bad = bad or {}  # what could not be decoded, by index

    def __len__(self) -> int:
        return len(self.array)

    def source(self, index: int) -> str:
        return str(index)

    def read(self, index: Int[Tensor, "B"], draws: CounterRNG | None) -> Samples:
        index, skipped = index.clone(), []
        for row, wanted in enumerate(index.tolist() if self.bad else []):
            attempt = 0
            while wanted in self.bad:
                skipped.append(self.bad[wanted])
                if draws is None:
                    break
                wanted = replacement_index(draws.select(np.array([row])), attempt, len(self), self.bad[wanted])
                attempt += 1
            index[row] = wanted
        height, width = self.sizes[index].float().unbind(1)
        views = resample(self.array[index], self.config.crops(height, width, draws), self.config.size)
        return Samples((self.config.augment(views, draws),), self.label[index], tuple(skipped))


class ImageFiles:
    """Pictures in files. In training a file that cannot be decoded is replaced by one that (seed, n, attempt) choose."""

    def __init__(self, config: ImageViews, paths: MappedPathList | list[str], fingerprint: str):
        self.config, self.paths, self.fingerprint = config, paths, fingerprint

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folders[0]

    @property
    def label(self) -> Int[Tensor, "S"]:
        return self.folders[1]

    @cached_property
    def folders(self) -> tuple[tuple[str, ...], Int[Tensor, "S"]]:
        """Names of the folders that hold the files, and each file's."""
        names = [label_folder(path) for path in self.paths]
        classes = tuple(sorted(set(names)))
        number = {name: place for place, name in enumerate(classes)}
        return classes, torch.tensor([number[name] for name in names])

    def __len__(self) -> int:
        return len(self.paths)

    def source(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: Int[Tensor, "B"], draws: CounterRNG | None) -> Samples:
        views, label, skipped = [], torch.full((len(index),), -1), []
        for rows in torch.arange(len(index)).split(FILES_IN_MEMORY):
            own = draws.select(rows.numpy()) if draws else None
            for row, (view, bad) in zip(rows.tolist(), self.views(index[rows].tolist(), own), strict=True):
                views.append(view)
                skipped.extend(bad)
                if draws is None and not bad:
                    label[row] = self.label[index[row]]
        return Samples((self.config.augment(torch.from_numpy(np.stack(views)), draws),), label, tuple(skipped))

    def views(self, index: list[int], draws: CounterRNG | None) -> Iterator[tuple[View, list[Skipped]]]:
        """A view of each of some samples, and the files that had to be passed over for it."""
        for row, found in enumerate(self.cut(index, draws)):
            skipped: list[Skipped] = []
            while isinstance(found, Skipped):
                skipped.append(found)
                if draws is None:
                    found = np.zeros((self.config.channels, *self.config.size), np.uint8)
                    break
                mine = draws.select(np.array([row]))
                (found,) = self.cut([replacement_index(mine, len(skipped) - 1, len(self), found)], mine)
            yield found, skipped

    def cut(self, index: list[int], draws: CounterRNG | None) -> Iterator[View | Skipped]:
        """A view of each file, or why there is none. All are read before the first is decoded: their crops are one draw."""
        files = deque(self.look(place) for place in index)
        sides = torch.tensor([(1, 1) if isinstance(file, Skipped) else file[:2] for file in files], dtype=torch.float32)
        crop, row = self.config.crops(sides[:, 0], sides[:, 1], draws), 0
        while files:
            found = files.popleft()  # and its decoded picture goes with it
            if isinstance(found, EncodedImage):
                try:
                    found = crop_file(found, self.config.channels, crop, row, self.config.size)
                except Undecodable as error:
                    found = Skipped(self.paths[index[row]], str(error))
            yield found
            row += 1

    def look(self, place: int) -> EncodedImage | Skipped:
        """A file read, or why it cannot be."""
        try:
            return read_image_file(self.paths[place], self.config.channels)
        except Undecodable as error:
            return Skipped(self.paths[place], str(error))


def replacement_index(draws: CounterRNG, attempt: int, count: int, bad: Skipped) -> int:
    """Which sample takes the place of one that could not be decoded. Mistake after 16 in a row."""
    if attempt == MAX_REPLACEMENTS:
        raise UserError(
            f"{MAX_REPLACEMENTS} files in a row cannot be decoded, the last {bad.path} ({bad.reason}): look at the folder"
        )
    return int(draws.fold_in(0).uniform(f"replacement {attempt}") * count)  # the same for every view of the sample


def worth_packing(files: ImageFiles) -> bool:
    """Whether the pictures, by a look at 64 of them, are worth packing."""
    sizes = []
    for index in np.linspace(0, len(files) - 1, min(64, len(files))).astype(int).tolist():
        try:
            sizes.append(max(image_size(files.paths[index], files.config.channels)))
        except Undecodable:
            continue
    return bool(sizes) and max(sizes) <= MAX_PACKED_SIDE


def pack_images(files: ImageFiles, cache: Path) -> Dataset:
    """The pictures decoded once into one memory-mapped file; the files themselves where one of them turns out large."""
    channels, count = files.config.channels, len(files)
    store, index = cache / f"{files.fingerprint}-{channels}.pixels", cache / f"{files.fingerprint}-{channels}.json"
    if not index.exists():
        sizes, bad = np.zeros((count, 2), np.int64), {}
        for place, path in enumerate(files.paths):
            try:
                sizes[place] = image_size(path, channels)
            except Undecodable as error:
                bad[place] = str(error)
        if sizes.max() > MAX_PACKED_SIDE:
            return files
        height, width = sizes.max(0)
        with atomic_write(store) as temporary:
            array = np.memmap(temporary, np.uint8, "w+", shape=(count, channels, height, width))
            for place, path in enumerate(files.paths):
                try:
                    picture = decode_image(path, channels)
                    array[place, :, : picture.shape[1], : picture.shape[2]] = picture
                except Undecodable as error:
                    bad[place] = str(error)
            array.flush()
        with atomic_write(index) as temporary:
            temporary.write_text(json.dumps({"shape": array.shape, "sizes": sizes.tolist(), "bad": bad}))
    return PackedImages(files, store, index)


class PackedImages(ImageArray):
    """What `pack` made, memory-mapped; a worker opens it again instead of taking a copy."""

    def __init__(self, files: ImageFiles, store: Path, index: Path):
        self.made_of = files, store, index
        content = json.loads(index.read_text())
        shape = content["shape"]
        array = torch.from_file(str(store), shared=False, size=int(np.prod(shape)), dtype=torch.uint8).view(*shape)
        bad = {int(place): Skipped(files.paths[int(place)], reason) for place, reason in content["bad"].items()}
        label = files.label.clone()
        label[list(bad)] = -1
        super().__init__(
            files.config, array, label, files.fingerprint, files.classes, torch.tensor(content["sizes"]), bad
        )

    def source(self, index: int) -> str:
        return self.made_of[0].source(index)

    def __reduce__(self):
        return PackedImages, self.made_of
