"""Command `jepa show`: draw masks, features, similarity and predictions of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.viz.canvas import CaptionedFigure, save_figure
from openjepa.viz.curves import CurvesOptions, curves
from openjepa.viz.embedding_map import MapOptions, embedding_map
from openjepa.viz.features import FeaturesOptions, features
from openjepa.viz.html import figures_page
from openjepa.viz.inputs import FigureOptions, output_file
from openjepa.viz.masks import MasksOptions, masks
from openjepa.viz.predictions import PredictionOptions, prediction
from openjepa.viz.similarity import SimilarityOptions, similarity
from openjepa.viz.spectrum import SpectrumOptions, spectrum


class FigureKind(NamedTuple):
    """A kind of picture: what it is asked for with, and what draws it."""

    settings: type
    draw: Callable[[Any], list[CaptionedFigure]]


FIGURES = {
    "masks": FigureKind(MasksOptions, masks),
    "features": FigureKind(FeaturesOptions, features),
    "similarity": FigureKind(SimilarityOptions, similarity),
    "prediction": FigureKind(PredictionOptions, prediction),
    "map": FigureKind(MapOptions, embedding_map),
    "curves": FigureKind(CurvesOptions, curves),
    "spectrum": FigureKind(SpectrumOptions, spectrum),
}


@dataclass(frozen=True, kw_only=True)
class Show(FigureOptions):
    """Draws masks, features, similarity and, of a run that has a predictor, what it expects, in one page.

    By themselves, with more settings: jepa show masks|features|similarity|prediction|map|curves|spectrum RUN PICTURES.
    """


def show(settings: Any) -> list[Path]:
    """The files written: a PNG for each picture, and a page of all. What is drawn depends on the settings' class."""
    if isinstance(settings, Show):
        return draw_overview(settings)
    name = next(name for name, kind in FIGURES.items() if type(settings) is kind.settings)
    out = first_output(settings, name)
    return write_figures(FIGURES[name].draw(settings), out, settings.page, f"{name} of {run_folder_of(settings)}")


def draw_overview(settings: Show) -> list[Path]:
    """The pictures that every run has, in one page."""
    out = output_file(settings, "overview")
    shared = {each.name: getattr(settings, each.name) for each in dataclasses.fields(FigureOptions)}
    found: dict[str, list[CaptionedFigure]] = {}
    # what every encoder has comes first: its mistakes end it
    for name in ("features", "similarity", "masks", "prediction"):
        try:
            found[name] = FIGURES[name].draw(FIGURES[name].settings(**shared))
        except UserError as mistake:
            if name in ("features", "similarity"):
                raise
            info(f"{name:<10} left out: {mistake}")
    plates = [plate for name in ("masks", "features", "similarity", "prediction") for plate in found.get(name, [])]
    return write_figures(plates, out, settings.page, f"What {settings.run} sees")


def first_output(settings: Any, name: str) -> Path:
    """Where the first picture goes."""
    if isinstance(settings, FigureOptions):
        return output_file(settings, name)
    return output_file(FigureOptions(run=settings.runs[0] if settings.runs else "", out=settings.out), name)


def run_folder_of(settings: Any) -> str:
    return settings.run if isinstance(settings, FigureOptions) else " ".join(settings.runs)


def write_figures(plates: Sequence[CaptionedFigure], out: Path, pages: bool, title: str) -> list[Path]:
    """A PNG for each picture, the first under the name asked for, and the page."""
    files = []
    for number, plate in enumerate(plates):
        file = out if len(plates) == 1 else out.with_name(f"{out.stem}-{plate.name}.png") if number else out
        if len(plates) > 1 and out.stem == "overview":
            file = out.with_name(f"{plate.name}.png")
        info(plate.caption)
        files.append(save_figure(plate, file))
        info(f"picture    {file}")
    if pages:
        files.append(figures_page(plates, title, out.with_suffix(".html")))
        info(f"page       {files[-1]}")
    return files


def main(arguments: list[str]) -> None:
    """Parse the settings of one kind of figure, or of the overview of all, and draw it."""
    name = arguments[0] if arguments and arguments[0] in FIGURES else None
    similar = get_close_matches(arguments[0], FIGURES, 1) if arguments and not name else []
    if similar and not Path(arguments[0]).exists():
        raise UserError(f"there is no figure {arguments[0]!r}: did you mean jepa show {similar[0]}?")
    settings = FIGURES[name].settings if name else Show
    show(tyro.cli(settings, prog=" ".join(filter(None, ("jepa show", name))), args=arguments[1 if name else 0 :]))
