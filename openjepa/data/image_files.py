"""Image datasets: files, an array, or a packed memory map.

B batch  S samples  C channels  H height  W width
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Real
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples, Skipped
from openjepa.data.crops import Crops, resample
from openjepa.data.file_labels import FileDataset, FileLabels
from openjepa.data.image_io import Undecodable, read_image_file
from openjepa.data.image_values import EncodedImage, crop_file
from openjepa.data.listing import MappedPathList

MAX_REPLACEMENTS = 16  # consecutive undecodable files before the run stops

FILES_IN_MEMORY = 16  # encoded files held in memory at a time

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


class ImageFiles(FileDataset):
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
        super().__init__(paths, fingerprint, labels)
        self.config = config

    @property
    def groups(self) -> Int[Tensor, "S"] | None:
        """Return the number of each image's group, if groups are known."""
        return self.file_labels.groups if self.file_labels else None

    @property
    def label(self) -> Int[Tensor, "S"]:
        return self.file_classes[1]

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
