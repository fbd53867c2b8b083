"""Turn image files into views.   C channels  H height  W width

A view is on the scale of bytes, 0 to 255: uint8 where all images have 8 bits, float32 where a range of values is known.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Real
from PIL import Image as Pillow

from openjepa.data.crops import Crops, resample
from openjepa.data.image_header import ImageForm, check_bands
from openjepa.data.image_opening import load_pixels, open_content
from openjepa.data.image_pixels import (
    Pixels,
    StoredPixels,
    decode_pixels,
    draw_pixels,
    scale_values,
    to_channels,
    to_planes,
)

MODES = {1: "L", 3: "RGB", 4: "RGBA"}

DEEP_MODES = ("I", "F")  # Pillow's modes of more than 8 bits start with these

GRAY_DEPTHS = {"I": "int32", "I;16": "uint16", "I;16L": "uint16", "I;16B": "uint16", "F": "float32"}  # of their values

LEGACY = (65535.0,)  # range of older runs: integers are divided by it, floats by the maximum of their image


class EncodedImage(NamedTuple):
    """An image whose header is read but whose pixels are not decoded."""

    height: int  # after the EXIF rotation
    width: int  # after the EXIF rotation
    content: Pillow.Image | StoredPixels | Real[np.ndarray, "B H W"]


def form_of(file: EncodedImage) -> ImageForm:
    """Return bands and bits of an image whose header is read."""
    if isinstance(file.content, StoredPixels):
        return file.content.form
    if isinstance(file.content, np.ndarray):
        return Pixels(file.content).form
    image = file.content
    bands = 1 if image.mode in ("1", "L", "LA", *GRAY_DEPTHS) else 3
    has_opacity = is_transparent(image)
    return ImageForm(file.height, file.width, bands, GRAY_DEPTHS.get(image.mode, "uint8"), bands if has_opacity else -1)


def is_deep_mode(image: Pillow.Image) -> bool:
    """Return whether a Pillow image has more than 8 bits per value."""
    return image.mode.startswith(DEEP_MODES)


def is_transparent(image: Pillow.Image) -> bool:
    """Return whether a Pillow image has opacity, or a color that is transparent."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def crop_file(
    file: EncodedImage,
    channels: int,
    crop: Crops,
    row: int,
    size: tuple[int, int],
    value_range: tuple[float, ...] = (),
) -> Real[np.ndarray, "C h w"]:
    """Return view `row` of the crops; of an 8-bit file from one decode at the smallest sufficient scale.

    Raises:
        Undecodable: the pixels cannot be decoded, or have more than 8 bits and no range of values is known.
    """
    content = open_pixels(file.content, value_range)
    if isinstance(content, Pixels):
        return crop_pixels(content, channels, Crops(*(each[row : row + 1] for each in crop)), size, value_range)
    scale = min(float(crop.height[row]) / size[0], float(crop.width[row]) / size[1])
    image = upright_image(content, channels, scale, value_range)
    across, down = image.size[0] / file.width, image.size[1] / file.height
    left, top, right, bottom = crop.box(row)
    box = left * across, top * down, min(right * across, image.size[0]), min(bottom * down, image.size[1])
    out = image.resize((size[1], size[0]), Pillow.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    view = to_planes(out.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT) if crop.flip[row] else out)
    return view.astype(np.float32) if len(value_range) > 1 else view


def open_pixels(
    content: Pillow.Image | StoredPixels | np.ndarray, value_range: tuple[float, ...]
) -> Pillow.Image | Pixels:
    """Return decoded values, or a Pillow image that is yet to be decoded and turned into bytes."""
    if isinstance(content, np.ndarray):
        return Pixels(content)
    if isinstance(content, StoredPixels):
        reads_as_before = value_range == LEGACY and content.form.is_deep
        return open_content(content.content) if reads_as_before else decode_pixels(content)
    return content if value_range == LEGACY or not is_deep_mode(content) else Pixels(to_planes(load_pixels(content)))


def crop_pixels(
    pixels: Pixels, channels: int, crop: Crops, size: tuple[int, int], value_range: tuple[float, ...]
) -> Real[np.ndarray, "C h w"]:
    """Crop and resize decoded values: bytes to bytes, others to float32 on the scale of bytes."""
    if pixels.is_bytes and pixels.opacity is None and len(value_range) < 2:
        whole = torch.from_numpy(np.ascontiguousarray(to_channels(pixels, channels)))
        return resample(whole[None], crop, size)[0].numpy()
    left, top, right, bottom = crop.box(0)
    rows = slice(max(0, math.floor(top)), math.ceil(bottom))
    columns = slice(max(0, math.floor(left)), math.ceil(right))
    opacity = None if pixels.opacity is None else pixels.opacity[rows, columns]
    part = Pixels(pixels.values[:, rows, columns], opacity, pixels.no_data)
    crop = crop._replace(top=crop.top - rows.start, left=crop.left - columns.start)
    scaled = torch.from_numpy(np.ascontiguousarray(scale_values(part, channels, value_range)))
    view = resample(scaled[None], crop, size)[0].clamp(0, 255).numpy()
    return view if len(value_range) > 1 else view.round().astype(np.uint8)


def decode_planes(file: EncodedImage, channels: int, value_range: tuple[float, ...] = ()) -> Real[np.ndarray, "C H W"]:
    """Decode a whole image at full size: to bytes, or with a range of values to float32 on the scale of bytes.

    Raises:
        Undecodable: as `crop_file`.
    """
    content = open_pixels(file.content, value_range)
    if isinstance(content, Pillow.Image):
        return to_planes(upright_image(content, channels, 1.0, value_range))
    if content.is_bytes and content.opacity is None:
        return to_channels(content, channels)
    scaled = scale_values(content, channels, value_range)
    return scaled if len(value_range) > 1 else scaled.round().astype(np.uint8)


def upright_image(
    image: Pillow.Image, channels: int, scale: float = 1.0, value_range: tuple[float, ...] = ()
) -> Pillow.Image:
    """Decode an image upright to bytes, in 1 or 3 channels with transparency on white, or in 4 with its opacity.

    More than 8 bits are drawn in the range, or as an older run read them (LEGACY), or between their own percentiles.

    Raises:
        Undecodable: the pixels cannot be decoded, or do not have so many channels.
    """
    upright = load_pixels(image, scale)
    if is_deep_mode(upright):
        is_legacy = value_range == LEGACY
        upright = legacy_bytes(upright) if is_legacy else draw_pixels(Pixels(to_planes(upright)), value_range)
    has_opacity = is_transparent(upright)
    upright = upright.convert("RGB") if upright.mode == "LAB" else upright
    if channels not in MODES or (channels == 4 and not has_opacity):
        bands, (width, height) = (1 if upright.mode in ("1", "L", "LA") else 3), upright.size
        check_bands(ImageForm(height, width, bands, "uint8", bands if has_opacity else -1), channels)
    if has_opacity and channels < 4:
        upright = upright.convert("RGBA")
        upright = Pillow.alpha_composite(Pillow.new("RGBA", upright.size, "white"), upright)
    return upright.convert(MODES[channels])


def legacy_bytes(image: Pillow.Image) -> Pillow.Image:
    """Keep the upper 8 of 16 bits, as runs did that know no range of values."""
    array = np.asarray(image).astype(np.float64)
    top = LEGACY[0] if image.mode.startswith("I") else max(float(array.max()), 1e-12)
    return Pillow.fromarray((array / top * 255).clip(0, 255).round().astype(np.uint8), "L")
