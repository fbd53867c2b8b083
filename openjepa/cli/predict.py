"""Command `jepa predict`: classify pictures with a classifier that `jepa probe` kept."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from rich.table import Table

from openjepa.core.arguments import Folder, Run
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.data.crops import EvalCrop
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluation.classifier import find_classifier, top_classes
from openjepa.evaluation.feature_store import FeatureWriter, chunk_spans
from openjepa.evaluation.features import feature_encoder, view_reader
from openjepa.interop.adapters import load_adapter
from openjepa.training.device import Precision, choose_device

MAX_ROWS = 40  # rows shown


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Says what is on pictures, in the words of a labelled folder that the encoder was probed on."""

    run: Run  # a run, an export, or weights of another project
    images: Folder  # a picture, a folder of pictures, a .tar or .parquet file
    head: Path | None = None  # a classifier that jepa probe kept; by default the only one in RUN/probes
    out: Path | None = None  # a .csv file for all rows: file, class, chance, and the next best
    encoder: Literal["target", "context"] = "target"  # the encoder that was probed
    eval_crop: EvalCrop = "crop"  # largest centred box; its middle 7/8; the whole picture squashed
    device: str = "auto"
    precision: Precision = "auto"


class Prediction(NamedTuple):
    """What is thought to be on a picture: classes, the likeliest first, and how likely they are; nothing if it cannot be decoded."""

    file: str
    classes: tuple[str, ...]
    chances: tuple[float, ...]


def predict(settings: Predict) -> list[Prediction]:
    """An answer for every picture, in the order of their names; the first are shown, all are written if asked."""
    if settings.out and (settings.out.suffix != ".csv" or settings.out.exists()):
        raise UserError(f"{settings.out} is there already, or no .csv: give another --out")
    where, this = choose_device(settings.device, settings.precision), load_adapter(settings.run, settings.encoder)
    head = find_classifier(Path(settings.run), settings.head, this.fingerprint)
    data = dataclasses.replace(this.data, root=(settings.images,), eval_crop=settings.eval_crop)
    samples, answers = ThreadedDataset(data.dataset(data.listing())), []
    make = FeatureWriter(view_reader(samples), feature_encoder(this, where, {"last": "last"}))
    for chunk in make.chunks(chunk_spans(len(samples))):
        best = top_classes(head.chances(chunk.kinds["last"]), 3)
        for row, (label, found) in enumerate(zip(chunk.label.tolist(), best, strict=True)):
            found = found if label >= 0 else []
            names, chances = tuple(head.classes[number] for number, _ in found), tuple(chance for _, chance in found)
            answers.append(Prediction(samples.source(chunk.first + row), names, chances))
    print_predictions(answers, settings.out)
    if settings.out:
        info(f"written    {write_predictions(answers, settings.out)}")
    return answers


def print_predictions(answers: list[Prediction], out: Path | None) -> None:
    table = Table("file", "class", "chance %", "or")
    for answer in answers[:MAX_ROWS]:
        others = ", ".join(f"{name} {100 * chance:.0f}" for name, chance in list(zip(*answer[1:], strict=True))[1:])
        first = (answer.classes[0], f"{100 * answer.chances[0]:.0f}") if answer.classes else ("cannot be decoded", "")
        table.add_row(answer.file, *first, others)
    console.print(table)
    if len(answers) > MAX_ROWS:
        info(f"and {len(answers) - MAX_ROWS:,} more" + ("" if out else ": --out answers.csv has them all"))


def write_predictions(answers: list[Prediction], file: Path) -> Path:
    with atomic_write(file) as temporary, temporary.open("w", newline="", errors="surrogateescape") as stream:
        lines = csv.writer(stream)
        lines.writerow(("file", "class", "chance", "second", "second chance", "third", "third chance"))
        for answer in answers:
            pairs = zip(answer.classes, (f"{chance:.4f}" for chance in answer.chances), strict=True)
            told = [each for pair in pairs for each in pair]
            lines.writerow((answer.file, *told, *[""] * (6 - len(told))))
    return file
