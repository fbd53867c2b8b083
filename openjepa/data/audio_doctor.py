"""Inspect recordings for what causes problems in training.   C channels  S samples"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32

from openjepa.core.cpus import available_cores
from openjepa.core.errors import UserError
from openjepa.core.processes import map_in_processes
from openjepa.data.archives import parse_address
from openjepa.data.audio_formats import FORMAT_SUFFIXES, audio_format
from openjepa.data.audio_io import Sound, WavSound, file_name, find_damaged, open_sound
from openjepa.data.file_facts import Histogram
from openjepa.data.image_formats import SNIFF_BYTES
from openjepa.data.image_io import read_bytes, retry_reading
from openjepa.data.image_opening import Undecodable
from openjepa.data.walking import path_suffix

AUDIO_FINDINGS = {  # finding -> what a training run does with such a file
    "unreadable": "stops: repair the disk or the permissions, or remove the file",
    "undecodable": "skips the file, trains on another one instead and lists it in skipped.jsonl",
    "truncated": "trains on the samples before the damage: copy or download the file again",
    "silent": "trains on it, although silence teaches nothing",
    "clipped": "trains on it, although the distortion is part of the sound",
    "offset": "trains on it; the lowest mel band starts above 0 Hz",
    "not finite": "takes silence for values that are not finite, or above a million times full scale",
    "very short": "puts it into silence",
    "another rate": "resamples it; without soxr, stops",
    "several channels": "takes their mean; --data.channels 2 keeps two",
    "wrong ending": "reads it by its content",
    "duplicate": "trains on every copy; check for leakage between training and test set",
}

BLOCK = 2**20  # samples that are read at once

SILENT = 1e-4  # largest value, of a full scale of 1: -80 dB

FULL_SCALE = 0.999  # values above count as clipped where several follow each other

CLIPPED_RUN, CLIPPED_RUNS = 3, 3  # values in a row, and how many such runs, before a recording counts as clipped

OFFSET = 0.02  # mean value, of a full scale of 1

SHORT = 0.1  # seconds

CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class AudioFacts:
    """What one recording is and has, its hash and its findings."""

    meanings: ClassVar = AUDIO_FINDINGS

    path: str
    findings: tuple[str, ...] = ()  # keys of AUDIO_FINDINGS
    reason: str = ""  # why it cannot be read, or where it is damaged
    sha256: str = ""
    dhash: int = 0  # of near duplicates, which are not looked for
    rate: int = 0  # samples per second; 0 if undecodable
    channels: int = 0
    seconds: float = 0.0
    level: float = 0.0  # root mean square in decibels, full scale 0
    codec: str = ""

    @property
    def is_usable(self) -> bool:
        return self.rate > 0

    @classmethod
    def summarize(cls, facts: Sequence[AudioFacts]) -> list[tuple[str, ...]]:
        """Return the rows of a table: smallest, median and largest of what differs, rates and formats."""
        usable = [each for each in facts if each.is_usable]
        if not usable:
            return []
        rows: list[tuple[str, ...]] = [("", "smallest", "median", "largest")]
        for name, values in (
            ("seconds", [each.seconds for each in usable]),
            ("level in dB", [each.level for each in usable]),
            ("samples per second", [each.rate for each in usable]),
            ("channels", [each.channels for each in usable]),
        ):
            ordered = sorted(values)
            rows.append((name, *(f"{ordered[at]:.4g}" for at in (0, len(ordered) // 2, -1))))
        codecs = ", ".join(f"{count:,} {name}" for name, count in Counter(each.codec for each in usable).most_common())
        return [*rows, ("formats", codecs, "", "")]

    @classmethod
    def compare(cls, facts: Sequence[AudioFacts]) -> dict[str, list[str]]:
        """Return the recordings whose rate is not that of most."""
        rates = Counter(each.rate for each in facts if each.is_usable)
        if len(rates) < 2:
            return {}
        usual, _ = rates.most_common(1)[0]
        return {"another rate": [each.path for each in facts if each.is_usable and each.rate != usual]}

    @classmethod
    def histograms(cls, facts: Sequence[AudioFacts]) -> list[Histogram]:
        """Return the lengths and the levels of usable recordings."""
        return [
            Histogram("seconds", [each.seconds for each in facts], is_log=True),
            Histogram("level, decibels below full scale", [each.level for each in facts]),
        ]


def examine_sounds(paths: list[str], workers: int) -> Iterator[AudioFacts]:
    """Decode every recording completely and yield its facts, in order; with several processes if there are many.

    A rate that differs from that of most recordings is a finding. Raises UserError if a process was killed.
    """
    count = available_cores() if workers < 0 else workers
    if count < 2 or len(paths) < 100 * count:
        facts = map(examine_sound, paths)
    else:
        facts = map_in_processes(examine_sound, paths, count, chunksize=16)
    yield from facts


def examine_sound(path: str) -> AudioFacts:
    """Decode one recording completely, with the functions that training uses."""
    try:
        digest, first = hash_file(path)
    except (OSError, UserError) as error:  # UserError: a damaged Parquet file
        return AudioFacts(path, ("unreadable",), str(error))
    except Undecodable as error:
        return AudioFacts(path, ("undecodable",), str(error))
    try:
        with open_sound(path) as sound:
            return examine_values(path, sound, digest, first)
    except Undecodable as error:
        return AudioFacts(path, ("undecodable",), str(error), digest)


def hash_file(path: str) -> tuple[str, bytes]:
    """Return the SHA-256 of a file's contents, and its first bytes."""
    if parse_address(path):
        content = read_bytes(path)
        return hashlib.sha256(content).hexdigest(), content[:SNIFF_BYTES]
    digest, first = hashlib.sha256(), b""
    with retry_reading(path, lambda: Path(path).open("rb")) as stream:
        while block := stream.read(CHUNK_BYTES):
            first = first or block[:SNIFF_BYTES]
            digest.update(block)
    return digest.hexdigest(), first


class Levels:
    """Statistics of a recording that is read in blocks."""

    def __init__(self) -> None:
        self.count, self.total, self.square, self.peak, self.runs, self.is_finite = 0, 0.0, 0.0, 0.0, 0, True

    def add(self, values: Float32[np.ndarray, "C S"]) -> None:
        """Take a block of values into account."""
        damaged = find_damaged(values)
        if damaged.any():
            self.is_finite, values = False, np.where(damaged, np.float32(0), values)
        wide = values.astype(np.float64)
        self.count += wide.size
        self.total += wide.sum()
        self.square += np.square(wide).sum()
        self.peak = max(self.peak, float(np.abs(values).max(initial=0)))
        full = np.abs(values) >= FULL_SCALE
        together = full[:, : full.shape[1] - CLIPPED_RUN + 1].copy()
        for step in range(1, CLIPPED_RUN):
            together &= full[:, step : step + together.shape[1]]
        self.runs += int((together[:, 1:] & ~together[:, :-1]).sum() + together[:, :1].sum())

    @property
    def mean(self) -> float:
        return self.total / max(1, self.count)

    @property
    def decibels(self) -> float:
        return 10 * float(np.log10(max(self.square / max(1, self.count), 1e-10)))


def examine_values(path: str, sound: Sound, digest: str, first: bytes) -> AudioFacts:
    """Decode all values and return the facts of a recording. Raises Undecodable without any."""
    levels, read, reason = Levels(), 0, ""
    while read < sound.frames:
        try:
            values = sound.read(read, min(BLOCK, sound.frames - read))
        except Undecodable as error:
            reason = str(error)
            break
        if not values.shape[1]:
            break
        levels.add(values)
        read += values.shape[1]
    if not read:
        raise Undecodable(reason or "none of its samples can be decoded")
    missing = stated_frames(sound) - read
    if missing > sound.rate // 20 and not reason:
        reason = f"its header states {stated_frames(sound) / sound.rate:.1f} seconds, it has {read / sound.rate:.1f}"
    return AudioFacts(
        path, tuple(find_problems(path, sound, levels, read, first, bool(reason))), reason, digest, rate=sound.rate,
        channels=sound.channels, seconds=read / sound.rate, level=levels.decibels, codec=sound.codec,
    )  # fmt: skip


def stated_frames(sound: Any) -> int:
    """Return the samples of each channel by the header."""
    return max(sound.form.stated, sound.frames) if isinstance(sound, WavSound) else sound.frames


def find_problems(
    path: str, sound: Sound, levels: Levels, read: int, first: bytes, is_truncated: bool
) -> Iterator[str]:
    """Yield the findings on a decoded recording."""
    if is_truncated:
        yield "truncated"
    if levels.peak < SILENT:
        yield "silent"
    if levels.runs >= CLIPPED_RUNS:
        yield "clipped"
    if abs(levels.mean) > OFFSET:
        yield "offset"
    if not levels.is_finite:
        yield "not finite"
    if read < SHORT * sound.rate:
        yield "very short"
    if sound.channels > 1:
        yield "several channels"
    endings = FORMAT_SUFFIXES.get(audio_format(first))
    if endings and path_suffix(file_name(path)) not in endings:
        yield "wrong ending"
