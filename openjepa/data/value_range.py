"""Find the range of values of a data set with more than 8 bits per value.   C channels  N values"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from openjepa.core.console import info, info_once, warn
from openjepa.core.distributed import is_main
from openjepa.core.errors import UserError
from openjepa.data.image_header import ImageForm, check_bands, check_extra
from openjepa.data.image_io import Undecodable, file_form, read_image_file
from openjepa.data.image_pixels import Pixels, to_channels
from openjepa.data.image_values import LEGACY, open_pixels
from openjepa.data.listing import path_suffix

PERCENTILES = (0.1, 99.9)  # of the sampled values; what lies outside is clipped

SAMPLED_HEADERS = 256  # files whose headers are read

SAMPLED_IMAGES = 1024  # images whose values are measured

SAMPLED_VALUES = 2**23  # of all these images together, per channel

MIN_VALUES = 4096  # of one image

BYTE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp"})  # 8 bits without a look

NO_DATA = (  # values that mean "no data" where they lie far from all others
    -9999.0, -99999.0, -32768.0, -32767.0, 65535.0, -(2.0**31), 2.0**31 - 1, 2.0**32 - 1, 1e20, -1e20,
    float(np.float32(1e20)), float(np.float32(-1e20)), float(np.finfo(np.float32).min),
    float(np.finfo(np.float32).max), 9.969209968386869e36,
)  # fmt: skip

# in this process, by fingerprint of the files, channels and the range that is set
MEASURED: dict[tuple[str, int, tuple[float, ...]], tuple[float, ...]] = {}


class Survey(NamedTuple):
    """What the headers of sampled files say."""

    forms: list[ImageForm]
    others: int  # files that were not looked at, as their kind has 8 bits

    @property
    def deep(self) -> list[ImageForm]:
        return [form for form in self.forms if form.is_deep]


def find_range(
    paths: Sequence[str], fingerprint: Callable[[], str], channels: int, value_range: tuple[float, ...]
) -> tuple[float, ...]:
    """Return the range of values with which to read these files, measured if none is given; say what was found.

    Empty if the sampled images have 8 bits. The fingerprint of the files, which takes time, is computed only for files
    whose endings allow more. Raises UserError if they cannot be read in so many channels.
    """
    allows_more = any(path_suffix(path) not in BYTE_SUFFIXES for path in sample_paths(paths))
    key = (fingerprint() if allows_more else "", channels, value_range)
    if allows_more and len(value_range) < 2 and key in MEASURED:
        return MEASURED[key]
    survey = survey_files(paths, channels)
    if is_main() and channels in (1, 3) and any(form.bands == 4 for form in survey.forms):
        info_once(
            "bands      4: the first three are red, green, blue, the fourth is ignored; --data.channels 4 reads it"
        )
    if len(value_range) > 1:
        return value_range
    if value_range == LEGACY:
        MEASURED[key] = LEGACY
        if survey.deep and is_main():
            warn(
                f"{survey.deep[0].describe()}: a run of this older version divides by 65,535 and keeps the upper 8 "
                "bits, so that 12-bit images have 16 gray levels; train again to use the range of the data"
            )
    else:
        MEASURED[key] = measure_range(paths, channels, survey) if survey.deep else ()
    return MEASURED[key]


def sample_paths(paths: Sequence[str]) -> list[str]:
    """Return evenly spaced paths, whose endings are looked at."""
    return [paths[at] for at in evenly_spaced(len(paths), 16 * SAMPLED_HEADERS)]


def survey_files(paths: Sequence[str], channels: int) -> Survey:
    """Read the headers of evenly spaced files, of those that may have more than 8 bits or more than three bands.

    Raises UserError if none of them can be read in so many channels.
    """
    sampled = sample_paths(paths)
    candidates = [path for path in sampled if path_suffix(path) not in BYTE_SUFFIXES]
    others = len(sampled) - len(candidates)
    forms, reason = [], ""
    for path in (candidates[at] for at in evenly_spaced(len(candidates), SAMPLED_HEADERS)):
        try:
            form = file_form(path)
        except Undecodable:
            continue
        try:
            check_bands(form, channels)
            check_extra(form, channels)
            forms.append(form)
        except Undecodable as error:
            reason = reason or f"{path}: {error}"
    if others and channels not in (1, 3) and not forms:
        reason = (
            f"images such as {paths[0]} have 1 or 3 channels, not {channels}: "
            "give TIFF or .npy files or --data.channels 3"
        )
    if reason and not forms and (channels not in (1, 3) or not others):
        raise UserError(reason)
    return Survey(forms, others)


def evenly_spaced(count: int, limit: int) -> list[int]:
    """Return up to `limit` evenly spaced indices below `count`."""
    return np.linspace(0, count - 1, min(limit, count)).astype(int).tolist() if count else []


def measure_range(paths: Sequence[str], channels: int, survey: Survey) -> tuple[float, ...]:
    """Measure the range of values of evenly spaced images, and print it.

    One range for gray and RGB, which keeps colors; one per band for other numbers of bands, whose units may differ.

    Raises:
        UserError: no image could be decoded, or none has a finite value.
    """
    index = evenly_spaced(len(paths), SAMPLED_IMAGES)
    limit = max(MIN_VALUES, SAMPLED_VALUES // len(index))
    reasons: list[str] = []
    parts = list(sample_values((paths[at] for at in index), channels, limit, reasons))
    if not parts:
        raise UserError(f"none of {len(index)} sampled images could be decoded, the first is {reasons[0]}")
    values = np.concatenate(parts, 1)
    types = sorted({form.dtype for form in survey.deep})
    whole = not any(name.startswith("float") for name in types)
    rows = values.reshape(1, -1) if channels in (1, 3) else values
    pairs = [robust_range(row, whole) for row in rows]
    if is_main():
        info(describe_range(pairs, types, len(parts), survey))
    return tuple(value for pair in pairs for value in pair)


def describe_range(pairs: list[tuple[float, float]], types: list[str], images: int, survey: Survey) -> str:
    """Say in one line which values are scaled to 0…1."""
    low, high = pairs[0]
    which = f" (first of {len(pairs)} bands, each has its own)" if len(pairs) > 1 else ""
    shallow = len(survey.forms) - len(survey.deep) + survey.others
    rest = "; images of 8 bits keep 0 to 255" if shallow else ""
    return (
        f"values     {low:,.12g} to {high:,.12g}{which} of {' and '.join(types)} ({PERCENTILES[0]} % to "
        f"{PERCENTILES[1]} % of {images:,} images) are scaled to 0…1, clipped outside{rest}"
    )


def sample_values(paths: Iterator[str], channels: int, limit: int, reasons: list[str]) -> Iterator[np.ndarray]:
    """Yield up to `limit` values of each channel (C N) of every image with more than 8 bits; collect why some fail."""
    for number, path in enumerate(paths):
        try:
            content = open_pixels(read_image_file(path, channels).content, ())
            if not isinstance(content, Pixels) or content.is_bytes:
                continue
            color = channels - (content.opacity is not None and channels == len(content.values) + 1)
            values = to_channels(content, color).astype(np.float64).reshape(color, -1)
        except Undecodable as error:
            reasons.append(f"{path}: {error}")
            continue
        if content.opacity is not None:
            values[:, content.opacity.ravel() == 0] = np.nan
        if values.shape[1] > limit:
            values = values[:, np.random.default_rng(number).integers(0, values.shape[1], limit)]
        yield values


def robust_range(values: np.ndarray, whole: bool) -> tuple[float, float]:
    """Return the percentiles of finite values without those that mean no data, as whole numbers if `whole`.

    The extremes where the percentiles are equal. Raises UserError if there is no finite value.
    """
    values = without_no_data(values[np.isfinite(values)])
    if not values.size:
        raise UserError("no image sampled has a finite value: look at the data, or give --data.value-range LOW HIGH")
    low, high = np.percentile(values, PERCENTILES).tolist()
    if low == high:
        low, high = float(values.min()), float(values.max())
    low, high = (float(np.floor(low)), float(np.ceil(high))) if whole else (float(f"{x:.9g}") for x in (low, high))
    return (low, high) if low < high else (low, low + 1.0)


def without_no_data(values: np.ndarray) -> np.ndarray:
    """Leave out the values of NO_DATA that are farther from all others than those are from each other."""
    present = [value for value in NO_DATA if (values == value).any()]
    others = values[~np.isin(values, present)] if present else values
    if not present or not others.size:
        return values
    low, high = np.percentile(others, PERCENTILES)
    isolated = [value for value in present if value < low - (high - low) or value > high + (high - low)]
    return values[~np.isin(values, isolated)]
