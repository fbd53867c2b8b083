"""Draw context and target masks over images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core.capabilities import TubeletGrid, plural_of, require_grid
from openjepa.core.errors import UserError
from openjepa.core.registry import name_of, names
from openjepa.core.rng import CounterRNG
from openjepa.masking.region import index_mask
from openjepa.recipes.registry import load_recipe
from openjepa.training.config import Pretrain, is_run_folder, load_config
from openjepa.viz.canvas import COLORS, CaptionedFigure, draw_tiles, fade, outline
from openjepa.viz.clip_masks import draw_clip_masks
from openjepa.viz.coverage import draw_clip_coverage, draw_coverage, measure_coverage
from openjepa.viz.inputs import ImageBatch, load_images
from openjepa.viz.settings import MasksOptions

MAX_BLOCKS = 6  # target blocks shown, one column each


def show_masks(settings: MasksOptions) -> list[CaptionedFigure]:
    """Draw two figures: masks over images, and the coverage of every patch.

    Raises UserError if the run has no images, its image folder is unknown, or nothing is masked at random.
    """
    run = load_config_or_recipe(settings.run)
    if not run.method.needs_masks:
        raise UserError(f"no random masks belong to {settings.run}: {run.method.describe()}")
    data: Any = require_grid(run.data, "jepa show masks")
    if not settings.images and not data.root:
        raise UserError(
            f"{settings.run} names no folder of {plural_of(data)}: "
            f"give {plural_of(data)}, as in jepa show masks {settings.run} photos/"
        )
    images = load_images(settings, data, roots=settings.images or data.root)
    cover = measure_coverage(run, images.data.layout.shape, settings.seed)
    coverage = (draw_clip_coverage if isinstance(data, TubeletGrid) else draw_coverage)(cover, run)
    return [draw_masks(run, images, settings.seed), coverage]


def load_config_or_recipe(name: str) -> Pretrain:
    """Load the config of a run, an export or a recipe. Raises UserError if `name` is neither."""
    if name in names("recipe"):
        return load_recipe(name)
    if not is_run_folder(Path(name)):
        raise UserError(f"{name} is neither a run nor a recipe: jepa recipes lists the recipes")
    return load_config(Path(name))


def draw_masks(run: Pretrain, images: ImageBatch, seed: int = 0) -> CaptionedFigure:
    """Draw a row for each image: the image, its context, and each target block. Of clips, strips of frames."""
    if isinstance(images.data, TubeletGrid):
        return draw_clip_masks(run, images, seed)
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
    figure = draw_tiles(rows, [plural_of(images.data)[:-1], "context", *targets], labels)
    return CaptionedFigure("masks", "Context and target masks", caption, figure)
