"""Draw context and target masks over images, and how often each patch is in them.   B images  H W patches"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from openjepa.core.capabilities import PatchGrid, require
from openjepa.core.errors import UserError
from openjepa.core.registry import name_of, names
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Layout
from openjepa.masking.region import index_mask
from openjepa.recipes.registry import load_recipe
from openjepa.training.config import Pretrain, is_run_folder, load_config
from openjepa.viz.canvas import COLOR_MAP, COLORS, CaptionedFigure, draw_tiles, fade, outline
from openjepa.viz.inputs import ImageBatch, load_images
from openjepa.viz.settings import MasksOptions

COVERAGE_SAMPLES = 4096  # samples that coverage is measured over

COVERAGE_BATCH = 64  # samples per step: block sizes are drawn once per step

MAX_BLOCKS = 6  # target blocks shown, one column each


class Coverage(NamedTuple):
    """The fraction of masks in which each patch is context and in which it is a target."""

    context: Float[np.ndarray, "H W"]
    target: Float[np.ndarray, "H W"]


def show_masks(settings: MasksOptions) -> list[CaptionedFigure]:
    """Draw two figures: masks over images, and the coverage of every patch.

    Raises UserError if the run has no images or its image folder is unknown.
    """
    run = load_config_or_recipe(settings.run)
    data: Any = require(run.data, PatchGrid, "jepa show masks")
    if not settings.images and not data.root:
        raise UserError(
            f"{settings.run} names no image folder: give images, as in jepa show masks {settings.run} photos/"
        )
    images = load_images(settings, data, roots=settings.images or data.root)
    return [
        draw_masks(run, images, settings.seed),
        draw_coverage(measure_coverage(run, images.data.grid, settings.seed), run),
    ]


def load_config_or_recipe(name: str) -> Pretrain:
    """Load the config of a run, an export or a recipe. Raises UserError if `name` is neither."""
    if name in names("recipe"):
        return load_recipe(name)
    if not is_run_folder(Path(name)):
        raise UserError(f"{name} is neither a run nor a recipe: jepa recipes lists the recipes")
    return load_config(Path(name))


def draw_masks(run: Pretrain, images: ImageBatch, seed: int = 0) -> CaptionedFigure:
    """Draw a row for each image: the image, its context, and each target block."""
    rng = CounterRNG.of(seed, 0, np.arange(len(images.view)))
    mask = run.masks(images.data.layout, None, None, rng, 0.0)[0]
    grid, patch = images.data.grid, images.data.patch
    count, blocks = grid[0] * grid[1], mask.target.shape[1]
    shown_blocks = min(blocks, MAX_BLOCKS)
    rows, labels = [], []
    for row, picture in enumerate(images.pictures):
        valid = None if mask.context_valid is None else mask.context_valid[row]
        context = index_mask(mask.context[row], valid, count)
        tiles = [picture, fade(picture, context.reshape(grid), patch)]
        for block in range(shown_blocks):
            inside = index_mask(mask.target[row, block], None, count).reshape(grid)
            tiles.append(outline(fade(picture, inside, patch), inside, patch, COLORS[block % len(COLORS)]))
        rows.append(tiles)
        labels.append(f"{images.titles[row]}\n{context.sum()} of {count}\npatches in context")
    targets = [f"target {block + 1}" if blocks > 1 else "target" for block in range(shown_blocks)]
    strategy = name_of("masks", run.masks)
    caption = (
        f"Context and target masks of strategy {strategy}, {count} patches of {patch} px: the context encoder "
        f"gets at most {mask.context.shape[1]} patches, the predictor predicts {mask.target.shape[2]} patches"
        f"{f' in each of {blocks} target blocks' if blocks > 1 else ''}. Patches outside the mask are hatched."
    )
    figure = draw_tiles(rows, ["image", "context", *targets], labels)
    return CaptionedFigure("masks", "Context and target masks", caption, figure)


def measure_coverage(run: Pretrain, grid: tuple[int, int], seed: int = 0, samples: int = COVERAGE_SAMPLES) -> Coverage:
    """Measure how often each patch is context and target, over many samples and steps."""
    layout, count = Layout.grid(*grid), grid[0] * grid[1]
    context, target = torch.zeros(count), torch.zeros(count)
    steps = max(1, samples // COVERAGE_BATCH)
    for step in range(steps):
        index = np.arange(COVERAGE_BATCH) + COVERAGE_BATCH * step
        for mask in run.masks(layout, None, None, CounterRNG.of(seed, step, index), 0.0):
            empty = torch.zeros(COVERAGE_BATCH, count)
            valid = torch.ones_like(mask.context) if mask.context_valid is None else mask.context_valid.long()
            context += empty.scatter_add(1, mask.context, valid.float()).clamp(max=1).sum(0)
            target += empty.scatter(1, mask.target.flatten(1), 1.0).sum(0)
    total = COVERAGE_BATCH * steps * run.masks.masks_per_sample
    return Coverage((context / total).view(grid).numpy(), (target / total).view(grid).numpy())


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
