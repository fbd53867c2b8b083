"""How far are simple baselines from the true optical flow of the eight Middlebury pairs?

    JEPA_DATA=data python -m benchmarks.flow_baselines              end-point error of each pair and method
    JEPA_DATA=data python -m benchmarks.flow_baselines --choose     the same on synthetic motion, for several settings

The pairs are $JEPA_DATA/flow/middlebury/NAME/ with frame10.png, frame11.png and flow10.flo. The settings of
Horn–Schunck are chosen without any true flow. Alpha and iterations: by synthetic pairs, whose texture is the first
frame of a pair and whose background and discs move by random shifts. Levels: by how well the estimated motion explains
the gray values of the pairs, as the length of their motion is unknown. TV-L1 is scikit-image's, with its own settings,
where it is installed.

Result: 4.19 pixels for no motion, 0.70 for Horn–Schunck, 0.55 for TV-L1 (scikit-image 0.26), means of the pairs.

Source: Horn and Schunck, Determining Optical Flow, Artificial Intelligence 1981.
Differs: coarse to fine, as motion of several pixels needs, with second frames that are warped by the flow so far.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parents[1]))

from openjepa.core.errors import UserError
from openjepa.core.tables import print_table
from openjepa.data.flow_files import Flow, read_flow
from openjepa.data.image_pixels import LUMA
from openjepa.evaluation.flow import end_point_error

ALPHA, ITERATIONS, LEVELS = 15.0, 100, 3  # of Horn–Schunck: see --choose

WARPS = 5  # times that the second frame is warped, at each level

ALPHAS, ITERATION_COUNTS, LEVEL_COUNTS = (10.0, 15.0, 20.0, 30.0), (50, 100), (3, 4, 5)  # compared by --choose

DISCS, RADIUS, LONGEST = 8, (0.05, 0.2), 8.0  # of synthetic motion: count, radius in heights, longest shift in pixels

Gray = Float[np.ndarray, "H W"]  # 0 to 255

Motion = Float[np.ndarray, "2 H W"]  # pixels to the right, then down


class Pair(NamedTuple):
    """Two gray frames and the true motion from the first to the second."""

    name: str
    first: Gray
    second: Gray
    truth: Flow


def zero_flow(first: Gray, second: Gray) -> Motion:
    """Return no motion."""
    return np.zeros((2, *first.shape), np.float32)


def horn_schunck(
    first: Gray, second: Gray, alpha: float = ALPHA, iterations: int = ITERATIONS, levels: int = LEVELS
) -> Motion:
    """Estimate the motion with little error of brightness and little change between neighbors.

    Minimizes the sum of (gx u + gy v + gt)² + alpha² (|∇u|² + |∇v|²) at each of `levels` sizes, from the smallest to
    the largest, by `iterations` Jacobi iterations after each of WARPS warps.
    """
    pyramid = [(blur(first), blur(second))]
    for _ in range(levels - 1):
        pyramid.append((blur(pyramid[-1][0])[::2, ::2], blur(pyramid[-1][1])[::2, ::2]))
    flow = np.zeros((2, *pyramid[-1][0].shape), np.float32)
    for small_first, small_second in reversed(pyramid):
        half = np.indices(small_first.shape, np.float32) / 2  # where the pixels are in the smaller size
        flow = 2 * np.stack([interpolate(flow[axis], half[1], half[0]) for axis in (0, 1)])
        for _ in range(WARPS):
            flow = refine(small_first, small_second, flow, alpha, iterations)
    return flow


def refine(first: Gray, second: Gray, flow: Motion, alpha: float, iterations: int) -> Motion:
    """Solve Horn and Schunck's equations, linear around a flow; pixels that leave the frame follow their neighbors."""
    height, width = first.shape
    y, x = np.indices(first.shape, np.float32)
    to_x, to_y = x + flow[0], y + flow[1]
    warped = interpolate(second, to_x, to_y)
    inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
    along_y, along_x = np.gradient((first + warped) / 2)
    gradient = np.stack([along_x, along_y])
    constant = warped - first - (gradient * flow).sum(0)
    step = inside * gradient / (alpha**2 + (gradient**2).sum(0))
    for _ in range(iterations):
        mean = (4 * blur(flow) - flow) / 3  # of the eight neighbors: 1/6 beside, 1/12 at the corners
        flow = mean - step * ((gradient * mean).sum(0) + constant)
    return flow


def blur(image: Float[np.ndarray, "*N H W"]) -> Float[np.ndarray, "*N H W"]:
    """Average neighbors with the weights 1/4, 1/2, 1/4 along both axes; the border is repeated."""
    edges = [(0, 0)] * (image.ndim - 2) + [(1, 1)] * 2
    padded = np.pad(image, edges, "edge")
    rows = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
    return (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4


def interpolate(image: Gray, x: Gray, y: Gray) -> Gray:
    """Return bilinear samples of an image; outside it, those of its border."""
    height, width = image.shape
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = (np.minimum(each.astype(int), max(size - 2, 0)) for each, size in ((x, width), (y, height)))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, down = (x - left).astype(image.dtype), (y - top).astype(image.dtype)
    above = image[top, left] + across * (image[top, right] - image[top, left])
    below = image[bottom, left] + across * (image[bottom, right] - image[bottom, left])
    return above + down * (below - above)


def tv_l1(first: Gray, second: Gray) -> Motion:
    """Estimate the motion by TV-L1 with scikit-image's settings.

    Raises:
        UserError: scikit-image is not installed.
    """
    try:
        from skimage.registration import optical_flow_tvl1  # type: ignore[import-not-found]
    except ImportError as error:
        raise UserError("TV-L1 needs scikit-image: pip install scikit-image") from error
    return optical_flow_tvl1(first / 255, second / 255)[::-1]  # it returns rows first


def read_pairs() -> list[Pair]:
    """Read the Middlebury pairs. Raises UserError if JEPA_DATA does not lead to them."""
    folder = Path(os.environ.get("JEPA_DATA", "")) / "flow" / "middlebury"
    names = sorted(file.parent.name for file in folder.glob("*/flow10.flo"))
    if not names:
        raise UserError(f"{folder} has no */flow10.flo: set JEPA_DATA to the folder that scripts.unpack_data wrote")
    pairs = []
    for name in names:
        first, second = (read_gray(folder / name / f"frame{number}.png") for number in (10, 11))
        pairs.append(Pair(name, first, second, read_flow(folder / name / "flow10.flo")))
    return pairs


def read_gray(file: Path) -> Gray:
    """Read an image as gray values that are not rounded."""
    return np.asarray(Pillow.open(file).convert("RGB"), np.float32) @ LUMA


def move_discs(name: str, texture: Gray, rng: np.random.Generator) -> Pair:
    """Make a pair whose background and discs move by random shifts; what a disc uncovers is background."""
    height, width = texture.shape
    y, x = np.indices(texture.shape, np.float32)
    shift = draw_shift(rng)
    second = interpolate(texture, x - shift[0], y - shift[1])
    uv = np.broadcast_to(shift[:, None, None], (2, height, width)).copy()
    for _ in range(DISCS):
        center, radius, shift = rng.uniform(0, (width, height)), height * rng.uniform(*RADIUS), draw_shift(rng)
        moved = center + shift
        uv[:, np.hypot(x - center[0], y - center[1]) < radius] = shift[:, None]
        second = np.where(
            np.hypot(x - moved[0], y - moved[1]) < radius, interpolate(texture, x - shift[0], y - shift[1]), second
        )
    return Pair(name, texture, second, Flow(uv, np.ones(texture.shape, bool)))


def draw_shift(rng: np.random.Generator) -> Float[np.ndarray, "2"]:
    """Draw a shift with a random direction and a length of up to LONGEST pixels."""
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0, LONGEST)
    return np.array([length * np.cos(angle), length * np.sin(angle)], np.float32)


def photometric_error(flow: Motion, pair: Pair) -> float:
    """Return the mean difference in gray values between the first frame and the second, warped by the flow."""
    y, x = np.indices(pair.first.shape, np.float32)
    return float(np.abs(interpolate(pair.second, x + flow[0], y + flow[1]) - pair.first).mean())


def choose_settings(pairs: list[Pair], seed: int) -> None:
    """Print what chooses the settings of Horn–Schunck: errors on synthetic motion, then gray values of the pairs."""
    rng = np.random.default_rng(seed)
    synthetic = [move_discs(pair.name, pair.first, rng) for pair in pairs]
    error_of = {}
    for settings in itertools.product(ALPHAS, ITERATION_COUNTS, LEVEL_COUNTS):
        errors = [end_point_error(horn_schunck(pair.first, pair.second, *settings), pair.truth) for pair in synthetic]
        error_of[settings] = float(np.mean(errors))
    ranked = sorted(error_of, key=lambda settings: error_of[settings])
    rows = [(*(f"{each:g}" for each in settings), f"{error_of[settings]:.3f}") for settings in ranked]
    print_table(("alpha", "iterations", "levels", "error, px"), rows, "Horn–Schunck on synthetic motion, best first")
    alpha, iterations, _ = ranked[0]
    rows = []
    for levels in range(1, 7):
        flows = [horn_schunck(pair.first, pair.second, alpha, iterations, levels) for pair in pairs]
        errors = [photometric_error(flow, pair) for flow, pair in zip(flows, pairs, strict=True)]
        rows.append((str(levels), f"{np.mean(errors):.3f}"))
    print_table(
        ("levels", "gray values"), rows, f"photometric error of the pairs, alpha {alpha:g}, {iterations} iterations"
    )


def compare(pairs: list[Pair]) -> None:
    """Print the end-point error of every pair and method, and the seconds that a pair takes."""
    methods: dict[str, Callable[[Gray, Gray], Motion]] = {
        "zero": zero_flow, "Horn–Schunck": horn_schunck, "TV-L1": tv_l1,
    }  # fmt: skip
    errors: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for name, method in methods.items():
        start = time.perf_counter()
        try:
            errors[name] = [end_point_error(method(pair.first, pair.second), pair.truth) for pair in pairs]
        except UserError as error:
            print(f"{name} is left out: {error}")
            continue
        seconds[name] = (time.perf_counter() - start) / len(pairs)
    rows = [(pair.name, *(f"{each[row]:.3f}" for each in errors.values())) for row, pair in enumerate(pairs)]
    rows.append(("mean", *(f"{np.mean(each):.3f}" for each in errors.values())))
    rows.append(("seconds per pair", *(f"{each:.1f}" for each in seconds.values())))
    settings = f"Horn–Schunck: alpha {ALPHA:g}, {ITERATIONS} iterations after each of {WARPS} warps, {LEVELS} levels"
    print_table(("pair", *errors), rows, f"mean end-point error, pixels ({settings})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="compare settings of Horn–Schunck on synthetic motion")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic motion")
    options = parser.parse_args()
    try:
        pairs = read_pairs()
    except UserError as error:
        sys.exit(str(error))
    if options.choose:
        choose_settings(pairs, options.seed)
    else:
        compare(pairs)


if __name__ == "__main__":
    main()
