"""Files that are cut: each is a sample, or gives one for every so many seconds.   S samples  V views"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Skipped, compute_fingerprint
from openjepa.data.clips import WHOLE_FILE, Span, clip_name
from openjepa.data.file_labels import FileDataset, FileLabels
from openjepa.data.image_files import replacement_index
from openjepa.data.image_io import Undecodable


@runtime_checkable
class Cuts(Protocol):
    """The part of a modality that says how its files are cut."""

    @property
    def every(self) -> float: ...


class CutFiles(FileDataset):
    """Clips or stretches of files; a subclass says which parts a file has, and decodes them.

    Training replaces an undecodable file by one that depends only on the seed, the sample and the attempt.
    """

    decodes_files: ClassVar[bool] = True

    def __init__(
        self,
        config: Cuts,
        paths: list[str],
        fingerprint: str | Callable[[], str],
        labels: FileLabels | None = None,
    ):
        super().__init__(paths, fingerprint, labels)
        self.every = config.every
        spans = [self.find_spans(path) for path in paths] if self.every else [[WHOLE_FILE]] * len(paths)
        self.file_index = np.repeat(np.arange(len(paths)), [len(each) for each in spans])  # of each sample
        self.spans = [span for each in spans for span in each]

    def spans_of(self, path: str) -> list[Span]:
        """Return the parts of a file that are samples, each of `every` seconds. Raises Undecodable."""
        raise NotImplementedError

    def decode_sample(self, sample: int, views: list[Any]) -> Any:
        """Decode some views of a sample. Raises Undecodable."""
        raise NotImplementedError

    def blank(self, views: int) -> Any:
        """Return so many views of nothing, which stand for a sample that cannot be decoded."""
        raise NotImplementedError

    def find_spans(self, path: str) -> list[Span]:
        """Return the parts of a file; an undecodable file counts as one, which reading skips."""
        try:
            return self.spans_of(path)
        except Undecodable:
            return [WHOLE_FILE]

    @cached_property
    def computed_fingerprint(self) -> str:
        """Return the fingerprint of the files, and of how they are cut."""
        files = compute_fingerprint(self.known_fingerprint)
        return f"{files}-{self.every:g}s" if self.every else files

    @property
    def groups(self) -> Int[Tensor, "S"] | None:
        """Return each sample's group if groups are known, or its file if files have several samples."""
        groups = self.file_labels.groups if self.file_labels else None
        if groups is None and not self.every:
            return None
        files = torch.from_numpy(self.file_index)
        return files if groups is None else groups[files]

    @cached_property
    def label(self) -> Int[Tensor, "S"]:
        """Return each sample's index into `classes`."""
        return self.file_classes[1][torch.from_numpy(self.file_index)]

    def __len__(self) -> int:
        return len(self.file_index)

    def source(self, index: int) -> str:
        return clip_name(self.paths[self.file_index[index]], self.spans[index], self.every)

    def decode_or_replace(self, sample: int, views: list[Any], rng: CounterRNG | None) -> tuple[Any, list[Skipped]]:
        """Return views of a sample, or in training of the first one that can be decoded in place of it."""
        skipped: list[Skipped] = []
        while True:
            try:
                return self.decode_sample(sample, views), skipped
            except Undecodable as error:
                skipped.append(Skipped(self.source(sample), str(error)))
            if rng is None:
                return self.blank(len(views)), skipped
            sample = replacement_index(rng, len(skipped) - 1, len(self), skipped[-1])

    def labels_of(
        self, index: Int[Tensor, "B"], skipped: list[list[Skipped]], rng: CounterRNG | None
    ) -> Int[Tensor, "B"]:
        """Return the labels of a batch for evaluation; -1 in training, and where nothing could be decoded."""
        if rng is not None:
            return torch.full((len(index),), -1)
        return self.label[index].masked_fill(torch.tensor([bool(each) for each in skipped]), -1)


def evaluation_starts(count: int) -> list[float]:
    """Return where evaluation views start, from 0 to 1, evenly spaced; a single one is in the middle."""
    return [(number + 0.5) / count for number in range(count)]
