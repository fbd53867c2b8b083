"""Context and target masks over pictures, and how often each patch is in them.   B pictures  N patches  H W of the grid"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.masking.region import index_mask
from openjepa.modalities.image import Image
from openjepa.recipes.registry import RECIPES, load_recipe
from openjepa.training.config import Pretrain, is_run_folder, load_config
from openjepa.viz.canvas import COLOR_MAP, COLORS, CaptionedFigure, fade, outline, tile_figure
from openjepa.viz.inputs import FigureOptions, ImageBatch, load_images

COVERAGE_SAMPLES = 4096  # masks that the coverage is counted of

COLUMNS = 6  # target blocks that have a column of their own


@dataclass(frozen=True, kw_only=True)
class MasksOptions(FigureOptions):
    """Draws context and target blocks over pictures, and how often each patch is shown and asked for. RUN may be a recipe."""

    seed: int = 0


class Coverage(NamedTuple):
    """Of many draws, the share in which a patch is shown, and in which it is asked for."""

    shown: Float[np.ndarray, "H W"]
    asked: Float[np.ndarray, "H W"]


def masks(settings: MasksOptions) -> list[CaptionedFigure]:
    """Two figures: masks over pictures with their counts, and the coverage of every patch."""
    run = config_of_run(settings.run)
    if not isinstance(run.data, Image):
        raise UserError(f"{settings.run} is trained on signals: masks are drawn over pictures")
    data = run.data
    if not settings.images and not data.root:
        raise UserError(f"{settings.run} does not say what it learns from: give pictures, as in {settings.run} photos/")
    found = load_images(settings, data, of=settings.images or data.root)
    return [
        draw_masks(run, found, settings.seed),
        draw_coverage(mask_coverage(run, found.data.grid, settings.seed), run),
    ]


def config_of_run(name: str) -> Pretrain:
    """The config of a run, an export or a recipe. Mistake if it is none."""
    if name in RECIPES:
        return load_recipe(name)
    if not is_run_folder(Path(name)):
        raise UserError(f"{name} is no run and no recipe: jepa recipes lists these")
    return load_config(Path(name))


def draw_masks(run: Pretrain, found: ImageBatch, seed: int = 0) -> CaptionedFigure:
    """A row for each picture: as it is, what the context encoder is shown, and the blocks it is asked for."""
    masker = run.masks.build(found.data.grid)
    mask = masker(None, None, CounterRNG.of(seed, 0, np.arange(len(found.view))), 0.0)[0]
    grid, patch = found.data.grid, found.data.patch
    count, blocks = grid[0] * grid[1], mask.target.shape[1]
    rows, labels = [], []
    for row, picture in enumerate(found.pictures):
        valid = None if mask.context_valid is None else mask.context_valid[row]
        context = index_mask(mask.context[row], valid, count)
        cells = [picture, fade(picture, context.reshape(grid), patch)]
        for block in range(min(blocks, COLUMNS)):
            inside = index_mask(mask.target[row, block], None, count).reshape(grid)
            cells.append(outline(fade(picture, inside, patch), inside, patch, COLORS[block % len(COLORS)]))
        rows.append(cells)
        labels.append(f"{found.titles[row]}\n{context.sum()} of {count} shown")
    targets = [f"target {block + 1}" if blocks > 1 else "target" for block in range(min(blocks, COLUMNS))]
    caption = (
        f"What the encoder is shown and the predictor is asked for, sampler {run.masks.sampler}: {mask.context.shape[1]} of "
        f"{count} patches of {patch} px as context, {mask.target.shape[2]} asked for"
        f"{f', in each of {blocks} blocks' if blocks > 1 else ''}. What is hidden is hatched."
    )
    figure = tile_figure(rows, ["picture", "context", *targets], labels)
    return CaptionedFigure("masks", "What is hidden", caption, figure)


def mask_coverage(run: Pretrain, grid: tuple[int, int], seed: int = 0, draws: int = COVERAGE_SAMPLES) -> Coverage:
    """How often each patch is shown and asked for, over many samples of many steps: sizes are drawn once a step."""
    masker, count = run.masks.build(grid), grid[0] * grid[1]
    seen, asked = torch.zeros(count), torch.zeros(count)
    for step in range(max(1, draws // 64)):
        numbers = np.arange(64) + 64 * step
        for mask in masker(None, None, CounterRNG.of(seed, step, numbers), 0.0):
            valid = torch.ones_like(mask.context) if mask.context_valid is None else mask.context_valid.long()
            seen += torch.zeros(64, count).scatter_add(1, mask.context, valid.float()).clamp(max=1).sum(0)
            asked += torch.zeros(64, count).scatter(1, mask.target.flatten(1), 1.0).sum(0)
    total = 64 * max(1, draws // 64) * run.masks.masks_per_sample
    return Coverage((seen / total).view(grid).numpy(), (asked / total).view(grid).numpy())


def draw_coverage(cover: Coverage, run: Pretrain) -> CaptionedFigure:
    """Two maps with numbers on their bars."""
    figure = Figure(figsize=(6.4, 3.1), layout="constrained")
    for place, (values, title) in enumerate(zip(cover, ("shown to the encoder", "asked for"), strict=True)):
        axes = figure.add_subplot(1, 2, place + 1)
        drawn = axes.imshow(values, cmap=COLOR_MAP, vmin=0, vmax=max(values.max(), 1e-9))
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("column of patches", fontsize=8)
        axes.set_ylabel("row of patches", fontsize=8)
        axes.tick_params(labelsize=7)
        bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
        bar.set_label("share of draws", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    never = int((cover.asked == 0).sum())
    caption = (
        f"How often each patch is shown and asked for, {COVERAGE_SAMPLES:,} draws of sampler {run.masks.sampler}: asked for in "
        f"{100 * cover.asked.min():.0f} to {100 * cover.asked.max():.0f} % of draws"
        + (f"; {never} patches never are." if never else "; none is left out.")
    )
    return CaptionedFigure("coverage", "How often each patch is used", caption, figure)
