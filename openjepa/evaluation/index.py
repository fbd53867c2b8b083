"""Open an index that `jepa embed` wrote: features and the picture of each row.   S pictures  D width  N patches"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from openjepa.core.errors import UserError
from openjepa.evaluation.feature_export import FEATURE_SUFFIXES, FEATURES_KEY
from openjepa.evaluation.feature_export import path_beside as of_file
from openjepa.evaluation.feature_store import map_arrays, read_header


class Index(NamedTuple):
    """Features in a map of their file, a row for each picture."""

    file: Path
    features: Float[np.ndarray, "S *F"]  # NaN where a picture could not be decoded
    pictures: list[str]
    classes: list[str]  # the picture's folder; "" where none is known
    about: dict[str, Any]  # what made it

    @property
    def pooled(self) -> bool:
        """Whether a picture is one vector, not one for each patch."""
        return self.features.ndim == 2

    def beside(self, ending: str) -> Path:
        """A file beside the index: photos.safetensors → photos-ENDING."""
        return self.file.with_name(f"{self.file.stem}-{ending}")


def open_index(file: Path) -> Index:
    """An index, its features left in the file. Mistake in a sentence if it is none, or damaged."""
    if file.suffix not in FEATURE_SUFFIXES or not file.is_file():
        raise UserError(f"{file} is no index: make one with jepa embed RUN FOLDER --out photos.safetensors")
    try:
        found = READERS[file.suffix](file)
    except (ValueError, KeyError, TypeError, OSError, IndexError, UnicodeError) as error:
        raise UserError(f"{file} is damaged ({str(error)[:200]}): embed again") from error
    if len(found.pictures) != len(found.features) or found.features.ndim not in (2, 3):
        raise UserError(
            f"{file} has {len(found.features)} rows and {len(found.pictures)} names: they are not of one another; embed again"
        )
    if not len(found.features):
        raise UserError(f"{file} is empty: embed a folder that has pictures")
    return found


def read_safetensors(file: Path) -> Index:
    about = read_header(file)[0].get("__metadata__", {})
    return Index(file, map_arrays(file, "c")[FEATURES_KEY], *read_rows(file), about)


def read_npy(file: Path) -> Index:
    about = of_file(file, ".json")
    told = json.loads(about.read_text()) if about.is_file() else {}
    return Index(file, np.load(file, mmap_mode="r", allow_pickle=False), *read_rows(file), told)


def read_parquet(file: Path) -> Index:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise UserError("Parquet files need an extra: pip install 'openjepa[parquet]'") from error
    table = parquet.read_table(file, memory_map=True)
    about = json.loads((table.schema.metadata or {})[b"openjepa"])
    rows = table[FEATURES_KEY].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    shape = len(table), *json.loads(about["shape"])
    return Index(file, rows.reshape(shape), table["file"].to_pylist(), table["class"].to_pylist(), about)


READERS = {".safetensors": read_safetensors, ".npy": read_npy, ".parquet": read_parquet}


def read_rows(file: Path) -> tuple[list[str], list[str]]:
    """Pictures and their classes, from the list beside."""
    beside = of_file(file, ".csv")
    if not beside.is_file():
        raise UserError(f"{beside} is not there, which says which picture each row is: put it back, or embed again")
    with beside.open(newline="", errors="surrogateescape") as stream:
        lines = list(csv.reader(stream))[1:]
    return [line[0] for line in lines], [line[1] for line in lines]
