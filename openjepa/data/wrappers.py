"""Datasets that wrap another dataset: threaded reading, a subset, renumbered labels."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor

import torch

from openjepa.core.cpus import available_cores
from openjepa.core.protocols import Dataset
from openjepa.core.types import Samples


class ThreadedDataset:
    """A dataset of files, read by as many threads as there are cores: decoders let each other run."""

    PIECE = 16  # samples a thread takes at once

    def __init__(self, own: Dataset):
        self.own, self.classes, self.fingerprint = own, own.classes, own.fingerprint
        self.pool = ThreadPoolExecutor(available_cores())

    def __len__(self) -> int:
        return len(self.own)

    def source(self, index: int) -> str:
        return self.own.source(index)

    def read(self, index, draws):
        pieces = torch.arange(len(index)).split(self.PIECE)
        asked = [(index[rows], draws.select(rows.numpy()) if draws else None) for rows in pieces]
        read = list(self.pool.map(lambda each: self.own.read(*each), asked))
        views = tuple(torch.cat(each) for each in zip(*(part.views for part in read), strict=True))
        return Samples(
            views, torch.cat([part.label for part in read]), tuple(bad for part in read for bad in part.skipped)
        )


class Subset:
    """Some samples of a dataset."""

    def __init__(self, whole: Dataset, index: torch.Tensor):
        self.whole, self.index, self.classes = whole, index, whole.classes
        self.fingerprint = f"{whole.fingerprint}-{zlib.crc32(index.numpy().tobytes()):08x}"

    def __len__(self) -> int:
        return len(self.index)

    def source(self, index: int) -> str:
        return self.whole.source(int(self.index[index]))

    def read(self, index, draws):
        return self.whole.read(self.index[index], draws)


class Relabeled:
    """A dataset whose labels are numbered as another's, by name."""

    def __init__(self, own: Dataset, classes: tuple[str, ...]):
        self.own, self.classes = own, classes
        self.fingerprint = f"{own.fingerprint}-{zlib.crc32(repr(classes).encode()):08x}"
        self.number = torch.tensor([*(classes.index(name) for name in own.classes), -1])

    def __len__(self) -> int:
        return len(self.own)

    def source(self, index: int) -> str:
        return self.own.source(index)

    def read(self, index, draws):
        read = self.own.read(index, draws)
        return read._replace(label=self.number[read.label])
