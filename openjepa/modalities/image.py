"""Images as grids of patches.   B batch  C channels  H height  W width  N tokens  E raw token width"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.options import EvalCrop
from openjepa.core.protocols import Dataset, Tokenizer
from openjepa.core.rng import CounterRNG
from openjepa.core.types import FileList, Layout, Tokens
from openjepa.data.augment import color_jitter
from openjepa.data.crops import Crops, center_crops, random_crops
from openjepa.data.image_files import ImageArray, ImageFiles, is_worth_packing, pack_images
from openjepa.data.image_io import IMAGE_SUFFIXES, MODES
from openjepa.data.listing import MappedPathList, list_files
from openjepa.nn.positions import grid_positions
from openjepa.nn.stems import ConvStem, PatchEmbed


@dataclass(frozen=True)
class Image:
    """Images as grids of square patches: the files, the training crops, and the patches.

    Random crops as in I-JEPA: no flip, no color jitter.
    """

    suffixes: ClassVar = IMAGE_SUFFIXES
    arrays: ClassVar = (("u", 3),)  # .npy files that are images: kind of value and number of axes
    archives: ClassVar = True  # reads members of .tar and .parquet files

    root: tuple[str, ...] = ()  # folders of images (nested or flat), .tar or .parquet files, or a .txt file of paths
    size: tuple[int, int] = (224, 224)  # height and width of a crop in pixels; multiples of --data.patch
    patch: int = 16  # side of a patch in pixels; a grid of 8×8 to 14×14 patches works well
    channels: int = 3  # 1: gray; 3: RGB; any other number requires .npy files of uint8 (H, W, C)
    # patch embedding. linear: one linear layer (ViT); convolutions: 3×3 convolutions within each patch
    stem: Literal["linear", "convolutions"] = "linear"
    crop_scale: tuple[float, float] = (0.3, 1.0)  # area of a random crop, as a fraction of the image: min and max
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of a random crop: min and max
    flip: bool = False  # mirror half of the training crops horizontally; I-JEPA does not
    # strength of random brightness, contrast, saturation and hue; 0: off, as in I-JEPA; SimCLR on CIFAR-10: 0.5
    color_jitter: float = 0.0
    # how probes and figures fit an image into --data.size. crop: its largest centered box; margin: the middle 7/8 of
    # that; squash: the whole image, aspect ratio not kept
    eval_crop: EvalCrop = "crop"
    mean: tuple[float, ...] = ()  # mean of each channel, of pixel values in [0, 1]; empty: measured on the data
    std: tuple[float, ...] = ()  # standard deviation of each channel, likewise; empty: measured on the data

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
            raise UserError(f"--data.color-jitter must be >= 0 (0 = off), got {self.color_jitter:g}")
        if self.color_jitter and self.channels != 3:
            raise UserError(f"color jitter requires 3 channels, not {self.channels}: leave --data.color-jitter out")

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of patches."""
        return self.size[0] // self.patch, self.size[1] // self.patch

    @property
    def layout(self) -> Layout:
        return Layout.grid(*self.grid)

    @property
    def token_dim(self) -> int:
        return self.channels * self.patch**2

    def listing(self) -> FileList:
        return list_files(self.root, IMAGE_SUFFIXES)

    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset:
        """Open the images of a list of files; with a cache folder, pack small images there into one file.

        Raises UserError if the files cannot have this number of channels.
        """
        if self.channels not in MODES and not source.paths[0].endswith(".npy"):
            raise UserError(
                f"images such as {source.paths[0]} have 1 or 3 channels, not {self.channels}: "
                "give .npy files or --data.channels 3"
            )
        paths = MappedPathList.write(cache / f"{source.fingerprint}.paths", source.paths) if cache else source.paths
        files = ImageFiles(self, paths, source.fingerprint)
        return pack_images(files, cache) if cache and is_worth_packing(files) else files

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Render scenes; the label is the number of objects."""
        from openjepa.data.synthetic.scenes import render

        scenes = render(size, self.size, seed)
        return ImageArray(self, scenes.image, scenes.count, f"scenes-{size}-{seed}")

    def tokens(self, view: UInt8[Tensor, "B C H W"]) -> Tokens:
        """Normalize the images and cut them into patches, rows of C·p·p values.

        Positions are (x, y) = (column, row), rescaled to the grid of `size`.
        """
        return self.patchify(self.normalize(view))

    def patchify(self, images: Float[Tensor, "B C H W"]) -> Tokens:
        """Cut normalized images into patches, as `tokens` does."""
        batch, channels, height, width = images.shape
        if height % self.patch or width % self.patch:
            raise UserError(f"a view of {height}×{width} pixels does not divide into patches of {self.patch}")
        rows, columns = height // self.patch, width // self.patch
        x = images.view(batch, channels, rows, self.patch, columns, self.patch)
        x = x.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        pos = grid_positions(rows, columns, trained_grid=self.grid).to(images.device)
        return Tokens(x, pos.expand(batch, -1, -1))

    def unpatchify(self, x: Float[Tensor, "B N E"], grid: tuple[int, int] | None = None) -> UInt8[Tensor, "B C H W"]:
        """Invert `tokens`: assemble images from patches and clip them to bytes."""
        rows, columns = grid or self.grid
        x = x.float().view(len(x), rows, columns, self.channels, self.patch, self.patch)
        x = x.permute(0, 3, 1, 4, 2, 5).reshape(len(x), self.channels, rows * self.patch, columns * self.patch)
        mean, std = self.mean_and_std(x.device)
        return (x * std + mean).round().clamp(0, 255).to(torch.uint8)

    def normalize(self, view: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Subtract each channel's mean and divide by its standard deviation."""
        mean, std = self.mean_and_std(view.device)
        return (view.float() - mean) / std

    def mean_and_std(self, device: torch.device) -> tuple[Float[Tensor, "C 1 1"], Float[Tensor, "C 1 1"]]:
        """Return each channel's mean and standard deviation on the scale of bytes, 0 to 255."""
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) * 255 for values in (self.mean, self.std))
        return mean, std

    def tokenizer(self, dim: int) -> Tokenizer:
        return {"linear": PatchEmbed, "convolutions": ConvStem}[self.stem](self.channels, self.patch, dim)

    def tokenizer_flops(self, dim: int) -> int:
        return 2 * self.token_dim * dim if self.stem == "linear" else ConvStem.flops(self.channels, self.patch, dim)

    def to_rgb(self, view: UInt8[Tensor, "C H W"]) -> np.ndarray:
        """Return an (H, W, 3) array to display: the first three channels, or one channel repeated as gray."""
        rgb = view[:3] if len(view) >= 3 else view[:1].expand(3, -1, -1)
        return rgb.permute(1, 2, 0).cpu().numpy()

    def crops(self, height: Float[Tensor, "B"], width: Float[Tensor, "B"], rng: CounterRNG | None) -> Crops:
        """Draw training crops for images of these sizes; without `rng`, return the evaluation crops."""
        if rng is None:
            return center_crops(self.size, height, width, self.eval_crop)
        return random_crops(self.crop_scale, self.crop_aspect, self.flip, height, width, rng)

    def augment(self, views: UInt8[Tensor, "B C H W"], rng: CounterRNG | None) -> UInt8[Tensor, "B C H W"]:
        """Apply color jitter to training views; without `rng` or jitter, return them unchanged."""
        return color_jitter(views, self.color_jitter, rng) if rng and self.color_jitter else views
