"""Command `jepa show`: draw figures of a run: masks, features, similarity, predictions and more."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from openjepa.cli.settings import Show
from openjepa.core.capabilities import TubeletGrid
from openjepa.core.console import draw_safely, info
from openjepa.viz.animation import save_frames
from openjepa.viz.canvas import CaptionedFigure, save_figure
from openjepa.viz.curves import show_curves
from openjepa.viz.embedding_map import show_map
from openjepa.viz.features import show_features
from openjepa.viz.html import write_figures_page
from openjepa.viz.imagine import show_imagine
from openjepa.viz.inputs import load_encoder, output_file
from openjepa.viz.levels import show_levels
from openjepa.viz.masks import show_masks
from openjepa.viz.plans import show_plan
from openjepa.viz.predictions import show_prediction
from openjepa.viz.settings import FIGURE_OPTIONS, FigureOptions, WorldOptions
from openjepa.viz.similarity import show_similarity
from openjepa.viz.spectrum import show_spectrum
from openjepa.viz.track import show_track
from openjepa.viz.values import show_value

FIGURES: dict[str, Callable[[Any], list[CaptionedFigure]]] = {
    "masks": show_masks,
    "features": show_features,
    "similarity": show_similarity,
    "track": show_track,
    "prediction": show_prediction,
    "imagine": show_imagine,
    "map": show_map,
    "curves": show_curves,
    "spectrum": show_spectrum,
    "plan": show_plan,
    "value": show_value,
    "levels": show_levels,
}


def show(settings: Any) -> list[Path]:
    """Draw the figures that the class of the settings stands for; return the files: PNGs and a page with all."""
    if isinstance(settings, Show):
        return draw_overview(settings)
    name = next(name for name, options in FIGURE_OPTIONS.items() if type(settings) is options)
    out = first_output(settings, name)
    return write_figures(FIGURES[name](settings), out, settings.page, f"{name} of {run_folder_of(settings)}")


def draw_overview(settings: Show) -> list[Path]:
    """Draw the figures of the overview on one page; figures that the run does not allow are left out."""
    out = output_file(settings, "overview")
    shared = {each.name: getattr(settings, each.name) for each in dataclasses.fields(FigureOptions)}
    figures: dict[str, list[CaptionedFigure]] = {}
    likeness = "track" if isinstance(load_encoder(settings).modality, TubeletGrid) else "similarity"
    # every encoder allows features: they come first, and their errors are the user's
    for name in ("features", likeness, "masks", "prediction"):
        draw = partial(FIGURES[name], FIGURE_OPTIONS[name](**shared))
        if name == "features":
            figures[name] = draw()
        else:
            tell = partial(left_out, name)
            figures[name] = draw_safely("the figure", draw, tell) or []
    ordered = [each for name in ("masks", "features", likeness, "prediction") for each in figures.get(name, [])]
    return write_figures(ordered, out, settings.page, f"Overview of {settings.run}")


def left_out(name: str, reason: str) -> None:
    """Print that a figure is not on the page, and why."""
    info(f"{name:<10} left out: {reason}")


def first_output(settings: Any, name: str) -> Path:
    """Return the path of the first figure."""
    if isinstance(settings, FigureOptions | WorldOptions):
        return output_file(settings, name)
    return output_file(FigureOptions(run=settings.runs[0] if settings.runs else "", out=settings.out), name)


def run_folder_of(settings: Any) -> str:
    """Return the run folder, or all folders if there are several."""
    return settings.run if isinstance(settings, FigureOptions | WorldOptions) else " ".join(settings.runs)


def write_figures(figures: Sequence[CaptionedFigure], out: Path, page: bool, title: str) -> list[Path]:
    """Write a PNG for each figure, the first one to `out`, and the page with all; return their paths."""
    files = []
    for number, captioned in enumerate(figures):
        if len(figures) > 1 and out.stem == "overview":
            file = out.with_name(f"{captioned.name}.png")
        else:
            file = out.with_name(f"{out.stem}-{captioned.name}.png") if number else out
        info(captioned.words)
        files.append(save_figure(captioned, file))
        info(f"figure     {file}")
        if captioned.frames is not None:
            files.append(save_frames(captioned.frames, file.with_suffix(".gif")))
            info(f"in motion  {files[-1]}")
    html = out.with_suffix(".html")
    if page and draw_safely(f"the page {html}", lambda: write_figures_page(figures, title, html)):
        files.append(html)
        info(f"page       {html}")
    return files
