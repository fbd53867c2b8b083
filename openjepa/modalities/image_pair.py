"""Pairs of images: two views of one, an image and its warp, or neighboring frames.   B pairs  C channels  H W pixels"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.capabilities import DecodesFiles
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.rng import CounterRNG
from openjepa.core.types import FileList, Samples
from openjepa.modalities.image import Image
from openjepa.nn.warp import pixel_grid, warp


@dataclass(frozen=True)
class ImagePair(Image):
    """Pairs of images, (2, C, H, W), to train on; encoders are measured and used on single images.

    views: two random crops of an image, each with its own colors (--data.color-jitter). warps: a crop, and the same
    under a random affine warp. frames: a file and the next one of its folder, with the same crop.
    """

    # no data mean pairs by themselves: name them with --modality image-pair
    suffixes: ClassVar = ()
    arrays: ClassVar = ()
    archives: ClassVar = False

    pairs: Literal["views", "warps", "frames"] = "views"
    # warps: largest shift along an axis, as a fraction of the side; a corner moves up to 1.5 times as far
    warp: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.warp <= 0.5:
            raise UserError(f"--data.warp must be above 0 and at most 0.5, got {self.warp:g}: try --data.warp 0.1")

    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset:
        """Open the images of a list of files. Raises UserError if frames are wanted and no folder has two images."""
        data = super().dataset(source, cache)
        pairs = FilePairs if isinstance(data, DecodesFiles) else PairDataset
        return pairs(data, self, next_in_folder(source.paths) if self.pairs == "frames" else None)

    def single(self) -> Image:
        """Return the modality of single images."""
        return Image(**{each.name: getattr(self, each.name) for each in dataclasses.fields(Image)})

    def synthetic(self, size: int, seed: int) -> Dataset:
        """Render scenes; a scene's next frame is the next scene."""
        data = super().synthetic(size, seed)
        next_index = torch.arange(1, size + 1) % size
        return PairDataset(data, self, next_index if self.pairs == "frames" else None)

    def measure(self, data: Dataset) -> Image:
        """Return the modality with the mean and the standard deviation of each channel."""
        return super().measure(data.images if isinstance(data, PairDataset) else data)


class PairDataset:
    """Images by index; in training each with its partner."""

    def __init__(self, images: Dataset, config: ImagePair, next_index: Int[Tensor, "S"] | None):
        self.images, self.config, self.next_index = images, config, next_index
        self.classes = images.classes

    @property
    def fingerprint(self) -> str:
        return self.images.fingerprint

    def __len__(self) -> int:
        return len(self.images)

    def source(self, index: int) -> str:
        return self.images.source(index)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Load pairs of training views; without `rng`, single evaluation views."""
        if rng is None:
            return self.images.read(index, None)
        first = self.images.read(index, rng)
        if self.config.pairs == "warps":
            flow = random_affine_flow(self.config.warp, self.config.size, rng)
            second = warp(first.views[0].float(), flow).round().to(first.views[0].dtype)
            return first._replace(views=(torch.stack([first.views[0], second], 1),))
        partner = index if self.next_index is None else self.next_index[index]
        other = self.images.read(partner, rng.fold_in(1) if self.config.pairs == "views" else rng)
        views = (torch.stack([first.views[0], other.views[0]], 1),)
        return first._replace(views=views, skipped=(*first.skipped, *other.skipped))


class FilePairs(PairDataset):
    """Pairs of images that are decoded from files."""

    decodes_files: ClassVar[bool] = True


def random_affine_flow(strength: float, size: tuple[int, int], rng: CounterRNG) -> Float[Tensor, "B 2 H W"]:
    """Draw an affine flow for each sample, in pixels.

    A shift of up to `strength` of a side, and linear maps that move a corner by up to half of that.
    """
    height, width = size
    u = 2 * rng.uniform("affine warp", 6) - 1
    x, y = pixel_grid(height, width, torch.device("cpu"))
    x, y = x / (width - 1) - 0.5, y / (height - 1) - 0.5
    basis = torch.stack([torch.ones_like(x), x, y])  # 3 H W
    scale = torch.tensor([1.0, 0.5, 0.5]) * strength  # x and y are -0.5 to 0.5
    flow = torch.einsum("bdk,khw->bdhw", u.view(-1, 2, 3) * scale, basis)
    return flow * torch.tensor([float(width), float(height)]).view(2, 1, 1)


def next_in_folder(paths: list[str]) -> Int[Tensor, "S"]:
    """Return the index of the file after each, in the same folder; of a folder's last file, of the one before it.

    Raises UserError if no folder has two files.
    """
    folders = [path.rpartition("/")[0] for path in paths]
    next_index = torch.arange(len(paths))
    for number, folder in enumerate(folders):
        if number + 1 < len(paths) and folders[number + 1] == folder:
            next_index[number] = number + 1
        elif number and folders[number - 1] == folder:
            next_index[number] = number - 1
    if len(paths) and bool((next_index == torch.arange(len(paths))).all()):
        raise UserError("no folder has two images, so there are no neighboring frames: try --data.pairs warps")
    return next_index
