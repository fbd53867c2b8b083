"""Write the report of a run: one self-contained HTML page."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from openjepa.core.capabilities import PatchGrid, Renders, TubeletGrid, plural_of, require
from openjepa.core.console import draw_safely, info, warn
from openjepa.core.errors import UserError
from openjepa.evaluation.predictive_runs import has_predictor
from openjepa.training.log import read_metrics
from openjepa.training.stages import last_stage
from openjepa.viz.agent_figures import agent_figures, has_agent
from openjepa.viz.canvas import CaptionedFigure
from openjepa.viz.curves import CURVES_CAPTION, format_charts, load_signals
from openjepa.viz.features import features_figure
from openjepa.viz.html import escape, format_figure, format_section, write_page
from openjepa.viz.inputs import ImageBatch, evenly_spaced, load_encoder, read_images
from openjepa.viz.masks import draw_masks
from openjepa.viz.neighbors import NEIGHBOR_COUNT, draw_neighbors
from openjepa.viz.predictions import prediction_figure
from openjepa.viz.report_sections import (
    SPEED_COLUMNS,
    RunRecord,
    format_comparison,
    format_data,
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

SHOWN_CLIPS = 3  # each is several strips


def write_report(folders: Sequence[str], out: Path | None = None, pictures: bool = True) -> Path:
    """Write the report and return its path. Raises UserError if a folder is not a run or its log is empty."""
    if not folders:
        raise UserError("jepa report needs the folder of a run, or several")
    runs = read_run_records([last_stage(Path(each)) for each in folders])
    out = out or (runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html"))
    if out.suffix != ".html":
        raise UserError(f"--out must end in .html, got {out}: try --out {out.with_suffix('.html')}")
    title = runs[0].name if len(runs) == 1 else " · ".join(run.name for run in runs)
    page = write_page(f"Report: {title}", "\n".join(format_sections(runs, pictures)), out)
    info(f"report     {page}")
    return page


def format_sections(runs: Sequence[RunRecord], pictures: bool) -> Iterator[str]:
    """Yield the sections of the page from top to bottom; in place of one that fails, the reason."""
    several = len(runs) > 1
    yield "".join(f"<p>{escape(summarize_run(run))}</p>" for run in runs)
    yield "" if several else format_facts(runs[0])
    yield format_section("data", "Data", "".join(format_data(run, several) for run in runs))
    if warnings := [f"<p>{escape(warning)}</p>" for run in runs for warning in list_warnings(run)]:
        yield format_section("warnings", "Warnings", f'<div class="warning">{"".join(warnings)}</div>')
    if several:
        yield format_safely("side", "Side by side", lambda: format_comparison(runs))
    yield format_safely("curves", "Training curves", lambda: f"{draw_charts(runs)}<p>{CURVES_CAPTION}.</p>")
    yield format_safely("probes", "Probes", lambda: "".join(format_probes(run, several) for run in runs))
    for run in runs if pictures else ():
        yield from format_figures(run, several)
    yield format_section("speed", "Speed", format_table(SPEED_COLUMNS, (format_speed(run) for run in runs)))
    yield format_section("next", "Next steps", "".join(f"<pre>{escape(list_commands(run))}</pre>" for run in runs))
    yield format_section("settings", "Settings", "".join(format_settings(run) for run in runs))


def draw_charts(runs: Sequence[RunRecord]) -> str:
    """Draw the training curves as charts in HTML."""
    return format_charts([(run.name, run.log) for run in runs], load_signals(run.folder for run in runs))


def format_safely(name: str, title: str, draw: Callable[[], str]) -> str:
    """Return a section of the page; if it cannot be drawn, a section that says why."""
    reasons: list[str] = []
    content = draw_safely(f"“{title}” of the report", draw, reasons.append)
    for reason in reasons:
        warn(reason)
    return format_section(name, title, f"<p>{escape(reasons[0])}</p>" if content is None else content)


def format_figures(run: RunRecord, named: bool) -> Iterator[str]:
    """Yield masks, features, predictions, neighbors and spectrum of the run's samples, or why they are missing."""
    suffix = f", {run.name}" if named else ""
    reasons: list[str] = []
    figures = draw_safely("The figures", lambda: list(plan_figures(run)), reasons.append) or []
    for what, draw in figures:
        figure = draw_safely(
            what, lambda draw=draw: captioned_section(draw(), run.name if named else ""), reasons.append
        )
        yield figure or ""
    if reasons:
        yield format_section(f"figures-{run.name}", f"Figures{suffix}", "".join(f"<p>{escape(x)}</p>" for x in reasons))


def captioned_section(figure: CaptionedFigure, run: str) -> str:
    """Return the section of a figure; with the name of its run if there are several."""
    name, title = (f"{figure.name}-{run}", f"{figure.title}, {run}") if run else (figure.name, figure.title)
    return format_section(name, title, format_figure(figure))


def plan_figures(run: RunRecord) -> Iterator[tuple[str, Callable[[], CaptionedFigure]]]:
    """Yield the figures that this run allows, on its training data, as name and function that draws."""
    if has_agent(run.settings):
        yield from agent_figures(str(run.folder))
        return
    data = require(run.settings.data, Renders, "jepa report")
    folder, root = str(run.folder), run.settings.data.root
    encoder = load_encoder(FeaturesOptions(run=folder))
    cost = run.settings.method.encoder_cost(encoder.data)
    affordable = max(MIN_IMAGES, min(MAX_IMAGES, int(MAX_DRAWING_FLOPS / cost))) if cost else MIN_IMAGES
    candidates = read_images(root, encoder.data, affordable)
    images = candidates.select(evenly_spaced(len(candidates.names), min(MAX_PATCH_IMAGES, affordable)))
    # masks and predictions are drawn of images and clips
    predicts = has_predictor(run.settings) and isinstance(data, PatchGrid | TubeletGrid)
    count = SHOWN_CLIPS if isinstance(data, TubeletGrid) else SHOWN_IMAGES
    if predicts:
        yield "The masks", lambda: draw_masks(run.settings, images.select(evenly_spaced(len(images.names), 3)))
    yield "The features", lambda: features_figure(encoder, images.move_to_front(count))
    if predicts and any((run.folder / "checkpoints").glob("step-*")):
        yield "The prediction", lambda: prediction_figure(run.folder, images.move_to_front(count - count // 3))
    if len(images.names) > NEIGHBOR_COUNT:
        yield "The neighbors", lambda: draw_neighbors(candidates, encoder.pooled(candidates.view).numpy())
        yield "The spectrum", lambda: report_spectrum(run, images)


def report_spectrum(run: RunRecord, images: ImageBatch) -> CaptionedFigure:
    """Draw the spectrum of features over the training of a run."""
    stages = [(name, each.pooled(images.view)) for name, each in training_stages(run.folder, run.settings, "")]
    return draw_spectrum(stages, len(images.names), plural_of(run.settings.data))


def write_report_at_end(folder: Path) -> Path | None:
    """Write the report of a run that has just ended. If that fails, warn and return None: the run is complete."""
    if not read_metrics(folder / "metrics.jsonl"):
        return None
    again = f"jepa report {shlex.quote(str(folder))}"
    return draw_safely(f"the report (to try again: {again})", lambda: write_report([str(folder)]))
