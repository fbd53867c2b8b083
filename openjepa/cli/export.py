"""Command `jepa export`: write an encoder for other tools."""

from __future__ import annotations

from pathlib import Path

from openjepa.cli.settings import Export
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.fileio import write_text
from openjepa.core.markdown import markdown_name
from openjepa.evaluation.classifier import find_classifier
from openjepa.evaluation.scores import describe_scores, format_scores, read_scores
from openjepa.interop.export import EXPORTERS, ExportJob, atomic_folder
from openjepa.interop.load import load
from openjepa.interop.model_card import model_card


def export(settings: Export) -> Path:
    """Write an encoder and its model card; return the folder.

    Raises:
        UserError: the format cannot represent the encoder, or an option contradicts the weights.
    """
    encoder, run = load(settings.run, settings.encoder), Path(settings.run)
    license = encoder.provenance.license or settings.license
    if settings.license and license != settings.license:
        raise UserError(f"these weights keep their license, {license}: omit --license")
    if settings.format == "official" and settings.encoder == "context":
        raise UserError("the official layout holds both encoders, each under its own name: omit --encoder")
    head = None
    if settings.head:
        if settings.format != "hf":
            raise UserError("only --format hf can include a classifier: use it, or omit --head")
        head = find_classifier(run, settings.head, encoder.fingerprint)
    out = settings.out or (run if run.is_dir() else Path(run.name.split(".")[0])) / settings.format
    with atomic_folder(out) as folder:
        job = ExportJob(encoder, run, folder, head._asdict() if head else None, license)
        note = EXPORTERS[settings.format](job)
        results = probe_tables(run) if settings.encoder in ("", "target") else ""
        text = model_card(encoder, settings.format, out, license, run, results)
        write_text(folder / "README.md", text)
    info(f"written    {out}" + (f": {note}" if note else ""))
    return out


def probe_tables(run: Path) -> str:
    """Return the scores in RUN/probes as Markdown tables."""
    tables = []
    for file in sorted((run / "probes").glob("*.json")):
        scores = read_scores(file)["scores"]
        if scores:
            title = f"{markdown_name(file.stem)}, {describe_scores(scores)} with 95 % intervals:"
            tables.append(f"{title}\n\n{format_scores(scores)}")
    return "\n\n".join(tables)
