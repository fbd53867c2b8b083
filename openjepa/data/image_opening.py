"""Open the bytes of an image file with Pillow: by their content, past broken metadata, with a reason if it fails."""

from __future__ import annotations

import ctypes
import functools
import io
import logging
import re
import struct
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

from PIL import Image as Pillow
from PIL import ImageFile

from openjepa.data.image_formats import SNIFF_BYTES, describe_format, sniff_format
from openjepa.data.jpeg_segments import essential_jpeg, unusual_frame
from openjepa.data.orientation import ORIENTATION, TRANSPOSES, UPRIGHT, orientation_of, replace_metadata
from openjepa.data.png_chunks import check_header, essential_png, is_animated_png

MAX_PIXELS = 100_000_000  # per image; more counts as a decompression bomb

READERS = {  # format -> module and class that open it
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),  # not the factory: of an MPO file the first image is read
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "PPM": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "JPEG 2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
}

ESSENTIAL = {"JPEG": essential_jpeg, "PNG": essential_png}  # format -> what takes the metadata off

INSTALL = {"HEIC": "pip install 'openjepa[heif]'", "AVIF": "pip install --upgrade pillow"}

DECODE_ERRORS = (  # what Pillow raises on damaged files
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    ZeroDivisionError, RuntimeError, AssertionError, struct.error,
)  # fmt: skip

PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)  # as warnings.filterwarnings stores it


class Undecodable(ValueError):
    """A file could be read but not decoded as an image; the message is the reason."""


def open_content(content: bytes) -> Pillow.Image:
    """Open the bytes of an image file: read and check the header without decoding the pixels.

    Of its metadata only a valid orientation is left, so that broken ones cannot cost the image.

    Raises:
        Undecodable: the file is empty, of another format, damaged, or has too many pixels.
    """
    name = sniff_format(content[:SNIFF_BYTES])
    reader = find_reader(name, content)
    silence_pillow()
    needed, info = ESSENTIAL[name](content) if name in ESSENTIAL else (content, {})
    try:
        image = reader(io.BytesIO(needed), "")
    except Pillow.DecompressionBombError as error:
        raise Undecodable("too many pixels: a decompression bomb?") from error
    except DECODE_ERRORS as error:
        if name == "AVIF" and (without := hide_exif(content)) != content:
            return open_content(without)
        raise Undecodable(describe_damage(name, content, error)) from error
    check_pixel_count(*image.size)
    tags: dict[int, Any] = getattr(image, "tag_v2", {})  # of a TIFF
    turned = tags.get(ORIENTATION, UPRIGHT) if name == "TIFF" else orientation_of({**image.info, **info})
    replace_metadata(image, int(turned) if turned in range(1, 9) else UPRIGHT)
    return image


def find_reader(name: str, content: bytes) -> Callable[[io.BytesIO, str], Pillow.Image]:
    """Return the class that opens a format; a class of an optional package is imported at the first such file.

    Raises:
        Undecodable: no class opens this format, or its package is not installed.
    """
    if name not in READERS:
        raise Undecodable(describe_format(name, content[:SNIFF_BYTES]))
    module, reader = READERS[name]
    try:
        return getattr(import_module(module), reader)
    except ImportError as error:
        raise Undecodable(f"the file is a {name} image: to read it, {INSTALL.get(name, 'update Pillow')}") from error


def check_pixel_count(width: int, height: int) -> None:
    """Raise Undecodable if an image has more pixels than are decoded."""
    limit = min(MAX_PIXELS, Pillow.MAX_IMAGE_PIXELS or MAX_PIXELS)
    if width * height > limit:
        raise Undecodable(
            f"{width}×{height} pixels, more than {limit // 10**6} million: cut it into tiles (or a decompression bomb?)"
        )


def hide_exif(content: bytes) -> bytes:
    """Return an AVIF file whose EXIF item has another type, so that a broken one is not read."""
    return re.sub(rb"(infe.{8})Exif", rb"\1free", content, count=1, flags=re.DOTALL)


def load_pixels(image: Pillow.Image, scale: float = 1.0) -> Pillow.Image:
    """Decode the pixels and turn the image upright; a JPEG is decoded at up to `scale` times smaller size.

    Raises:
        Undecodable: the pixels are damaged.
    """
    stream = image.fp if isinstance(image, ImageFile.ImageFile) else None
    name = {"JPEG2000": "JPEG 2000", "HEIF": "HEIC"}.get(image.format or "", image.format or "image")
    try:
        if scale > 1 and name in ("JPEG", "MPO"):  # others may choose an embedded thumbnail, whose pixels differ
            image.draft(None, (int(image.size[0] / scale), int(image.size[1] / scale)))
        image.load()
    except Pillow.DecompressionBombError as error:
        raise Undecodable("too many pixels: a decompression bomb?") from error
    except DECODE_ERRORS as error:
        content = stream.getvalue() if isinstance(stream, io.BytesIO) and not stream.closed else b""
        raise Undecodable(describe_damage(name, content, error)) from error
    return turn_upright(image)


def turn_upright(image: Pillow.Image) -> Pillow.Image:
    """Apply the orientation to a decoded image."""
    method = TRANSPOSES.get(stored_orientation(image))
    if method is None:
        return image
    turned = image.transpose(method)
    replace_metadata(turned, UPRIGHT)
    return turned


def stored_orientation(image: Pillow.Image) -> int:
    """Return the orientation that is still to be applied; Pillow itself turns TIFF files."""
    return UPRIGHT if image.format == "TIFF" else orientation_of(image.info)


def describe_damage(name: str, content: bytes, error: Exception) -> str:
    """Return one sentence on why an image of a known format cannot be decoded."""
    text = str(error).strip().rstrip(".")
    if name == "PNG" and (reason := check_header(content)):
        return reason
    if name == "JPEG" and (kind := unusual_frame(content)):
        return f"{kind}, which Pillow cannot decode: convert it to PNG or TIFF"
    if name == "TIFF" and text.isdecimal():  # the number that Pillow does not know
        return f"a TIFF with compression {text}, which Pillow cannot decode: write it with LZW or Deflate"
    zeros = len(content) - len(content.rstrip(b"\0"))
    if zeros > max(SNIFF_BYTES, len(content) // 10):
        return f"the file is truncated: its last {100 * zeros // len(content)} % are zeros, an interrupted copy?"
    if (size := declared_size(name, content)) > len(content) > 0:
        return f"the file is truncated after {100 * len(content) // size} %: {len(content):,} of {size:,} bytes"
    if "truncated" in text.lower() or "not processed" in text or isinstance(error, EOFError | IndexError):
        return f"the file is truncated: its {name} data ends too early"
    if name == "TIFF" and re.search("unknown pixel mode|samples per pixel|data organization", text):
        return "a TIFF with bands or bits that Pillow cannot decode: pip install 'openjepa[tiff]'"
    if match := re.search(r"(\d+)-bit layers", text):
        return f"a JPEG of {match[1]} bits per channel, which Pillow cannot decode: convert it to PNG or TIFF"
    return f"its {name} data is damaged ({text})" if text else f"its {name} data is damaged"


def declared_size(name: str, content: bytes) -> int:
    """Return the bytes that a file should have by its own header; 0 if its format does not say."""
    if name == "WEBP":
        return int.from_bytes(content[4:8], "little") + 8
    if name == "BMP":
        return int.from_bytes(content[2:6], "little")
    if name == "PNG":
        return png_size(content)
    if name in ("AVIF", "HEIC"):
        return boxes_size(content)
    return 0


def png_size(content: bytes) -> int:
    """Return the end of the last chunk of a PNG file, which may be beyond its end."""
    start = 8
    while start + 8 <= len(content):
        start += 12 + int.from_bytes(content[start : start + 4])
    return start if content[start - 8 : start - 4] != b"IEND" else 0


def boxes_size(content: bytes) -> int:
    """Return the end of the last box of a file in boxes (ISO 14496-12), which may be beyond its end."""
    start = 0
    while start + 8 <= len(content):
        size = int.from_bytes(content[start : start + 4])
        if size < 8:  # 0: to the end of the file; 1: a size of 64 bits follows
            return 0
        start += size
    return start


def count_frames(content: bytes) -> int:
    """Return how many frames or pages an image file has; 1 if later ones are damaged."""
    name = sniff_format(content[:SNIFF_BYTES])
    if name == "PNG":
        return 2 if is_animated_png(content) else 1
    try:
        return getattr(find_reader(name, content)(io.BytesIO(content), ""), "n_frames", 1)
    except (Undecodable, Pillow.DecompressionBombError, *DECODE_ERRORS):
        return 1


def silence_pillow() -> None:
    """Keep the warnings of Pillow and its libraries from the terminal: a file is decoded, or has one reason."""
    if PILLOW_WARNINGS not in warnings.filters:  # code that tests warnings replaces the list
        warnings.filterwarnings("ignore", module=r"PIL\.")
    silence_libraries()


@functools.cache
def silence_libraries() -> None:
    """Silence the logger of Pillow, and libtiff, which writes to standard error itself."""
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    library = ctypes.CDLL(Pillow.core.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        if hasattr(library, name):  # not where libtiff is linked statically
            getattr(library, name)(None)
