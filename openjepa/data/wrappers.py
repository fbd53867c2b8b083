"""Wrap a dataset: read it with threads, take a subset, renumber its labels."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.cpus import available_cores
from openjepa.core.protocols import Dataset
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples


class ThreadedDataset:
    """A dataset of files read by as many threads as there are cores. Image decoders release the GIL."""

    PIECE = 16  # samples per task of a thread

    def __init__(self, dataset: Dataset):
        self.dataset, self.classes = dataset, dataset.classes
        self.pool = ThreadPoolExecutor(available_cores())

    @property
    def fingerprint(self) -> str:
        return self.dataset.fingerprint

    def __len__(self) -> int:
        return len(self.dataset)

    def source(self, index: int) -> str:
        return self.dataset.source(index)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        pieces = torch.arange(len(index)).split(self.PIECE)
        tasks = [(index[rows], rng.select(rows.numpy()) if rng else None) for rows in pieces]
        parts = list(self.pool.map(lambda task: self.dataset.read(*task), tasks))
        views = tuple(torch.cat(each) for each in zip(*(part.views for part in parts), strict=True))
        skipped = tuple(bad for part in parts for bad in part.skipped)
        return Samples(views, torch.cat([part.label for part in parts]), skipped)


class Subset:
    """The samples of a dataset at some indices."""

    def __init__(self, dataset: Dataset, index: Int[Tensor, "S"]):
        self.dataset, self.index, self.classes = dataset, index, dataset.classes

    @property
    def fingerprint(self) -> str:
        return f"{self.dataset.fingerprint}-{zlib.crc32(self.index.numpy().tobytes()):08x}"

    def __len__(self) -> int:
        return len(self.index)

    def source(self, index: int) -> str:
        return self.dataset.source(int(self.index[index]))

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        return self.dataset.read(self.index[index], rng)


class Relabeled:
    """A dataset whose labels are renumbered, by class name, to match the classes of another dataset."""

    def __init__(self, dataset: Dataset, classes: tuple[str, ...]):
        self.dataset, self.classes = dataset, classes
        self.new_label = torch.tensor([*(classes.index(name) for name in dataset.classes), -1])

    @property
    def fingerprint(self) -> str:
        return f"{self.dataset.fingerprint}-{zlib.crc32(repr(self.classes).encode('utf-8', 'surrogateescape')):08x}"

    def __len__(self) -> int:
        return len(self.dataset)

    def source(self, index: int) -> str:
        return self.dataset.source(index)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        samples = self.dataset.read(index, rng)
        return samples._replace(label=self.new_label[samples.label])
