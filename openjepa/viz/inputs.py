"""The encoder and the pictures that a figure is drawn from.   B pictures  C channels  H height  W width  N tokens  D width"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.core.arguments import Images, Run
from openjepa.core.console import info, warn
from openjepa.core.errors import UserError
from openjepa.data.archives import parse_address
from openjepa.data.crops import EvalCrop
from openjepa.data.wrappers import ThreadedDataset
from openjepa.interop.adapters import EncoderAdapter, load_adapter
from openjepa.modalities.image import Image
from openjepa.training.config import is_run_folder, load_config

MAX_SHOWN = 64  # pictures in one figure

MIN_COMPANY = 8  # pictures of which a place's mean is one, not a picture

CHUNK_IMAGES = 64  # pictures that pass an encoder at a time


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """What every picture is asked for with."""

    run: Run  # a run, an export, or weights of another project
    images: Images = ()  # pictures or folders of them; by default what the run learnt from
    count: int = 6  # pictures shown; of more they are taken evenly
    size: tuple[int, int] | None = None  # height and width they are shown to the encoder at; by default as trained
    eval_crop: EvalCrop = "crop"  # largest centred box; its middle 7/8; the whole picture squashed
    encoder: Literal["target", "context"] = "target"
    out: Path | None = None  # a .png; a page gets the same name; by default RUN/figures/NAME.png
    page: bool = field(default=True)  # write the page, too


class ImageBatch(NamedTuple):
    """Pictures as an encoder sees them."""

    view: UInt8[Tensor, "B C H W"]
    names: tuple[str, ...]
    labels: tuple[str, ...]  # the folders they lie in; "" without
    data: Image
    total: int  # that there are
    first: int = 0  # so many of them are shown; the others are their company, over which means and axes are taken

    @property
    def pictures(self) -> list[np.ndarray]:
        """To look at: H W 3 bytes each."""
        return [self.data.picture(each) for each in self.view]

    @property
    def titles(self) -> list[str]:
        """Names short enough to stand over a picture: with the folder, where that tells pictures apart."""
        return [
            f"{label[:12]} {shorten_name(name)}".strip() for name, label in zip(self.names, self.labels, strict=True)
        ]

    def few(self, places: list[int]) -> ImageBatch:
        names, labels = (tuple(each[place] for place in places) for each in (self.names, self.labels))
        return self._replace(view=self.view[places], names=names, labels=labels)

    def leading(self, count: int) -> ImageBatch:
        """So many of them, evenly taken, to be shown, the others behind them."""
        few = evenly_spaced(len(self.names), count)
        return self.few(few + sorted(set(range(len(self.names))) - set(few)))._replace(first=len(few))

    def joined(self, other: ImageBatch) -> ImageBatch:
        """With more company, which is of other pictures."""
        here = {Path(name).resolve() for name in self.names}
        other = other.few([place for place, name in enumerate(other.names) if Path(name).resolve() not in here])
        view, names, labels = torch.cat([self.view, other.view]), self.names + other.names, self.labels + other.labels
        return self._replace(view=view, names=names, labels=labels)


def figure_data(settings: FigureOptions, data: Image) -> Image:
    """How pictures are cut for a figure. Mistake if the size does not fit the patches."""
    sides = settings.size or data.size
    if any(side < data.patch or side % data.patch for side in sides):
        better = " ".join(str(max(1, round(side / data.patch)) * data.patch) for side in sides)
        raise UserError(f"{sides[0]}×{sides[1]} is not a multiple of patch {data.patch}: try --size {better}")
    return dataclasses.replace(data, size=settings.size or data.size, eval_crop=settings.eval_crop)


def load_images(settings: FigureOptions, data: Image, company: int = 0, of: Sequence[str] = ()) -> ImageBatch:
    """Some of the pictures asked for, evenly taken, those that are shown first; behind them more, `company` in all.

    Those that cannot be decoded are left out, and named. Where fewer than eight are asked for, their company is of what the
    run learnt from, if that is where it was. Mistake if none is left, or if too many are asked for.
    """
    if not 1 <= settings.count <= MAX_SHOWN:
        raise UserError(f"{settings.count} pictures do not fit into a figure: try --count 6; {MAX_SHOWN} is the most")
    found = read_images(tuple(of or settings.images), figure_data(settings, data), company, settings.count)
    if found.total > settings.count:
        info_once(f"pictures   {settings.count} of {found.total:,} are shown: --count shows more")
    roots = training_images(settings.run)
    if company and len(found.names) < MIN_COMPANY and roots and all(Path(root).exists() for root in roots):
        return found.joined(read_images(roots, found.data, company))
    return found


@functools.cache
def info_once(message: str) -> None:
    """What is said once, however many figures are of the same pictures."""
    info(message)


def evenly_spaced(many: int, few: int) -> list[int]:
    """So many of the numbers below `many`, evenly taken."""
    return sorted({round(place) for place in np.linspace(0, many - 1, min(few, many))})


def training_images(run: str) -> tuple[str, ...]:
    """Where a run's pictures lie; nothing if it does not say."""
    data = load_config(Path(run)).data if is_run_folder(Path(run)) else None
    return data.root if isinstance(data, Image) else ()


def read_images(roots: tuple[str, ...], data: Image, count: int, first: int = 0) -> ImageBatch:
    """Pictures of files and folders: `first` of them to be shown, and behind them others, `count` in all, both evenly taken.

    Files that are named one by one stay in that order.
    """
    data = dataclasses.replace(data, root=roots)
    source = data.listing()
    if sorted(roots) == source.paths:
        source = source._replace(paths=list(roots))
    samples = ThreadedDataset(data.dataset(source))
    few = evenly_spaced(len(samples), first)
    wanted = few + [each for each in evenly_spaced(len(samples), count) if each not in set(few)]
    read = samples.read(torch.tensor(wanted), None)
    good = torch.where(read.label >= 0)[0].tolist()
    for bad in read.skipped:
        warn(f"{bad.path} cannot be decoded ({bad.reason}): it is left out")
    if not good:
        raise UserError(f"of {' '.join(roots)} no picture can be decoded: jepa doctor says why")
    names = tuple(samples.source(wanted[row]) for row in good)
    classes = [samples.classes[int(read.label[row])] if len(samples.classes) > 1 else "" for row in good]
    leading = sum(row < len(few) for row in good) or min(first, len(good))
    return ImageBatch(read.views[0][good], names, tuple(classes), data, len(samples), leading)


def with_default_images(settings: FigureOptions) -> FigureOptions:
    """With pictures to show: those asked for, or what the run learnt from. Mistake if nobody says any."""
    if settings.images:
        return settings
    roots = training_images(settings.run)
    if not roots:
        raise UserError(f"{settings.run} does not say what it learnt from: give pictures, as in {settings.run} photos/")
    return dataclasses.replace(settings, images=roots)


class ImageFeatures(NamedTuple):
    """Pictures and their patches' features."""

    shown: ImageBatch
    x: Float[Tensor, "B N D"]

    @property
    def grid(self) -> tuple[int, int]:
        return self.shown.data.grid


@torch.no_grad()
def patch_features(settings: FigureOptions, this: EncoderAdapter, found: ImageBatch, layer: int = -1) -> ImageFeatures:
    """Features of every patch. Mistake if that layer is not there, or if it cannot be asked of this encoder."""
    layers = getattr(this.network, "blocks", None)
    if layers is None and settings.size:
        raise UserError(f"{settings.run} sees pictures at its own size alone: leave --size out")
    if layer != -1 and layers is None:
        raise UserError(f"{settings.run} gives its last layer alone: leave --layer out")
    if layers is not None and not -len(layers) <= layer < len(layers):
        raise UserError(
            f"{settings.run} has {len(layers)} blocks, no {layer}: blocks count from 0, or from the end by -1"
        )
    rows = []
    for view in found.view.split(CHUNK_IMAGES):
        if layer == -1:
            rows.append(this.encode(view).patches)
        else:
            (tokens,) = this.network(this.data.tokens(view), (layer,))
            rows.append(tokens.x.float())
    return ImageFeatures(found, torch.cat(rows))


def load_encoder(settings: FigureOptions) -> EncoderAdapter:
    """The encoder that is asked for, ready to see."""
    this = load_adapter(settings.run, settings.encoder)
    this.network.eval()
    return this


def output_file(settings: FigureOptions, name: str) -> Path:
    """Where a figure goes: asked before it is drawn. Mistake if it is to be no PNG, or nothing can be written there."""
    if settings.out and settings.out.suffix != ".png":
        raise UserError(f"{settings.out} is no .png: try --out {settings.out.with_suffix('.png')}")
    folder = Path(settings.run)
    inside = folder / "figures" if folder.is_dir() else Path("figures")
    out = settings.out or inside / f"{name}.png"
    there = next(each for each in out.absolute().parents if each.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise UserError(f"nothing can be written in {there}: try --out {out.name}")
    return out


def shorten_name(name: str) -> str:
    """A file's name, short enough for a label."""
    place = parse_address(name)
    name = Path(name).name if place is None else name.rsplit("/", 1)[-1]
    return name if len(name) <= 17 else name[:7] + "…" + name[-9:]
