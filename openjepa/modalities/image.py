"""Images as grids of patches.   B batch  S samples  C channels  H height  W width  N tokens  E raw width  D width"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from openjepa.archives import folder
from openjepa.colour import jitter
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.protocols import Dataset
from openjepa.core.rng import CounterRNG
from openjepa.core.types import FileList, Samples, Skipped, Tokens
from openjepa.data import Paths, list_files
from openjepa.nn.positions import grid_positions
from openjepa.nn.stems import ConvStem, PatchEmbed
from openjepa.pictures import (
    MODES,
    SUFFIXES,
    Crop,
    File,
    Fit,
    Undecodable,
    centre_crops,
    cut,
    decode,
    look,
    random_crops,
    resample,
    size_of,
)

ATTEMPTS = 16  # replacements tried for a file that cannot be decoded

TOGETHER = 16  # files that are held in memory at a time

SMALL = 96  # longest side of pictures that are packed into one file, pixels

View = UInt8[np.ndarray, "C h w"]


@dataclass(frozen=True)
class Image:
    """Where the images are, how training crops are taken, and the grid of patches. Crops as in the paper."""

    root: tuple[str, ...] = ()  # folders, nested or flat; .tar, .parquet; .txt of paths
    size: tuple[int, int] = (224, 224)  # height and width of a crop, pixels
    patch: int = 16
    channels: int = 3  # 1: grey; 3: RGB; otherwise .npy files of uint8 (H, W, C)
    embed: Literal["linear", "convolutions"] = "linear"  # how a patch becomes a feature
    crop_scale: tuple[float, float] = (0.3, 1.0)  # share of the picture's area
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height
    flip: bool = False  # mirror half of the crops
    colour: float = 0.0  # strength of random changes of colour; SimCLR's runs on CIFAR-10 have 0.5
    fit: Fit = "crop"  # of evaluation views: largest centred box; its middle 7/8; the whole picture squashed
    mean: tuple[float, ...] = ()  # of each channel in [0, 1]; empty: measured on the data
    std: tuple[float, ...] = ()

    def __post_init__(self):
        for side in self.size:
            if self.patch < 1 or side < 1 or side % self.patch:
                patch = max(1, self.patch)
                better = max(1, round(side / patch)) * patch
                raise UserError(
                    f"image size {side} is not a multiple of patch {patch}: try --data.size {better} {better}"
                )
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError(f"crop scale {self.crop_scale} is not a range in (0, 1]: try --data.crop-scale 0.3 1.0")
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise UserError(f"crop aspect {self.crop_aspect} is not a range above 0: try --data.crop-aspect 0.75 1.33")
        if self.colour < 0:
            raise UserError(f"a change of colour of strength {self.colour:g} is none: try --data.colour 0.5")
        if self.colour and self.channels != 3:
            raise UserError(f"colours of {self.channels} channels cannot be changed: leave --data.colour out")

    @property
    def grid(self) -> tuple[int, int]:
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def coordinates(self) -> int:
        return 2

    @property
    def width(self) -> int:
        return self.channels * self.patch**2

    def listing(self) -> FileList:
        return list_files(self.root, SUFFIXES)

    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset:
        """The pictures of a list of files. With a cache folder, small pictures are packed there into one file."""
        if self.channels not in MODES and not source.paths[0].endswith(".npy"):
            raise UserError(
                f"pictures such as {source.paths[0]} have 1 or 3 channels, not {self.channels}: give .npy files or --data.channels 3"
            )
        paths = Paths.write(cache / f"{source.fingerprint}.paths", source.paths) if cache else source.paths
        files = ImageFiles(self, paths, source.fingerprint)
        return pack(files, cache) if cache and small(files) else files

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Rendered scenes, labelled by the number of objects."""
        from openjepa.scenes import render

        scenes = render(size, self.size, seed)
        return ImageArray(self, scenes.image, scenes.count, f"scenes-{size}-{seed}")

    def tokens(self, view: UInt8[Tensor, "B C H W"]) -> Tokens:
        """Normalised patches as rows of C·p·p numbers, at (x, y) = (column, row), rescaled to the trained grid."""
        return self.patches(self.normalised(view))

    def patches(self, normal: Float[Tensor, "B C H W"]) -> Tokens:
        """The same of pictures that are normalised already."""
        batch, channels, height, width = normal.shape
        if height % self.patch or width % self.patch:
            raise UserError(f"a view of {height}×{width} does not divide into patches of {self.patch}")
        rows, columns = height // self.patch, width // self.patch
        x = normal.view(batch, channels, rows, self.patch, columns, self.patch)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        pos = grid_positions(rows, columns, like=self.grid).to(normal.device)
        return Tokens(x, pos.expand(batch, -1, -1))

    def normalised(self, view: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Each channel less its mean, divided by its deviation."""
        mean, std = (torch.tensor(each, device=view.device).view(-1, 1, 1) * 255 for each in (self.mean, self.std))
        return (view.float() - mean) / std

    def pixels(self, x: Float[Tensor, "B N E"], grid: tuple[int, int] | None = None) -> UInt8[Tensor, "B C H W"]:
        """The pictures that `tokens` cuts into these patches, as bytes: what is outside them is cut off."""
        rows, columns = grid or self.grid
        x = x.float().view(len(x), rows, columns, self.channels, self.patch, self.patch)
        x = x.permute(0, 3, 1, 4, 2, 5).reshape(len(x), self.channels, rows * self.patch, columns * self.patch)
        mean, std = (torch.tensor(each, device=x.device).view(-1, 1, 1) * 255 for each in (self.mean, self.std))
        return (x * std + mean).round().clamp(0, 255).to(torch.uint8)

    def stem(self, dim: int) -> nn.Module:
        return {"linear": PatchEmbed, "convolutions": ConvStem}[self.embed](self.channels, self.patch, dim)

    def stem_work(self, dim: int) -> int:
        return 2 * self.width * dim if self.embed == "linear" else ConvStem.work(self.channels, self.patch, dim)

    def picture(self, view: UInt8[Tensor, "C H W"]) -> np.ndarray:
        """H W 3 bytes to look at: the first three channels, or grey three times."""
        shown = view[:3] if len(view) >= 3 else view[:1].expand(3, -1, -1)
        return shown.permute(1, 2, 0).cpu().numpy()

    def crops(self, height: Float[Tensor, "B"], width: Float[Tensor, "B"], draws: CounterRNG | None) -> Crop:
        """Training crops where there are draws, else the evaluation view."""
        if draws is None:
            return centre_crops(self.size, height, width, self.fit)
        return random_crops(self.crop_scale, self.crop_aspect, self.flip, height, width, draws)

    def coloured(self, views: UInt8[Tensor, "B C H W"], draws: CounterRNG | None) -> UInt8[Tensor, "B C H W"]:
        """Training views with their colours changed, if they are to be."""
        return jitter(views, self.colour, draws) if draws and self.colour else views


class ImageArray:
    """Pictures in memory or in a memory map; smaller ones than the array are padded, and `sizes` says where they end."""

    def __init__(
        self,
        config: Image,
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
                wanted = replacement(draws.take(np.array([row])), attempt, len(self), self.bad[wanted])
                attempt += 1
            index[row] = wanted
        height, width = self.sizes[index].float().unbind(1)
        views = resample(self.array[index], self.config.crops(height, width, draws), self.config.size)
        return Samples((self.config.coloured(views, draws),), self.label[index], tuple(skipped))


class ImageFiles:
    """Pictures in files. In training a file that cannot be decoded is replaced by one that (seed, n, attempt) choose."""

    def __init__(self, config: Image, paths: Paths | list[str], fingerprint: str):
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
        names = [folder(path) for path in self.paths]
        classes = tuple(sorted(set(names)))
        number = {name: place for place, name in enumerate(classes)}
        return classes, torch.tensor([number[name] for name in names])

    def __len__(self) -> int:
        return len(self.paths)

    def source(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: Int[Tensor, "B"], draws: CounterRNG | None) -> Samples:
        views, label, skipped = [], torch.full((len(index),), -1), []
        for rows in torch.arange(len(index)).split(TOGETHER):
            own = draws.take(rows.numpy()) if draws else None
            for row, (view, bad) in zip(rows.tolist(), self.views(index[rows].tolist(), own), strict=True):
                views.append(view)
                skipped.extend(bad)
                if draws is None and not bad:
                    label[row] = self.label[index[row]]
        return Samples((self.config.coloured(torch.from_numpy(np.stack(views)), draws),), label, tuple(skipped))

    def views(self, index: list[int], draws: CounterRNG | None) -> Iterator[tuple[View, list[Skipped]]]:
        """A view of each of some samples, and the files that had to be passed over for it."""
        for row, found in enumerate(self.cut(index, draws)):
            skipped: list[Skipped] = []
            while isinstance(found, Skipped):
                skipped.append(found)
                if draws is None:
                    found = np.zeros((self.config.channels, *self.config.size), np.uint8)
                    break
                mine = draws.take(np.array([row]))
                (found,) = self.cut([replacement(mine, len(skipped) - 1, len(self), found)], mine)
            yield found, skipped

    def cut(self, index: list[int], draws: CounterRNG | None) -> Iterator[View | Skipped]:
        """A view of each file, or why there is none. All are read before the first is decoded: their crops are one draw."""
        files = deque(self.look(place) for place in index)
        sides = torch.tensor([(1, 1) if isinstance(file, Skipped) else file[:2] for file in files], dtype=torch.float32)
        crop, row = self.config.crops(sides[:, 0], sides[:, 1], draws), 0
        while files:
            found = files.popleft()  # and its decoded picture goes with it
            if isinstance(found, File):
                try:
                    found = cut(found, self.config.channels, crop, row, self.config.size)
                except Undecodable as error:
                    found = Skipped(self.paths[index[row]], str(error))
            yield found
            row += 1

    def look(self, place: int) -> File | Skipped:
        """A file read, or why it cannot be."""
        try:
            return look(self.paths[place], self.config.channels)
        except Undecodable as error:
            return Skipped(self.paths[place], str(error))


def replacement(draws: CounterRNG, attempt: int, count: int, bad: Skipped) -> int:
    """Which sample takes the place of one that could not be decoded. Mistake after 16 in a row."""
    if attempt == ATTEMPTS:
        raise UserError(
            f"{ATTEMPTS} files in a row cannot be decoded, the last {bad.path} ({bad.reason}): look at the folder"
        )
    return int(draws.again(0).uniform(f"replacement {attempt}") * count)  # the same for every view of the sample


def small(files: ImageFiles) -> bool:
    """Whether the pictures, by a look at 64 of them, are worth packing."""
    sizes = []
    for index in np.linspace(0, len(files) - 1, min(64, len(files))).astype(int).tolist():
        try:
            sizes.append(max(size_of(files.paths[index], files.config.channels)))
        except Undecodable:
            continue
    return bool(sizes) and max(sizes) <= SMALL


def pack(files: ImageFiles, cache: Path) -> Dataset:
    """The pictures decoded once into one memory-mapped file; the files themselves where one of them turns out large."""
    channels, count = files.config.channels, len(files)
    store, index = cache / f"{files.fingerprint}-{channels}.pixels", cache / f"{files.fingerprint}-{channels}.json"
    if not index.exists():
        sizes, bad = np.zeros((count, 2), np.int64), {}
        for place, path in enumerate(files.paths):
            try:
                sizes[place] = size_of(path, channels)
            except Undecodable as error:
                bad[place] = str(error)
        if sizes.max() > SMALL:
            return files
        height, width = sizes.max(0)
        with atomic_write(store) as temporary:
            array = np.memmap(temporary, np.uint8, "w+", shape=(count, channels, height, width))
            for place, path in enumerate(files.paths):
                try:
                    picture = decode(path, channels)
                    array[place, :, : picture.shape[1], : picture.shape[2]] = picture
                except Undecodable as error:
                    bad[place] = str(error)
            array.flush()
        with atomic_write(index) as temporary:
            temporary.write_text(json.dumps({"shape": array.shape, "sizes": sizes.tolist(), "bad": bad}))
    return Packed(files, store, index)


class Packed(ImageArray):
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
        return Packed, self.made_of


def measure(data: Dataset, most: int = 4096) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel in [0, 1], over the evaluation views of up to `most` pictures."""
    index = torch.linspace(0, len(data) - 1, min(most, len(data))).long()
    total, square, pixels = 0.0, 0.0, 0
    for part in index.split(64):
        read = data.read(part, None)
        view = (
            read.views[0].double()[[*map(bool, read.label >= 0)]] / 255
            if read.skipped
            else read.views[0].double() / 255
        )
        total, square = total + view.sum((0, 2, 3)), square + view.square().sum((0, 2, 3))
        pixels += view.shape[0] * view.shape[2] * view.shape[3]
    if not pixels:
        raise UserError("none of the images looked at could be decoded: run file on one of them to see what it is")
    mean = total / pixels
    std = (square / pixels - mean**2).clamp(min=1e-8).sqrt()
    return tuple(round(value, 5) for value in mean.tolist()), tuple(round(value, 5) for value in std.tolist())
