"""Command `jepa export`: write an encoder for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openjepa.core.arguments import Run
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.evaluation.classifier import find_classifier
from openjepa.evaluation.scores import read_scores, scores_markdown
from openjepa.interop.adapters import from_ours
from openjepa.interop.export import EXPORTERS, ExportFormat, ExportJob, atomic_folder
from openjepa.interop.load import load
from openjepa.interop.model_card import model_card


@dataclass(frozen=True, kw_only=True)
class Export:
    """Writes an encoder for other tools."""

    run: Run  # a run, an export, or weights of another project, as for convert
    format: ExportFormat = "hf"  # torch: a program of torch.export; official: the authors' *.pth.tar
    out: Path | None = None  # the folder to make; by default RUN/FORMAT
    encoder: Literal["target", "context"] = "target"  # the averaged encoder, as in the paper, or the trained one
    head: Path | None = None  # probes/NAME-head.safetensors, a classifier to go along (format hf)
    license: str = ""  # of your own weights, as apache-2.0; those of converted weights stay as they are


def export(settings: Export) -> Path:
    """Writes the folder, with a card that says what it is; returns it. Mistake where a format cannot hold the encoder."""
    trained, run = load(settings.run, settings.encoder), Path(settings.run)
    license = trained.provenance.license or settings.license
    if settings.license and license != settings.license:
        raise UserError(f"these weights are under {license}, which they keep: leave --license out")
    if settings.format == "official" and settings.encoder == "context":
        raise UserError("the authors' layout holds both encoders, each under its name: leave --encoder out")
    head = None
    if settings.head:
        if settings.format != "hf":
            raise UserError(
                "only Hugging Face's format has a place for a classifier: try --format hf, or leave --head out"
            )
        encoder = from_ours(trained.encoder, trained.config, run.name).fingerprint
        head = find_classifier(run, settings.head, encoder)
    out = settings.out or (run if run.is_dir() else Path(run.name.split(".")[0])) / settings.format
    with atomic_folder(out) as folder:
        about = EXPORTERS[settings.format](ExportJob(trained, run, folder, head._asdict() if head else None, license))
        text = model_card(
            trained, settings.format, out, license, run, probe_tables(run) if settings.encoder == "target" else ""
        )
        with atomic_write(folder / "README.md") as temporary:
            temporary.write_text(text)
    info(f"written    {out}" + (f": {about}" if about else ""))
    return out


def probe_tables(run: Path) -> str:
    """What probes have measured, as tables; a run's own are in RUN/probes."""
    tables = []
    for file in sorted((run / "probes").glob("*.json")):
        scores = read_scores(file)["scores"]
        tables += (
            [f"{file.stem}, accuracy on test images with its 95 % interval:\n\n{scores_markdown(scores)}"]
            if scores
            else []
        )
    return "\n\n".join(tables)
