"""Read, check and decode image files.   C channels  H height  W width"""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
from jaxtyping import Real
from PIL import Image as Pillow
from PIL import ImageFile

from openjepa.data.archives import member_size, parse_address, read_member
from openjepa.data.image_header import (
    DECODE_ERRORS,
    MAX_PIXELS,
    ImageForm,
    Undecodable,
    check_bands,
    check_extra,
    image_form,
)
from openjepa.data.image_pixels import StoredPixels, array_planes, parse_npy
from openjepa.data.image_values import EncodedImage, decode_planes, form_of

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".npy"})

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

MAX_BYTES = 2**29  # per file

ORIENTATION = 0x0112  # EXIF tag

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
            if attempt == READ_ATTEMPTS - 1:
                raise OSError(
                    f"{path} cannot be read ({error.strerror}): fix the file or its disk, then resume with --resume yes"
                ) from error
            time.sleep(0.2 * 4**attempt)
    raise AssertionError


def open_image(path: str) -> Pillow.Image:
    """Open an image: read and check its header without decoding the pixels.

    Raises:
        Undecodable: the file is empty, of another format, or has too many pixels.
    """
    return open_content(read_bytes(path))


def open_content(content: bytes) -> Pillow.Image:
    """Open the bytes of an image file. Raises Undecodable as `open_image` does."""
    if not content:
        raise Undecodable("the file is empty")
    try:
        image = Pillow.open(io.BytesIO(content), formats=FORMATS)
    except Pillow.DecompressionBombError as error:
        raise Undecodable("too many pixels: a decompression bomb?") from error
    except DECODE_ERRORS as error:
        raise Undecodable("not an image in a supported format") from error
    if image.size[0] * image.size[1] > min(MAX_PIXELS, Pillow.MAX_IMAGE_PIXELS or MAX_PIXELS):
        raise Undecodable(f"{image.size[0]}×{image.size[1]} pixels: a decompression bomb?")
    return image


def read_image_file(path: str, channels: int) -> EncodedImage:
    """Read a file's bytes, and its height and width from the header; channels 0: as many as it has.

    Raises:
        Undecodable: the file is not an image, its header is damaged, or it does not have so many channels.
    """
    if path.endswith(".npy"):
        array = array_planes(load_npy(path), channels)
        return EncodedImage(array.shape[1], array.shape[2], array)
    content = read_bytes(path)
    form = image_form(content)
    if form and (form.is_deep or form.bands > 3 or not form.fits_pillow):
        return stored_image(content, form, channels)
    image = open_content(content)
    width, height = image.size
    return EncodedImage(width, height, image) if orientation_of(image) >= 5 else EncodedImage(height, width, image)


def stored_image(content: bytes, form: ImageForm, channels: int) -> EncodedImage:
    """Return a file whose values or bands are more than the bytes that Pillow makes of them."""
    check_bands(form, channels)
    if channels:
        check_extra(form, channels)
    if not content.startswith((b"II", b"MM")):
        form = form._replace(orientation=orientation_of(open_content(content)))
    sides = (form.width, form.height) if form.orientation >= 5 else (form.height, form.width)
    return EncodedImage(*sides, StoredPixels(content, form))


def file_form(path: str) -> ImageForm:
    """Return bands and bits of an image file, from its header.

    Raises:
        Undecodable: the file is not an image, or its header is damaged.
    """
    return form_of(read_image_file(path, 0))


def orientation_of(image: Pillow.Image) -> int:
    """Return the rotation or reflection that EXIF states; 1: none.

    Raises:
        Undecodable: the EXIF data are damaged.
    """
    try:
        return image.getexif().get(ORIENTATION, 1) if may_have_exif(image) else 1
    except DECODE_ERRORS as error:
        raise Undecodable(f"its EXIF data cannot be read: {error}") from error


def may_have_exif(image: Pillow.Image) -> bool:
    """Return whether an image may have EXIF data.

    A PNG may store them after the pixels, so Pillow would decode all of a PNG without EXIF data to look for them.
    """
    if image.format != "PNG" or not (isinstance(image, ImageFile.ImageFile) and isinstance(image.fp, io.BytesIO)):
        return True
    content = image.fp.getvalue()
    return any(chunk in content for chunk in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"))


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
