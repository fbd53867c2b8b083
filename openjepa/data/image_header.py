"""Tell from a header how an image file stores its values: bands, bits, opacity, and who can decode it exactly."""

from __future__ import annotations

import io
import re
import struct
from importlib.util import find_spec
from typing import Any, NamedTuple

from PIL import TiffImagePlugin

from openjepa.data.image_opening import DECODE_ERRORS, MAX_PIXELS, Undecodable, check_pixel_count

MAX_VALUES = 4 * MAX_PIXELS  # pixels times bands, likewise

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # with +: BigTIFF

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"

PPM_MAGIC = b"P6"

PPM_HEADER = re.compile(rb"P6(?:\s+#[^\n]*)*\s+(\d{1,7})(?:\s+#[^\n]*)*\s+(\d{1,7})(?:\s+#[^\n]*)*\s+(\d{1,5})\s")

JPEG_2000_STARTS = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")  # the code stream with its sizes; boxes around it

WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1  # photometric interpretations of TIFF

CMYK = 5  # likewise

CONVERTED = {3, CMYK, 6, 8, 9}  # likewise: palettes, CMYK, YCbCr and LAB, which Pillow turns into RGB of 8 bits

COMPRESSION = 259  # tag of TIFF

EXTRA_COMPRESSIONS = {33003, 33004, 33005, 34712, 34887, 50002, 52546}  # JPEG 2000, LERC, JPEG XL

WIDTH, HEIGHT, BITS, PHOTOMETRIC, TURN, SAMPLES = 256, 257, 258, 262, 274, 277  # tags of TIFF

EXTRA_SAMPLES, SAMPLE_FORMAT, NO_DATA = 338, 339, 42113

KINDS = {1: "uint", 2: "int", 3: "float", 4: "uint"}  # sample formats of TIFF -> start of the numpy type's name

PLAIN_COLORS = {  # color type of PNG -> bands, whether there is opacity
    0: (1, False), 2: (3, False), 4: (1, True), 6: (3, True),
}  # fmt: skip


class ImageForm(NamedTuple):
    """How an image file stores its values, from its header."""

    height: int  # as stored, before any rotation
    width: int
    bands: int  # without opacity
    dtype: str  # numpy type that holds the values
    alpha: int = -1  # position of the opacity among the samples; -1: none
    fits_pillow: bool = True  # Pillow decodes all levels and bands
    orientation: int = 1  # as in EXIF
    no_data: float | None = None  # value of pixels without data (GDAL)
    inverted: bool = False  # 0 is white
    drops_fourth: bool = False  # Pillow decodes the first three of four bands

    @property
    def is_deep(self) -> bool:
        """Return whether values have more than 8 bits, a sign or fractions."""
        return self.dtype != "uint8"

    @property
    def lacks_extra(self) -> bool:
        """Return whether a package is missing that decodes the file exactly."""
        return not self.fits_pillow and not self.drops_fourth and not has_extra()

    def describe(self) -> str:
        """Return bands and type of value in words."""
        bits = {"bool": "1 bit"}.get(self.dtype, f"{self.dtype.removeprefix('uint')} bits")
        kind = self.dtype if self.dtype.startswith(("int", "float")) else bits
        bands = f"{self.bands} band{'s' if self.bands > 1 else ''}{' and opacity' if self.alpha >= 0 else ''}"
        return f"{bands} of {kind}"


def has_extra() -> bool:
    """Return whether the packages of the extra `tiff` are installed."""
    return find_spec("tifffile") is not None and find_spec("imagecodecs") is not None


def image_form(content: bytes) -> ImageForm | None:
    """Return how a TIFF, or a PNG, PPM or JPEG 2000 of 16 bits, stores its values.

    None for other files, and for damaged headers, which Pillow describes.

    Raises:
        Undecodable: the header promises values that are not read, or more than MAX_VALUES.
    """
    form = None
    if content.startswith(TIFF_MAGIC):
        form = tiff_form(content)
    elif content.startswith(PNG_MAGIC) and content[24:25] == b"\x10":
        form = png_form(content)
    elif content.startswith(PPM_MAGIC):
        form = ppm_form(content)
    elif content.startswith(JPEG_2000_STARTS):
        form = jpeg_2000_form(content[max(0, content.find(JPEG_2000_STARTS[0])) :])
    if form:
        check_pixel_count(form.width, form.height)
        if form.height * form.width * (form.bands + 1) > MAX_VALUES:
            raise Undecodable(f"{form.width}×{form.height} pixels, {form.describe()}: a decompression bomb?")
    return form


def png_form(content: bytes) -> ImageForm | None:
    """Return the form of a PNG of 16 bits; Pillow keeps the upper 8 of those in color or with opacity."""
    try:
        width, height, _, color = struct.unpack(">IIBB", content[16:26])
        bands, alpha = PLAIN_COLORS[color]
    except (struct.error, KeyError):
        return None
    if min(width, height) < 1:
        return None
    return ImageForm(height, width, bands, "uint16", bands if alpha else -1, fits_pillow=color == 0)


def ppm_form(content: bytes) -> ImageForm | None:
    """Return the form of a PPM of 16 bits; None for one of 8 bits, which Pillow reads exactly."""
    header = PPM_HEADER.match(content[:4096])
    if not header or not 256 <= int(header[3]) <= 65535:
        return None
    return ImageForm(int(header[2]), int(header[1]), 3, "uint16")


def jpeg_2000_form(stream: bytes) -> ImageForm | None:
    """Return the form of a JPEG 2000 of more than 8 bits in several bands; None for others, which Pillow reads."""
    if len(stream) < 43:
        return None
    right, bottom, left, top = struct.unpack(">IIII", stream[8:24])
    (bands,) = struct.unpack(">H", stream[40:42])
    bits, kind = (stream[42] & 127) + 1, "int" if stream[42] & 128 else "uint"
    if bands < 2 or not 8 < bits <= 16 or right <= left or bottom <= top:
        return None
    return ImageForm(bottom - top, right - left, bands, f"{kind}16", fits_pillow=False)


def tiff_form(content: bytes) -> ImageForm | None:
    """Return the form of the first image of a TIFF."""
    try:
        tags = tiff_tags(content)
        width, height, samples = (int(tags[name]) for name in (WIDTH, HEIGHT, SAMPLES))
        bits, formats = {int(each) for each in tags[BITS]}, {int(each) for each in tags[SAMPLE_FORMAT]}
        extras = [int(each) for each in tags[EXTRA_SAMPLES]]
        photometric, orientation, compression = (int(tags[name]) for name in (PHOTOMETRIC, TURN, COMPRESSION))
    except DECODE_ERRORS:
        return None
    if min(width, height, samples) < 1 or not bits:
        return None
    orientation = orientation if orientation in range(1, 9) else 1
    if photometric in CONVERTED and photometric != CMYK and max(bits) > 8:
        raise Undecodable("a TIFF with a palette, YCbCr or LAB colors of 16 bits: convert it to RGB")
    if photometric in CONVERTED:
        return ImageForm(height, width, 3, "uint8", orientation=orientation)
    if len(formats) != 1 or not formats <= KINDS.keys() or len(bits) != 1:
        raise Undecodable("the TIFF has complex values, or bands of different types")
    dtype = numpy_type(KINDS[formats.pop()], max(bits))
    opacity = [samples - len(extras) + number for number, extra in enumerate(extras) if extra in (1, 2)]
    form = ImageForm(height, width, samples - bool(opacity), dtype, max(opacity, default=-1), True, orientation)
    if compression in EXTRA_COMPRESSIONS:
        return form._replace(fits_pillow=False, no_data=parse_number(tags[NO_DATA]))
    drops_fourth = samples == 4 and extras == [0] and form.dtype == "uint8" and max(bits) == 8
    return form._replace(
        drops_fourth=drops_fourth,
        fits_pillow=not drops_fourth and pillow_holds(form, max(bits), content.startswith(b"MM")),
        no_data=parse_number(tags[NO_DATA]),
        inverted=photometric == WHITE_IS_ZERO and form.is_deep and dtype.startswith("uint"),
    )


def tiff_tags(content: bytes) -> dict[int, Any]:
    """Return the tags of the first image of a TIFF that say how values are stored, with their defaults."""
    big = content[2:3] == b"+" or content[3:4] == b"+"
    directory = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if big else 8])
    stream = io.BytesIO(content)
    stream.seek(directory.next)
    directory.load(stream)
    defaults = {
        BITS: (1,),
        SAMPLE_FORMAT: (1,),
        EXTRA_SAMPLES: (),
        SAMPLES: 1,
        PHOTOMETRIC: BLACK_IS_ZERO,
        TURN: 1,
        COMPRESSION: 1,
    }
    names = (WIDTH, HEIGHT, *defaults, NO_DATA)
    return {name: directory.get(name, defaults.get(name)) for name in names}


def numpy_type(kind: str, bits: int) -> str:
    """Return the name of the smallest numpy type that holds values of so many bits."""
    size = next((size for size in (8, 16, 32, 64) if bits <= size), 0)
    if not size or (kind == "float" and bits not in (16, 32, 64)):
        raise Undecodable(f"the TIFF has {kind} values of {bits} bits")
    return f"{kind}{size}"


def pillow_holds(form: ImageForm, bits: int, big_endian: bool) -> bool:
    """Return whether Pillow decodes every level and band of a gray or RGB TIFF."""
    samples = form.bands + (form.alpha >= 0)
    if samples == 1:
        exact = ("uint8", "uint16", "uint32", "int16", "int32", "float32")
        return form.dtype in exact and (bits in (1, 2, 4, 8, 16, 32, 64) or (bits == 12 and not big_endian))
    if form.dtype != "uint8" or bits != 8:
        return False
    return samples == 3 or (samples == 4 and form.alpha in (-1, 3)) or (samples == 2 and form.alpha == 1)


def parse_number(text: Any) -> float | None:
    """Return the number in the text of a tag; None if it has no number."""
    try:
        return float(str(text).strip(" \0"))
    except ValueError:
        return None


def check_bands(form: ImageForm, channels: int) -> None:
    """Raise Undecodable if an image with these bands cannot be read in so many channels; 0 channels: any number.

    One and three bands are converted into each other; of four, RGB are the first three.
    """
    if channels in (0, form.bands) or (channels in (1, 3) and form.bands in (1, 3, 4)):
        return
    if form.alpha >= 0 and channels == form.bands + 1:
        return
    raise Undecodable(
        f"the image has {form.describe()}, not {channels} channel{'s' if channels > 1 else ''}: "
        f"to train on such images, type --data.channels {form.bands}"
    )


def check_extra(form: ImageForm, channels: int = 0) -> None:
    """Raise Undecodable if the packages are missing that decode all levels, and the bands of so many channels."""
    if form.lacks_extra or (form.drops_fourth and channels == 4 and not has_extra()):
        raise Undecodable(f"{form.describe()} need an extra: pip install 'openjepa[tiff]'")
