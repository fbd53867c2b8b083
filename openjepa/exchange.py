"""`jepa convert`, `jepa export` and `jepa push`: weights from other projects, and to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from openjepa.core.arguments import Exported, Repository, Run, Source
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.evaluation.classifier import find_classifier
from openjepa.evaluation.scores import read_scores, scores_markdown
from openjepa.interop.adapters import from_ours
from openjepa.interop.export import EXPORTERS, ExportFormat, ExportJob, atomic_folder, networks_by_file
from openjepa.interop.huggingface import write_huggingface
from openjepa.interop.imported import ImportOptions
from openjepa.interop.load import load, load_imported
from openjepa.interop.model_card import model_card


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Makes a folder of ours from weights of another project, which every verb takes, --init-from as well."""

    source: Source  # *.pth.tar; a folder of Hugging Face or timm; hf:ID; *.safetensors
    out: Path  # the folder to make
    num_heads: int = 0  # of the encoder; 0: by the config beside the weights, or as in the paper's family
    licence: str = ""  # of the weights, if it is not as their home says; released weights are cc-by-nc-4.0


@dataclass(frozen=True, kw_only=True)
class Export:
    """Writes an encoder for other tools."""

    run: Run  # a run, an export, or weights of another project, as for convert
    format: ExportFormat = "hf"  # torch: a program of torch.export; official: the authors' *.pth.tar
    out: Path | None = None  # the folder to make; by default RUN/FORMAT
    which: Literal["target", "context"] = "target"  # the averaged encoder, as in the paper, or the trained one
    head: Path | None = None  # probes/NAME-head.safetensors, a classifier to go along (format hf)
    licence: str = ""  # of your own weights, as apache-2.0; those of converted weights stay as they are


@dataclass(frozen=True, kw_only=True)
class Push:
    """Uploads an exported folder to a repository of the Hugging Face hub. Log in first: hf auth login."""

    folder: Exported  # what jepa export made
    repository: Repository  # NAME/REPOSITORY
    private: bool = False


def convert(settings: Convert) -> Path:
    """Reads, checks and writes; returns the folder. Mistake in a sentence where the weights are none of I-JEPA's."""
    found = load_imported(settings.source, ImportOptions(settings.num_heads, settings.licence))
    with atomic_folder(settings.out) as folder:
        if found is None:  # a folder of ours, perhaps of an older format
            known = load(Path(settings.source))
            files = {name: state for name, state in networks_by_file(Path(settings.source)).items() if state}
            write_huggingface(folder, files, known.config, known.step, known.about)
        else:
            found.write(folder)
    trained = load(settings.out)
    info(f"encoder    width {trained.encoder.dim}, depth {len(trained.encoder.blocks)}: {settings.out}")
    info(f"licence    {trained.about.licence or 'not stated: say it with --licence'}")
    for note in trained.about.notes:
        info(f"note       {note}")
    return settings.out


def export(settings: Export) -> Path:
    """Writes the folder, with a card that says what it is; returns it. Mistake where a format cannot hold the encoder."""
    trained, run = load(settings.run, settings.which), Path(settings.run)
    licence = trained.about.licence or settings.licence
    if settings.licence and licence != settings.licence:
        raise UserError(f"these weights are under {licence}, which they keep: leave --licence out")
    if settings.format == "official" and settings.which == "context":
        raise UserError("the authors' layout holds both encoders, each under its name: leave --which out")
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
        about = EXPORTERS[settings.format](ExportJob(trained, run, folder, head, licence))
        text = model_card(
            trained, settings.format, out, licence, run, results_of(run) if settings.which == "target" else ""
        )
        with atomic_write(folder / "README.md") as temporary:
            temporary.write_text(text)
    info(f"written    {out}" + (f": {about}" if about else ""))
    return out


def results_of(run: Path) -> str:
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


def push(settings: Push) -> str:
    """Uploads; returns the page's address. Mistake in a sentence where the hub refuses."""
    if not (settings.folder / "README.md").is_file():
        raise UserError(f"{settings.folder} has no model card: push what jepa export made")
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
    except ImportError as error:
        raise UserError("pushing needs an extra: pip install 'openjepa[hf]'") from error
    hub: Any = HfApi(library_name="openjepa")
    try:
        hub.create_repo(settings.repository, private=settings.private, exist_ok=True)
        address = hub.upload_folder(folder_path=str(settings.folder), repo_id=settings.repository)
    except LocalTokenNotFoundError as error:
        raise UserError("the hub wants to know who you are: type hf auth login") from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise UserError(f"the hub refused ({str(error).splitlines()[0]}): check the name, and hf auth login") from error
    info(f"pushed     {address}")
    return str(address)
