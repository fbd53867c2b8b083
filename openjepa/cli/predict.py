"""Command `jepa predict`: classify images with a classifier that `jepa probe` saved."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple

import torch

from openjepa.cli.settings import Predict
from openjepa.core.capabilities import PatchGrid, require
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.tables import print_table
from openjepa.data.labels.describe import LabeledFiles, describe, label_if_possible
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluation.classifier import find_classifier, top_classes
from openjepa.evaluation.feature_store import FeatureWriter, chunk_spans
from openjepa.evaluation.features import feature_encoder, view_reader
from openjepa.evaluation.undecodable import report_undecodable
from openjepa.interop.adapters import load_any
from openjepa.interop.inputs import replace_root
from openjepa.training.device import choose_device

MAX_ROWS = 40  # printed rows


class Prediction(NamedTuple):
    """The most likely classes of an image, the most likely first; empty if the image cannot be decoded."""

    file: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict(settings: Predict) -> list[Prediction]:
    """Classify every image, in the order of their paths; print the first ones and write all to --out."""
    if settings.out and settings.out.suffix != ".csv":
        raise UserError(f"--out must be a .csv file, got {settings.out}")
    if settings.out and settings.out.exists():
        raise UserError(f"{settings.out} already exists: give another --out, or remove it")
    device, encoder = choose_device(settings.device, settings.precision), load_any(settings.run, settings.encoder)
    require(encoder.modality, PatchGrid, "jepa predict")
    head = find_classifier(Path(settings.run), settings.head, encoder.fingerprint)
    data: Any = replace_root(encoder.data, (settings.images,), settings.eval_crop)
    listing = data.listing()
    files = label_if_possible(listing)
    samples, predictions, labels = ThreadedDataset(data.dataset(listing)), [], []
    writer = FeatureWriter(view_reader(samples), feature_encoder(encoder, device, {"last": "last"}))
    for chunk in writer.chunks(chunk_spans(len(samples))):
        best = top_classes(head.probabilities(chunk.kinds["last"]), 3)
        labels.append(chunk.label)
        for row, (label, top) in enumerate(zip(chunk.label.tolist(), best, strict=True)):
            top = top if label >= 0 else []
            classes, probabilities = tuple(head.classes[number] for number, _ in top), tuple(value for _, value in top)
            predictions.append(Prediction(samples.source(chunk.first + row), classes, probabilities))
    report_undecodable(samples, torch.cat(labels), data, (settings.images,))
    if settings.out:
        write_predictions(predictions, settings.out)
    print_predictions(predictions, settings.out)
    print_accuracy(predictions, files, head.classes)
    if settings.out:
        info(f"written    {settings.out}")
    return predictions


def print_accuracy(predictions: list[Prediction], files: LabeledFiles, classes: tuple[str, ...]) -> None:
    """Print the accuracy over the images that have one of the classifier's classes, and how their labels are known."""
    known = [
        (each, label)
        for each, label in zip(predictions, files.listing.labels, strict=True)
        if each.classes and label in classes
    ]
    if known:
        right = sum(each.classes[0] == label for each, label in known)
        info("\n".join(f"labels     {line}" for line in describe(files)))
        info(f"accuracy   {100 * right / len(known):.1f} % of {len(known):,} images with one of the classes")


def print_predictions(predictions: list[Prediction], out: Path | None) -> None:
    """Print the predictions as a table, on a terminal the first ones."""
    rows, limit = [], MAX_ROWS if console.is_terminal else len(predictions)
    for each in predictions[:limit]:
        pairs = [f"{name} {100 * value:.0f}" for name, value in zip(each.classes, each.probabilities, strict=True)]
        first = (each.classes[0], f"{100 * each.probabilities[0]:.0f}") if pairs else ("cannot be decoded", "")
        rows.append((each.file, *first, ", ".join(pairs[1:])))
    print_table(("file", "class", "probability %", "next best"), rows)
    if len(predictions) > limit:
        info(f"and {len(predictions) - limit:,} more" + ("" if out else ": --out predictions.csv writes all"))


def write_predictions(predictions: list[Prediction], file: Path) -> Path:
    """Write a CSV file with a line per image and return its path."""
    with (
        atomic_write(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        lines = csv.writer(stream)
        lines.writerow(("file", "class", "chance", "second", "second chance", "third", "third chance"))
        for each in predictions:
            pairs = zip(each.classes, (f"{value:.4f}" for value in each.probabilities), strict=True)
            cells = [cell for pair in pairs for cell in pair]
            lines.writerow((each.file, *cells, *[""] * (6 - len(cells))))
    return file
