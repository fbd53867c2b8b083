"""Draw how often each patch is in the context and in a target.   T time steps  H W patches"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.core.registry import name_of
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout
from openjepa.training.config import Pretrain
from openjepa.viz.canvas import COLOR_MAP, CaptionedFigure, ColorScale, colorize, draw_tiles
from openjepa.viz.clips import clip_tile, step_titles

COVERAGE_SAMPLES = 4096  # samples that coverage is measured over

COVERAGE_BATCH = 64  # samples per step: block sizes are drawn once per step


class Coverage(NamedTuple):
    """The fraction of masks in which each patch is context and in which it is a target."""

    context: Float[np.ndarray, "*T H W"]
    target: Float[np.ndarray, "*T H W"]


def measure_coverage(run: Pretrain, grid: tuple[int, ...], seed: int = 0, samples: int = COVERAGE_SAMPLES) -> Coverage:
    """Measure how often each patch is context and target, over many samples and steps."""
    layout = Layout.grid(*grid)
    context, target = torch.zeros(layout.count), torch.zeros(layout.count)
    steps = max(1, samples // COVERAGE_BATCH)
    for step in range(steps):
        index = np.arange(COVERAGE_BATCH) + COVERAGE_BATCH * step
        for mask in run.masks(layout, None, None, CounterRNG.of(seed, step, index), 0.0):
            context += count_tokens(mask.context, mask.context_valid, layout.count)
            blocks = mask.target_valid
            target += count_tokens(mask.target.flatten(1), None if blocks is None else blocks.flatten(1), layout.count)
    total = COVERAGE_BATCH * steps * run.masks.masks_per_sample
    return Coverage((context / total).view(grid).numpy(), (target / total).view(grid).numpy())


def count_tokens(index: Int[Tensor, "B K"], valid: Bool[Tensor, "B K"] | None, count: int) -> Float[Tensor, "N"]:
    """Count for each token the samples in which it is among `index`; `valid` is False at padding."""
    ones = torch.ones(index.shape) if valid is None else valid.float()
    return torch.zeros(len(index), count).scatter_add(1, index, ones).clamp(max=1).sum(0)


def draw_coverage(cover: Coverage, run: Pretrain) -> CaptionedFigure:
    """Draw two maps with color bars: how often each patch is context and how often target."""
    figure = Figure(figsize=(6.4, 3.1), layout="constrained")
    for number, (values, title) in enumerate(zip(cover, ("in the context", "in a target block"), strict=True), 1):
        axes = figure.add_subplot(1, 2, number)
        picture = axes.imshow(values, cmap=COLOR_MAP, vmin=0, vmax=max(values.max(), 1e-9))
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("patch column", fontsize=8)
        axes.set_ylabel("patch row", fontsize=8)
        axes.tick_params(labelsize=7)
        bar = figure.colorbar(picture, ax=axes, shrink=0.8)
        bar.set_label("fraction of masks", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    never = int((cover.target == 0).sum())
    strategy = name_of("masks", run.masks)
    caption = (
        f"How often each patch is in the context and in a target block, over {COVERAGE_SAMPLES:,} samples of "
        f"{strategy}. Patches are targets in {100 * cover.target.min():.0f} to {100 * cover.target.max():.0f} "
        f"% of masks; {f'{never} patches are never targets' if never else 'every patch is a target in some masks'}."
    )
    return CaptionedFigure("coverage", "Mask coverage", caption, figure)


def draw_clip_coverage(cover: Coverage, run: Pretrain) -> CaptionedFigure:
    """Draw how often each tubelet is in the context and a target: a map for each time step."""
    scale = ColorScale("fraction of masks", 0.0, max(float(each.max()) for each in cover) or 1.0)
    steps, titles = step_titles(run.data)
    rows = [[colorize(each[step], scale) for step in steps] for each in cover]
    caption = (
        f"How often each tubelet is in the context and in a target, over {COVERAGE_SAMPLES:,} samples of "
        f"{name_of('masks', run.masks)}. Tubelets are targets in {100 * cover.target.min():.0f} to "
        f"{100 * cover.target.max():.0f} % of masks."
    )
    figure = draw_tiles(rows, titles, ["in the context", "in a target"], scale, clip_tile(run.data))
    return CaptionedFigure("coverage", "Mask coverage", caption, figure)
