"""Search among videos: re-encoded copies of clips, and a second of a file of three minutes.

    python benchmarks/video_search.py RUN --clips FOLDER

RUN is a run on video; FOLDER has video files. Measured for the run's encoder, for the same encoder before training, and
for raw pixels, each with the comparison of `jepa search`: whitened where there are more rows than dimensions.

* copies: every file is encoded again with another codec, quality and size, and without a tenth of its frames. Is the
  nearest of all files its original?
* duplicates: the groups of `jepa duplicates` among the files and their copies.
* moments: rendered clips and files in turn, joined to three minutes, with a row for every second or half second. 100
  queries of a second, from any time, encoded again. Is the nearest row within a second?
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.data.clips import parse_clip_name
from openjepa.data.synthetic.moving_scenes import render_clips
from openjepa.data.video_baselines import raw_pixels
from openjepa.data.video_files import VideoFiles
from openjepa.data.video_io import open_frames
from openjepa.evaluation.duplicates import Pairs, group_pairs, unique_pairs
from openjepa.evaluation.nearest import ExactSearch
from openjepa.evaluation.whitening import Whitening
from openjepa.interop.pretrained import load_run, untrained_encoder
from openjepa.modalities.video import Video

Encode = Callable[[torch.Tensor], torch.Tensor]

RATE = 12  # frames per second of the files that are written

SIDE = 128  # pixels of the file of three minutes

MINUTES, QUERIES = 3, 100

VARIANTS = (  # codec, options, height and width
    ("libx264", {"crf": "35"}, (96, 96)),
    ("mpeg4", {"qscale": "9", "flags": "+qscale", "global_quality": "1062"}, (112, 112)),
    ("libx264", {"crf": "30"}, (160, 160)),
)

THRESHOLD = 0.85  # of jepa duplicates


def write_video(frames: np.ndarray, file: Path, variant: int) -> None:
    """Encode frames (F, H, W, 3) with a codec, a quality and a size."""
    codec, options, (height, width) = VARIANTS[variant % len(VARIANTS)]
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for frame in frames:
            small = np.asarray(Pillow.fromarray(frame).resize((width, height)))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(small, format="rgb24")))
        container.mux(stream.encode())


def read_video(file: Path) -> np.ndarray:
    """Decode all frames of a file."""
    with open_frames(str(file), 3) as frames:
        return np.ascontiguousarray(frames.read(list(range(len(frames.times)))))


def features_of(encode: Encode, data: Video, files: list[Path]) -> tuple[np.ndarray, list[str]]:
    """Return features of the evaluation clips of files, and the names of the clips."""
    samples, rows = VideoFiles(data, [str(file) for file in files], "benchmark"), []
    for index in torch.arange(len(samples)).split(16):
        read = samples.read(index, None)
        assert not read.skipped, read.skipped
        rows.append(encode(read.views[0]))
    return torch.cat(rows).numpy(), [samples.source(row) for row in range(len(samples))]


def nearest(index: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the nearest row to each query, as `jepa search` compares."""
    whitening = Whitening.partial(index)
    if whitening:
        index, queries = whitening.map(index), whitening.map(queries)
    return ExactSearch(index).find(queries, 1).rows[:, 0]


def copy_files(files: list[Path], folder: Path) -> list[Path]:
    """Encode every file again, without the first or the last tenth of its frames."""
    copies = []
    for number, file in enumerate(files):
        frames = read_video(file)
        cut = len(frames) // 10
        copies.append(folder / f"copy-{file.stem}.mp4")
        write_video(frames[cut:] if number % 2 else frames[: len(frames) - cut], copies[-1], number)
    return copies


def count_duplicates(features: np.ndarray, count: int) -> dict[str, int]:
    """Group `count` files and as many copies; count the pairs of both in a group, and other pairs in a group."""
    power = 1.0 if len(features) >= 2 * features.shape[1] else 0.5
    x = Whitening.of(features, power).map(features)
    pairs: Pairs = unique_pairs(np.arange(len(x)), ExactSearch(x).find(x, 33))
    together = [pair for group in group_pairs(pairs, THRESHOLD) for pair in itertools.combinations(sorted(group), 2)]
    right = sum(one + count == other for one, other in together)
    return {"copies in a group with their original": right, "other pairs": len(together) - right}


def join_file(files: list[Path], file: Path, seed: int) -> np.ndarray:
    """Write a file of MINUTES of rendered clips and files in turn; return its frames."""
    total, parts = MINUTES * 60 * RATE, []
    rendered = render_clips(total // 48, 24, SIDE, seed).clips.permute(0, 1, 3, 4, 2).numpy()
    for clip, source in zip(itertools.cycle(rendered), itertools.cycle(files), strict=False):
        frames = [np.asarray(Pillow.fromarray(each).resize((SIDE, SIDE))) for each in read_video(source)[: 2 * RATE]]
        parts += [clip, np.stack(frames)]
        if sum(map(len, parts)) >= total:
            break
    frames = np.concatenate(parts)[:total]
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"crf": "23"})
        stream.height = stream.width = SIDE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return frames


def moments(
    encoders: dict[str, Encode], data: Video, files: list[Path], folder: Path, seed: int
) -> dict[str, dict[str, int]]:
    """Return how many of QUERIES seconds are within a second of the nearest row, by encoder and distance of rows."""
    joined = folder / "joined.mp4"
    frames = join_file(files, joined, seed)
    starts = np.random.default_rng(seed).integers(0, len(frames) - RATE, QUERIES)
    queries = []
    for number, start in enumerate(starts):
        queries.append(folder / f"query-{number}.mp4")
        write_video(frames[start : start + RATE], queries[-1], number)
    result: dict[str, dict[str, int]] = {}
    for name, encode in encoders.items():
        asked, _ = features_of(encode, data, queries)
        result[name] = {}
        for every in (1.0, 0.5):
            rows, names = features_of(encode, dataclasses.replace(data, every=every), [joined])
            times = np.array([parse_clip_name(each)[1] for each in names], np.float64)
            right = np.abs(times[nearest(rows, asked)] - starts / RATE) <= 1
            result[name][f"of {QUERIES} moments, a row every {every:g} s"] = int(right.sum())
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--clips", type=Path, required=True, help="folder of video files")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start, encoder = time.perf_counter(), load_run(arguments.run)
    untrained = untrained_encoder(encoder.config)
    data = dataclasses.replace(encoder.data, root=(), every=0.0)
    encoders: dict[str, Encode] = {
        "encoder": encoder.pooled, "before training": untrained.pooled, "raw pixels": raw_pixels
    }  # fmt: skip
    files = sorted(each for each in arguments.clips.rglob("*") if each.suffix in data.suffixes)
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {"files": len(files)}
        copies = copy_files(files, Path(folder))
        for name, encode in encoders.items():
            (originals, _), (again, _) = (features_of(encode, data, each) for each in (files, copies))
            right = int((nearest(originals, again) == np.arange(len(files))).sum())
            result[name] = {"copies": right, **count_duplicates(np.concatenate([originals, again]), len(files))}
        # a clip that lasts a second: a query of a second has no more frames
        second = dataclasses.replace(data, fps=data.frames / 1.0)
        for name, right in moments(encoders, second, files, Path(folder), arguments.seed).items():
            result[name] |= right
    print(json.dumps({**result, "seconds": round(time.perf_counter() - start)}, indent=1))


if __name__ == "__main__":
    main()
