"""Decode values exactly, whatever their bands and bits, and scale them.   B bands  C channels  H height  W width"""

from __future__ import annotations

import io
import logging
import tokenize
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real
from PIL import Image as Pillow

from openjepa.data.image_header import (
    PNG_MAGIC,
    PPM_HEADER,
    PPM_MAGIC,
    TIFF_MAGIC,
    ImageForm,
    check_bands,
    check_extra,
    has_extra,
)
from openjepa.data.image_opening import DECODE_ERRORS, Undecodable, load_pixels, open_content

DISPLAYED = (0.1, 99.9)  # percentiles of an image between which a picture of it is drawn

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue (ITU-R BT.601)

WIDE_TYPES = ("uint64", "int64", "uint32", "int32", "float64")  # types that float32 rounds

PIXEL_ERRORS = (*DECODE_ERRORS, MemoryError)  # also of tifffile and imagecodecs


class StoredPixels(NamedTuple):
    """A file that Pillow does not turn into bytes without loss: more than 8 bits, or more than three bands."""

    content: bytes
    form: ImageForm


class Pixels(NamedTuple):
    """Decoded values of an image, upright."""

    values: Real[np.ndarray, "B H W"]
    opacity: Float[np.ndarray, "H W"] | None = None  # 0 to 1
    no_data: float | None = None  # value of pixels without data, beside NaN

    @property
    def is_bytes(self) -> bool:
        return self.values.dtype == np.uint8

    @property
    def form(self) -> ImageForm:
        """Return bands and type of the values, as a header states them."""
        bands, height, width = self.values.shape
        return ImageForm(height, width, bands, self.values.dtype.name, -1 if self.opacity is None else bands)


def decode_pixels(stored: StoredPixels) -> Pixels:
    """Decode all values of a file exactly.

    Raises:
        Undecodable: the pixels cannot be decoded, or need the extra `tiff`.
    """
    form = stored.form
    check_extra(form)
    try:
        if stored.content.startswith(PPM_MAGIC):
            values = decode_ppm(stored)
        elif form.fits_pillow or (form.drops_fourth and not has_extra()):
            values = to_planes(load_pixels(open_content(stored.content)))
            values = values.view(np.uint32) if form.dtype == "uint32" else values
        else:
            values = turn_upright(decode_with_extra(stored.content), form.orientation)
    except Undecodable:
        raise
    except PIXEL_ERRORS as error:
        raise Undecodable(f"cannot be decoded: {error}") from error
    if values.ndim != 3 or len(values) not in (form.bands + (form.alpha >= 0), 3 if form.drops_fourth else 0):
        raise Undecodable(f"cannot be decoded: the header says {form.describe()}, the values have {values.shape}")
    if form.inverted:
        values = np.iinfo(form.dtype).max - values
    if form.alpha < 0:
        return Pixels(values, None, form.no_data)
    opaque = 1.0 if form.dtype.startswith("float") else float(np.iinfo(form.dtype).max)
    opacity = (values[form.alpha] / opaque).astype(np.float32).clip(0, 1)
    return Pixels(np.delete(values, form.alpha, 0), opacity, form.no_data)


def decode_ppm(stored: StoredPixels) -> Real[np.ndarray, "B H W"]:
    """Return the values of a PPM of 16 bits."""
    header, form = PPM_HEADER.match(stored.content), stored.form
    assert header is not None
    array = np.frombuffer(stored.content, ">u2", form.height * form.width * 3, header.end())
    return array.reshape(form.height, form.width, 3).transpose(2, 0, 1).astype(np.uint16)


def decode_with_extra(content: bytes) -> Real[np.ndarray, "B H W"]:
    """Return the values of a TIFF, or of a PNG or JPEG 2000 of 16 bits, as stored."""
    if not content.startswith(TIFF_MAGIC):
        import imagecodecs

        decode = imagecodecs.png_decode if content.startswith(PNG_MAGIC) else imagecodecs.jpeg2k_decode
        array = decode(content)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)  # what it reports becomes the reason of the file
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        array = page.asarray(maxworkers=1)
        if array.ndim == 2:
            return array[None]
        return array if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE else array.transpose(2, 0, 1)


def turn_upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo a rotation or reflection, numbered as in EXIF."""
    if orientation >= 5:
        values = values.swapaxes(1, 2)
    if orientation in (3, 4, 7, 8):
        values = values[:, ::-1]
    return values[:, :, ::-1] if orientation in (2, 3, 6, 7) else values


def to_planes(image: Pillow.Image) -> Real[np.ndarray, "B H W"]:
    """Convert a Pillow image to an array with the bands first."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def to_channels(pixels: Pixels, channels: int) -> Real[np.ndarray, "C H W"]:
    """Return the values in so many channels: bytes as bytes, others as floats in which NaN stands for no data.

    Gray becomes RGB and RGB gray; of four bands, the first three are RGB. The opacity is left out.

    Raises:
        Undecodable: the bands cannot be read in so many channels.
    """
    check_bands(pixels.form, channels)
    values = pixels.values
    if not pixels.is_bytes:
        values = values.astype(np.float64 if values.dtype.name in WIDE_TYPES else np.float32)
        if pixels.no_data is not None:
            values[pixels.values == pixels.no_data] = np.nan
    if channels == 1 and len(values) > 1:
        gray = np.tensordot(LUMA, values[:3].astype(np.result_type(values, np.float32)), 1)[None]
        return gray.round().astype(np.uint8) if pixels.is_bytes else gray
    return values[:channels] if len(values) > 1 else np.repeat(values, min(channels, 3), 0)


def scale_values(pixels: Pixels, channels: int, value_range: tuple[float, ...]) -> Float[np.ndarray, "C H W"]:
    """Scale values from the range to 0 … 255, clipped; pixels without data become 0, transparent ones white.

    Bytes keep their values. With one channel more than bands, the last is the opacity.

    Raises:
        Undecodable: no range is known, or the bands cannot be read in so many channels.
    """
    if pixels.is_bytes:
        value_range = (0.0, 255.0)
    if len(value_range) < 2:
        raise Undecodable(
            f"{pixels.form.describe()}, but no range of values is known, as the images sampled or trained on have 8 "
            "bits: train with --data.value-range LOW HIGH, or convert the image to 8 bits"
        )
    has_alpha_channel = pixels.opacity is not None and channels == len(pixels.values) + 1
    values = to_channels(pixels, channels - has_alpha_channel)
    values = values.astype(np.result_type(values, np.float32), copy=False)
    low, high = (np.array(value_range[at::2][: len(values)], values.dtype)[:, None, None] for at in (0, 1))
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = ((values - low) * (255 / (high - low))).clip(0, 255).astype(np.float32, copy=False)
    scaled[np.isnan(scaled)] = 0
    if has_alpha_channel:
        return np.concatenate([scaled, 255 * pixels.opacity[None]])  # type: ignore[index]
    return scaled if pixels.opacity is None else scaled * pixels.opacity + 255 * (1 - pixels.opacity)


def draw_pixels(pixels: Pixels, value_range: tuple[float, ...] = ()) -> Pillow.Image:
    """Draw the first three bands as RGB, or the first as gray; without a range between the percentiles DISPLAYED."""
    bands = 3 if len(pixels.values) >= 3 else 1
    part = pixels._replace(values=pixels.values[:bands])
    if len(value_range) < 2 and not part.is_bytes:
        values = to_channels(part, bands)
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, DISPLAYED).tolist() if finite.size else (0.0, 1.0)
        value_range = (low, max(high, low + 1e-6 * max(1.0, abs(low))))
    planes = scale_values(part, bands, value_range).round().astype(np.uint8)
    return Pillow.fromarray(planes[0] if bands == 1 else np.ascontiguousarray(planes.transpose(1, 2, 0)))


def parse_npy(content: bytes) -> np.ndarray:
    """Return the array of a .npy file; pickles are refused.

    Raises:
        Undecodable: the bytes are not a .npy file, or damaged.
    """
    try:
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, MemoryError, tokenize.TokenError) as error:  # MemoryError: a false shape
        raise Undecodable("not a plain numpy array") from error


def array_planes(array: np.ndarray, channels: int) -> Real[np.ndarray, "B H W"]:
    """Return an image array (H, W) or (H, W, bands) of real numbers with the bands first; channels 0: any number.

    Raises:
        Undecodable: the array has other axes, no real numbers, or bands that cannot be read in so many channels.
    """
    if array.dtype.kind not in "uif" or array.ndim not in (2, 3) or array.size == 0:
        expected = f"(H, W, {channels or 'bands'})"
        raise Undecodable(f"{array.dtype} of shape {array.shape}: must be real numbers of shape {expected}")
    if array.ndim == 3 and array.shape[0] <= 4 < 16 < min(array.shape[1:]):
        raise Undecodable(f"{array.dtype} of shape {array.shape} has the bands first: store it as (H, W, bands)")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    check_bands(Pixels(planes).form, channels)
    return planes
