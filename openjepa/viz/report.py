"""The report of a run: one HTML page with everything in it."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from openjepa.core.console import info, warn
from openjepa.core.errors import UserError
from openjepa.modalities.image import Image
from openjepa.training.log import read_metrics
from openjepa.training.perf.flops import encoder_flops
from openjepa.viz.canvas import CaptionedFigure
from openjepa.viz.curves import svg_charts
from openjepa.viz.features import FeaturesOptions, features_figure
from openjepa.viz.html import figure_html, section, write_page
from openjepa.viz.inputs import evenly_spaced, load_encoder, read_images
from openjepa.viz.masks import draw_masks
from openjepa.viz.neighbors import NEIGHBOR_COUNT, draw_neighbors
from openjepa.viz.prediction_error import has_predictor
from openjepa.viz.predictions import prediction_figure
from openjepa.viz.report_sections import (
    RunRecord,
    command_list,
    comparison_table,
    fact_table,
    html_table,
    probe_tables,
    read_run_record,
    settings_table,
    speed_table,
    summary_sentence,
    warning_list,
)
from openjepa.viz.spectrum import draw_spectrum, pooled_features, training_stages

MAX_DRAWING_FLOPS = 1e12  # operations of one pass of an encoder over all pictures that are looked at, about

MIN_IMAGES, MAX_IMAGES = 24, 2048  # pictures among which neighbours are found

SAMPLES = 128  # of these, at most, every patch is looked at

SHOWN_IMAGES = 6


def write_report(folders: Sequence[str], out: Path | None = None, pictures: bool = True) -> Path:
    """The page's path. Mistake if a folder is no run, or has taken no step."""
    if not folders:
        raise UserError("a report is of a run: give its folder, or several")
    runs = [read_run_record(Path(each)) for each in folders]
    out = out or (runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html"))
    if out.suffix != ".html":
        raise UserError(f"{out} is no .html: try --out {out.with_suffix('.html')}")
    title = runs[0].name if len(runs) == 1 else " · ".join(run.name for run in runs)
    page = write_page(f"Report: {title}", "\n".join(report_sections(runs, pictures)), out)
    info(f"report     {page}")
    return page


def report_sections(runs: Sequence[RunRecord], pictures: bool) -> Iterator[str]:
    """The page from top to bottom."""
    yield "".join(f"<p>{html.escape(summary_sentence(run))}</p>" for run in runs)
    yield from (fact_table(run) for run in runs if len(runs) == 1)
    if found := [warning for run in runs for warning in warning_list(run)]:
        yield section(
            "warnings",
            "Warnings",
            f'<div class="warning">{"".join(f"<p>{html.escape(each)}</p>" for each in found)}</div>',
        )
    if len(runs) > 1:
        yield section("side", "Side by side", comparison_table(runs))
    caption = "Shaded: where a healthy run lies; below the dashed line the alarm speaks."
    charts = svg_charts([(run.name, run.log) for run in runs])
    yield section("curves", "Curves", f"{charts}<p>{caption}</p>")
    yield section("probes", "What it is good for", "".join(probe_tables(run, len(runs) > 1) for run in runs))
    for run in runs if pictures else ():
        yield from figures_section(run, len(runs) > 1)
    yield section(
        "speed",
        "Speed",
        html_table(
            ("run", "images / s", "of it waiting for data", "of the matrix rate"), (speed_table(run) for run in runs)
        ),
    )
    yield section("next", "How to go on", "".join(f"<pre>{html.escape(command_list(run))}</pre>" for run in runs))
    yield section("settings", "Settings", "".join(settings_table(run) for run in runs))


def figures_section(run: RunRecord, named: bool) -> Iterator[str]:
    """Masks, features, predictions, neighbours and the spectrum, of the run's own pictures; or why there are none."""
    suffix = f", {run.name}" if named else ""
    try:
        for plate in run_figures(run):
            yield section(f"{plate.name}{f'-{run.name}' if named else ''}", plate.title + suffix, figure_html(plate))
    except (UserError, OSError) as error:
        yield section(
            f"pictures-{run.name}", f"Pictures{suffix}", f"<p>None could be drawn: {html.escape(str(error))}</p>"
        )


def run_figures(run: RunRecord) -> Iterator[CaptionedFigure]:
    """The pictures that can be drawn of this run."""
    if not isinstance(run.settings.data, Image):
        raise UserError(f"{run.name} learns from signals")
    folder, root = str(run.folder), run.settings.data.root
    this = load_encoder(FeaturesOptions(run=folder))
    cost = encoder_flops(run.settings.method, this.data, this.data.grid[0] * this.data.grid[1])
    affordable = max(MIN_IMAGES, min(MAX_IMAGES, int(MAX_DRAWING_FLOPS / cost)))
    many = read_images(root, this.data, affordable)
    found = many.few(evenly_spaced(len(many.names), min(SAMPLES, affordable)))
    if has_predictor(run.settings):
        yield draw_masks(run.settings, found.few(evenly_spaced(len(found.names), 3)))
    yield features_figure(this, found.leading(SHOWN_IMAGES))
    if has_predictor(run.settings) and any((run.folder / "checkpoints").glob("step-*")):
        yield prediction_figure(run.folder, found.leading(SHOWN_IMAGES - 2))
    if len(found.names) > NEIGHBOR_COUNT:
        yield draw_neighbors(many, pooled_features(this, many.view).numpy())
        stages = training_stages(run.folder, run.settings, "target")
        yield draw_spectrum([(name, pooled_features(each, found.view)) for name, each in stages], len(found.names))


def write_report_at_end(folder: Path) -> Path | None:
    """The report of a run that has just ended; the run is done without it, too, and why there is none is said."""
    if not read_metrics(folder / "metrics.jsonl"):
        return None
    try:
        return write_report([str(folder)])
    except (UserError, OSError) as error:
        warn(f"no report was written ({error}); later: jepa report {folder}")
        return None
