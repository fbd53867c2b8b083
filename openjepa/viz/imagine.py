"""Draw what an image world model imagines: transforms in latent space, as the nearest real patches.

B images  K changes  N patches  E features  G patches of the gallery
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.data.photometric import DESTRUCTIVE, Photometric, difference, transform
from openjepa.evaluation.imagination import Imagination, load_imagination
from openjepa.training.device import choose_device
from openjepa.viz.canvas import CaptionedFigure, draw_tiles
from openjepa.viz.inputs import ImageBatch, load_images, with_default_images
from openjepa.viz.settings import ImagineOptions

GALLERY_IMAGES = 256  # to load; those that are not drawn, under random changes, are the gallery

VERSIONS = 4  # random changes of each image of the gallery


class Change(NamedTuple):
    """A column of the figure: what becomes of the source, and what the target has that the source has not."""

    title: str
    source: Photometric
    target: Photometric


class Gallery(NamedTuple):
    """Real patches: their features, as the predictor predicts them, and their pixels."""

    features: Float[Tensor, "G E"]
    pixels: Float[Tensor, "G W"]


def show_imagine(settings: ImagineOptions) -> list[CaptionedFigure]:
    """Draw two rows for each image: really changed, and imagined. Raises UserError if the run is not a world model."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    if settings.size:
        raise UserError("the predictor works only at the size it was trained at: leave --size out")
    imagination = load_imagination(str(Path(settings.run)), choose_device("cpu"))
    images = load_images(settings, imagination.data, GALLERY_IMAGES)
    if len(images.view) < images.num_shown + 2:
        raise UserError("patches of other images are needed: give a folder with more images than --count")
    imagination = imagination.with_scale(images.view)
    gallery = build_gallery(imagination, images.view[images.num_shown :], settings.seed)
    return [draw_imagined(imagination, images, gallery, changes_of(settings))]


def changes_of(settings: ImagineOptions) -> list[Change]:
    """Return the columns: each color parameter up and down, then what destroyed information, to be undone."""
    zero = Photometric.of()
    columns = []
    for name, strength in settings.strengths().items():
        for sign, word in ((1, "+"), (-1, "-")):
            changed = Photometric.of(**{name: sign * strength})
            columns.append(Change(f"{name} {word}{strength:g}", zero, changed))
    return columns + [Change(f"undo {name}", Photometric.of(**{name: 1.0}), zero) for name in DESTRUCTIVE]


def build_gallery(imagination: Imagination, views: Tensor, seed: int) -> Gallery:
    """Return the patches of some images under random changes of color."""
    features, pixels = [], []
    for version in range(VERSIONS):
        rng = CounterRNG.of(seed, 0, np.arange(len(views))).fold_in(version)
        changed = transform(views, imagination.method.config.transforms.draw(rng, "gallery", destructive=False))
        features += [imagination.features(part).flatten(0, 1) for part in changed.split(64)]
        pixels.append(imagination.data.tokens(changed).x.flatten(0, 1))
    return Gallery(torch.cat(features), torch.cat(pixels))


def draw_imagined(
    imagination: Imagination, images: ImageBatch, gallery: Gallery, changes: list[Change]
) -> CaptionedFigure:
    """Draw the images as they are, as they really change, and as the model imagines them."""
    originals, data = images.view[: images.num_shown], imagination.data
    real, imagined = [], []
    for change in changes:
        source = transform(originals, repeat(change.source, len(originals)))
        # a transform that is undone is drawn as the source that the model sees, a change as what it has to imagine
        undoes = any(getattr(change.source, name).any() for name in DESTRUCTIVE)
        real.append(source if undoes else transform(originals, repeat(change.target, len(originals))))
        action = difference(change.source, change.target).expand(len(originals), 1, -1)
        features = imagination.imagine(source, action)[:, 0]
        imagined.append(data.unpatchify(nearest(features, gallery)))
    rows: list[list[np.ndarray | None]] = []
    labels = []
    for row in range(len(originals)):
        rows.append([images.pictures[row], *(data.picture(each[row]) for each in real)])
        rows.append([None, *(data.picture(each[row]) for each in imagined)])
        labels += [f"{images.titles[row]}\nreal", "imagined, as the nearest\nreal patches of others"]
    caption = (
        "Upper row: the image, then really changed; under undo, the damaged source that the model sees. Lower row: the "
        "features that the predictor imagines after the change, each drawn as the patch of another image, under random "
        "changes of color, whose features are nearest. The model never sees the changed image."
    )
    columns = ["image", *(change.title for change in changes)]
    return CaptionedFigure("imagine", "Imagined transforms", caption, draw_tiles(rows, columns, labels))


def repeat(parameters: Photometric, count: int) -> Photometric:
    """Return the parameters of one view for many."""
    return Photometric(*(each.expand(count) for each in parameters))


def nearest(features: Float[Tensor, "B N E"], gallery: Gallery) -> Float[Tensor, "B N W"]:
    """Return the pixels of the patches whose features are nearest."""
    index = [torch.cdist(each, gallery.features).argmin(1) for each in features]
    return torch.stack([gallery.pixels[each] for each in index])
