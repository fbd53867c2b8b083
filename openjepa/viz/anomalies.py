"""Draw the scores of normal files and of others, and the most unusual files.   S samples  N tokens"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from PIL import Image as Pillow
from torch import Tensor

from openjepa.core.capabilities import Reads, Renders, plural_of, require
from openjepa.core.names import printable, shorten
from openjepa.evaluation.anomalies import Measured, NormalSamples, Scores
from openjepa.viz.canvas import COLOR_MAP, COLORS, RGBImage, write_png
from openjepa.viz.thumbnails import fit_square, still_picture

MAX_RATIO = 3.0  # of a token's prediction error to its mean over normal samples: the brightest color

COLUMNS = 6  # files in a row of pictures

WIDTH, HISTOGRAM = 1.9, 2.2  # inches: of a picture, and the height of the histogram

SIDE = 160  # pixels of the longer side of a picture


def draw_anomalies(
    fitted: NormalSamples, normal: Measured, measured: Measured, scores: Scores, rows: list[int], data: Any, out: Path
) -> Path:
    """Write a PNG with a histogram of scores and, below, the most unusual files and where they are hard to predict."""
    tiles = [draw_sample(normal, measured, row, data) for row in rows]
    height = 0.25 + WIDTH * max((len(tile) / tile.shape[1] for tile in tiles), default=0.0)
    lines = -(-len(rows) // COLUMNS)
    figure = Figure(figsize=(WIDTH * COLUMNS, HISTOGRAM + height * lines + 0.3), layout="constrained")
    grid = figure.add_gridspec(1 + lines, COLUMNS, height_ratios=(HISTOGRAM, *[height] * lines))
    draw_histogram(figure.add_subplot(grid[0, :]), fitted.own_score(), scores.score, plural_of(data))
    for position, (row, tile) in enumerate(zip(rows, tiles, strict=True)):
        line, column = divmod(position, COLUMNS)
        axes = figure.add_subplot(grid[1 + line, column])
        axes.imshow(tile)
        name = shorten(printable(Path(measured.files[row]).name), 18)
        axes.set_title(f"{float(scores.score[row]):.1f}  {name}", fontsize=7)
        axes.set_axis_off()
    if rows and measured.errors is not None:
        figure.supxlabel(
            "the most unusual and their scores; below each, the error of predicting its parts: blue as of normal "
            f"{plural_of(data)}, yellow {MAX_RATIO:g} times that and more, gray not measured",
            fontsize=7.5,
        )
    return write_png(figure, out)


def draw_sample(normal: Measured, measured: Measured, row: int, data: Any) -> RGBImage:
    """Draw a sample as the encoder gets it and, below, where it is hard to predict."""
    view = require(data, Reads, "a figure").read(measured.files[row])
    picture = np.asarray(fit_square(still_picture(data, view), SIDE))
    if measured.errors is None or normal.errors is None:
        return picture
    ratio = (measured.errors[row] / normal.errors.nanmean(0)).numpy()
    share = np.nan_to_num((ratio - 1) / (MAX_RATIO - 1)).clip(0, 1)
    colors = np.where(np.isnan(ratio)[:, None], 0.9, matplotlib.colormaps[COLOR_MAP](share)[:, :3])
    errors = require(data, Renders, "a figure").paint(view, torch.from_numpy(colors).float())
    size = picture.shape[1], picture.shape[0]
    gap = np.full((3, picture.shape[1], 3), 255, np.uint8)
    return np.concatenate([picture, gap, np.asarray(Pillow.fromarray(errors).resize(size, Pillow.Resampling.NEAREST))])


def draw_histogram(axes: Any, normal: Float64[Tensor, "R"], others: Float64[Tensor, "S"], plural: str) -> None:
    """Draw the distributions of the scores of normal samples and of the others."""
    both = torch.cat([normal, others])
    low, high = both.min().item(), both.max().item()
    bins = np.linspace(low, max(high, low + 1e-6), 60)
    for values, color, name in ((normal, COLORS[1], f"normal {plural}"), (others, COLORS[5], f"scored {plural}")):
        axes.hist(values.numpy(), bins, color=color, alpha=0.6, label=f"{len(values)} {name}", density=True)
    axes.set_xlabel("score: deviations above normal", fontsize=8)
    axes.set_yticks([])
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8)
