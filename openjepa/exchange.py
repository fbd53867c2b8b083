"""`jepa convert`, `jepa export` and `jepa push`: weights from other projects, and to them."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from openjepa.core.arguments import Exported, Repository, Run, Source
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.evaluate.candidates import ours
from openjepa.evaluate.heads import Head, fitting
from openjepa.evaluate.report import markdown, read
from openjepa.formats.card import card
from openjepa.formats.found import Asked
from openjepa.formats.hugging_face import config_of, write, write_processor
from openjepa.formats.programs import write_onnx, write_program
from openjepa.formats.reading import foreign, load
from openjepa.modalities.image import Image
from openjepa.trained import Trained
from openjepa.training.run_folder import (
    CONTEXT_FILE,
    CONTEXT_PREFIX,
    ENCODER_FILE,
    PREDICTOR_FILE,
    PREDICTOR_PREFIX,
    TARGET_PREFIX,
    StateDict,
    load_all_networks,
)

Format = Literal["hf", "timm", "onnx", "torch", "safetensors", "official"]


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
    format: Format = "hf"  # torch: a program of torch.export; official: the authors' *.pth.tar
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
    found = foreign(settings.source, Asked(settings.num_heads, settings.licence))
    with making(settings.out) as folder:
        if found is None:  # a folder of ours, perhaps of an older format
            known = load(Path(settings.source))
            files = {name: state for name, state in everything(Path(settings.source)).items() if state}
            write(folder, files, known.config, known.step, known.about)
        else:
            found.write(folder)
    trained = load(settings.out)
    info(f"encoder    width {trained.encoder.dim}, depth {len(trained.encoder.blocks)}: {settings.out}")
    info(f"licence    {trained.about.licence or 'not stated: say it with --licence'}")
    for note in trained.about.notes:
        info(f"note       {note}")
    return settings.out


def everything(folder: Path) -> dict[str, StateDict]:
    """All networks of a folder of ours, by the file that keeps them."""
    files = {
        TARGET_PREFIX: ENCODER_FILE,
        CONTEXT_PREFIX: CONTEXT_FILE,
        PREDICTOR_PREFIX: PREDICTOR_FILE,
    }
    state = load_all_networks(folder)
    found = {
        file: {name.removeprefix(prefix): x for name, x in state.items() if name.startswith(prefix)}
        for prefix, file in files.items()
    }
    return found if found[ENCODER_FILE] else found | {ENCODER_FILE: found[CONTEXT_FILE]}  # of one encoder


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
        encoder = ours(trained.encoder, trained.config, run.name).fingerprint
        head = fitting(run, settings.head, encoder)
    out = settings.out or (run if run.is_dir() else Path(run.name.split(".")[0])) / settings.format
    with making(out) as folder:
        about = FORMATS[settings.format](Order(trained, run, folder, head, licence))
        text = card(trained, settings.format, out, licence, run, results_of(run) if settings.which == "target" else "")
        with atomic_write(folder / "README.md") as temporary:
            temporary.write_text(text)
    info(f"written    {out}" + (f": {about}" if about else ""))
    return out


class Order(NamedTuple):
    """What is to be written, and where."""

    trained: Trained
    run: Path
    folder: Path
    head: Head | None
    licence: str


def to_hugging_face(order: Order) -> str:
    plain(order.trained, "Hugging Face's ijepa")
    head = order.head._asdict() if order.head else None
    write(order.trained.encoder.state_dict(), order.trained, order.folder, head)
    return f"for AutoModel{'ForImageClassification' if head else ''} and AutoImageProcessor"


def to_timm(order: Order) -> str:
    plain(order.trained, "timm's vision transformer")
    write(order.trained.encoder.state_dict(), order.trained, order.folder, order.licence)
    return 'for timm.create_model("local-dir:…")'


def to_onnx(order: Order) -> str:
    worst = write_onnx(order.trained, order.folder)
    prepared(order)
    return f"onnxruntime's features differ from ours by {worst:.1e} at most"


def to_torch(order: Order) -> str:
    worst = write_program(order.trained, order.folder)
    prepared(order)
    return f"the program's features differ from ours by {worst:.1e} at most"


def to_safetensors(order: Order) -> str:
    trained = order.trained
    about = dataclasses.replace(trained.about, licence=order.licence)
    write(order.folder, {ENCODER_FILE: trained.encoder.state_dict()}, trained.config, trained.step, about)
    return "for openjepa.load, and whatever reads safetensors"


def to_official(order: Order) -> str:
    plain(order.trained, "the released code's encoder")
    states = {"target": order.trained.encoder.state_dict()}
    if order.run.is_dir() and not config_of(order.run).keys() & {"model_type", "architecture"}:
        kept = everything(order.run)
        states |= {"context": kept[CONTEXT_FILE], "predictor": of_features(kept[PREDICTOR_FILE], order)}
    write({name: state for name, state in states.items() if state}, order.trained, order.folder / "model.pth.tar")
    return ", ".join(name for name, state in states.items() if state)


def of_features(predictor: StateDict, order: Order) -> StateDict:
    """A predictor as the released code has it, of as many numbers as a feature has: pixels asked for besides are left out.

    Nothing where it predicts several layers side by side.
    """
    width = order.trained.config.method.dim
    if not predictor or order.trained.target_width != width:
        return {}
    return {name: x[:width] if name.startswith("proj.") else x for name, x in predictor.items()}


FORMATS: dict[str, Callable[[Order], str]] = {
    "hf": to_hugging_face,
    "timm": to_timm,
    "onnx": to_onnx,
    "torch": to_torch,
    "safetensors": to_safetensors,
    "official": to_official,
}


def prepared(order: Order) -> None:
    """How pictures are made ready for a program, as Hugging Face's processors have it."""
    write_processor(order.trained.data, order.folder)


def plain(trained: Trained, theirs: str) -> None:
    """Mistake where another project's encoder has no place for what ours has."""
    method, data = trained.config.method, trained.config.data
    other = {
        "rotary positions": method.positions != "sincos",
        "registers": method.registers > 0,
        "a convolutional stem": isinstance(data, Image) and data.embed != "linear",
    }
    if has := [name for name, there in other.items() if there]:
        raise UserError(f"{theirs} has no {' and no '.join(has)}: try --format onnx, torch or safetensors")


def results_of(run: Path) -> str:
    """What probes have measured, as tables; a run's own are in RUN/probes."""
    tables = []
    for file in sorted((run / "probes").glob("*.json")):
        scores = read(file)["scores"]
        tables += (
            [f"{file.stem}, accuracy on test images with its 95 % interval:\n\n{markdown(scores)}"] if scores else []
        )
    return "\n\n".join(tables)


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A folder to fill, which bears its name once it is whole. Mistake if there is one already."""
    if folder.exists():
        raise UserError(f"{folder} is there already: give another --out, or remove it")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
