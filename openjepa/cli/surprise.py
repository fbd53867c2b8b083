"""Command `jepa surprise`: when does a video do what an encoder did not expect?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from openjepa.core.console import draw_safely, info, warn
from openjepa.core.errors import UserError
from openjepa.core.names import distinct_labels
from openjepa.core.tables import print_table
from openjepa.evaluation import surprise as measuring
from openjepa.evaluation.forecast import choose_context, load_forecaster
from openjepa.evaluation.settings import Surprise
from openjepa.training.device import choose_device
from openjepa.viz.forecasts import draw_surprise

MEANINGFUL_ERROR = 0.9  # median squared error in units of the features' variance, above which a run predicts nothing

PICTURES = 6  # of the most surprising moments

Moments = dict[str, Any]  # the file and its most surprising moments


def surprise(settings: Surprise) -> list[Moments]:
    """Measure the surprise over time of each file; write a CSV file and a figure each, print the strongest moments.

    Returns for each file its moments: seconds, frame, score. Raises UserError if a file cannot be read.
    """
    if settings.count < 1:
        raise UserError(f"--count must be >= 1, got {settings.count}")
    if not settings.files:
        raise UserError(f"no video is given: jepa surprise {settings.run} VIDEO")
    device = choose_device(settings.device, settings.precision)
    forecaster = load_forecaster(settings.run, {"fps": settings.fps, "stride": settings.stride}, device)
    context = choose_context(settings.context, forecaster.steps * 3 // 4, forecaster.steps)
    results = []
    for path, name in zip(settings.files, distinct_labels(settings.files), strict=True):
        result = measuring.measure_surprise(forecaster, path, context)
        peaks = measuring.find_peaks(result, settings.count)
        out = (settings.out or Path(settings.run) / "surprise") / name.replace("/", "-")
        measuring.write_surprise(result, out.with_name(f"{out.name}.csv"))
        rows = [(result.time[step], int(result.frame[step]), result.score[step]) for step in peaks]
        table = [(f"{time:.2f}", str(frame), f"{score:.1f}") for time, frame, score in rows]
        print_table(("seconds", "frame", "deviations above the median"), table, f"most surprising moments of {path}")
        describe_scores(result, path)
        info(f"written    {out}.csv")
        figure = out.with_name(f"{out.name}.png")
        if draw_safely(f"the figure {figure}", draw_call(result, peaks, path, figure)):
            info(f"figure     {figure}")
        moments = [{"seconds": float(time), "frame": frame, "score": float(score)} for time, frame, score in rows]
        results.append({"file": path, "moments": moments})
    return results


def describe_scores(result: measuring.Surprise, path: str) -> None:
    """Print when the scores are measured, and warn if the predictor is hardly better than the mean feature."""
    step = (result.time[-1] - result.time[0]) / max(1, len(result.time) - 1)
    info(f"scores     every {step:.2f} s from {result.time[0]:.2f} s on; a time is the start of its step")
    error = float(np.median(result.error))
    if error > MEANINGFUL_ERROR:
        warn(
            f"the predictor's error in {path} is {error:.2f} of the variance of features, hardly better than their "
            "mean: its surprise says little; train for more steps, then see jepa horizon"
        )


def draw_call(result: measuring.Surprise, peaks: list[int], path: str, figure: Path) -> Callable[[], Path]:
    """Return the function that draws the figure of one file."""

    def draw() -> Path:
        frames = measuring.read_moments(result, peaks[:PICTURES], path)
        return draw_surprise(result, peaks, frames, Path(path).name, figure)

    return draw
