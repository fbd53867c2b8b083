"""Take from a JPEG file what its pixels need, so that broken metadata do not cost the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

METADATA = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})  # APP1 to APP13, APP15 and comments; not JFIF and Adobe

START_OF_SCAN = 0xDA

WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})  # markers that no segment follows


FRAMES = {  # marker of the frame -> compression that common decoders lack
    0xC3: "a lossless JPEG, as in DICOM files",
    0xC7: "a lossless JPEG",
    0xF7: "a JPEG-LS image, as in DICOM files",
}


class Segment(NamedTuple):
    """One segment of a JPEG file, from its marker to the next one."""

    marker: int
    start: int
    end: int


def read_segments(content: bytes) -> Iterator[Segment]:
    """Yield the segments before the pixels, up to the first one that is broken."""
    start = 2
    while start + 4 <= len(content) and content[start] == 0xFF:
        marker = content[start + 1]
        if marker == 0xFF:  # a fill byte
            start += 1
            continue
        if marker == START_OF_SCAN or marker in WITHOUT_LENGTH:
            return
        end = start + 2 + max(2, int.from_bytes(content[start + 2 : start + 4]))
        yield Segment(marker, start, end)
        start = end


def essential_jpeg(content: bytes) -> tuple[bytes, dict[str, bytes | str]]:
    """Return a JPEG without metadata segments, and the metadata that may turn the image.

    EXIF data, profiles, comments, and the list of further images of an MPO file are left out.
    """
    pieces, exif, xmp, first = [], b"", b"", 0
    for segment in read_segments(content):
        if segment.marker in METADATA and segment.end <= len(content):
            data = content[segment.start + 4 : segment.end]
            if data.startswith(EXIF):
                exif += data[len(EXIF) :] if exif else data
            elif data.startswith(XMP):
                xmp = data[len(XMP) :]
            pieces.append(content[first : segment.start])
            first = segment.end
    info: dict[str, bytes | str] = {name: value for name, value in (("exif", exif), ("xmp", xmp)) if value}
    return b"".join([*pieces, content[first:]]), info


def unusual_frame(content: bytes) -> str:
    """Return the kind of a JPEG whose compression common decoders lack; "" for others."""
    return next((FRAMES[each.marker] for each in read_segments(content) if each.marker in FRAMES), "")
