"""Images as grids of patches.   B batch  C channels  H height  W width  N tokens  E raw width  D width"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.rng import CounterRNG
from openjepa.core.types import FileList, Tokens
from openjepa.data.augment import color_jitter
from openjepa.data.crops import Crops, EvalCrop, center_crops, random_crops
from openjepa.data.image_files import ImageArray, ImageFiles, pack_images, worth_packing
from openjepa.data.image_io import IMAGE_SUFFIXES, MODES
from openjepa.data.listing import MappedPathList, list_files
from openjepa.nn.positions import grid_positions
from openjepa.nn.stems import ConvStem, PatchEmbed


@dataclass(frozen=True)
class Image:
    """Where the images are, how training crops are taken, and the grid of patches. Crops as in the paper."""

    root: tuple[str, ...] = ()  # folders, nested or flat; .tar, .parquet; .txt of paths
    size: tuple[int, int] = (224, 224)  # height and width of a crop, pixels
    patch: int = 16
    channels: int = 3  # 1: grey; 3: RGB; otherwise .npy files of uint8 (H, W, C)
    stem: Literal["linear", "convolutions"] = "linear"  # how a patch becomes a feature
    crop_scale: tuple[float, float] = (0.3, 1.0)  # share of the picture's area
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height
    flip: bool = False  # mirror half of the crops
    color_jitter: float = 0.0  # strength of random changes of colour; SimCLR's runs on CIFAR-10 have 0.5
    eval_crop: EvalCrop = "crop"  # of evaluation views: largest centred box; its middle 7/8; the whole picture squashed
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
        if self.color_jitter < 0:
            raise UserError(
                f"a change of colour of strength {self.color_jitter:g} is none: try --data.color-jitter 0.5"
            )
        if self.color_jitter and self.channels != 3:
            raise UserError(f"colours of {self.channels} channels cannot be changed: leave --data.color-jitter out")

    @property
    def grid(self) -> tuple[int, int]:
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def coordinates(self) -> int:
        return 2

    @property
    def token_dim(self) -> int:
        return self.channels * self.patch**2

    def listing(self) -> FileList:
        return list_files(self.root, IMAGE_SUFFIXES)

    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset:
        """The pictures of a list of files. With a cache folder, small pictures are packed there into one file."""
        if self.channels not in MODES and not source.paths[0].endswith(".npy"):
            raise UserError(
                f"pictures such as {source.paths[0]} have 1 or 3 channels, not {self.channels}: give .npy files or --data.channels 3"
            )
        paths = MappedPathList.write(cache / f"{source.fingerprint}.paths", source.paths) if cache else source.paths
        files = ImageFiles(self, paths, source.fingerprint)
        return pack_images(files, cache) if cache and worth_packing(files) else files

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Rendered scenes, labelled by the number of objects."""
        from openjepa.data.synthetic.scenes import render

        scenes = render(size, self.size, seed)
        return ImageArray(self, scenes.image, scenes.count, f"scenes-{size}-{seed}")

    def tokens(self, view: UInt8[Tensor, "B C H W"]) -> Tokens:
        """Normalised patches as rows of C·p·p numbers, at (x, y) = (column, row), rescaled to the trained grid."""
        return self.patchify(self.normalize(view))

    def patchify(self, normal: Float[Tensor, "B C H W"]) -> Tokens:
        """The same of pictures that are normalised already."""
        batch, channels, height, width = normal.shape
        if height % self.patch or width % self.patch:
            raise UserError(f"a view of {height}×{width} does not divide into patches of {self.patch}")
        rows, columns = height // self.patch, width // self.patch
        x = normal.view(batch, channels, rows, self.patch, columns, self.patch)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        pos = grid_positions(rows, columns, like=self.grid).to(normal.device)
        return Tokens(x, pos.expand(batch, -1, -1))

    def normalize(self, view: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Each channel less its mean, divided by its deviation."""
        mean, std = (torch.tensor(each, device=view.device).view(-1, 1, 1) * 255 for each in (self.mean, self.std))
        return (view.float() - mean) / std

    def unpatchify(self, x: Float[Tensor, "B N E"], grid: tuple[int, int] | None = None) -> UInt8[Tensor, "B C H W"]:
        """The pictures that `tokens` cuts into these patches, as bytes: what is outside them is cut off."""
        rows, columns = grid or self.grid
        x = x.float().view(len(x), rows, columns, self.channels, self.patch, self.patch)
        x = x.permute(0, 3, 1, 4, 2, 5).reshape(len(x), self.channels, rows * self.patch, columns * self.patch)
        mean, std = (torch.tensor(each, device=x.device).view(-1, 1, 1) * 255 for each in (self.mean, self.std))
        return (x * std + mean).round().clamp(0, 255).to(torch.uint8)

    def tokenizer(self, dim: int) -> nn.Module:
        return {"linear": PatchEmbed, "convolutions": ConvStem}[self.stem](self.channels, self.patch, dim)

    def tokenizer_flops(self, dim: int) -> int:
        return 2 * self.token_dim * dim if self.stem == "linear" else ConvStem.work(self.channels, self.patch, dim)

    def picture(self, view: UInt8[Tensor, "C H W"]) -> np.ndarray:
        """H W 3 bytes to look at: the first three channels, or grey three times."""
        shown = view[:3] if len(view) >= 3 else view[:1].expand(3, -1, -1)
        return shown.permute(1, 2, 0).cpu().numpy()

    def crops(self, height: Float[Tensor, "B"], width: Float[Tensor, "B"], draws: CounterRNG | None) -> Crops:
        """Training crops where there are draws, else the evaluation view."""
        if draws is None:
            return center_crops(self.size, height, width, self.eval_crop)
        return random_crops(self.crop_scale, self.crop_aspect, self.flip, height, width, draws)

    def augment(self, views: UInt8[Tensor, "B C H W"], draws: CounterRNG | None) -> UInt8[Tensor, "B C H W"]:
        """Training views with their colours changed, if they are to be."""
        return color_jitter(views, self.color_jitter, draws) if draws and self.color_jitter else views
