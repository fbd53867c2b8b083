"""Open an index that `jepa embed` wrote: features and the file of each row.   S rows  D width  N tokens"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from openjepa.core.capabilities import plural_of
from openjepa.core.errors import UserError
from openjepa.core.protocols import Modality
from openjepa.evaluation.feature_export import FEATURE_SUFFIXES, FEATURES_KEY, path_beside
from openjepa.evaluation.feature_store import map_arrays, read_header
from openjepa.interop.inputs import modality_from_text
from openjepa.modalities.image import Image


class Index(NamedTuple):
    """Memory-mapped features with a row per sample."""

    file: Path
    features: Float[np.ndarray, "S *F"]  # NaN where the sample could not be decoded
    files: list[str]  # file of each row, as FILE#NUMBER where a file has several samples
    classes: list[str]  # name of the file's folder; "" where it is unknown
    metadata: dict[str, Any]  # encoder and settings that made the features

    @property
    def pooled(self) -> bool:
        """Tell whether a sample is one vector, not one per token."""
        return self.features.ndim == 2

    @property
    def modality(self) -> Modality:
        """Return the modality of the encoder that made the index; older indexes are of images."""
        text = self.metadata.get("modality")
        return modality_from_text(text) if text else Image()

    @property
    def plural(self) -> str:
        """Return what the rows are called in messages."""
        return plural_of(self.modality)

    def sibling_path(self, ending: str) -> Path:
        """Return the path of a file next to the index: photos.safetensors -> photos-ENDING.

        If photos.npy is an index, too, the name keeps the index's ending: photos.safetensors-ENDING.
        """
        others = [each for each in FEATURE_SUFFIXES if each != self.file.suffix]
        ambiguous = any(self.file.with_suffix(each).is_file() for each in others)
        return self.file.with_name(f"{self.file.name if ambiguous else self.file.stem}-{ending}")


def open_index(file: Path) -> Index:
    """Open an index without reading its features into memory. Raises UserError if it is damaged."""
    if file.suffix not in FEATURE_SUFFIXES or not file.is_file():
        raise UserError(f"{file} is not an index: make one with jepa embed RUN FOLDER --out photos.safetensors")
    try:
        index = READERS[file.suffix](file)
    except (ValueError, KeyError, TypeError, OSError, IndexError, UnicodeError) as error:
        raise UserError(f"{file} is damaged ({str(error)[:200]}): run jepa embed again") from error
    if len(index.files) != len(index.features) or index.features.ndim not in (2, 3):
        counts = f"{len(index.features)} rows but {len(index.files)} file names"
        raise UserError(f"{file} has {counts}: they do not belong together, run jepa embed again")
    if not len(index.features):
        raise UserError(f"{file} is empty: run jepa embed on a folder with files")
    return index


def read_safetensors(file: Path) -> Index:
    """Open a safetensors index."""
    metadata = read_header(file)[0].get("__metadata__", {})
    return Index(file, map_arrays(file, "c")[FEATURES_KEY], *read_rows(file), metadata)


def read_npy(file: Path) -> Index:
    """Open a .npy index; its metadata are in a JSON file next to it."""
    json_file = path_beside(file, ".json")
    metadata = json.loads(json_file.read_text(encoding="utf-8")) if json_file.is_file() else {}
    return Index(file, np.load(file, mmap_mode="r", allow_pickle=False), *read_rows(file), metadata)


def read_parquet(file: Path) -> Index:
    """Open a Parquet index. Requires pyarrow."""
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("reading Parquet files requires pyarrow: pip install 'openjepa[parquet]'") from error
    table = parquet.read_table(file, memory_map=True)
    metadata = json.loads((table.schema.metadata or {})[b"openjepa"])
    rows = table[FEATURES_KEY].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    shape = len(table), *json.loads(metadata["shape"])
    return Index(file, rows.reshape(shape), table["file"].to_pylist(), table["class"].to_pylist(), metadata)


READERS = {".safetensors": read_safetensors, ".npy": read_npy, ".parquet": read_parquet}


def read_rows(file: Path) -> tuple[list[str], list[str]]:
    """Read the file and the class of each row from the CSV file next to the features."""
    csv_file = path_beside(file, ".csv")
    if not csv_file.is_file():
        raise UserError(f"{csv_file}, the list of its files, is missing: put it back, or run jepa embed again")
    # the bytes of a path are the same in every locale, and here they become what this one calls the path
    with csv_file.open(newline="", encoding=sys.getfilesystemencoding(), errors="surrogateescape") as stream:
        lines = list(csv.reader(stream))[1:]
    return [line[0] for line in lines], [line[1] for line in lines]
