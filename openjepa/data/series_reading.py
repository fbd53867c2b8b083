"""Read one window of a signal by its name, FILE#NUMBER.   C channels  L samples"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.fileio import file_version
from openjepa.core.protocols import Dataset


class OpenFile(NamedTuple):
    """The samples of one file, and the index of each by its source."""

    data: Dataset
    rows: dict[str, int]


@functools.lru_cache(maxsize=8)
def open_file(modality: Any, file: str, version: tuple[int, ...]) -> OpenFile:
    """Open one file as a dataset; the newest ones stay open, because pages read their windows one by one.

    `version` is that of the file: a changed file is opened again.
    """
    modality = dataclasses.replace(modality, root=(file,))
    data = modality.dataset(modality.listing())
    return OpenFile(data, {data.source(row): row for row in range(len(data))})


def read_window(modality: Any, source: str) -> Float[Tensor, "C L"]:
    """Read the window that FILE#NUMBER names, or the only one of a file.

    Raises UserError if there is no such window, or if a file has several and none is named.
    """
    file, _, number = source.rpartition("#")
    file = file if number.isdecimal() and not Path(source).is_file() else source
    if not Path(file).is_file():
        raise UserError(f"{file} is not a file: give the path of a signal")
    data, rows = open_file(modality, file, file_version(file))
    row = 0 if file == source and len(data) == 1 else rows.get(source)
    if row is None:
        names = list(rows)
        raise UserError(f"{file} has {len(data)} windows: name one, from {names[0]} to {names[-1]}, got {source}")
    return data.read(torch.tensor([row]), None).views[0][0]
