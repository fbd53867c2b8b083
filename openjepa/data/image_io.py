"""Read, check and decode image files.   C channels  H height  W width"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Real
from PIL import Image as Pillow

from openjepa.data.archives import member_size, parse_address, read_member
from openjepa.data.image_formats import IMAGE_SUFFIXES, SNIFF_BYTES, sniff_format
from openjepa.data.image_header import ImageForm, check_bands, check_extra, image_form
from openjepa.data.image_opening import DECODE_ERRORS, MAX_PIXELS, Undecodable, open_content, stored_orientation
from openjepa.data.image_pixels import StoredPixels, array_planes, parse_npy
from openjepa.data.image_values import EncodedImage, decode_planes, form_of
from openjepa.data.orientation import ORIENTATION

__all__ = ("DECODE_ERRORS", "IMAGE_SUFFIXES", "MAX_PIXELS", "ORIENTATION", "Undecodable")  # defined elsewhere

MAX_BYTES = 2**29  # per file

Result = TypeVar("Result")

READ_ATTEMPTS = 3  # attempts to read a file before the run stops


def read_bytes(path: str) -> bytes:
    """Return the bytes of a file, or of an address in an archive.

    A failed read is retried and then stops the run: using another file instead would make a resume inexact.

    Raises:
        Undecodable: the file is larger than MAX_BYTES.
        OSError: every attempt failed.
    """
    address = parse_address(path)

    def read() -> bytes:
        if (member_size(address) if address else Path(path).stat().st_size) > MAX_BYTES:
            raise Undecodable(f"the file is larger than {MAX_BYTES // 2**20} MiB")
        return read_member(address) if address else Path(path).read_bytes()

    return retry_reading(path, read)


def retry_reading(path: str, read: Callable[[], Result]) -> Result:
    """Call a function that reads a file until it succeeds. Raises OSError, with what to do, if every attempt failed."""
    for attempt in range(READ_ATTEMPTS):
        try:
            return read()
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


def read_image_file(path: str, channels: int) -> EncodedImage:
    """Read a file's bytes, and its height and width from the header; channels 0: as many as it has.

    Raises:
        Undecodable: the file is not an image, its header is damaged, or it does not have so many channels.
    """
    return encoded_image(read_bytes(path), channels)


def encoded_image(content: bytes, channels: int) -> EncodedImage:
    """Read the height and width of an image from the header in the bytes of its file; channels 0: as many as it has.

    Raises:
        Undecodable: they are not an image, the header is damaged, or they do not have so many channels.
    """
    if sniff_format(content[:6]) == "NumPy":
        array = array_planes(parse_npy(content), channels)
        return EncodedImage(array.shape[1], array.shape[2], array)
    form = image_form(content)
    if form and (form.is_deep or form.bands > 3 or not form.fits_pillow):
        return stored_image(content, form, channels)
    image = open_content(content)
    width, height = image.size
    sideways = stored_orientation(image) >= 5
    return EncodedImage(width, height, image) if sideways else EncodedImage(height, width, image)


def stored_image(content: bytes, form: ImageForm, channels: int) -> EncodedImage:
    """Return a file whose values or bands are more than the bytes that Pillow makes of them."""
    check_bands(form, channels)
    if channels:
        check_extra(form, channels)
    if sniff_format(content[:SNIFF_BYTES]) == "PNG":
        form = form._replace(orientation=stored_orientation(open_content(content)))
    sides = (form.width, form.height) if form.orientation >= 5 else (form.height, form.width)
    return EncodedImage(*sides, StoredPixels(content, form))


def file_form(path: str) -> ImageForm:
    """Return bands and bits of an image file, from its header.

    Raises:
        Undecodable: the file is not an image, or its header is damaged.
    """
    return form_of(read_image_file(path, 0))


def image_size(path: str, channels: int) -> tuple[int, int]:
    """Return (height, width) after the EXIF rotation, from the header.

    Raises:
        Undecodable: the file is not an image, or its header is damaged.
    """
    return read_image_file(path, channels)[:2]


def decode_image(path: str, channels: int, value_range: tuple[float, ...] = ()) -> Real[np.ndarray, "C H W"]:
    """Decode a whole image at full size: to bytes, or with a range of values to float32 on the scale of bytes.

    Raises:
        Undecodable: the file is not an image, or its pixels cannot be decoded.
    """
    return decode_planes(read_image_file(path, channels), channels, value_range)


def load_npy(path: str) -> np.ndarray:
    """Load the array of a .npy file; pickles are refused.

    Raises:
        Undecodable: the file is not a .npy file, or is damaged.
    """
    return parse_npy(read_bytes(path))
