"""Store features in one memory-mapped safetensors file; resume after an interruption."""

from __future__ import annotations

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.progress import track
from torch import Tensor

from openjepa.core.console import console
from openjepa.core.distributed import barrier, is_main, rank_and_size
from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.protocols import Dataset
from openjepa.core.types import Samples

CHUNK_ROWS = 1024  # samples per chunk; an interruption loses one chunk at most

IGNORED_METADATA = frozenset({"run", "which", "modality"})  # keys that do not change the features

FEATURES_FILE, PARTIAL_FILE, INDEX_FILE = "features.safetensors", "features.part", "index.csv"

DTYPE_NAME = {torch.float32: "F32", torch.int64: "I64"}

NUMPY_DTYPES = {"F32": np.float32, "I64": np.int64}


@dataclass(frozen=True)
class Features:
    """Features of each kind and labels, a row per sample; may be memory-mapped."""

    kinds: dict[str, Float[Tensor, "S *F"]]
    label: Int[Tensor, "S"]  # -1: no label, or the sample could not be decoded

    def __getitem__(self, kind: str) -> Float[Tensor, "S F"]:
        """Return the labeled rows of one kind. Raises UserError if they are not finite."""
        x = self.kinds[kind]
        if (self.label < 0).any():
            x = x[self.label >= 0]
        if not all(part.isfinite().all() for part in x.split(CHUNK_ROWS)):
            raise UserError(f"the {kind} features are not finite (NaN or infinity): check the encoder's weights")
        return x

    @property
    def labeled(self) -> Int[Tensor, "R"]:
        """Return the indices of the samples that have a label."""
        return torch.where(self.label >= 0)[0]

    @property
    def y(self) -> Int[Tensor, "S"]:
        """Return the labels of those samples."""
        return self.label[self.label >= 0]


class FeatureChunk(NamedTuple):
    """Features and labels of consecutive samples."""

    first: int  # index of the first sample
    kinds: dict[str, Float[Tensor, "B *F"]]
    label: Int[Tensor, "B"]


class FeatureWriter(NamedTuple):
    """Reads and encodes consecutive samples, in chunks; reads the next chunk while one is encoded."""

    read: Callable[[int, int], Samples]  # first, last (exclusive)
    encode: Callable[[int, Samples], FeatureChunk]

    def encode_span(self, first: int, last: int) -> FeatureChunk:
        """Read and encode the samples from first to last."""
        return self.encode(first, self.read(first, last))

    def chunks(self, spans: list[tuple[int, int]]) -> Iterator[FeatureChunk]:
        """Encode the spans one after the other."""
        with ThreadPoolExecutor(1) as pool:
            reads = deque(pool.submit(self.read, *span) for span in spans[:1])
            progress = track(spans, "embedding", console=console, disable=not shows_progress())
            for position, (first, _) in enumerate(progress):
                reads.extend(pool.submit(self.read, *span) for span in spans[position + 1 : position + 2])
                yield self.encode(first, reads.popleft().result())


def shows_progress() -> bool:
    """Tell whether to show a progress bar: on a terminal, on rank 0."""
    return console.is_terminal and is_main()


def chunk_spans(count: int) -> list[tuple[int, int]]:
    """Return the first and last sample (exclusive) of each chunk."""
    return [(first, min(first + CHUNK_ROWS, count)) for first in range(0, count, CHUNK_ROWS)]


def collect_chunks(writer: FeatureWriter, count: int) -> Features:
    """Compute the features of all samples in memory."""
    chunks = list(writer.chunks(chunk_spans(count)))
    kinds = {kind: torch.cat([chunk.kinds[kind] for chunk in chunks]) for kind in chunks[0].kinds}
    return Features(kinds, torch.cat([chunk.label for chunk in chunks]))


def store_features(writer: FeatureWriter, count: int, about: dict[str, str], folder: Path) -> Features:
    """Compute the features of all samples in one memory-mapped file, without repeating finished chunks.

    The file has a temporary name until all chunks are finished; each rank lists its finished chunks in a JSON file.
    `about` identifies encoder and data. Raises UserError if the folder contains features of others.
    """
    if (folder / FEATURES_FILE).exists():
        return open_features(folder, about)
    rank, ranks = rank_and_size()
    lists = sorted(folder.glob("done-*.json")) if (folder / PARTIAL_FILE).exists() else []
    finished = {first for file in lists for first in finished_chunks(file, about)}
    barrier()  # every rank has read the lists
    if is_main() and not (folder / PARTIAL_FILE).exists():
        for file in folder.glob("done-*.json"):
            file.unlink()
        create_file(folder, writer.encode_span(0, 1), count, about)
    barrier()  # the file exists

    arrays, own_list = map_arrays(folder / PARTIAL_FILE, "r+"), folder / f"done-{rank}.json"
    done = finished_chunks(own_list, about)
    for chunk in writer.chunks([span for span in chunk_spans(count) if span[0] not in finished][rank::ranks]):
        for name, rows in {**chunk.kinds, "label": chunk.label}.items():
            arrays[name][chunk.first : chunk.first + len(rows)] = rows.numpy()
            arrays[name].flush()
        done.append(chunk.first)
        with atomic_write(own_list) as temporary:
            temporary.write_text(json.dumps({**about, "chunks": done}), encoding="utf-8")
    barrier()
    if is_main():
        (folder / PARTIAL_FILE).replace(folder / FEATURES_FILE)
        for file in folder.glob("done-*.json"):
            file.unlink()
    barrier()
    return open_features(folder, about)


def finished_chunks(file: Path, about: dict[str, str]) -> list[int]:
    """Read a list of finished chunks. Raises UserError if they are of another encoder or of other data."""
    if not file.exists():
        return []
    content = json.loads(file.read_text(encoding="utf-8"))
    check_same_metadata(content, about, file.parent)
    return content["chunks"]


def check_same_metadata(content: dict[str, str], about: dict[str, str], folder: Path) -> None:
    """Raise UserError if stored features have other metadata than `about`."""
    for key in sorted(about.keys() - IGNORED_METADATA):
        if content.get(key) != about[key]:
            raise UserError(f"{folder} contains features of another {key}: remove it, or give another folder")


def create_file(folder: Path, sample: FeatureChunk, count: int, about: dict[str, str]) -> None:
    """Create a safetensors file of the final size; the features are written into it later."""
    header: dict[str, dict] = {"__metadata__": about}
    end = 0
    for name, rows in {**sample.kinds, "label": sample.label}.items():
        shape, itemsize = (count, *rows.shape[1:]), np.dtype(NUMPY_DTYPES[DTYPE_NAME[rows.dtype]]).itemsize
        size = itemsize * int(np.prod(shape))
        header[name] = {"dtype": DTYPE_NAME[rows.dtype], "shape": shape, "data_offsets": (end, end + size)}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(folder / PARTIAL_FILE) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(stream.fileno(), 0, 8 + len(text) + end)  # a full disk fails here, not in the memory map
        stream.truncate(8 + len(text) + end)


def write_index(data: Dataset, label: Int[Tensor, "S"], file: Path) -> None:
    """Write a CSV file with the file and the class of each row of the features."""
    with (
        atomic_write(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        lines = csv.writer(stream)
        lines.writerow(("file", "class"))
        for row, number in enumerate(label.tolist()):
            lines.writerow((data.source(row), data.classes[number] if data.classes and number >= 0 else ""))


def read_header(file: Path) -> tuple[dict[str, dict], int]:
    """Read a safetensors header; return it and the offset of the data. Raises UserError if the file is truncated."""
    with file.open("rb") as stream:
        size, file_size = int.from_bytes(stream.read(8), "little"), file.stat().st_size
        header = json.loads(stream.read(size)) if 8 + size <= file_size else {}
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if not ends or 8 + size + max(ends) > file_size:
        raise UserError(f"{file} is truncated: remove it and repeat the command")
    return header, 8 + size


def map_arrays(file: Path, mode: Literal["c", "r+"]) -> dict[str, np.memmap]:
    """Memory-map every tensor of a safetensors file; mode "c" never writes to the file."""
    header, start = read_header(file)
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            offset, shape = start + entry["data_offsets"][0], tuple(entry["shape"])
            arrays[name] = np.memmap(file, NUMPY_DTYPES[entry["dtype"]], mode, offset=offset, shape=shape)
    return arrays


def open_features(folder: Path, about: dict[str, str]) -> Features:
    """Memory-map stored features. Raises UserError if their metadata differ from `about` or the file is truncated."""
    check_same_metadata(read_header(folder / FEATURES_FILE)[0]["__metadata__"], about, folder)
    tensors = {name: torch.from_numpy(array) for name, array in map_arrays(folder / FEATURES_FILE, "c").items()}
    label = tensors.pop("label").clone()
    return Features(tensors, label)
