"""Is a foreign second in a clip the most surprising one? Splice clips of a folder, and count.

    python benchmarks/surprise.py --out runs/surprise --steps 300                   trains on rendered clips first
    python benchmarks/surprise.py --run runs/clips --clips clips/ --second 12

A second of another clip replaces a second of a clip, at a random place after the first window of context. Counted is
how often the most surprising time step has a frame of the foreign second, and how often the most surprising second
overlaps it by half. Beside the predictor: persistence of features, and differences of pixels. Chance is the share of
the time steps, or of the seconds, that would count.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.cli.pretrain import pretrain
from openjepa.core.tables import print_table
from openjepa.data.synthetic.moving_scenes import write_clips
from openjepa.data.video_io import open_frames
from openjepa.data.video_listing import list_videos
from openjepa.evaluation.forecast import Forecaster, choose_context, load_forecaster
from openjepa.evaluation.surprise import measure_surprise
from openjepa.masking.causal import Causal
from openjepa.modalities.video import Video
from openjepa.recipes.video import tune_for_video
from openjepa.training.device import choose_device

TRAINED, TESTED, FRAMES, SIDE, SECOND = 300, 60, 72, 48, 12  # rendered clips: six seconds of twelve frames


class Spliced(NamedTuple):
    """A clip with a foreign second."""

    clip: np.ndarray  # frames, height, width, channels
    first: int  # the first foreign frame


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    run, clips = (options.run, options.clips) if options.run else prepare_rendered(options)
    forecaster = load_forecaster(str(run), {"stride": options.stride}, choose_device("cpu"))
    context = choose_context(options.context, forecaster.steps * 3 // 4, forecaster.steps)
    files = list_videos((str(clips),)).paths
    rng, rows = np.random.default_rng(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        while len(rows) < options.count:
            spliced = splice(files, forecaster, context, options.second, rng)
            rows.append(judge(spliced, forecaster, context, options.second, Path(folder) / "spliced.npy"))
    report(rows, options)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a run; without it, one is trained on rendered clips")
    parser.add_argument("--clips", type=Path, help="folder of the clips to splice, with --run")
    parser.add_argument("--out", type=Path, default=Path("runs/surprise"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--second", type=int, default=SECOND, help="frames of a second of the clips")
    parser.add_argument("--stride", type=int, default=2, help="of a window: it should last two seconds or more")
    parser.add_argument("--context", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def prepare_rendered(options: argparse.Namespace) -> tuple[Path, Path]:
    """Render clips, and train an encoder with causal masks on some of them; return the run and the other clips."""
    for name, count, first in (("train", TRAINED, 0), ("test", TESTED, 10_000_000)):
        if not (options.out / name).exists():
            write_clips(options.out / name, count, FRAMES, SIDE, options.seed, first)
    data = Video(root=(str(options.out / "train"),), frames=16, stride=1, size=(SIDE, SIDE), patch=8)
    base = tune_for_video(dataclasses.replace(data, crop_scale=(0.6, 1.0)))
    settings = dataclasses.replace(
        base, masks=Causal(), steps=options.steps, batch_size=32, threads=options.threads, workers=0, device="cpu",
        report=False, resume="if-any",
        out=options.out / "run",
    )  # fmt: skip
    if not (settings.out / "export" / "config.json").exists():
        pretrain(settings)
    return settings.out, options.out / "test"


def splice(files: list[str], forecaster: Forecaster, context: int, second: int, rng: np.random.Generator) -> Spliced:
    """Replace a second of a random clip, long enough for a window before it, by a second of another clip."""
    data = forecaster.data
    before = context * data.tubelet * data.stride
    while True:
        host, other = (read_all(files[each]) for each in rng.choice(len(files), 2, replace=False))
        latest = len(host) - second - data.tubelet * data.stride  # a time step follows
        if latest < before or len(other) < second or host.shape[1:] != other.shape[1:]:
            continue
        first, start = int(rng.integers(before, latest + 1)), int(rng.integers(len(other) - second + 1))
        clip = host.copy()
        clip[first : first + second] = other[start : start + second]
        return Spliced(clip, first)


def read_all(path: str) -> np.ndarray:
    with open_frames(path, 3) as frames:
        return np.ascontiguousarray(frames.read(list(range(len(frames.times)))))


def judge(spliced: Spliced, forecaster: Forecaster, context: int, second: int, file: Path) -> dict[str, float]:
    """Return whether each measure of surprise is largest in the foreign second, and what chance would have."""
    np.save(file, spliced.clip)
    surprise = measure_surprise(forecaster, str(file), context)
    span = forecaster.data.tubelet * forecaster.data.stride  # frames of a time step
    change = np.abs(np.diff(spliced.clip.astype(np.float32), axis=0)).mean((1, 2, 3))
    pixels = np.array([change[frame - 1 : frame - 1 + span].mean() for frame in surprise.frame])
    step = (surprise.frame + span > spliced.first) & (surprise.frame < spliced.first + second)
    half = np.abs(surprise.frame - spliced.first) <= second / 2
    width = max(1, round(second / span))
    result = {"chance step": step.mean(), "chance second": half[: len(half) - width + 1].mean()}
    for name, values in (("predictor", surprise.error), ("persistence", surprise.persistence), ("pixels", pixels)):
        seconds = np.convolve(values, np.ones(width), "valid")  # of the second that starts at each step
        result |= {f"{name} step": step[values.argmax()], f"{name} second": half[seconds.argmax()]}
    return {key: float(value) for key, value in result.items()}


def report(rows: list[dict[str, float]], options: argparse.Namespace) -> None:
    totals = {key: 100 * float(np.mean([row[key] for row in rows])) for key in rows[0]}
    names = ("predictor", "persistence", "pixels", "chance")
    lines = [(name, f"{totals[f'{name} step']:.0f}", f"{totals[f'{name} second']:.0f}") for name in names]
    print_table(("largest", "time step %", "second %"), lines, f"{len(rows)} clips with a foreign second")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "surprise.json").write_text(json.dumps(totals, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
