"""Images as grids of patches.   B batch  C channels  H height  W width  N tokens  E raw token width"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Real, UInt8
from torch import Tensor
from torch.export import Dim

from openjepa.core.errors import UserError
from openjepa.core.options import EvalCrop
from openjepa.core.protocols import Dataset, Tokenizer
from openjepa.core.rng import CounterRNG
from openjepa.core.types import FileList, Layout, Tokens
from openjepa.data.augment import color_jitter
from openjepa.data.crops import Crops, center_crops, random_crops
from openjepa.data.doctor import FileFacts, examine_files
from openjepa.data.file_labels import FileLabels
from openjepa.data.image_files import ImageArray, ImageFiles
from openjepa.data.image_formats import IMAGE_SUFFIXES, is_image
from openjepa.data.image_inputs import ImageInput, evaluation_view, iter_images, thumbnail_of
from openjepa.data.image_io import Undecodable
from openjepa.data.image_packing import PackedImages, is_worth_packing, pack_images
from openjepa.data.image_values import LEGACY
from openjepa.data.listing import MappedPathList, list_files
from openjepa.data.normalization import measure_mean_std
from openjepa.data.value_range import find_range, survey_files
from openjepa.nn.positions import grid_positions
from openjepa.nn.stems import ConvStem, PatchEmbed


@dataclass(frozen=True)
class Image:
    """Images as grids of square patches: the files, the training crops, and the patches.

    Random crops as in I-JEPA: no flip, no color jitter.
    """

    suffixes: ClassVar = IMAGE_SUFFIXES
    arrays: ClassVar = (("u", 3), ("i", 3), ("u", 2), ("i", 2))  # .npy: kind of value and number of axes
    archives: ClassVar = True  # reads members of .tar and .parquet files
    plural: ClassVar[str] = "images"  # what messages call the samples

    root: tuple[str, ...] = ()  # folders of images (nested or flat), .tar or .parquet files, or a .txt file of paths
    size: tuple[int, int] = (224, 224)  # height and width of a crop in pixels; multiples of --data.patch
    patch: int = 16  # side of a patch in pixels; a grid of 8×8 to 14×14 patches works well
    channels: int = 3  # 1: gray; 3: RGB; any other number requires TIFF or .npy files (H, W, C) with so many bands
    # values that become 0 and 1 where images have more than 8 bits, for all channels (low high) or for each (low high
    # low high …); what lies outside is clipped; empty: measured on the data
    value_range: tuple[float, ...] = ()
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
    input_name: ClassVar[str] = "pixel_values"  # of an exported program
    input_text: ClassVar[str] = "normalized images (batch, channels, height, width)"

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
        check_range(self.value_range, self.channels)
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
        return list_files(self.root, IMAGE_SUFFIXES, sniff=is_image)

    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset:
        """Open the images of a list of files; with a cache folder, pack small images there into one file.

        Where images have more than 8 bits and no range of values is set, it is measured.
        Raises UserError if the files cannot have this number of channels.
        """
        paths = MappedPathList.write(cache / f"{source.fingerprint}.paths", source.paths) if cache else source.paths
        value_range = find_range(paths, lambda: source.fingerprint, self.channels, self.value_range)
        ranged = dataclasses.replace(self, value_range=value_range)
        fingerprint = source.fingerprint if cache else source.known_fingerprint
        files = ImageFiles(ranged, paths, fingerprint, FileLabels.of(source))
        return pack_images(files, cache) if cache and is_worth_packing(files) else files

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Render scenes; the label is the number of objects."""
        from openjepa.data.synthetic.scenes import render

        scenes = render(size, self.size, seed)
        return ImageArray(self, scenes.image, scenes.count, f"scenes-{size}-{seed}")

    def tokens(self, view: Real[Tensor, "B C H W"]) -> Tokens:
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

    def normalize(self, view: Real[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
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

    def crops(self, height: Float[Tensor, "B"], width: Float[Tensor, "B"], rng: CounterRNG | None) -> Crops:
        """Draw training crops for images of these sizes; without `rng`, return the evaluation crops."""
        if rng is None:
            return center_crops(self.size, height, width, self.eval_crop)
        return random_crops(self.crop_scale, self.crop_aspect, self.flip, height, width, rng)

    def augment(self, views: Real[Tensor, "B C H W"], rng: CounterRNG | None) -> Real[Tensor, "B C H W"]:
        """Apply color jitter to training views; without `rng` or jitter, return them unchanged."""
        return color_jitter(views, self.color_jitter, rng) if rng and self.color_jitter else views

    def read(self, source: ImageInput, size: tuple[int, int] | None = None) -> Real[Tensor, "C h w"]:
        """Crop an image as for evaluation, at the trained size or at `size`.

        Takes a path, a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W): of uint8, or of any real numbers
        if the images have a range of values.
        """
        return evaluation_view(source, self, size or self.size)

    def iterate(self, sources: Any) -> Iterator[ImageInput]:
        """Yield single images, also from a tensor (B, C, H, W) or array (B, H, W, C)."""
        return iter_images(sources)

    def picture(self, view: Real[Tensor, "C H W"]) -> UInt8[np.ndarray, "H W 3"]:
        """Return the first three channels, or one channel repeated as gray."""
        rgb = view[:3] if len(view) >= 3 else view[:1].expand(3, -1, -1)
        rgb = rgb if rgb.dtype == torch.uint8 else rgb.round().to(torch.uint8)
        return rgb.permute(1, 2, 0).cpu().numpy()

    def paint(self, view: Real[Tensor, "C H W"], colors: Float[Tensor, "N 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Return an image with one pixel per patch."""
        grid = view.shape[1] // self.patch, view.shape[2] // self.patch
        return (colors.view(*grid, 3) * 255).round().to(torch.uint8).numpy()

    def thumbnail(self, source: str, side: int) -> UInt8[np.ndarray, "H W 3"]:
        """Return the whole image, its longer side of `side` pixels."""
        try:
            return np.asarray(thumbnail_of(source, side, self.value_range))
        except Undecodable as error:
            raise UserError(f"{source}: {error}") from error

    @property
    def statistics(self) -> dict[str, tuple[float, ...]]:
        scale = {"value_range": self.value_range} if len(self.value_range) > 1 else {}
        return {"mean": self.mean, "std": self.std, **scale}

    def measure(self, data: Dataset) -> Image:
        """Return the modality with the range of values, and the mean and the standard deviation of each channel.

        Raises UserError if a range is set, but the images have 8 bits.
        """
        value_range = data.config.value_range if isinstance(data, ImageFiles | ImageArray) else self.value_range
        if self.mean:
            return self if value_range == self.value_range else dataclasses.replace(self, value_range=value_range)
        files = data.source_files[0] if isinstance(data, PackedImages) else data
        is_set = len(self.value_range) > 1
        if is_set and isinstance(files, ImageFiles) and not survey_files(files.paths, self.channels).deep:
            raise UserError("--data.value-range has no effect on images of 8 bits: leave it out")
        mean, std = measure_mean_std(data)
        return dataclasses.replace(self, mean=mean, std=std, value_range=value_range)

    def describe(self) -> str:
        return f"{self.size[0]}×{self.size[1]} px, patch {self.patch}"

    def inspect(self, paths: list[str], workers: int) -> Iterator[FileFacts]:
        """Yield size, hashes and problems of every image file."""
        return examine_files(paths, workers, self.channels)

    def example_input(self, batch: int, more: int = 0) -> Float[Tensor, "B C H W"]:
        """Return normalized images of noise, of the trained size or `more` patches larger."""
        height, width = (side + more * self.patch for side in self.size)
        generator = torch.Generator().manual_seed(batch)
        view = torch.randint(0, 256, (batch, self.channels, height, width), generator=generator, dtype=torch.uint8)
        return self.normalize(view)

    def input_tokens(self, inputs: Float[Tensor, "B C H W"]) -> Tokens:
        """Return the patches of normalized images."""
        return self.patchify(inputs)

    def free_axes(self) -> dict[int, Any]:
        """Return height and width, in multiples of the patch."""
        rows, columns = Dim("rows", min=2, max=4096), Dim("columns", min=2, max=4096)
        return {2: self.patch * rows, 3: self.patch * columns}


def check_range(value_range: tuple[float, ...], channels: int) -> None:
    """Raise UserError unless a range of values is empty, of an older run, or of pairs low < high."""
    if value_range in ((), LEGACY):
        return
    pairs = list(zip(value_range[::2], value_range[1::2], strict=False))
    if len(value_range) not in (2, 2 * channels) or not all(low < high for low, high in pairs):
        text = " ".join(f"{value:g}" for value in value_range)
        raise UserError(
            f"the range of values {text} must be LOW HIGH, or such a pair for each of {channels} channels, with LOW "
            "below HIGH: try --data.value-range 0 4095"
        )
