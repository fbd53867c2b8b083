"""Load the encoder and the images, or other samples, of a figure.   B images  N patches  D features"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.capabilities import PatchGrid, Renders, TubeletGrid, modality_name, plural_of, require
from openjepa.core.console import info, warn
from openjepa.core.errors import UserError
from openjepa.core.names import printable, shorten
from openjepa.core.types import FileList
from openjepa.data.archives import parse_address
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluation.result_files import results_folder
from openjepa.interop.adapters import load_any
from openjepa.interop.inputs import replace_root
from openjepa.interop.pretrained import PretrainedEncoder, check_patch_tokens
from openjepa.training.config import is_run_folder, load_config
from openjepa.viz.settings import FigureOptions, WorldOptions

MAX_SHOWN = 64  # images in one figure

MIN_REFERENCE = 8  # with fewer images the mean at a position would still show single images

MAX_WARNINGS = 3  # files that cannot be decoded and are named

BATCH_IMAGES = 64  # images per forward pass


class ImageBatch(NamedTuple):
    """Images, or samples that can be drawn, as the encoder gets them.

    The first `num_shown` are drawn; all are used for means and axes.
    """

    view: Tensor
    names: tuple[str, ...]  # paths
    labels: tuple[str, ...]  # names of their folders; "" without subfolders
    data: Any  # the modality
    total: int  # images in the folders that these were chosen from
    num_shown: int = 0

    @property
    def pictures(self) -> list[np.ndarray]:
        """Convert the images to uint8 arrays (H, W, 3). Raises UserError if the modality draws nothing."""
        renders = require(self.data, Renders, "a figure")
        return [renders.picture(each) for each in self.view]

    def paint(self, row: int, colors: Float[Tensor, "N 3"]) -> np.ndarray:
        """Draw the colors of the tokens of one image."""
        return require(self.data, Renders, "a figure").paint(self.view[row], colors)

    @property
    def titles(self) -> list[str]:
        """Return folder and file name of each image, short enough for a tile."""
        pairs = zip(self.names, self.labels, strict=True)
        return [f"{printable(label)[:12]} {shorten_name(name)}".strip() for name, label in pairs]

    def select(self, rows: list[int]) -> ImageBatch:
        """Select images by their rows."""
        names, labels = tuple(self.names[row] for row in rows), tuple(self.labels[row] for row in rows)
        return self._replace(view=self.view[rows], names=names, labels=labels)

    def move_to_front(self, count: int) -> ImageBatch:
        """Move `count` evenly spaced images to the front, to be shown."""
        front = evenly_spaced(len(self.names), count)
        others = sorted(set(range(len(self.names))) - set(front))
        return self.select(front + others)._replace(num_shown=len(front))

    def join(self, other: ImageBatch) -> ImageBatch:
        """Append the images of another batch that are not in this one."""
        files = {Path(name).resolve() for name in self.names}
        other = other.select([row for row, name in enumerate(other.names) if Path(name).resolve() not in files])
        view, names, labels = torch.cat([self.view, other.view]), self.names + other.names, self.labels + other.labels
        return self._replace(view=view, names=names, labels=labels)


def figure_data(settings: FigureOptions, data: Any) -> Any:
    """Return the modality with the figure's size and crop. Raises UserError if patches do not fit the size."""
    if isinstance(data, PatchGrid | TubeletGrid) and hasattr(data, "size"):
        return resize_view(settings, data)
    if settings.size:
        raise UserError(f"--size is for images, not for {modality_name(data)}: leave it out")
    return replace_root(data, (), settings.eval_crop)


def resize_view(settings: FigureOptions, data: Any) -> Any:
    """Return the modality with the figure's size and crop, if patches fit the size."""
    sides = settings.size or data.size
    if any(side < data.patch or side % data.patch for side in sides):
        better = " ".join(str(max(1, round(side / data.patch)) * data.patch) for side in sides)
        raise UserError(f"{sides[0]}×{sides[1]} is not a multiple of patch {data.patch}: try --size {better}")
    return dataclasses.replace(data, size=settings.size or data.size, eval_crop=settings.eval_crop)


def load_images(settings: FigureOptions, data: Any, reference: int = 0, roots: Sequence[str] = ()) -> ImageBatch:
    """Load evenly spaced images to show, and behind them others, up to `reference` in all.

    With fewer than MIN_REFERENCE images in all, training images of the run are appended if they still exist. Images
    that cannot be decoded are skipped with a warning. Raises UserError if none is left or too many are requested.
    """
    if not 1 <= settings.count <= MAX_SHOWN:
        raise UserError(f"--count must be 1 to {MAX_SHOWN} in a figure, got {settings.count}: try --count 6")
    images = read_images(tuple(roots or settings.images), figure_data(settings, data), reference, settings.count)
    if images.total > settings.count:
        info_once(f"images     {settings.count} of {images.total:,} are shown: --count shows more")
    training = training_images(settings.run)
    if reference and len(images.names) < MIN_REFERENCE and training and all(Path(root).exists() for root in training):
        return images.join(read_images(training, images.data, reference))
    return images


@functools.cache
def info_once(message: str) -> None:
    """Print a message once, even if several figures use the same images."""
    info(message)


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return `count` evenly spaced indices below `total`, or all of them if there are fewer."""
    return sorted({round(index) for index in np.linspace(0, total - 1, min(count, total))})


def training_images(run: str) -> tuple[str, ...]:
    """Return the folders of a run's training images; empty if they are unknown."""
    data = load_config(Path(run)).data if is_run_folder(Path(run)) else None
    return data.root if data else ()


def read_images(roots: tuple[str, ...], data: Any, count: int, num_shown: int = 0) -> ImageBatch:
    """Read images of files and folders: `num_shown` to be drawn, then others up to `count`, both evenly spaced.

    If all roots are files, they keep their order.
    """
    data = dataclasses.replace(data, root=roots)
    source = data.listing()
    if sorted(roots) == source.paths:
        source = FileList(list(roots), source.known_fingerprint)
    samples = ThreadedDataset(data.dataset(source))
    front = evenly_spaced(len(samples), num_shown)
    rows = front + [each for each in evenly_spaced(len(samples), count) if each not in set(front)]
    read = samples.read(torch.tensor(rows), None)
    skipped = {each.path for each in read.skipped}
    good = [row for row in range(len(rows)) if samples.source(rows[row]) not in skipped]
    for bad in read.skipped[:MAX_WARNINGS]:
        warn(f"{bad.path} cannot be decoded ({bad.reason}): it is left out")
    if len(read.skipped) > MAX_WARNINGS:
        warn(f"{len(read.skipped) - MAX_WARNINGS} more cannot be decoded: jepa doctor tells why")
    if not good:
        raise UserError(f"no {plural_of(data)[:-1]} in {' '.join(roots)} can be decoded ({read.skipped[0].reason})")
    names = tuple(samples.source(rows[row]) for row in good)
    labels = tuple(samples.classes[int(read.label[row])] if len(samples.classes) > 1 else "" for row in good)
    num_shown = sum(row < len(front) for row in good) or min(num_shown, len(good))
    return ImageBatch(read.views[0][good], names, labels, data, len(samples), num_shown)


def with_default_images(settings: FigureOptions) -> FigureOptions:
    """Fill in the training images of the run if no images are given. Raises UserError if these are unknown."""
    if settings.images:
        return settings
    roots = training_images(settings.run)
    if not roots:
        raise UserError(f"{settings.run} names no image folder: give images, as in {settings.run} photos/")
    return dataclasses.replace(settings, images=roots)


class ImageFeatures(NamedTuple):
    """Images and the features of their patches."""

    images: ImageBatch
    x: Float[Tensor, "B N D"]

    @property
    def grid(self) -> tuple[int, int]:
        """Return the rows and columns of patches."""
        return self.images.data.grid


@torch.no_grad()
def patch_features(
    settings: FigureOptions, encoder: PretrainedEncoder, images: ImageBatch, layer: int = -1
) -> ImageFeatures:
    """Compute the patch features of a block. Raises UserError if the encoder lacks that block or the input size."""
    blocks = getattr(encoder.network, "blocks", None)
    if blocks is None and settings.size:
        raise UserError(f"{settings.run} works only at its own input size: leave --size out")
    if layer != -1 and blocks is None:
        raise UserError(f"{settings.run} returns only its last layer: leave --layer out")
    if blocks is not None and not -len(blocks) <= layer < len(blocks):
        raise UserError(f"--layer must be -{len(blocks)} to {len(blocks) - 1}, got {layer}: -1 is the last block")
    features = []
    for view in images.view.split(BATCH_IMAGES):
        if layer == -1:
            features.append(encoder.encode(view).patches)
        else:
            (tokens,) = encoder.network(encoder.data.tokens(view), layers=(layer,))
            features.append(tokens.x.float())
    check_patch_tokens(settings.run, features[0], images.data.layout.count)
    return ImageFeatures(images, torch.cat(features))


def load_encoder(settings: FigureOptions) -> PretrainedEncoder:
    """Load the encoder of the settings in evaluation mode."""
    encoder = load_any(settings.run, settings.encoder)
    encoder.network.eval()
    return encoder


def output_file(settings: FigureOptions | WorldOptions, name: str) -> Path:
    """Return the path of a figure. Raises UserError, before drawing, if it is not a PNG or cannot be written."""
    if settings.out and settings.out.suffix != ".png":
        raise UserError(f"--out must end in .png, got {settings.out}: try --out {settings.out.with_suffix('.png')}")
    out = settings.out or results_folder(settings.run, "figures") / f"{name}.png"
    parent = next(each for each in out.absolute().parents if each.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"{parent} is not a writable folder: try --out {out.name}")
    return out


def shorten_name(name: str) -> str:
    """Return a file name, shortened for a label."""
    name = Path(name).name if parse_address(name) is None else name.rsplit("/", 1)[-1]
    return shorten(name, 17)
