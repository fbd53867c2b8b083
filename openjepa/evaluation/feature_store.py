"""Store features in one memory-mapped safetensors file; resume where it stopped."""

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

CHUNK_ROWS = 1024  # samples a chunk: what is lost at most when the work is interrupted

IGNORED_METADATA = frozenset({"run", "which"})  # of what made features; their numbers do not depend on it

FEATURES_FILE, PARTIAL_FILE, INDEX_FILE = "features.safetensors", "features.part", "index.csv"

DTYPE_NAME = {torch.float32: "F32", torch.int64: "I64"}

NUMPY_DTYPES = {"F32": np.float32, "I64": np.int64}


@dataclass(frozen=True)
class Features:
    """A row of each kind of features for each sample, and its label; may lie in a memory map."""

    kinds: dict[str, Float[Tensor, "S *F"]]
    label: Int[Tensor, "S"]  # -1: no label, or the sample could not be decoded

    def __getitem__(self, kind: str) -> Float[Tensor, "S F"]:
        """The labelled rows of one kind. Mistake if they are not finite."""
        x = self.kinds[kind]
        if (self.label < 0).any():
            x = x[self.label >= 0]
        if not all(part.isfinite().all() for part in x.split(CHUNK_ROWS)):
            raise UserError(f"the {kind} features hold numbers that are not finite: is the encoder sound?")
        return x

    @property
    def labelled(self) -> Int[Tensor, "R"]:
        """Which samples have a label."""
        return torch.where(self.label >= 0)[0]

    @property
    def y(self) -> Int[Tensor, "S"]:
        """The labels of those rows."""
        return self.label[self.label >= 0]


class FeatureChunk(NamedTuple):
    """Some samples in a row, and what is known of them."""

    first: int
    kinds: dict[str, Float[Tensor, "B *F"]]
    label: Int[Tensor, "B"]


class FeatureWriter(NamedTuple):
    """How some samples in a row become features, in two parts: the next are read while these are encoded."""

    read: Callable[[int, int], Samples]  # first and last
    encode: Callable[[int, Samples], FeatureChunk]

    def one(self, first: int, last: int) -> FeatureChunk:
        return self.encode(first, self.read(first, last))

    def chunks(self, spans: list[tuple[int, int]]) -> Iterator[FeatureChunk]:
        """One after the other."""
        with ThreadPoolExecutor(1) as pool:
            reads = deque(pool.submit(self.read, *span) for span in spans[:1])
            for place, (first, _) in enumerate(
                track(spans, "embedding", console=console, disable=not shows_progress())
            ):
                reads.extend(pool.submit(self.read, *span) for span in spans[place + 1 : place + 2])
                yield self.encode(first, reads.popleft().result())


def shows_progress() -> bool:
    """Whether anybody sees a progress bar."""
    return console.is_terminal and is_main()


def chunk_spans(count: int) -> list[tuple[int, int]]:
    """First and last of each chunk."""
    return [(first, min(first + CHUNK_ROWS, count)) for first in range(0, count, CHUNK_ROWS)]


def collect_chunks(make: FeatureWriter, count: int) -> Features:
    """All chunks, in memory."""
    chunks = list(make.chunks(chunk_spans(count)))
    kinds = {kind: torch.cat([chunk.kinds[kind] for chunk in chunks]) for kind in chunks[0].kinds}
    return Features(kinds, torch.cat([chunk.label for chunk in chunks]))


def store_features(make: FeatureWriter, count: int, about: dict[str, str], folder: Path) -> Features:
    """All chunks, in one memory-mapped file; those that are there already are not made again.

    The file grows under another name, beside a list for each rank of the chunks that are done, and is renamed when all
    are.
    """
    if (folder / FEATURES_FILE).exists():
        return open_features(folder, about)
    rank, ranks = rank_and_size()
    lists = (
        sorted(folder.glob("done-*.json")) if (folder / PARTIAL_FILE).exists() else []
    )  # of nothing, without the file
    finished = {first for file in lists for first in finished_chunks(file, about)}
    barrier()  # everyone has looked at what is done
    if is_main() and not (folder / PARTIAL_FILE).exists():
        for file in folder.glob("done-*.json"):
            file.unlink()
        create_file(folder, make.one(0, 1), count, about)
    barrier()  # the file is there

    arrays, mine = map_arrays(folder / PARTIAL_FILE, "r+"), folder / f"done-{rank}.json"
    done = finished_chunks(mine, about)
    for chunk in make.chunks([span for span in chunk_spans(count) if span[0] not in finished][rank::ranks]):
        for name, rows in {**chunk.kinds, "label": chunk.label}.items():
            arrays[name][chunk.first : chunk.first + len(rows)] = rows.numpy()
            arrays[name].flush()
        done.append(chunk.first)
        with atomic_write(mine) as temporary:
            temporary.write_text(json.dumps({**about, "chunks": done}))
    barrier()
    if is_main():
        (folder / PARTIAL_FILE).replace(folder / FEATURES_FILE)
        for file in folder.glob("done-*.json"):
            file.unlink()
    barrier()
    return open_features(folder, about)


def finished_chunks(file: Path, about: dict[str, str]) -> list[int]:
    """The chunks that a list says are done. Mistake if they are of another encoder or of other data."""
    if not file.exists():
        return []
    content = json.loads(file.read_text())
    check_same_metadata(content, about, file.parent)
    return content["chunks"]


def check_same_metadata(content: dict[str, str], about: dict[str, str], folder: Path) -> None:
    for part in sorted(about.keys() - IGNORED_METADATA):
        if content.get(part) != about[part]:
            raise UserError(f"{folder} holds features of another {part}: remove it, or give another place")


def create_file(folder: Path, sample: FeatureChunk, count: int, about: dict[str, str]) -> None:
    """An empty safetensors file of the size that it will have."""
    header: dict[str, dict] = {"__metadata__": about}
    end = 0
    for name, rows in {**sample.kinds, "label": sample.label}.items():
        shape, number = (count, *rows.shape[1:]), np.dtype(NUMPY_DTYPES[DTYPE_NAME[rows.dtype]]).itemsize
        size = number * int(np.prod(shape))
        header[name] = {"dtype": DTYPE_NAME[rows.dtype], "shape": shape, "data_offsets": (end, end + size)}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(folder / PARTIAL_FILE) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(stream.fileno(), 0, 8 + len(text) + end)  # a full disk is found here, not in the map
        stream.truncate(8 + len(text) + end)


def write_index(data: Dataset, label: Int[Tensor, "S"], file: Path) -> None:
    """A line for each row of the features: the sample's file, and its class if it has one."""
    with atomic_write(file) as temporary, temporary.open("w", newline="", errors="surrogateescape") as stream:
        lines = csv.writer(stream)
        lines.writerow(("file", "class"))
        for row, number in enumerate(label.tolist()):
            lines.writerow((data.source(row), data.classes[number] if data.classes and number >= 0 else ""))


def read_header(file: Path) -> tuple[dict[str, dict], int]:
    """What a safetensors file says of itself, and where its numbers begin. Mistake if it is cut short."""
    with file.open("rb") as stream:
        size, there = int.from_bytes(stream.read(8), "little"), file.stat().st_size
        header = json.loads(stream.read(size)) if 8 + size <= there else {}
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if not ends or 8 + size + max(ends) > there:
        raise UserError(f"{file} is cut short: remove it, and it is made again")
    return header, 8 + size


def map_arrays(file: Path, mode: Literal["c", "r+"]) -> dict[str, np.memmap]:
    """Every tensor of a safetensors file as a memory map; mode "c" never writes to the file."""
    header, start = read_header(file)
    return {
        name: np.memmap(
            file,
            NUMPY_DTYPES[entry["dtype"]],
            mode,
            offset=start + entry["data_offsets"][0],
            shape=tuple(entry["shape"]),
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def open_features(folder: Path, about: dict[str, str]) -> Features:
    """Features that were written before, memory-mapped. Mistake if they are others than `about` says, or damaged."""
    check_same_metadata(read_header(folder / FEATURES_FILE)[0]["__metadata__"], about, folder)
    tensors = {name: torch.from_numpy(array) for name, array in map_arrays(folder / FEATURES_FILE, "c").items()}
    label = tensors.pop("label").clone()
    return Features(tensors, label)
