"""`jepa embed`: a row of features for every picture, in one file that other tools read.   S pictures  D width  N patches"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.arguments import Folder, Run
from openjepa.core.console import info
from openjepa.core.distributed import is_main
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, lock_folder
from openjepa.core.protocols import Dataset
from openjepa.core.types import Samples
from openjepa.data.crops import EvalCrop
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluate.embed import CHUNK, FILE, Chunk, Features, Maker, encoding, header_of, reader, stored
from openjepa.interop.adapters import load_adapter
from openjepa.interop.pretrained import FeatureKind
from openjepa.training.device import Precision, choose_device
from openjepa.training.parallel.launch import process_group

NAME = "features"  # of the tensor, and of the column

ROWS = "rows.csv"

SUFFIXES = (".safetensors", ".npy", ".parquet")


@dataclass(frozen=True, kw_only=True)
class Embed:
    """Writes a row of features for every picture. Called again, it goes on where it stopped."""

    run: Run  # a run, an export, weights of another project, or module:function
    data: Folder  # pictures, nested or flat; a .tar or .parquet file; a .txt of paths; rows are in the order of paths
    out: Path  # a .safetensors, .npy or .parquet file
    kind: FeatureKind = (
        "last"  # the mean over patches; the last four layers side by side; or every patch, in raster order
    )
    which: Literal["target", "context"] = "target"  # the averaged encoder, as in the paper, or the trained one
    fit: EvalCrop = "crop"  # largest centred box; its middle 7/8; the whole picture squashed
    batch: int = 256  # pictures that pass the encoder at once
    device: str = "auto"
    precision: Precision = "auto"


def embed(settings: Embed) -> Path:
    """The file of features; beside .safetensors and .npy a .csv (photos.npy.csv) says which picture each row is, and its folder's name.

    What cannot be decoded has a row of NaN. Memory does not grow with the number of pictures; under torchrun the processes
    share the work. Mistake if the file is there already, or is half done by another encoder or on other pictures.
    """
    out = settings.out
    if out.suffix not in SUFFIXES:
        raise UserError(
            f"{out} has none of the endings {', '.join(SUFFIXES)}: try --out {out.with_suffix('.safetensors')}"
        )
    if settings.batch < 1:
        raise UserError(f"batches of {settings.batch} hold nothing: try --batch 64")
    work = out.with_name(f".{out.name}.part")
    # beside unfinished work, a killed call may have put them there
    lists = () if work.exists() else (beside(out, ".csv"), beside(out, ".json"))
    for file in (out, *lists):
        if file.exists():
            raise UserError(f"{file} is there already: give another --out, or remove it")
    where, this = choose_device(settings.device, settings.precision), load_adapter(settings.run, settings.which)
    data = dataclasses.replace(this.data, root=(settings.data,), fit=settings.fit)
    samples = ThreadedDataset(data.dataset(data.listing()))
    about = {
        "encoder": this.fingerprint, "data": samples.fingerprint, "precision": where.precision, "kind": settings.kind,
        "run": str(absolute(settings.run)), "which": settings.which, "fit": settings.fit,
    }  # fmt: skip
    with process_group(where.device):
        with lock_folder(work, "embedding") if is_main() else nullcontext():
            encode = encoding(this, where, {settings.kind: NAME}, settings.batch)
            features = stored(Maker(reader(samples), honest(encode)), len(samples), about, work)
            if is_main():
                listed(samples, features.label, work / ROWS)
                WRITERS[out.suffix](features, work, out)
        if is_main():
            shutil.rmtree(work)
            shape = "×".join(map(str, features.kinds[NAME].shape))
            bad = int((features.label < 0).sum())
            info(
                f"written    {out}: {shape}"
                + (f"; {bad} pictures could not be decoded, and are NaN: jepa doctor says why" if bad else "")
            )
    return out


def beside(out: Path, ending: str) -> Path:
    """photos.npy → photos.npy.csv."""
    return out.with_name(out.name + ending)


def listed(data: Dataset, label: Int[Tensor, "S"], file: Path) -> None:
    """A line for each row: where the picture is, from wherever one asks, and its folder's name, if there are several."""
    several = len(data.classes) > 1
    with file.open("w", newline="", errors="surrogateescape") as stream:
        lines = csv.writer(stream)
        lines.writerow(("file", "class"))
        for row, number in enumerate(label.tolist()):
            name = data.classes[number] if several and number >= 0 else ""
            lines.writerow((Path(data.source(row)).absolute(), name))


def absolute(run: str) -> Path | str:
    """Where a run is, from wherever one asks; what is no path stays as it is."""
    return Path(run).resolve() if Path(run).exists() else run


def honest(encode: Callable[[int, Samples], Chunk]) -> Callable[[int, Samples], Chunk]:
    """The same, with no numbers for what could not be decoded."""

    def encoded(first: int, read: Samples) -> Chunk:
        chunk = encode(first, read)
        chunk.kinds[NAME][chunk.label < 0] = torch.nan
        return chunk

    return encoded


def to_safetensors(features: Features, work: Path, out: Path) -> None:
    """The file that grew, and its list beside it."""
    (work / ROWS).replace(beside(out, ".csv"))
    (work / FILE).replace(out)


def to_npy(features: Features, work: Path, out: Path) -> None:
    """The matrix alone, its list beside it, and what made it."""
    rows = features.kinds[NAME]
    with atomic_write(beside(out, ".json")) as temporary:
        temporary.write_text(json.dumps(header_of(work / FILE)[0]["__metadata__"], indent=1))
    (work / ROWS).replace(beside(out, ".csv"))
    with atomic_write(out) as temporary:
        named = temporary.with_name(f"{temporary.name}.npy")
        matrix = np.lib.format.open_memmap(named, "w+", np.float32, tuple(rows.shape))
        for first in range(0, len(rows), CHUNK):
            matrix[first : first + CHUNK] = rows[first : first + CHUNK].numpy()
        matrix.flush()
        named.rename(temporary)


def to_parquet(features: Features, work: Path, out: Path) -> None:
    """Columns file, class and features, lists of one length; what made them in the schema."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("Parquet files need an extra: pip install 'openjepa[parquet]'") from error
    rows = features.kinds[NAME]
    numbers = pyarrow.list_(pyarrow.float32(), int(rows[0].numel()))
    about = header_of(work / FILE)[0]["__metadata__"] | {"shape": json.dumps(list(rows.shape[1:]))}
    text = pyarrow.string()
    schema = pyarrow.schema(
        [("file", text), ("class", text), (NAME, numbers)], metadata={"openjepa": json.dumps(about)}
    )
    with (
        atomic_write(out) as temporary,
        parquet.ParquetWriter(temporary, schema, use_dictionary=False) as writer,
        (work / ROWS).open(newline="", errors="surrogateescape") as stream,
    ):
        lines = csv.reader(stream)
        next(lines)
        for first in range(0, len(rows), CHUNK):
            part = rows[first : first + CHUNK]
            names = [(file.encode(errors="replace").decode(), name) for file, name in (next(lines) for _ in part)]
            flat = pyarrow.array(part.numpy().reshape(-1))
            columns = [*map(list, zip(*names, strict=True)), pyarrow.FixedSizeListArray.from_arrays(flat, type=numbers)]
            writer.write_table(pyarrow.table(columns, schema=schema))


WRITERS = {".safetensors": to_safetensors, ".npy": to_npy, ".parquet": to_parquet}
