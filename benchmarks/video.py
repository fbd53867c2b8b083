"""Measure how many frames of 128-pixel h264 one core reads, beside what its decoder alone gives.

    python benchmarks/video.py [FILE …]

Encodes ten seconds of drifting texture at 30 frames per second with a keyframe every 12 and every 250 frames, or takes
files, and reads clips of 16 frames. Times are medians of rounds in which every way is measured once, as the machine
may be busy, in CPU seconds of one thread. `decoder`: the whole file, decoded in order and converted to RGB, in frames
of the file per second. The share is that of the decoder's time for the frames that a clip had to decode: the rest is
opening the file, seeking and filling the decoder.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.data import video_containers, video_io
from openjepa.data.video_io import INDEXES, open_frames

SECONDS, RATE, SIDE, CLIP = 10, 30, 128, 16  # CLIP: frames


def encode(file: Path, interval: int) -> None:
    """Write a clip of drifting texture with noise, about as large as a real one."""
    dice = np.random.default_rng(0)
    texture = np.kron(dice.integers(0, 256, (64, 64, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    options = {"g": str(interval), "keyint_min": str(interval), "sc_threshold": "0", "x264-params": "log-level=none"}
    with av.open(str(file), "w") as output:
        stream = output.add_stream("libx264", rate=RATE, options=options)
        stream.height = stream.width = SIDE
        stream.pix_fmt = "yuv420p"
        for number in range(SECONDS * RATE):
            picture = np.roll(texture, (3 * number, number), (0, 1))[:SIDE, :SIDE].astype(int)
            picture = (picture + dice.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def decode_whole(file: Path) -> None:
    """Decode a file from start to end into RGB."""
    converter = VideoReformatter()
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            converter.reformat(frame, format="rgb24", threads=1).to_ndarray()


def read_clip(file: Path, index: list[int], from_start: bool = False) -> None:
    """Read frames as a loader does, or without seeking."""
    split = video_containers.split_runs
    if from_start:
        video_containers.split_runs = lambda order, frames, min_skip: [(0, frames)]
    try:
        with open_frames(str(file), 3) as frames:
            frames.read(index)
    finally:
        video_containers.split_runs = split


def open_cold(file: Path) -> None:
    """Open a file that this process has not numbered yet."""
    INDEXES.values.clear()
    INDEXES.total = 0
    video_io.open_frames(str(file), 3).close()


def count_decoded(file: Path, index: list[int], from_start: bool) -> int:
    """Return how many frames come out of the decoder for a clip."""
    counted, frames_from = [], video_containers.ContainerFrames.frames_from

    def counting(self: Any, start: int, needed: set[int]) -> Iterator[tuple[int, Any]]:
        for each in frames_from(self, start, needed):
            counted.append(each[0])
            yield each

    video_containers.ContainerFrames.frames_from = counting
    try:
        read_clip(file, index, from_start)
    finally:
        video_containers.ContainerFrames.frames_from = frames_from
    return len(counted)


def measure(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Return the median CPU milliseconds of each way."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.process_time()
            for _ in range(5):
                way()
            times[name].append((time.process_time() - start) / 5)
    return {name: 1e3 * statistics.median(each) for name, each in times.items()}


def report(file: Path, rounds: int) -> None:
    """Measure every way to read a file, and print rates and shares."""
    with open_frames(str(file), 3) as frames:
        count = len(frames.times)
    step = min(4, (count - 1) // CLIP)
    first = (count - step * CLIP) // 2
    clips = {
        "16 in a row": list(range(first, first + CLIP)),
        f"every {step}th": list(range(first, first + step * CLIP, step)),
        "spread over the file": np.linspace(0, count - 1, CLIP).astype(int).tolist(),
    }
    ways: dict[str, Callable[[], None]] = {
        "decoder": partial(decode_whole, file),
        "numbering": partial(open_cold, file),
        "opening": partial(read_clip, file, [0]),
    }
    counted = {}
    for name, index in clips.items():
        for way, from_start in (("seeking", False), ("from the start", True)):
            ways[f"{name}, {way}"] = partial(read_clip, file, index, from_start)
            counted[f"{name}, {way}"] = count_decoded(file, index, from_start)
    times = measure(ways, rounds)
    rate = count / times["decoder"] * 1e3
    print(f"{file.name}: {count} frames, {file.stat().st_size // 1000} kB")
    print(f"  decoder: {rate:,.0f} frames per second; numbering a file {times['numbering']:.1f} ms")
    print(f"  opening a numbered file and reading its first frame {times['opening']:.1f} ms")
    for name, decoded in counted.items():
        share = decoded / rate * 1e3 / times[name]
        print(
            f"  {name}: {times[name]:.1f} ms, {CLIP / times[name] * 1e3:,.0f} of the clip's frames per second, ", end=""
        )
        print(f"{decoded} decoded at {share:.0%} of the decoder's rate")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not options.files:
            options.files = [Path(folder) / f"keyframe every {interval}.mp4" for interval in (12, 250)]
            for file, interval in zip(options.files, (12, 250), strict=True):
                encode(file, interval)
        for file in options.files:
            report(file, options.rounds)


if __name__ == "__main__":
    main()
