"""Write the report of a run: one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from openjepa.core.capabilities import PatchGrid, Renders, plural_of, require
from openjepa.core.console import info, warn
from openjepa.core.errors import UserError
from openjepa.training.log import read_metrics
from openjepa.viz.canvas import CaptionedFigure
from openjepa.viz.curves import CURVES_CAPTION, format_charts, load_signals
from openjepa.viz.features import features_figure
from openjepa.viz.html import format_figure, format_section, write_page
from openjepa.viz.inputs import evenly_spaced, load_encoder, read_images
from openjepa.viz.masks import draw_masks
from openjepa.viz.neighbors import NEIGHBOR_COUNT, draw_neighbors
from openjepa.viz.prediction_error import has_predictor
from openjepa.viz.predictions import prediction_figure
from openjepa.viz.report_sections import (
    SPEED_COLUMNS,
    RunRecord,
    format_comparison,
    format_facts,
    format_probes,
    format_settings,
    format_speed,
    format_table,
    list_commands,
    list_warnings,
    read_run_records,
    summarize_run,
)
from openjepa.viz.settings import FeaturesOptions
from openjepa.viz.spectrum import draw_spectrum, training_stages

MAX_DRAWING_FLOPS = 1e12  # limits the images of the figures: FLOPs to encode all of them once

MIN_IMAGES, MAX_IMAGES = 24, 2048  # images to search for nearest neighbors

MAX_PATCH_IMAGES = 128  # images whose patch features are computed

SHOWN_IMAGES = 6


def write_report(folders: Sequence[str], out: Path | None = None, pictures: bool = True) -> Path:
    """Write the report and return its path. Raises UserError if a folder is not a run or its log is empty."""
    if not folders:
        raise UserError("jepa report needs the folder of a run, or several")
    runs = read_run_records([Path(each) for each in folders])
    out = out or (runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html"))
    if out.suffix != ".html":
        raise UserError(f"--out must end in .html, got {out}: try --out {out.with_suffix('.html')}")
    title = runs[0].name if len(runs) == 1 else " · ".join(run.name for run in runs)
    page = write_page(f"Report: {title}", "\n".join(format_sections(runs, pictures)), out)
    info(f"report     {page}")
    return page


def format_sections(runs: Sequence[RunRecord], pictures: bool) -> Iterator[str]:
    """Yield the sections of the page from top to bottom."""
    yield "".join(f"<p>{html.escape(summarize_run(run))}</p>" for run in runs)
    yield from (format_facts(run) for run in runs if len(runs) == 1)
    if warnings := [f"<p>{html.escape(warning)}</p>" for run in runs for warning in list_warnings(run)]:
        yield format_section("warnings", "Warnings", f'<div class="warning">{"".join(warnings)}</div>')
    if len(runs) > 1:
        yield format_section("side", "Side by side", format_comparison(runs))
    charts = format_charts([(run.name, run.log) for run in runs], load_signals(run.folder for run in runs))
    yield format_section("curves", "Training curves", f"{charts}<p>{CURVES_CAPTION}.</p>")
    yield format_section("probes", "Probes", "".join(format_probes(run, len(runs) > 1) for run in runs))
    for run in runs if pictures else ():
        yield from format_figures(run, len(runs) > 1)
    yield format_section("speed", "Speed", format_table(SPEED_COLUMNS, (format_speed(run) for run in runs)))
    yield format_section("next", "Next steps", "".join(f"<pre>{html.escape(list_commands(run))}</pre>" for run in runs))
    yield format_section("settings", "Settings", "".join(format_settings(run) for run in runs))


def format_figures(run: RunRecord, named: bool) -> Iterator[str]:
    """Yield masks, features, predictions, neighbors and spectrum of the run's samples, or why they are missing."""
    suffix = f", {run.name}" if named else ""
    try:
        for each in draw_figures(run):
            name = f"{each.name}-{run.name}" if named else each.name
            yield format_section(name, each.title + suffix, format_figure(each))
    except (UserError, OSError) as error:
        reason = f"<p>The figures could not be drawn: {html.escape(str(error))}</p>"
        yield format_section(f"figures-{run.name}", f"Figures{suffix}", reason)


def draw_figures(run: RunRecord) -> Iterator[CaptionedFigure]:
    """Draw the figures that this run allows, on its training data; masks and predictions only on images."""
    data = require(run.settings.data, Renders, "jepa report")
    folder, root = str(run.folder), run.settings.data.root
    encoder = load_encoder(FeaturesOptions(run=folder))
    cost = run.settings.method.encoder_cost(encoder.data)
    affordable = max(MIN_IMAGES, min(MAX_IMAGES, int(MAX_DRAWING_FLOPS / cost))) if cost else MIN_IMAGES
    candidates = read_images(root, encoder.data, affordable)
    images = candidates.select(evenly_spaced(len(candidates.names), min(MAX_PATCH_IMAGES, affordable)))
    patches = isinstance(data, PatchGrid)
    if has_predictor(run.settings) and patches:
        yield draw_masks(run.settings, images.select(evenly_spaced(len(images.names), 3)))
    yield features_figure(encoder, images.move_to_front(SHOWN_IMAGES))
    if has_predictor(run.settings) and patches and any((run.folder / "checkpoints").glob("step-*")):
        yield prediction_figure(run.folder, images.move_to_front(SHOWN_IMAGES - 2))
    if len(images.names) > NEIGHBOR_COUNT:
        yield draw_neighbors(candidates, encoder.pooled(candidates.view).numpy())
        stages = training_stages(run.folder, run.settings, "")
        yield draw_spectrum(
            [(name, each.pooled(images.view)) for name, each in stages], len(images.names), plural_of(data)
        )


def write_report_at_end(folder: Path) -> Path | None:
    """Write the report of a run that has just ended. If that fails, warn and return None: the run is complete."""
    if not read_metrics(folder / "metrics.jsonl"):
        return None
    try:
        return write_report([str(folder)])
    except (UserError, OSError) as error:
        warn(f"no report was written ({error}); to try again: jepa report {folder}")
        return None
