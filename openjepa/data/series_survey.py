"""Look at some files of signals, and choose the length of a crop and of a token for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from openjepa.core.errors import UserError
from openjepa.data.series_csv import read_table
from openjepa.data.series_recordings import load_array

SURVEYED = 16  # files, evenly spaced among all

MIN_SEGMENTS = 16  # that the recordings should give, or crops are shortened

MIN_TOKENS = 8  # of a crop, if signals are short

DAYS = 14  # of a crop, if a day is a token

ROWS_PER_DAY = (4, 48)  # of recordings whose token is a day: from every six hours to every half an hour


class FileSurvey(NamedTuple):
    """What one file holds."""

    channels: int
    count: int  # recordings, or signals of an array
    samples: int  # of each
    rows_per_day: int = 0  # 0: unknown, or no whole number


class Survey(NamedTuple):
    """What the files of a data set hold."""

    channels: int
    count: int  # recordings or signals in all files, estimated from those that were looked at
    samples: int  # nine of ten recordings are at least that long
    rows_per_day: int
    of_signals: bool  # arrays (signals, channels, samples), each signal a sample

    def describe(self) -> str:
        kind = ("signal" if self.of_signals else "recording") + "s" * (self.count > 1)
        channels = "channel" + "s" * (self.channels > 1)
        return f"{self.count:,} {kind} of {self.channels} {channels} and {self.samples:,} time steps"


def survey_files(paths: Sequence[str], columns: tuple[str, ...]) -> Survey:
    """Look at up to `SURVEYED` files. Raises UserError without files, or if one cannot be read."""
    if not paths:
        raise UserError("--data.root has no .npy and no .csv files: give the folder of the signals")
    rows = np.linspace(0, len(paths) - 1, min(SURVEYED, len(paths))).astype(int)
    files = [survey_file(str(paths[row]), columns) for row in rows.tolist()]
    samples = int(np.percentile([each.samples for each in files], 10, method="lower"))
    count = sum(each.count for each in files) * len(paths) // len(files)
    of_signals = paths[0].lower().endswith(".npy") and load_array(paths[0]).ndim == 3
    return Survey(files[0].channels, count, samples, files[0].rows_per_day, of_signals)


def survey_file(path: str, columns: tuple[str, ...]) -> FileSurvey:
    """Return what a file holds."""
    if path.lower().endswith(".csv"):
        table = read_table(path, columns)
        return FileSurvey(len(table.names), 1, table.values.shape[1], rows_per_day(table.times))
    shape = load_array(path).shape
    count, channels, samples = ((1,) * (3 - len(shape)) + shape)[-3:]
    return FileSurvey(channels, count, samples)


def rows_per_day(times: np.ndarray | None) -> int:
    """Return how many rows a day has, or 0 if that is unknown or no whole number."""
    if times is None or len(times) < 2:
        return 0
    step = int(np.median(np.diff(times)) / np.timedelta64(1, "s"))
    return 86_400 // step if step > 0 and 86_400 % step == 0 else 0


def choose_lengths(survey: Survey, length: int, window: int) -> tuple[int, int]:
    """Return the length of a crop and of a token, starting from those of the settings.

    A day is a token where rows are hours or the like. Crops fit into the signals and, if there are few recordings, are
    so short that these give `MIN_SEGMENTS`; short signals have at least `MIN_TOKENS` tokens.
    """
    if ROWS_PER_DAY[0] <= survey.rows_per_day <= ROWS_PER_DAY[1]:
        length, window = DAYS * survey.rows_per_day, survey.rows_per_day
    longest = (
        survey.samples if survey.of_signals else min(survey.samples, survey.count * survey.samples // MIN_SEGMENTS)
    )
    length = min(length, max(longest, 1))
    window = min(window, max(1, length // MIN_TOKENS))
    return length // window * window, window
