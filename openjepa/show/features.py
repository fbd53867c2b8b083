"""Patch features as colours: images above, their first three principal components below.   B images  N tokens  D width"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.scenes import Scenes
from openjepa.weights import Trained


@torch.no_grad()
def features(trained: Trained, scenes: Scenes, out: Path, count: int = 10) -> Path:
    """A PNG of `count` images and their feature maps, one basis for all."""
    config, view = trained.config.data, scenes.image[:count]
    (tokens,) = trained.encoder(config.tokens(view))  # type: ignore[union-attr]
    colours = principal(tokens.x.float()).view(count, *config.grid, 3)

    matplotlib.use("agg")
    figure = Figure(figsize=(1.3 * count, 2.9), layout="constrained")
    for row, pictures in enumerate((view.permute(0, 2, 3, 1).numpy(), colours.numpy())):
        for column, picture in enumerate(pictures):
            axes = figure.add_subplot(2, count, row * count + column + 1)
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
    figure.suptitle("held-out scenes, and the first three principal components of their patch features", fontsize=10)
    figure.savefig(out, dpi=110)
    return out


def principal(x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N 3"]:
    """The first three principal components over all tokens, each place's mean taken out, spread over [0, 1]."""
    flat = (x - x.mean(0)).flatten(0, 1)
    _, _, basis = torch.pca_lowrank(flat, q=3, niter=8)
    shown = flat @ basis
    low, high = (torch.from_numpy(np.percentile(shown.numpy(), q, axis=0)).to(shown.dtype) for q in (2, 98))
    return ((shown - low) / (high - low)).clamp(0, 1).view(*x.shape[:2], 3)
