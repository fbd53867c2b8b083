"""Follow a patch of a clip over time by its features.   T time steps  N tubelets  D features  Q points"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from PIL import Image as Pillow
from PIL import ImageDraw
from torch import Tensor

from openjepa.core.capabilities import TubeletGrid, require
from openjepa.core.errors import UserError
from openjepa.masking.region import covered_patches
from openjepa.viz.animation import Frames, animate_tiles
from openjepa.viz.basis import Basis
from openjepa.viz.canvas import COLORS, CaptionedFigure, colorize, draw_tiles
from openjepa.viz.clips import clip_tile, in_motion, step_pictures, step_titles
from openjepa.viz.inputs import ImageFeatures, load_encoder, load_images, patch_features, with_default_images
from openjepa.viz.settings import TrackOptions
from openjepa.viz.similarity import cosine_scale, patch_at

BASIS_CLIPS = 24  # clips that the mean at each position is computed over; the first of them are followed

SCALE = 4  # frames are enlarged by this factor before the path is drawn


class Track(NamedTuple):
    """Where the features of a patch of the first time step are found again."""

    cosine: Float[np.ndarray, "T rows columns"]  # of every tubelet to the patch
    path: Int[np.ndarray, "T 2"]  # row and column of the nearest tubelet of each time step; first, of the patch


def show_track(settings: TrackOptions) -> list[CaptionedFigure]:
    """Draw one figure with two strips for each point. Raises UserError if a point or box is outside the frame."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    for x, y in settings.at:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise UserError(f"--at must be x and y from 0 to 1, got {x:g} {y:g}: try --at 0.5 0.5")
    encoder = load_encoder(settings)
    require(encoder.modality, TubeletGrid, "jepa show track")
    clips = load_images(settings, encoder.data, BASIS_CLIPS)
    return [draw_tracks(patch_features(settings, encoder, clips, settings.layer), settings)]


def start_cells(settings: TrackOptions, grid: tuple[int, int]) -> dict[str, Bool[np.ndarray, "rows columns"]]:
    """Return the patches to follow by what they are called in the figure: those of the box, or one for each point."""
    if settings.box:
        return {"box": covered_patches(settings.box, grid)}
    starts = {}
    for x, y in settings.at:
        cells = np.zeros(grid, bool)
        cells.flat[patch_at(x, y, grid)] = True
        starts[f"at {x:g}, {y:g}"] = cells
    return starts


def follow(x: Float[Tensor, "N D"], shape: tuple[int, int, int], start: Bool[np.ndarray, "rows columns"]) -> Track:
    """Find at each time step the tubelet most similar to the mean of the patches where `start` in the first step."""
    x = F.normalize(x, dim=-1).view(*shape, -1)
    query = x[0][torch.from_numpy(start)].mean(0)
    cosine = (x @ F.normalize(query, dim=0)).numpy()
    best = cosine.reshape(shape[0], -1).argmax(1)
    path = np.stack(np.unravel_index(best, shape[1:]), 1)
    if start.sum() == 1:
        path[0] = np.argwhere(start)[0]
    return Track(cosine, path)


def draw_tracks(features: ImageFeatures, settings: TrackOptions) -> CaptionedFigure:
    """Draw the path of each patch over the strip of each clip, above the cosines of all tubelets with it."""
    clips, data = features.images, features.images.data
    centered = features.x - Basis.of(features.x).mean
    steps, titles = step_titles(data)
    rows, labels, moving = [], [], []
    for row in range(clips.num_shown):
        for name, start in start_cells(settings, data.tubelets[1:]).items():
            track = follow(centered[row], data.tubelets, start)
            scale = cosine_scale(track.cosine[1:])
            pictures = draw_path(step_pictures(data, clips.view[row]), track.path, data.patch)
            maps = np.stack([colorize(each, scale) for each in track.cosine])
            rows += [[each[step] for step in steps] for each in (pictures, maps)]
            labels += [f"{clips.titles[row]}\n{name}", f"cosine {scale.low:.2f}\nto {scale.high:.2f}"]
            moving.append([in_motion(data, pictures), in_motion(data, maps)])
    caption = (
        "The tubelet of each time step whose features are most similar, by their cosine, to those of the framed patch "
        f"of the first step ({'mean at each position' if len(features.x) >= 8 else 'mean'} subtracted), and the path "
        "so far. Below: the cosines of all tubelets; bright is high, and each strip has its own color scale."
    )
    tile = clip_tile(data)
    figure = draw_tiles(rows, titles, labels, tile=tile)
    frames = animate_tiles(moving, ["nearest tubelet", "cosine"], labels[::2], tile)
    return CaptionedFigure("track", "Nearest tubelet over time", caption, figure, frames=frames)


def draw_path(pictures: Frames, path: Int[np.ndarray, "T 2"], patch: int) -> Frames:
    """Enlarge the picture of each time step; frame the nearest tubelet and draw the path up to it."""
    centers = [((column + 0.5) * patch * SCALE, (row + 0.5) * patch * SCALE) for row, column in path.tolist()]
    frames = []
    for step, picture in enumerate(pictures):
        large = Pillow.fromarray(picture.repeat(SCALE, 0).repeat(SCALE, 1))
        draw, half, width = ImageDraw.Draw(large), patch * SCALE / 2, max(2, large.width // 64)
        if step:
            draw.line(centers[: step + 1], fill="white", width=width + 2)
            draw.line(centers[: step + 1], fill=COLORS[5], width=width)
        x, y = centers[step]
        draw.rectangle((x - half, y - half, x + half, y + half), outline="white", width=width + 1)
        draw.rectangle((x - half, y - half, x + half, y + half), outline=COLORS[5], width=width)
        frames.append(np.asarray(large))
    return np.stack(frames)
