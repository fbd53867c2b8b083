"""Time series with dates, labeled with the hour of the day at which a segment starts.   S segments"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from openjepa.core.capabilities import modality_name
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples
from openjepa.data.series_files import SeriesFiles, hour_labels
from openjepa.evaluation.labeled import Baselines, Split
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.splits import time_blocks
from openjepa.interop.inputs import replace_root

STRIDE = 5  # rows from one segment to the next; coprime with 24, so that segments start at all hours


class HourSegments:
    """Segments of recordings with dates, in the order of time, labeled with the hour at which each starts.

    Attributes:
        starts, ends: times of the first and the last value of each segment
        groups: stretches of time as long as a segment: intervals resample them whole, as segments in them overlap
    """

    classes = tuple(f"{hour:02d}" for hour in range(24))

    def __init__(self, data: SeriesFiles, length: int):
        unordered, last = data.times, last_times(data, length) if data.times.dtype.kind == "M" else data.times
        labels, order = hour_labels(unordered), np.argsort(unordered, kind="stable")
        self.data, self.order = data, torch.from_numpy(order)
        self.label, self.starts, self.ends = labels[self.order], unordered[order], last[order]
        longest = (self.ends - self.starts).max()
        self.groups = torch.from_numpy(((self.starts - self.starts[0]) // longest).astype(np.int64))

    @property
    def fingerprint(self) -> str:
        return f"{self.data.fingerprint}-hours"

    def __len__(self) -> int:
        return len(self.order)

    def source(self, index: int) -> str:
        return self.data.source(int(self.order[index]))

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Read segments at their own starts, also with `rng`: a segment from another start has another hour."""
        return self.data.read(self.order[index], None)._replace(label=self.label[index])


@dataclass(frozen=True)
class Series:
    """Segments labeled with the hour of the day; each block of time is tested once, by probes of the others."""

    options: ClassVar[tuple[str, ...]] = ("hour",)
    needs_root: ClassVar[bool] = True
    baselines: ClassVar[Baselines] = {}
    option: str

    def split(self, modality: Any, labeled: LabeledData, seed: int) -> Split:
        """Cut the recordings into overlapping segments and these into blocks of time.

        Training segments that overlap a test segment in time are left out. Raises UserError for a split that cannot do
        that, for another modality, and for recordings without dates or too short.
        """
        if modality_name(modality) != "series":
            raise UserError(
                f"--data.labels series-{self.option} needs an encoder of series, got {modality_name(modality)}"
            )
        if labeled.split not in ("auto", "time-blocks"):
            raise UserError(
                f"segments of --data.labels series-{self.option} overlap: use --data.split time-blocks, "
                f"got {labeled.split}"
            )
        modality = dataclasses.replace(replace_root(modality, labeled.root, labeled.eval_crop), stride=STRIDE)
        data = HourSegments(modality.dataset(modality.listing()), modality.length)
        gap = max(labeled.gap, count_overlaps(data.starts, data.ends))
        if (len(data) - len(data) // labeled.folds) // 2 <= gap:
            raise UserError(
                f"{len(data)} segments that each overlap {gap} later ones are too few for {labeled.folds} "
                "blocks of time: give longer recordings"
            )
        folds = tuple(time_blocks(len(data), labeled.folds, gap))
        how = f"{len(folds)} blocks of time, each tested once; {gap} left out of training on each side of it"
        return Split(data, data, how, folds)


def last_times(data: SeriesFiles, length: int) -> Shaped[np.ndarray, "S"]:
    """Return the time of each segment's last value."""
    files, starts = data.file[data.segments.recording], data.segments.start
    dates = [each.times for each in data.recordings]
    return np.array([dates[file][start + length - 1] for file, start in zip(files, starts, strict=True)])  # type: ignore[index]


def count_overlaps(starts: Shaped[np.ndarray, "S"], ends: Shaped[np.ndarray, "S"]) -> int:
    """Return how many later segments a segment overlaps in time, at most; segments are in the order of their starts."""
    return int((np.searchsorted(starts, ends, side="right") - np.arange(len(starts)) - 1).max())
