"""Patch features as colors: their first three principal components.   B pictures  N patches  D width"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from openjepa.interop.adapters import EncoderAdapter
from openjepa.viz.canvas import CaptionedFigure, fade, tile_figure
from openjepa.viz.inputs import (
    MIN_COMPANY,
    FigureOptions,
    ImageBatch,
    ImageFeatures,
    load_encoder,
    load_images,
    patch_features,
    with_default_images,
)

BASIS_IMAGES = 64  # pictures that the basis is made of; the first of them are shown


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions(FigureOptions):
    """Draws the first three principal components of patch features as red, green and blue, one basis for all pictures."""

    layer: int = -1  # a block, counted from 0, or from the end; -1 is the encoder's output
    foreground: bool = False  # also: the first component cuts pictures in two, and the colours are of its one side


class Basis(NamedTuple):
    """Principal axes of patch features, and the spread of each, as a range of the middle 96 %."""

    mean: Float[Tensor, "#N D"]  # what is taken out first: of each place, or of all
    axes: Float[Tensor, "D 3"]
    low: Float[Tensor, "3"]
    high: Float[Tensor, "3"]
    share: float  # of the variance that the three explain

    @classmethod
    def of(cls, x: Float[Tensor, "B N D"], places: bool | None = None) -> Basis:
        """The first three axes by variance. Of eight pictures or more each place's mean is taken out, else the mean of all.

        A place's mean is what its position leaves in every picture's features: in small encoders it is what one would see.
        Axes point to where the third moment is positive, so that the same features have the same colours.
        """
        places = len(x) >= MIN_COMPANY if places is None else places
        mean = x.mean(0) if places else x.mean((0, 1))[None]
        flat = (x - mean).flatten(0, 1).double()
        variance, vectors = torch.linalg.eigh(flat.T @ flat)
        axes = vectors[:, -3:].flip(1)
        at = flat @ axes
        sign = torch.where(at.pow(3).sum(0) < 0, -1.0, 1.0)
        axes, at = axes * sign, at * sign
        low, high = (torch.from_numpy(np.percentile(at.numpy(), each, axis=0)) for each in (2, 98))
        share = float(variance[-3:].sum() / variance.sum().clamp(min=1e-30))
        return cls(mean, axes.float(), low.float(), high.float(), share)

    def at(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N 3"]:
        """Coordinates along the axes."""
        return (x - self.mean) @ self.axes

    def colours(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N 3"]:
        """In [0, 1]: the middle 96 % of what the basis was made of goes from 0 to 1."""
        span = (self.high - self.low).clamp(min=1e-12)
        return ((self.at(x) - self.low) / span).clamp(0, 1)


def features(settings: FeaturesOptions) -> list[CaptionedFigure]:
    """A figure: pictures, and their patches' colours below."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    this = load_encoder(settings)
    found = load_images(settings, this.data, BASIS_IMAGES)
    return [draw_features(patch_features(settings, this, found, settings.layer), settings)]


def features_figure(this: EncoderAdapter, found: ImageBatch, front: bool = False) -> CaptionedFigure:
    """The same of pictures that were read already."""
    settings = FeaturesOptions(run="", foreground=front)
    return draw_features(patch_features(settings, this, found), settings)


def draw_features(all_seen: ImageFeatures, settings: FeaturesOptions) -> CaptionedFigure:
    """The first of the pictures, in columns."""
    basis, count = Basis.of(all_seen.x), all_seen.shown.first
    part, pictures = all_seen.x[:count], all_seen.shown.pictures[:count]
    rows = [pictures, [color_tile(each, all_seen.grid) for each in basis.colours(part)]]
    labels = ["picture", f"features of\nblock {settings.layer}" if settings.layer != -1 else "features"]
    words = ""
    if settings.foreground:
        front = foreground_mask(basis, part, all_seen.grid)
        own = part - basis.mean
        inner = Basis.of(own[front][None], places=False) if front.sum() > 3 else basis
        rows.append(
            [
                fade(each, mask.reshape(all_seen.grid), all_seen.shown.data.patch)
                for each, mask in zip(pictures, front.numpy(), strict=True)
            ]
        )
        rows.append(
            [
                color_tile(each * mask[:, None] + ~mask[:, None], all_seen.grid)
                for each, mask in zip(inner.colours(own), front, strict=True)
            ]
        )
        labels += ["one side of the\nfirst component", "its own\ncomponents"]
        why = "stands out more" if len(basis.mean) > 1 else "has less of the border"
        words = f" Below: the side of the first component that {why}, and the components of that side alone."
    caption = (
        f"Patches of one colour have features in common: the first three principal components over {len(all_seen.x)} pictures "
        f"({100 * basis.share:.0f} % of the variance"
        + (", each place's mean taken out) " if len(basis.mean) > 1 else ") ")
        + "as red, green and blue, one basis for all."
        + words
    )
    figure = tile_figure(rows, all_seen.shown.titles[:count], labels)
    return CaptionedFigure("features", "What patches have in common", caption, figure)


def color_tile(colours: Float[Tensor, "N 3"], grid: tuple[int, int]) -> np.ndarray:
    return (colours.view(*grid, 3) * 255).round().to(torch.uint8).numpy()


def foreground_mask(basis: Basis, x: Float[Tensor, "B N D"], grid: tuple[int, int]) -> Bool[Tensor, "B N"]:
    """One side of the first component (Oquab et al., 2023, figure 1, which tells by hand which side it is).

    Where each place's mean is taken out, every place is as often on either: then it is the side of the longer tail (`Basis`),
    which stands out more. Else it is the one that holds less of the pictures' border.
    """
    front = basis.at(x)[..., 0].view(-1, *grid) > 0
    if len(basis.mean) > 1:
        return front.flatten(1)
    edge = torch.ones(grid, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    if edge.all() or front[:, edge].float().mean() <= front.float().mean():
        return front.flatten(1)
    return ~front.flatten(1)
