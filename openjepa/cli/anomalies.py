"""Command `jepa anomalies`: score how much files differ from normal ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openjepa.cli.settings import Anomalies
from openjepa.core.console import draw_safely, info
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.tables import print_table
from openjepa.data.labels.describe import label_if_possible
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluation.anomalies import (
    Detection,
    Measured,
    NormalSamples,
    Scores,
    check_class,
    check_enough,
    detect,
    measure_samples,
    other_features,
    write_scores,
)
from openjepa.evaluation.masked_error import load_masked_error
from openjepa.evaluation.predictive_runs import has_predictor
from openjepa.evaluation.result_files import results_folder
from openjepa.evaluation.settings import base_name
from openjepa.evaluation.undecodable import report_undecodable
from openjepa.interop.adapters import load_any
from openjepa.interop.inputs import replace_root
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.training.config import is_run_folder
from openjepa.training.device import choose_device
from openjepa.viz.anomalies import draw_anomalies
from openjepa.viz.thumbnails import can_draw, shorten_path


def anomalies(settings: Anomalies) -> list[dict[str, Any]]:
    """Score the files, list the most unusual ones; write all scores to a CSV file, and a figure.

    Returns the most unusual files with their scores. Raises UserError if there are too few normal files.
    """
    if settings.count < 1:
        raise UserError(f"--count must be >= 1, got {settings.count}")
    device = choose_device(settings.device, settings.precision)
    encoder = load_any(settings.run, settings.encoder)
    normal_roots = settings.normal or training_roots(encoder)
    normal_data, data = (open_files(encoder, roots) for roots in (normal_roots, (settings.files,)))
    check_enough(len(normal_data))
    if settings.good:
        check_class(settings.good, data.classes)
    predicts = is_run_folder(Path(settings.run)) and encoder.settings is not None and has_predictor(encoder.settings)
    masked = load_masked_error(Path(settings.run), normal_data, device) if predicts else None
    others = other_features(encoder, device) if settings.good else {}
    normal, measured = (measure_samples(each, encoder, device, masked, others) for each in (normal_data, data))
    report_undecodable(normal_data, normal.undecodable, encoder.modality, normal_roots)
    report_undecodable(data, measured.undecodable, encoder.modality, (settings.files,))

    fitted = NormalSamples.of(normal.features, normal.errors)
    scores = fitted.score(measured.features, measured.errors)
    out = settings.out or results_folder(settings.run, "anomalies") / base_name(settings.files)
    write_scores(scores, measured.files, out.with_name(f"{out.name}.csv"))
    if settings.good:
        print_detections(detect(normal, measured, settings.good))
    top = scores.score.argsort(descending=True, stable=True)[: settings.count].tolist()
    print_scores(scores, measured, top, len(normal.files))
    info(f"written    {out}.csv")
    pictures, file = can_draw(encoder.modality, "jepa anomalies"), out.with_name(f"{out.name}.png")
    pictured = top if pictures else []
    if draw_safely(
        f"the figure {file}", lambda: draw_anomalies(fitted, normal, measured, scores, pictured, encoder.modality, file)
    ):
        info(f"figure     {file}")
    return [{"file": measured.files[row], "score": float(scores.score[row])} for row in top]


def training_roots(encoder: PretrainedEncoder) -> tuple[str, ...]:
    """Return the folders that a run was trained on. Raises UserError if the encoder does not say it."""
    roots = encoder.settings.data.root if encoder.settings else ()
    if not roots or not all(Path(root).exists() for root in roots):
        raise UserError(f"{encoder.name} does not say where normal files are: give them with --normal FOLDER")
    info(f"normal     the files that the run was trained on: {' '.join(roots)}")
    return roots


def open_files(encoder: PretrainedEncoder, roots: tuple[str, ...]) -> Dataset:
    """Open files as the encoder reads them, with their classes."""
    modality = replace_root(encoder.modality, roots)
    return ThreadedDataset(modality.dataset(label_if_possible(modality.listing()).listing))


def print_detections(detections: list[Detection]) -> None:
    """Print how well each score tells normal files from the others."""
    rows = [(each.name, f"{each.auroc:.1f}", f"{each.low:.1f} to {each.high:.1f}") for each in detections]
    print_table(("score by", "AUROC %", "95 % interval"), rows, "normal files from others; chance is 50")


def print_scores(scores: Scores, measured: Measured, rows: list[int], normal: int) -> None:
    """Print the most unusual files."""
    table = []
    for row in rows:
        error = "" if scores.error is None else f"{float(scores.error[row]):.2f}"
        share = float(scores.normal_share[row])
        table.append(
            (
                shorten_path(measured.files[row]), measured.classes[row], f"{float(scores.score[row]):.1f}",
                f"{100 * share:.0f} %" if share else "none", f"{float(scores.distance[row]):.1f}", error,
            )
        )  # fmt: skip
    head = ("file", "folder", "score", f"of {normal} normal as unusual", "distance", "prediction error")
    print_table(head, table, f"the most unusual of {len(measured.files)} files; score: deviations above normal")
