"""Read, check and decode picture files.   C channels  H height  W width"""

from __future__ import annotations

import io
import struct
import time
import tokenize
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps

from openjepa.data.archives import member_size, parse_address, read_member
from openjepa.data.crops import Crops, resample

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".npy"})

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

MODES = {1: "L", 3: "RGB"}

MAX_PIXELS = 100_000_000  # of a picture; more is taken for a decompression bomb

MAX_BYTES = 2**29  # of a file

ORIENTATION = 0x0112  # EXIF

DECODE_ERRORS = (  # what Pillow raises on files that are not what they seem
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    ZeroDivisionError, struct.error,
)  # fmt: skip

READ_ATTEMPTS = 3  # tries to read a file before the run stops


class Undecodable(ValueError):
    """A file was read but is not a picture we can decode; the message is the reason."""


def read_bytes(path: str) -> bytes:
    """The bytes of a file, or of an address in an archive; a failure is tried again, then stops the run, since a replacement
    would make a resume differ. Undecodable if there are more than MOST_BYTES.
    """
    place = parse_address(path)
    for attempt in range(READ_ATTEMPTS):
        try:
            if (member_size(place) if place else Path(path).stat().st_size) > MAX_BYTES:
                raise Undecodable(f"the file is larger than {MAX_BYTES // 2**20} MiB")
            return read_member(place) if place else Path(path).read_bytes()
        except OSError as error:
            if attempt == READ_ATTEMPTS - 1:
                raise OSError(
                    f"{path} cannot be read ({error.strerror}): mend it or its disk, then go on with --resume"
                ) from error
            time.sleep(0.2 * 4**attempt)
    raise AssertionError


def open_image(path: str) -> Pillow.Image:
    """The picture with its header read and checked. Undecodable, with the reason, if it is not one we open."""
    content = read_bytes(path)
    if not content:
        raise Undecodable("the file is empty")
    try:
        picture = Pillow.open(io.BytesIO(content), formats=FORMATS)
    except Pillow.DecompressionBombError as error:
        raise Undecodable("too many pixels: a decompression bomb?") from error
    except DECODE_ERRORS as error:
        raise Undecodable("not a picture of a known format") from error
    if picture.size[0] * picture.size[1] > min(MAX_PIXELS, Pillow.MAX_IMAGE_PIXELS or MAX_PIXELS):
        raise Undecodable(f"{picture.size[0]}×{picture.size[1]} pixels: a decompression bomb?")
    return picture


def upright_image(picture: Pillow.Image, channels: int, scale: float = 1.0) -> Pillow.Image:
    """The picture a person sees, in the wanted channels; a JPEG may come out up to `scale` times smaller."""
    if channels not in MODES:
        raise Undecodable(f"pictures have 1 or 3 channels, not {channels}: more come in .npy files")
    try:
        if scale > 1:
            picture.draft(None, (int(picture.size[0] / scale), int(picture.size[1] / scale)))
        picture.load()
        seen = ImageOps.exif_transpose(picture)
    except DECODE_ERRORS as error:
        raise Undecodable(f"cannot be decoded: {error}") from error
    if seen.mode.startswith(("I", "F")):  # 16 bits and more: the top eight
        array = np.asarray(seen).astype(np.float64)
        top = 65535.0 if seen.mode.startswith("I") else max(float(array.max()), 1e-12)
        seen = Pillow.fromarray((array / top * 255).clip(0, 255).round().astype(np.uint8), "L")
    if "A" in seen.mode or "transparency" in seen.info:
        seen = seen.convert("RGBA")
        seen = Pillow.alpha_composite(Pillow.new("RGBA", seen.size, "white"), seen)
    return seen.convert(MODES[channels])


class EncodedImage(NamedTuple):
    """A picture that was read and not yet decoded."""

    height: int  # as a person sees it
    width: int
    content: Pillow.Image | UInt8[np.ndarray, "C H W"]


def read_image_file(path: str, channels: int) -> EncodedImage:
    """A file's bytes, and from its header how high and wide it is. Undecodable if it has none."""
    if path.endswith(".npy"):
        array = read_array(path, channels)
        return EncodedImage(array.shape[1], array.shape[2], array)
    picture = open_image(path)
    width, height = picture.size
    try:
        turned = may_have_exif(picture) and picture.getexif().get(ORIENTATION, 1) >= 5  # stored on its side
    except DECODE_ERRORS as error:
        raise Undecodable(f"its EXIF data cannot be read: {error}") from error
    return EncodedImage(width, height, picture) if turned else EncodedImage(height, width, picture)


def may_have_exif(picture: Pillow.Image) -> bool:
    """Whether it may have EXIF data. Of a PNG they may come last, so that Pillow decodes it all to find that there are none."""
    if picture.format != "PNG" or not (isinstance(picture, ImageFile.ImageFile) and isinstance(picture.fp, io.BytesIO)):
        return True
    content = picture.fp.getvalue()
    return any(chunk in content for chunk in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"))


def image_size(path: str, channels: int) -> tuple[int, int]:
    """Height and width as a person sees the picture, from its header. Undecodable if it has none."""
    return read_image_file(path, channels)[:2]


def decode_image(path: str, channels: int) -> UInt8[np.ndarray, "C H W"]:
    """The whole picture. Undecodable, with the reason, if it cannot be had."""
    if path.endswith(".npy"):
        return read_array(path, channels)
    with open_image(path) as picture:
        return to_planes(upright_image(picture, channels))


def to_planes(picture: Pillow.Image) -> UInt8[np.ndarray, "C H W"]:
    array = np.asarray(picture)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def read_array(path: str, channels: int) -> UInt8[np.ndarray, "C H W"]:
    """A picture of any number of channels, kept as bytes of H W C in numpy's format."""
    array = load_npy(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels:
        raise Undecodable(f"{array.dtype} of shape {array.shape}, not uint8 of (H, W, {channels})")
    return array.transpose(2, 0, 1)


def load_npy(path: str) -> np.ndarray:
    """What a file of numpy's holds; never a pickle. Undecodable if it is none."""
    try:
        return np.lib.format.read_array(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError, MemoryError, tokenize.TokenError) as error:  # also of a shape that is a lie
        raise Undecodable("not a plain numpy array") from error


def crop_file(
    file: EncodedImage, channels: int, crop: Crops, row: int, size: tuple[int, int]
) -> UInt8[np.ndarray, "C h w"]:
    """The row-th of the boxes, from one decode at the smallest scale that serves. Undecodable, with the reason, if it cannot be had."""
    if isinstance(file.content, np.ndarray):
        whole = torch.from_numpy(np.ascontiguousarray(file.content))[None]
        return resample(whole, Crops(*(each[row : row + 1] for each in crop)), size)[0].numpy()
    scale = min(float(crop.height[row]) / size[0], float(crop.width[row]) / size[1])
    seen = upright_image(file.content, channels, scale)
    across, down = seen.size[0] / file.width, seen.size[1] / file.height
    left, top, right, bottom = crop.box(row)
    box = left * across, top * down, min(right * across, seen.size[0]), min(bottom * down, seen.size[1])
    out = seen.resize((size[1], size[0]), Pillow.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    return to_planes(out.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT) if crop.flip[row] else out)
