"""Surprise: the error of predicting each time step of a video from the steps before.

K frames at the step of the run's clips  W windows  T predicted time steps of a window  J time steps of the file
L those with a window before them  A time steps of a window  B windows of a batch  S tokens of a time step  E width
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.data.clips import frames_on_screen
from openjepa.data.image_io import Undecodable
from openjepa.data.video_files import crop_views
from openjepa.data.video_io import Frames, open_frames
from openjepa.evaluation.forecast import Forecaster, Scale
from openjepa.modalities.video import Video

WINDOWS = 16  # of a forward pass

MAD_TO_STD = 1.4826  # standard deviation of a normal distribution, in units of its median absolute deviation


class Surprise(NamedTuple):
    """Errors of the time steps of a file that can be predicted, the first one after a whole context."""

    frame: Int[np.ndarray, "J"]  # number of the step's first frame in the file
    time: Float64[np.ndarray, "J"]  # of that frame, in seconds
    error: Float64[np.ndarray, "J"]  # squared error of the prediction, 1: as large as the variance of features
    persistence: Float64[np.ndarray, "J"]  # squared error of the last visible step, likewise
    score: Float64[np.ndarray, "J"]  # log of the error, in robust standard deviations above the file's median


def measure_surprise(forecaster: Forecaster, path: str, context: int) -> Surprise:
    """Slide a window over a file, predict each time step, and average the predictions of a step.

    A step is predicted by every window that has it among its hidden steps, by up to `steps - context` windows. Raises
    UserError if the file cannot be decoded, or is shorter than a window and one step.
    """
    data = forecaster.data
    try:
        with open_frames(path, data.channels) as frames:
            times, index = frames.times, frames_at_step(forecaster, frames.times)
            count = (len(index) - data.frames) // data.tubelet + 1
            if count < 2:
                advice = "a higher --fps" if data.fps else "a lower --stride"
                raise UserError(
                    f"{path} is too short: {len(index)} frames in {times[-1] - times[0]:.1f} s, and a window has "
                    f"{data.frames}: give a longer file, or {advice}"
                )
            errors = window_errors(forecaster, partial(read_frames, data, frames, index), count, context)
    except Undecodable as error:
        raise UserError(f"{path}: {error}") from error
    return summarize(errors, index[context * data.tubelet :: data.tubelet], times, context)


def read_frames(
    data: Video, frames: Frames, index: Int[np.ndarray, "K"], first: int, last: int
) -> UInt8[Tensor, "F C h w"]:
    """Return a run of the frames that `index` chooses from a file, cropped as in evaluation."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames.read(index[first:last].tolist())))
    return crop_views(data, pixels.permute(0, 3, 1, 2)[None, None], None)[0, 0]


def frames_at_step(forecaster: Forecaster, times: Float64[np.ndarray, "N"]) -> Int[np.ndarray, "K"]:
    """Return the frames of a whole file at the step of the run's clips. Raises UserError if the step is not fixed."""
    data = forecaster.data
    if data.fps:
        count = int((times[-1] - times[0]) * data.fps) + 1
        return frames_on_screen(times, times[0] + np.arange(count) / data.fps)
    if not data.stride:
        raise UserError("the run spreads clips over whole files, so that time has no fixed step: give --fps")
    return np.arange(0, len(times), data.stride)


class WindowErrors(NamedTuple):
    """Squared errors of the hidden steps of each window, mean over tokens and features."""

    predictor: Float[Tensor, "W T"]
    persistence: Float[Tensor, "W T"]


def window_errors(
    forecaster: Forecaster, read: Callable[[int, int], UInt8[Tensor, "K C h w"]], count: int, context: int
) -> WindowErrors:
    """Predict the hidden steps of windows that start one time step after another; `read` returns some frames."""
    hop, length, forecasts = forecaster.data.tubelet, forecaster.data.frames, []
    for first in range(0, count, WINDOWS):
        windows = min(WINDOWS, count - first)
        pixels = read(first * hop, (first + windows - 1) * hop + length)
        views = torch.stack([pixels[start * hop : start * hop + length] for start in range(windows)])
        forecasts.append(forecaster.forecast(views, context)[:2])
    scale = forecaster.scale or Scale.of([features for _, features in forecasts])
    parts = [step_errors(predicted, features, scale, context, forecaster) for predicted, features in forecasts]
    return WindowErrors(*(torch.cat(each) for each in zip(*parts, strict=True)))


def step_errors(
    predicted: Float[Tensor, "B T S E"],
    features: Float[Tensor, "B A S E"],
    scale: Scale,
    context: int,
    forecaster: Forecaster,
) -> WindowErrors:
    """Compare predictions, and the last visible step, with the hidden steps, in units of the features' variance."""
    truth = scale.apply(features)
    guess = predicted if forecaster.standardizes else scale.apply(predicted)
    hidden, last = truth[:, context:], truth[:, context - 1 : context]
    return WindowErrors((guess - hidden).square().mean((2, 3)), (last - hidden).square().mean((2, 3)))


def summarize(
    errors: WindowErrors, frame: Int[np.ndarray, "L"], times: Float64[np.ndarray, "N"], context: int
) -> Surprise:
    """Average the errors of each time step over the windows that predict it, and score them."""
    windows, hidden = errors.predictor.shape
    frame = frame[: windows + hidden - 1]
    predictor, persistence = (average_steps(each) for each in errors)
    level = np.log(np.maximum(predictor, 1e-12))
    spread = MAD_TO_STD * np.median(np.abs(level - np.median(level)))
    score = (level - np.median(level)) / max(spread, 1e-6)
    return Surprise(frame, times[frame] - times[0], predictor, persistence, score)


def average_steps(errors: Float[Tensor, "W T"]) -> Float64[np.ndarray, "J"]:
    """Average over windows: the error in row w and column t is of step w + t."""
    windows, hidden = errors.shape
    step = (torch.arange(windows)[:, None] + torch.arange(hidden)).flatten().numpy()
    total = np.bincount(step, weights=errors.double().flatten().numpy())
    return total / np.bincount(step)


def find_peaks(surprise: Surprise, count: int, distance: float = 1.0) -> list[int]:
    """Return the most surprising time steps, the first one most, at least `distance` seconds from each other."""
    chosen: list[int] = []
    for step in np.argsort(-surprise.score, kind="stable").tolist():
        if all(abs(surprise.time[step] - surprise.time[other]) >= distance for other in chosen):
            chosen.append(step)
        if len(chosen) == count:
            break
    return chosen


def read_moments(surprise: Surprise, peaks: list[int], path: str) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Return the frames at which some time steps of a file begin. Raises Undecodable if they cannot be decoded."""
    first_frames = surprise.frame[peaks]
    order = np.sort(first_frames)
    with open_frames(path, 3) as frames:
        pictures = frames.read(order.tolist())
    return [pictures[row] for row in np.searchsorted(order, first_frames)]


def write_surprise(surprise: Surprise, file: Path) -> Path:
    """Write a CSV file with a line for each time step."""
    with atomic_write(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        lines = csv.writer(stream)
        lines.writerow(Surprise._fields)
        lines.writerows(rows_of(surprise))
    return file


def rows_of(surprise: Surprise) -> Iterator[list[float | int]]:
    """Yield the values of each time step."""
    for frame, time, *values in zip(*(each.tolist() for each in surprise), strict=True):
        yield [frame, round(time, 4), *(round(each, 6) for each in values)]
