"""Read, check and decode image files.   C channels  H height  W width"""

from __future__ import annotations

import io
import time
import tokenize
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image as Pillow

from openjepa.data.archives import member_size, parse_address, read_member
from openjepa.data.crops import Crops, resample
from openjepa.data.image_formats import IMAGE_SUFFIXES, sniff_format
from openjepa.data.image_opening import (
    DECODE_ERRORS,
    MAX_PIXELS,
    Undecodable,
    load_pixels,
    open_content,
    stored_orientation,
)
from openjepa.data.orientation import ORIENTATION

__all__ = ("DECODE_ERRORS", "IMAGE_SUFFIXES", "MAX_PIXELS", "ORIENTATION", "Undecodable")  # defined elsewhere

MODES = {1: "L", 3: "RGB"}

MAX_BYTES = 2**29  # per file

READ_ATTEMPTS = 3  # attempts to read a file before the run stops


def read_bytes(path: str) -> bytes:
    """Return the bytes of a file, or of an address in an archive.

    A failed read is retried and then stops the run: using another file instead would make a resume inexact.

    Raises:
        Undecodable: the file is larger than MAX_BYTES.
        OSError: every attempt failed.
    """
    address = parse_address(path)
    for attempt in range(READ_ATTEMPTS):
        try:
            if (member_size(address) if address else Path(path).stat().st_size) > MAX_BYTES:
                raise Undecodable(f"the file is larger than {MAX_BYTES // 2**20} MiB")
            return read_member(address) if address else Path(path).read_bytes()
        except OSError as error:
            if attempt == READ_ATTEMPTS - 1 or isinstance(error, PermissionError):
                raise OSError(describe_read_error(path, error)) from error
            time.sleep(0.2 * 4**attempt)
    raise AssertionError


def describe_read_error(path: str, error: OSError) -> str:
    """Return one sentence on a file that cannot be read, and what to do."""
    if isinstance(error, PermissionError):
        repair = "let this user read it, or remove it"
    elif isinstance(error, FileNotFoundError):
        repair = "put it back"
    else:
        repair = "fix the file or its disk"
    return f"{path} cannot be read ({error.strerror}): {repair}, then repeat the command (a run: with --resume yes)"


def open_image(path: str) -> Pillow.Image:
    """Open an image: read and check its header without decoding the pixels.

    Raises:
        Undecodable: the file is empty, of another format, damaged, or has too many pixels.
    """
    return open_content(read_bytes(path))


def upright_image(image: Pillow.Image, channels: int, scale: float = 1.0) -> Pillow.Image:
    """Decode an image with its EXIF rotation applied, in 1 or 3 channels, transparency on white.

    A JPEG is decoded at up to `scale` times smaller size, which is faster.

    Raises:
        Undecodable: the pixels cannot be decoded, or `channels` is not 1 or 3.
    """
    if channels not in MODES:
        raise Undecodable(f"image files have 1 or 3 channels, not {channels}: store other images as .npy files")
    upright = load_pixels(image, scale)
    if upright.mode.startswith(("I", "F")):  # 16 bits and more: keep the upper 8
        array = np.asarray(upright).astype(np.float64)
        top = 65535.0 if upright.mode.startswith("I") else max(float(array.max()), 1e-12)
        upright = Pillow.fromarray((array / top * 255).clip(0, 255).round().astype(np.uint8), "L")
    if "A" in upright.mode or "transparency" in upright.info:
        upright = upright.convert("RGBA")
        upright = Pillow.alpha_composite(Pillow.new("RGBA", upright.size, "white"), upright)
    return upright.convert(MODES[channels])


class EncodedImage(NamedTuple):
    """An image whose header is read but whose pixels are not decoded."""

    height: int  # after the EXIF rotation
    width: int  # after the EXIF rotation
    content: Pillow.Image | UInt8[np.ndarray, "C H W"]


def read_image_file(path: str, channels: int) -> EncodedImage:
    """Read a file's bytes, and its height and width from the header.

    Raises:
        Undecodable: the file is not an image, its header is damaged, or an array has other channels.
    """
    return encoded_image(read_bytes(path), channels)


def encoded_image(content: bytes, channels: int) -> EncodedImage:
    """Read the height and width of an image from the header in the bytes of its file.

    Raises:
        Undecodable: they are not an image, the header is damaged, or an array has other channels.
    """
    if sniff_format(content[:6]) == "NumPy":
        array = read_array(content, channels)
        return EncodedImage(array.shape[1], array.shape[2], array)
    image = open_content(content)
    width, height = image.size
    sideways = stored_orientation(image) >= 5
    return EncodedImage(width, height, image) if sideways else EncodedImage(height, width, image)


def image_size(path: str, channels: int) -> tuple[int, int]:
    """Return (height, width) after the EXIF rotation, from the header.

    Raises:
        Undecodable: the file is not an image, or its header is damaged.
    """
    return read_image_file(path, channels)[:2]


def decode_image(path: str, channels: int) -> UInt8[np.ndarray, "C H W"]:
    """Decode a whole image at full size.

    Raises:
        Undecodable: the file is not an image, or its pixels cannot be decoded.
    """
    content = read_image_file(path, channels).content
    return content if isinstance(content, np.ndarray) else to_planes(upright_image(content, channels))


def to_planes(image: Pillow.Image) -> UInt8[np.ndarray, "C H W"]:
    """Convert a Pillow image to an array with the channels first."""
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def read_array(content: bytes, channels: int) -> UInt8[np.ndarray, "C H W"]:
    """Read an image with any number of channels from a .npy file of uint8 (H, W, C).

    Raises:
        Undecodable: the file holds another dtype or shape.
    """
    array = read_npy(content)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels or not array.size:
        raise Undecodable(f"{array.dtype} of shape {array.shape}: must be uint8 of shape (H, W, {channels})")
    return array.transpose(2, 0, 1)


def load_npy(path: str) -> np.ndarray:
    """Load the array of a .npy file; pickles are refused.

    Raises:
        Undecodable: the file is not a .npy file, or is damaged.
    """
    return read_npy(read_bytes(path))


def read_npy(content: bytes) -> np.ndarray:
    """Read the array in the bytes of a .npy file; pickles are refused.

    Raises:
        Undecodable: they are not a .npy file, or are damaged.
    """
    try:
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (
        ValueError,
        EOFError,
        MemoryError,
        tokenize.TokenError,
    ) as error:  # MemoryError: a header with a false shape
        raise Undecodable("not a plain numpy array") from error


def crop_file(
    file: EncodedImage, channels: int, crop: Crops, row: int, size: tuple[int, int]
) -> UInt8[np.ndarray, "C h w"]:
    """Return view `row` of the crops, from one decode at the smallest sufficient scale.

    Raises:
        Undecodable: the pixels cannot be decoded.
    """
    if isinstance(file.content, np.ndarray):
        whole = torch.from_numpy(np.ascontiguousarray(file.content))[None]
        return resample(whole, Crops(*(each[row : row + 1] for each in crop)), size)[0].numpy()
    scale = min(float(crop.height[row]) / size[0], float(crop.width[row]) / size[1])
    image = upright_image(file.content, channels, scale)
    across, down = image.size[0] / file.width, image.size[1] / file.height
    left, top, right, bottom = crop.box(row)
    box = left * across, top * down, min(right * across, image.size[0]), min(bottom * down, image.size[1])
    out = image.resize((size[1], size[0]), Pillow.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    return to_planes(out.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT) if crop.flip[row] else out)
