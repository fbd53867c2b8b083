"""Series datasets: an array in memory, or segments of recordings in files.

B batch  S samples, i.e. evaluation segments  K segments of a recording  C channels  L samples of a recording
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples, compute_fingerprint
from openjepa.data.archives import label_folder
from openjepa.data.file_labels import FileLabels, number_names
from openjepa.data.series_recordings import (
    OpenArrays,
    Recordings,
    check_lengths,
    find_clean_starts,
    open_recordings,
    warn_once,
)


@runtime_checkable
class SeriesViews(Protocol):
    """The part of the series modality that a dataset needs: lengths, channels and columns."""

    @property
    def length(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def stride(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def columns(self) -> tuple[str, ...]: ...


class SeriesArray:
    """Signals in memory.

    Training reads `length` samples from a random start, evaluation the first `length` samples.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, length: int, signals: np.ndarray, label: Int[Tensor, "S"], fingerprint: str, file: str = ""):
        self.length, self.signals, self.label, self.fingerprint, self.file = length, signals, label, fingerprint, file

    def __len__(self) -> int:
        return len(self.signals)

    def source(self, index: int) -> str:
        """Return the file of a signal, as FILE#NUMBER if the file has several."""
        several = f"{self.file}#{index}" if self.file else str(index)
        return several if len(self) > 1 else self.file or several

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        count = torch.full((len(index),), self.signals.shape[2] - self.length + 1)  # possible starts
        start = draw_starts(count, rng).tolist() if rng else [0] * len(index)
        rows = [
            self.signals[row, :, first : first + self.length] for row, first in zip(index.tolist(), start, strict=True)
        ]
        return Samples((torch.from_numpy(np.stack(rows)).float(),), self.label[index])


class Segments(NamedTuple):
    """The evaluation segments of a data set, in the order of its samples."""

    recording: Int[np.ndarray, "S"]
    start: Int[np.ndarray, "S"]  # first value of the segment in its recording
    number: Int[np.ndarray, "S"]  # of the segment in its file, counted before segments are left out


class SeriesFiles:
    """Segments of recordings in .npy or .csv files.

    Evaluation reads segments at fixed starts, one per sample. Training reads, for each sample, `length` values from a
    random start in the same recording. Segments with blank or non-finite values and recordings shorter than `length`
    are left out, with a warning; training starts at none of them either.

    Attributes:
        groups: number of each sample's group if groups are given, or of its recording: a file, or a signal of one
        classes: the given classes, or the folders that the files are in if these are several; else nothing is labeled
        label: each sample's index into `classes`, or -1
    """

    def __init__(
        self,
        config: SeriesViews,
        paths: list[str],
        fingerprint: str | Callable[[], str],
        labels: FileLabels | None = None,
    ):
        self.known_fingerprint, self.file_labels = fingerprint, labels
        self.config, self.files, self.open_arrays = config, paths, OpenArrays(config.channels)
        self.recordings = [open_recordings(path, config.channels, config.columns) for path in paths]
        check_lengths(paths, self.recordings, config.length, config.window)
        counts = [each.count for each in self.recordings]
        self.file = np.repeat(np.arange(len(paths)), counts)  # of each recording
        self.signal = np.concatenate([np.arange(count) for count in counts])  # number of each recording in its file
        self.clean_starts = find_clean_starts(self.recordings, config.length)
        self.start_count = torch.from_numpy(np.repeat([each.samples for each in self.recordings], counts))
        self.start_count -= config.length - 1
        for recording, starts in self.clean_starts.items():
            self.start_count[recording] = len(starts)
        self.segments = self.list_segments()
        self.recording = torch.from_numpy(self.segments.recording)  # of each sample
        groups = labels.groups if labels else None
        self.groups = self.recording if groups is None else groups[torch.from_numpy(self.file)[self.recording]]
        self.classes, self.label = self.sample_labels()

    def __len__(self) -> int:
        return len(self.recording)

    @property
    def times(self) -> Shaped[np.ndarray, "S"]:
        """Return the time of each sample's first value: datetime64, or its number where a file has no dates."""
        dates = [each.times for each in self.recordings]
        if any(each is None for each in dates):
            return self.segments.start
        files = self.file[self.segments.recording]
        return np.array([dates[file][start] for file, start in zip(files, self.segments.start, strict=True)])  # type: ignore[index]

    def source(self, index: int) -> str:
        """Return the file of a sample, as FILE#NUMBER with the segment's number if the file has several."""
        file = int(self.file[self.segments.recording[index]])
        several = self.recordings[file].count * len(self.segment_starts(self.recordings[file])) > 1
        return f"{self.files[file]}#{self.segments.number[index]}" if several else self.files[file]

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Read each sample's segment, or with `rng` one from a random start in the same recording."""
        recordings = self.recording[index]
        starts = self.random_starts(recordings, rng) if rng else self.segments.start[index.numpy()].tolist()
        views = [
            self.values(recording)[:, start : start + self.config.length]
            for recording, start in zip(recordings.tolist(), starts, strict=True)
        ]
        return Samples((torch.from_numpy(np.stack(views)).float(),), self.label[index])

    def values(self, recording: int) -> Shaped[np.ndarray, "C L"]:
        """Return all values of a recording, from memory or from a memory map."""
        file = int(self.file[recording])
        values = self.recordings[file].values
        return self.open_arrays[self.files[file]][self.signal[recording]] if values is None else values

    def random_starts(self, recordings: Int[Tensor, "B"], rng: CounterRNG) -> list[int]:
        """Draw a start in each recording, such that the segment holds no blank value."""
        choices = draw_starts(self.start_count[recordings], rng).tolist()
        return [
            int(self.clean_starts[recording][number]) if recording in self.clean_starts else number
            for recording, number in zip(recordings.tolist(), choices, strict=True)
        ]

    def segment_starts(self, recordings: Recordings) -> Int[np.ndarray, "K"]:
        """Return the starts of evaluation segments in each recording of a file."""
        last = recordings.samples - self.config.length
        if recordings.is_array and not self.config.stride:
            last = min(last, 0)  # the signals of an array are samples already: one segment each
        return np.arange(0, last + 1, self.config.stride or self.config.length)

    def list_segments(self) -> Segments:
        """List the segments without blank values; warn about the others. Raises UserError if no segment is clean."""
        parts, first = [], 0
        for each in self.recordings:
            starts = self.segment_starts(each)
            recording = np.repeat(np.arange(first, first + each.count), len(starts))
            parts.append(Segments(recording, np.tile(starts, each.count), np.arange(len(recording))))
            first += each.count
        segments = Segments(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        clean = self.find_clean(segments)
        if not clean.any():
            raise UserError(
                f"all {len(clean)} segments of {self.config.length} samples hold blank or non-finite values: "
                "fill the gaps, try a shorter --data.length, or choose complete columns with --data.columns"
            )
        if left_out := int((~clean).sum()):
            file = self.files[self.file[segments.recording[(~clean).argmax()]]]
            warn_once(
                f"{left_out} of {len(clean)} segments are left out: they hold blank or non-finite values "
                f"(first in {file})"
            )
        return Segments(*(column[clean] for column in segments))

    def find_clean(self, segments: Segments) -> Bool[np.ndarray, "S"]:
        """Return which segments hold no blank value."""
        clean = np.ones(len(segments.start), bool)
        for recording, starts in self.clean_starts.items():
            own = slice(*np.searchsorted(segments.recording, [recording, recording + 1]))
            clean[own] = np.isin(segments.start[own], starts)
        return clean

    def sample_labels(self) -> tuple[tuple[str, ...], Int[Tensor, "S"]]:
        """Return the sorted names of the classes, or of the files' folders, and each sample's index into them."""
        own = self.file_labels.names if self.file_labels else ()
        classes, by_file = number_names(own or [label_folder(path) for path in self.files])
        if len(classes) == 1 and not own:
            return (), torch.full((len(self),), -1)
        return classes, by_file[torch.from_numpy(self.file)[self.recording]]

    @cached_property
    def fingerprint(self) -> str:
        """Return the fingerprint of the files, and of how they are cut if that changes the samples."""
        files = compute_fingerprint(self.known_fingerprint)
        if not self.config.stride and all(each.is_array for each in self.recordings):
            return files
        cut = (files, self.config.length, self.config.stride, self.config.columns)
        return hashlib.sha256(repr(cut).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def draw_starts(count: Int[Tensor, "B"], rng: CounterRNG) -> Int[Tensor, "B"]:
    """Draw one of the possible starts for each sample of a batch."""
    return (rng.uniform("stretch") * count).long().clamp(max=count - 1)


def hour_labels(times: Shaped[np.ndarray, "S"]) -> Int[Tensor, "S"]:
    """Return the hour of the day, 0 to 23, of each time. Raises UserError if these are no dates.

    Segments whose stride is a multiple of 24 hours all start at the same hour: choose another stride, such as 5.
    """
    if times.dtype.kind != "M":
        raise UserError(
            "the recordings have no dates, so hours of the day are unknown: give .csv files with a column of dates "
            "such as 2016-07-01 13:00:00"
        )
    return torch.from_numpy((times.astype("datetime64[h]").astype(np.int64) % 24).copy())
