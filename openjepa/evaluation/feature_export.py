"""Write features as safetensors, npy or Parquet, with the file of each row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write, replace_file
from openjepa.core.outputs import mark_output
from openjepa.core.protocols import Dataset
from openjepa.core.types import Samples
from openjepa.evaluation.feature_store import CHUNK_ROWS, FEATURES_FILE, FeatureChunk, Features, read_header

FEATURES_KEY = "features"  # name of the tensor and of the Parquet column

ROWS_FILE = "rows.csv"

UNDECODABLE = -2  # label of such a sample in an index that is being written; -1: no label

FEATURE_SUFFIXES = (".safetensors", ".npy", ".parquet")


def path_beside(out: Path, ending: str) -> Path:
    """Append an ending to a file's name: photos.npy -> photos.npy.csv."""
    return out.with_name(out.name + ending)


def write_rows(data: Dataset, label: Int[Tensor, "S"], file: Path) -> None:
    """Write a CSV file with each sample's absolute path and, if there are several folders, the name of its folder."""
    several = len(data.classes) > 1
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        lines = csv.writer(stream)
        lines.writerow(("file", "class"))
        for row, number in enumerate(label.tolist()):
            name = data.classes[number] if several and number >= 0 else ""
            lines.writerow((Path(data.source(row)).absolute(), name))


def absolute_source(run: str) -> Path | str:
    """Return the absolute path of a run; a name that is not a path stays as it is."""
    return Path(run).resolve() if Path(run).exists() else run


def nan_if_undecodable(
    encode: Callable[[int, Samples], FeatureChunk], data: Dataset
) -> Callable[[int, Samples], FeatureChunk]:
    """Wrap an encoding function to return NaN, and the label UNDECODABLE, for samples that could not be decoded."""

    def encode_or_nan(first: int, samples: Samples) -> FeatureChunk:
        chunk = encode(first, samples)
        skipped = {each.path for each in samples.skipped}
        bad = torch.tensor([data.source(first + row) in skipped for row in range(len(chunk.label))])
        chunk.kinds[FEATURES_KEY][bad] = torch.nan
        return chunk._replace(label=torch.where(bad, UNDECODABLE, chunk.label))

    return encode_or_nan


def move_rows(work: Path, out: Path) -> None:
    """Give the CSV file of the rows its final name."""
    mark_output(path_beside(out, ".csv"))
    (work / ROWS_FILE).replace(path_beside(out, ".csv"))


def write_safetensors(features: Features, work: Path, out: Path) -> None:
    """Move the finished features and the CSV file to their final names."""
    move_rows(work, out)
    replace_file(work / FEATURES_FILE, out)


def write_npy(features: Features, work: Path, out: Path) -> None:
    """Write the features as .npy, with a CSV file of the rows and a JSON file of the metadata."""
    rows = features.kinds[FEATURES_KEY]
    with atomic_write(path_beside(out, ".json")) as temporary:
        temporary.write_text(
            json.dumps(read_header(work / FEATURES_FILE)[0]["__metadata__"], indent=1), encoding="utf-8"
        )
    move_rows(work, out)
    with atomic_write(out) as temporary:
        named = temporary.with_name(f"{temporary.name}.npy")
        matrix = np.lib.format.open_memmap(named, "w+", np.float32, tuple(rows.shape))
        for first in range(0, len(rows), CHUNK_ROWS):
            matrix[first : first + CHUNK_ROWS] = rows[first : first + CHUNK_ROWS].numpy()
        matrix.flush()
        del matrix  # Windows gives no name to a mapped file
        named.replace(temporary)


def write_parquet(features: Features, work: Path, out: Path) -> None:
    """Write columns file, class and features (fixed-size lists), with the metadata in the schema. Requires pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("writing Parquet files requires pyarrow: pip install 'openjepa[parquet]'") from error
    rows = features.kinds[FEATURES_KEY]
    list_type = pyarrow.list_(pyarrow.float32(), int(rows[0].numel()))
    about = read_header(work / FEATURES_FILE)[0]["__metadata__"] | {"shape": json.dumps(list(rows.shape[1:]))}
    text = pyarrow.string()
    schema = pyarrow.schema(
        [("file", text), ("class", text), (FEATURES_KEY, list_type)], metadata={"openjepa": json.dumps(about)}
    )
    with (
        atomic_write(out) as temporary,
        parquet.ParquetWriter(temporary, schema, use_dictionary=False) as writer,
        (work / ROWS_FILE).open(newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        lines = csv.reader(stream)
        next(lines)
        for first in range(0, len(rows), CHUNK_ROWS):
            part = rows[first : first + CHUNK_ROWS]
            names = [(file.encode(errors="replace").decode(), name) for file, name in (next(lines) for _ in part)]
            flat = pyarrow.array(part.numpy().reshape(-1))
            lists = pyarrow.FixedSizeListArray.from_arrays(flat, type=list_type)
            writer.write_table(pyarrow.table([*map(list, zip(*names, strict=True)), lists], schema=schema))


WRITERS = {".safetensors": write_safetensors, ".npy": write_npy, ".parquet": write_parquet}
