"""Measure how many recordings one core reads and turns into spectrograms, beside what a training step needs.

    python benchmarks/audio.py

Writes recordings of three seconds as wav, FLAC, MP3 and Ogg Vorbis, at the rate of the run (16 kHz) and at 44.1 kHz,
and reads random stretches of them as the loader does: decode, resample, cut. `log-mel` is what the step itself does
with them. The need is that of a step of `audio-small` with one thread: how many samples it takes in a second. All in
one thread, each way in turn, medians of rounds.
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.core.rng import CounterRNG
from openjepa.core.tables import print_table
from openjepa.modalities.audio import Audio
from openjepa.recipes.audio import audio_small
from openjepa.training.budget import time_step
from openjepa.training.device import choose_device
from openjepa.training.perf.allocator import retain_freed_memory
from openjepa.training.setup import prepare_data

SECONDS, FILES, BATCH = 3, 64, 64

FORMATS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "mp3": ("MP3", "MPEG_LAYER_III"),
           "ogg": ("OGG", "VORBIS")}  # fmt: skip


def write_recordings(folder: Path, suffix: str, rate: int) -> None:
    """Write gliding tones in noise."""
    folder.mkdir(parents=True)
    dice, time_axis = np.random.default_rng(0), np.arange(SECONDS * rate) / rate
    kind, subtype = FORMATS[suffix]
    for number in range(FILES):
        start, slope = dice.uniform(100, 2000), dice.uniform(-200, 200)
        tone = 0.3 * np.sin(2 * np.pi * (start + slope * time_axis) * time_axis) + dice.normal(0, 0.02, len(time_axis))
        soundfile.write(folder / f"{number}.{suffix}", tone, rate, format=kind, subtype=subtype)


def reader(folder: Path, data: Audio) -> Callable[[], None]:
    """Return a function that reads a batch of training stretches."""
    data = dataclasses.replace(data, root=(str(folder),))
    dataset, rows = data.dataset(data.listing()), np.arange(BATCH)
    return lambda: dataset.read(torch.from_numpy(rows), CounterRNG.of(0, 0, rows)) and None


def measure(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    retain_freed_memory()  # as `jepa` does
    torch.set_num_threads(1)
    device = choose_device("cpu")
    with tempfile.TemporaryDirectory() as name:
        folder, ways = Path(name), {}
        settings = audio_small()
        for rate in (settings.data.rate, 44_100):
            for suffix in FORMATS:
                write_recordings(folder / f"{suffix} {rate}", suffix, rate)
                ways[f"{suffix}, {rate:,} Hz"] = reader(folder / f"{suffix} {rate}", settings.data)
        data = dataclasses.replace(settings.data, root=(str(folder / f"wav {settings.data.rate}"),))
        settings = dataclasses.replace(settings, data=data, batch_size=BATCH, threads=1, workers=0)
        dataset, settings = prepare_data(settings, device, data.listing(), folder)
        view = dataset.read(torch.arange(BATCH), None).views[0]
        ways["log-mel"] = partial(settings.data.tokens, view)
        step = time_step(settings, dataset, device, count=16)
        times = measure(ways, options.rounds)
    need, mel = BATCH / step.compute_seconds, times.pop("log-mel")
    rows = [
        (name, f"{BATCH / each:,.0f}", f"{BATCH / (each + mel):,.0f}", f"{BATCH / (each + mel) / need:.1f}")
        for name, each in times.items()
    ]
    header = ("recordings of three seconds", "read a second", "read and log-mel", "× the step's need")
    print_table(header, rows, f"audio-small takes {need:,.0f} samples a second (batch {BATCH}, one thread)")


if __name__ == "__main__":
    main()
