"""Features of a dataset, in memory or on disk, made once.   S samples  B batch  F width of features"""

from __future__ import annotations

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
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
from openjepa.core.fileio import atomic_write, lock_folder
from openjepa.core.protocols import Dataset
from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.core.types import Samples
from openjepa.interop.adapters import EncoderAdapter, EncoderOutput, PooledKind
from openjepa.training.device import Device

PIXELS = 32  # larger pictures are averaged down to this side for the raw-pixel baseline

CHUNK = 1024  # samples a chunk: what is lost at most when the work is interrupted

NOTES = frozenset({"run", "which"})  # of what made features; their numbers do not depend on it

FILE, PART, INDEX = "features.safetensors", "features.part", "index.csv"

DTYPE = {torch.float32: "F32", torch.int64: "I64"}

DTYPES = {"F32": np.float32, "I64": np.int64}


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
        if not all(part.isfinite().all() for part in x.split(CHUNK)):
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


Epochs = Callable[[int], Iterator[tuple[EncoderOutput, Int[Tensor, "B"]]]]  # epoch → what is seen, and the rows


class Chunk(NamedTuple):
    """Some samples in a row, and what is known of them."""

    first: int
    kinds: dict[str, Float[Tensor, "B *F"]]
    label: Int[Tensor, "B"]


def embed(
    candidate: EncoderAdapter,
    data: Dataset,
    place: Device,
    kinds: tuple[PooledKind, ...] = ("last",),
    folder: Path | None = None,
    batch: int = 256,
) -> Features:
    """Pooled features of each sample's evaluation view: `last`, `last4`, or both (paper, appendix A.2).

    With a folder they are written there, chunk after chunk, beside an index of files and classes, and read from there
    when they are already; an interrupted call goes on where it stopped, and ranks share the chunks. Samples that cannot
    be decoded have the label -1.
    """
    make = Maker(reader(data), encoding(candidate, place, {kind: kind for kind in kinds}, batch))
    if folder is None:
        return gathered(make, len(data))
    about = {"encoder": candidate.fingerprint, "data": data.fingerprint, "precision": place.precision}
    with lock_folder(folder, "embedding") if is_main() else nullcontext():
        features = stored(make, len(data), about, folder)
        if is_main() and not (folder / INDEX).exists():
            listed(data, features.label, folder / INDEX)
    return features


class Maker(NamedTuple):
    """How some samples in a row become features, in two parts: the next are read while these are encoded."""

    read: Callable[[int, int], Samples]  # first and last
    encode: Callable[[int, Samples], Chunk]

    def one(self, first: int, last: int) -> Chunk:
        return self.encode(first, self.read(first, last))

    def chunks(self, spans: list[tuple[int, int]]) -> Iterator[Chunk]:
        """One after the other."""
        with ThreadPoolExecutor(1) as pool:
            reads = deque(pool.submit(self.read, *span) for span in spans[:1])
            for place, (first, _) in enumerate(track(spans, "embedding", console=console, disable=not shown())):
                reads.extend(pool.submit(self.read, *span) for span in spans[place + 1 : place + 2])
                yield self.encode(first, reads.popleft().result())


def shown() -> bool:
    """Whether anybody sees a progress bar."""
    return console.is_terminal and is_main()


def reader(data: Dataset) -> Callable[[int, int], Samples]:
    """Evaluation views of some samples in a row."""
    return lambda first, last: data.read(torch.arange(first, last), None)


def encoding(
    candidate: EncoderAdapter, place: Device, kinds: dict[str, str], batch: int = 256
) -> Callable[[int, Samples], Chunk]:
    """What turns views into features: of each kind asked for, under the name given for it."""
    candidate.network.to(place.device).eval()

    @torch.no_grad()
    def encode(first: int, read: Samples) -> Chunk:
        rows: dict[str, list[Tensor]] = {name: [] for name in kinds.values()}
        for view in read.views[0].split(batch):
            with place.autocast():
                seen = candidate.see(place.move(view))
            for kind, name in kinds.items():
                rows[name].append(getattr(seen, kind).cpu())
        return Chunk(first, {name: torch.cat(parts) for name, parts in rows.items()}, read.label)

    return encode


class Viewer(NamedTuple):
    """An encoder before a dataset: what it sees of samples, asked again and again."""

    candidate: EncoderAdapter
    data: Dataset
    place: Device

    def epochs(self, index: Int[Tensor, "R"], batch: int, seed: int, augment: bool, patches: bool = True) -> Epochs:
        """Epochs over some samples in an order of (seed, epoch): what is seen, and which of `index` it is.

        With `augment`, random crops keyed by (seed, epoch) too; the samples must be decodable. Without `patches`, only
        pooled features are kept, so that batches may be large.
        """

        def epoch_of(epoch: int) -> Iterator[tuple[EncoderOutput, Int[Tensor, "B"]]]:
            numbers = epoch * len(index) + np.arange(len(index))
            places = torch.from_numpy(epoch_order(seed, epoch, len(index)))
            for first, rows in zip(range(0, len(index), batch), places.split(batch), strict=True):
                draws = CounterRNG.of(seed, epoch, numbers[first : first + batch]) if augment else None
                yield self.see(index[rows], draws, patches), rows

        return epoch_of

    @torch.no_grad()
    def see(self, index: Int[Tensor, "B"], draws: CounterRNG | None = None, patches: bool = True) -> EncoderOutput:
        """Features of some samples, of evaluation views or of the crops that draws choose; 256 pass the encoder at a time."""
        parts = []
        for rows in torch.arange(len(index)).split(256):
            mine = draws.take(rows.numpy()) if draws else None
            with self.place.autocast():
                seen = self.candidate.see(self.place.move(self.data.read(index[rows], mine).views[0]))
            parts.append(seen if patches else seen._replace(patches=seen.patches[:, :0]))
        return EncoderOutput(*(torch.cat(each) for each in zip(*parts, strict=True)))


def raw(data: Dataset) -> Features:
    """The evaluation views themselves as features, pictures averaged down to 32×32: the baseline that knows nothing."""

    def encode(first: int, read: Samples) -> Chunk:
        view = read.views[0].float()
        if view.dim() == 4 and max(view.shape[2:]) > PIXELS:
            view = torch.nn.functional.adaptive_avg_pool2d(view, PIXELS)
        return Chunk(first, {"last": view.flatten(1)}, read.label)

    return gathered(Maker(reader(data), encode), len(data))


def spans(count: int) -> list[tuple[int, int]]:
    """First and last of each chunk."""
    return [(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]


def gathered(make: Maker, count: int) -> Features:
    """All chunks, in memory."""
    chunks = list(make.chunks(spans(count)))
    kinds = {kind: torch.cat([chunk.kinds[kind] for chunk in chunks]) for kind in chunks[0].kinds}
    return Features(kinds, torch.cat([chunk.label for chunk in chunks]))


def stored(make: Maker, count: int, about: dict[str, str], folder: Path) -> Features:
    """All chunks, in one memory-mapped file; those that are there already are not made again.

    The file grows under another name, beside a list for each rank of the chunks that are done, and is renamed when all
    are.
    """
    if (folder / FILE).exists():
        return opened(folder, about)
    rank, ranks = rank_and_size()
    lists = sorted(folder.glob("done-*.json")) if (folder / PART).exists() else []  # of nothing, without the file
    finished = {first for file in lists for first in marks(file, about)}
    barrier()  # everyone has looked at what is done
    if is_main() and not (folder / PART).exists():
        for file in folder.glob("done-*.json"):
            file.unlink()
        create(folder, make.one(0, 1), count, about)
    barrier()  # the file is there

    arrays, mine = arrays_of(folder / PART, "r+"), folder / f"done-{rank}.json"
    done = marks(mine, about)
    for chunk in make.chunks([span for span in spans(count) if span[0] not in finished][rank::ranks]):
        for name, rows in {**chunk.kinds, "label": chunk.label}.items():
            arrays[name][chunk.first : chunk.first + len(rows)] = rows.numpy()
            arrays[name].flush()
        done.append(chunk.first)
        with atomic_write(mine) as temporary:
            temporary.write_text(json.dumps({**about, "chunks": done}))
    barrier()
    if is_main():
        (folder / PART).replace(folder / FILE)
        for file in folder.glob("done-*.json"):
            file.unlink()
    barrier()
    return opened(folder, about)


def marks(file: Path, about: dict[str, str]) -> list[int]:
    """The chunks that a list says are done. Mistake if they are of another encoder or of other data."""
    if not file.exists():
        return []
    content = json.loads(file.read_text())
    same(content, about, file.parent)
    return content["chunks"]


def same(content: dict[str, str], about: dict[str, str], folder: Path) -> None:
    for part in sorted(about.keys() - NOTES):
        if content.get(part) != about[part]:
            raise UserError(f"{folder} holds features of another {part}: remove it, or give another place")


def create(folder: Path, sample: Chunk, count: int, about: dict[str, str]) -> None:
    """An empty safetensors file of the size that it will have."""
    header: dict[str, dict] = {"__metadata__": about}
    end = 0
    for name, rows in {**sample.kinds, "label": sample.label}.items():
        shape, number = (count, *rows.shape[1:]), np.dtype(DTYPES[DTYPE[rows.dtype]]).itemsize
        size = number * int(np.prod(shape))
        header[name] = {"dtype": DTYPE[rows.dtype], "shape": shape, "data_offsets": (end, end + size)}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_write(folder / PART) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(stream.fileno(), 0, 8 + len(text) + end)  # a full disk is found here, not in the map
        stream.truncate(8 + len(text) + end)


def listed(data: Dataset, label: Int[Tensor, "S"], file: Path) -> None:
    """A line for each row of the features: the sample's file, and its class if it has one."""
    with atomic_write(file) as temporary, temporary.open("w", newline="", errors="surrogateescape") as stream:
        lines = csv.writer(stream)
        lines.writerow(("file", "class"))
        for row, number in enumerate(label.tolist()):
            lines.writerow((data.source(row), data.classes[number] if data.classes and number >= 0 else ""))


def header_of(file: Path) -> tuple[dict[str, dict], int]:
    """What a safetensors file says of itself, and where its numbers begin. Mistake if it is cut short."""
    with file.open("rb") as stream:
        size, there = int.from_bytes(stream.read(8), "little"), file.stat().st_size
        header = json.loads(stream.read(size)) if 8 + size <= there else {}
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if not ends or 8 + size + max(ends) > there:
        raise UserError(f"{file} is cut short: remove it, and it is made again")
    return header, 8 + size


def arrays_of(file: Path, mode: Literal["c", "r+"]) -> dict[str, np.memmap]:
    """Every tensor of a safetensors file as a memory map; mode "c" never writes to the file."""
    header, start = header_of(file)
    return {
        name: np.memmap(
            file, DTYPES[entry["dtype"]], mode, offset=start + entry["data_offsets"][0], shape=tuple(entry["shape"])
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def opened(folder: Path, about: dict[str, str]) -> Features:
    """Features that were written before, memory-mapped. Mistake if they are others than `about` says, or damaged."""
    same(header_of(folder / FILE)[0]["__metadata__"], about, folder)
    tensors = {name: torch.from_numpy(array) for name, array in arrays_of(folder / FILE, "c").items()}
    label = tensors.pop("label").clone()
    return Features(tensors, label)
