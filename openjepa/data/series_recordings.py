"""Recordings in .npy and .csv files, checked and opened.   R recordings  C channels  L samples"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from threading import Lock
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from openjepa.core.console import warn
from openjepa.core.distributed import is_main
from openjepa.core.errors import UserError
from openjepa.data.series_csv import Table, read_table

MAX_OPEN = 256  # memory maps at a time; each uses one of the process's file handles

OPENING = Lock()  # held while a file is opened

CHUNK_VALUES = 2**24  # values that are searched for gaps at a time


class Recordings(NamedTuple):
    """The recordings of one file: one, or the signals of an array (signals, channels, samples)."""

    count: int
    samples: int  # of each recording
    is_array: bool  # an array of signals, each of them one sample of the data set unless a stride is given
    blank: dict[int, Int[np.ndarray, "_"]]  # recording -> samples where a channel is blank or not finite
    values: Float[np.ndarray, "C L"] | None = None  # of a CSV file; arrays stay in their file
    times: Shaped[np.ndarray, "L"] | None = None  # datetime64


def open_recordings(path: str, channels: int, columns: tuple[str, ...]) -> Recordings:
    """Read a file's shape and find its gaps. Raises UserError if it does not have these channels."""
    if path.lower().endswith(".csv"):
        table = read_table(path, columns)
        check_columns(path, table, channels)
        return Recordings(1, table.values.shape[1], False, find_blank(table.values[None]), table.values, table.times)
    if columns:
        raise UserError(f"{path} has no named columns: leave --data.columns out, it is for .csv files")
    stored = load_array(path)
    signals = as_signals(stored, path, channels)
    return Recordings(len(signals), signals.shape[2], stored.ndim == 3, find_blank(signals))


def check_columns(path: str, table: Table, channels: int) -> None:
    """Raise UserError unless the file has as many columns of numbers as there are channels."""
    if len(table.names) == channels:
        return
    names = ", ".join(table.names)
    advice = f"type --data.channels {len(table.names)}"
    if len(table.names) > channels:
        advice += f", or choose with --data.columns {' '.join(table.names[:channels])}"
    raise UserError(f"{path} has {len(table.names)} columns of numbers ({names}), not {channels}: {advice}")


def load_array(path: str) -> np.ndarray:
    """Memory-map an .npy file of numbers. Raises UserError if it is something else."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is not an .npy file of numbers ({error}): write it with numpy.save") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        kind = getattr(array, "dtype", "an archive")
        raise UserError(f"{path} must hold integers or floating-point numbers, got {kind}: convert it with astype")
    return array


def as_signals(array: np.ndarray, path: str, channels: int) -> Shaped[np.ndarray, "R C L"]:
    """View an array as signals. Raises UserError if it does not have these channels."""
    if array.ndim not in (1, 2, 3):
        raise UserError(
            f"{path} has shape {array.shape}: "
            "it must be (samples,), (channels, samples) or (signals, channels, samples)"
        )
    signals = array.reshape((1,) * (3 - array.ndim) + array.shape)
    if signals.shape[1] != channels:
        advice = f"type --data.channels {signals.shape[1]}"
        if signals.shape[2] == channels:
            advice = "swap its last two axes"
        elif array.ndim == 2 and channels == 1:
            advice += f", or save signals of one channel as {(len(array), 1, array.shape[1])}"
        raise UserError(
            f"{path} has shape {array.shape}, so {signals.shape[1]} channels, but --data.channels is {channels}: "
            f"{advice}"
        )
    return signals


def find_blank(signals: Shaped[np.ndarray, "R C L"]) -> dict[int, Int[np.ndarray, "_"]]:
    """Return the samples of each recording where a channel is not finite; recordings without any are left out.

    Reads all values once: a second or so per GB.
    """
    if signals.dtype.kind != "f" or not signals.size:
        return {}
    rows = max(1, CHUNK_VALUES // (signals.shape[1] * signals.shape[2]))
    blank = {}
    for first in range(0, len(signals), rows):
        part = signals[first : first + rows]
        if not np.isfinite(part).all():
            finite: Bool[np.ndarray, "R L"] = np.all(np.isfinite(part), axis=1)
            gaps = np.flatnonzero(~np.all(finite, axis=1)).tolist()
            blank.update({first + row: np.flatnonzero(~finite[row]) for row in gaps})
    return blank


def clean_starts(blank: Int[np.ndarray, "K"], samples: int, length: int) -> Int[np.ndarray, "S"]:
    """Return where segments of `length` samples start that hold none of the blank samples."""
    is_blank: Bool[np.ndarray, "L"] = np.zeros(samples, bool)
    is_blank[blank] = True
    before = np.concatenate([[0], is_blank.cumsum()])
    return np.flatnonzero(before[length:] == before[: max(0, samples - length + 1)])


def find_clean_starts(files: Sequence[Recordings], length: int) -> dict[int, Int[np.ndarray, "_"]]:
    """Return, for each recording of the files that has blank values, the starts of segments without any."""
    first = np.cumsum([0, *(each.count for each in files)])
    return {
        int(first[file]) + signal: clean_starts(blank, each.samples, length)
        for file, each in enumerate(files)
        for signal, blank in each.blank.items()
    }


def check_lengths(paths: Sequence[str], files: Sequence[Recordings], length: int, window: int) -> None:
    """Raise UserError if every recording is shorter than a segment; warn if some are."""
    longest = max(range(len(files)), key=lambda file: files[file].samples)
    samples = files[longest].samples
    if samples < length:
        window = min(samples, window)
        advice = f"try --data.length {samples // window * window} --data.window {window}" if window else "it is empty"
        raise UserError(
            f"the longest recording, in {paths[longest]}, has {samples} samples, fewer than --data.length {length}: "
            f"{advice}"
        )
    short = [file for file, each in enumerate(files) if each.samples < length]
    if short:
        warn_once(
            f"{len(short)} of {len(files)} files are left out: they have fewer samples than --data.length {length} "
            f"(first {paths[short[0]]}, with {files[short[0]].samples})"
        )


@cache  # a run opens its data more than once
def warn_once(message: str) -> None:
    """Warn in the main process, once for each message."""
    if is_main():
        warn(message)


class OpenArrays:
    """Memory maps of the latest files, opened when they are read; a worker process opens its own.

    Threads may read at the same time, as probes do. They open files one after another, because numpy parses the header
    of an array with `ast`, which raises SystemError in several threads of Python 3.11 at once.
    """

    def __init__(self, channels: int):
        self.channels, self.maps = channels, {}

    def __getitem__(self, path: str) -> Shaped[np.ndarray, "R C L"]:
        with OPENING:
            if path not in self.maps:
                if len(self.maps) >= MAX_OPEN:
                    self.maps.pop(next(iter(self.maps)))
                self.maps[path] = as_signals(load_array(path), path, self.channels)
            return self.maps[path]

    def __reduce__(self):
        return OpenArrays, (self.channels,)
