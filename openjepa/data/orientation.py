"""Find out how an image must be turned, from metadata that may be broken."""

from __future__ import annotations

import re
import struct
from typing import Any

from PIL import Image as Pillow

ORIENTATION = 0x0112  # tag of EXIF and TIFF

UPRIGHT = 1  # orientations are 1 to 8; from 5 on width and height are swapped

TRANSPOSES = {  # orientation -> what turns an image upright
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}

WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # types of TIFF tags -> format of struct

XMP_PATTERN = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')

XMP_NAMES = ("XML:com.adobe.xmp", "xmp")  # of Pillow, in the order in which they count

RAW_PROFILE = "Raw profile type exif"  # as ImageMagick writes EXIF data into a PNG: hexadecimal text


def orientation_of(info: dict[Any, Any]) -> int:
    """Return the orientation, 1 to 8, that the metadata of a Pillow image state; 1 if they are broken or state none."""
    exif = info.get("exif", b"")
    if not exif and isinstance(info.get(RAW_PROFILE), str):
        exif = decode_raw_profile(info[RAW_PROFILE])
    orientation = exif_orientation(exif) if isinstance(exif, bytes) else None
    for name in XMP_NAMES:
        if orientation is None and name in info:
            text = info[name]
            match = XMP_PATTERN.search(text if isinstance(text, bytes) else str(text).encode(errors="replace"))
            orientation = int(match[1]) if match else None
    return orientation or UPRIGHT


def decode_raw_profile(text: str) -> bytes:
    """Return the EXIF data of a raw profile: three lines of heading, then hexadecimal digits; empty if it is broken."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation in EXIF data; None without one, 1 if it is not a number from 1 to 8."""
    data = re.sub(rb"^(Exif\0\0){1,2}", b"", exif)
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return None
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    if start + 2 > len(data):
        return None
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag == ORIENTATION:
            return tag_value(data, order, kind, entry + 8)
    return None


def tag_value(data: bytes, order: str, kind: int, offset: int) -> int:
    """Return an orientation from the four bytes of its value; 1 if it is not a number from 1 to 8."""
    if kind not in WHOLE_NUMBERS:
        return UPRIGHT
    (value,) = struct.unpack_from(f"{order}{WHOLE_NUMBERS[kind]}", data, offset)
    return value if 1 <= value <= 8 else UPRIGHT


def replace_metadata(image: Pillow.Image, orientation: int) -> None:
    """Replace all metadata from which Pillow reads an orientation by EXIF data with this one and nothing else."""
    for name in (RAW_PROFILE, *XMP_NAMES):
        image.info.pop(name, None)
    entry = struct.pack("<HHIHH", ORIENTATION, 3, 1, orientation, 0)
    image.info["exif"] = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    image.getexif().load(image.info["exif"])
