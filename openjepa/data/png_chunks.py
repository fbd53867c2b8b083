"""Take from a PNG file what its pixels need, so that a broken or huge optional chunk does not cost the image."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from openjepa.data.orientation import RAW_PROFILE, XMP_NAMES

SIGNATURE = b"\x89PNG\r\n\x1a\n"

MAX_TEXT = 2**16  # bytes of metadata that are decompressed; more is cut off

TRANSPARENCY_BYTES = {0: (2, 2), 2: (6, 6), 3: (1, 256)}  # color type -> valid lengths of tRNS: from, to


class Chunk(NamedTuple):
    """One chunk of a PNG file."""

    kind: bytes
    start: int  # of its length, four bytes before its kind
    data: memoryview
    end: int

    @property
    def critical(self) -> bool:
        """Tell whether an image cannot be decoded without this chunk."""
        return self.kind[:1].isupper()

    def intact(self, content: bytes) -> bool:
        """Tell whether the checksum is right."""
        return zlib.crc32(self.data, zlib.crc32(self.kind)).to_bytes(4) == content[self.end - 4 : self.end]


def read_chunks(content: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a PNG file; the last one may be cut."""
    start, view = len(SIGNATURE), memoryview(content)
    while start + 8 <= len(content):
        size = int.from_bytes(content[start : start + 4])
        yield Chunk(content[start + 4 : start + 8], start, view[start + 8 : start + 8 + size], start + 12 + size)
        start += 12 + size


def essential_png(content: bytes) -> tuple[bytes, dict[str, bytes | str]]:
    """Return a PNG without the chunks that its pixels do not need, and the metadata that may turn the image.

    As browsers do, an optional chunk with a wrong checksum is ignored. Text and profiles are never decompressed, except
    for the beginning of text that may hold an orientation.
    """
    pieces, info = [SIGNATURE], {}
    color = content[25] if len(content) > 25 else 0
    for chunk in read_chunks(content):
        if chunk.kind == b"PLTE":
            needed = color == 3
        elif chunk.kind == b"tRNS":
            low, high = TRANSPARENCY_BYTES.get(color, (1, 0))
            needed = low <= len(chunk.data) <= high and chunk.intact(content)
        else:
            needed = chunk.critical
        if needed:
            pieces.append(content[chunk.start : chunk.end])
        elif chunk.kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
            info |= metadata_of(chunk, content)
    return b"".join(pieces), info


def metadata_of(chunk: Chunk, content: bytes) -> dict[str, bytes | str]:
    """Return EXIF data, XMP or a raw profile under the names that Pillow gives them; empty for other chunks."""
    name, _, rest = bytes(chunk.data[:128]).partition(b"\0")
    key = name.decode("latin-1")
    if chunk.kind == b"eXIf":
        return {"exif": b"Exif\0\0" + bytes(chunk.data)} if chunk.intact(content) else {}
    if key not in (RAW_PROFILE, XMP_NAMES[0]) or not chunk.intact(content):
        return {}
    text = bytes(chunk.data[len(name) + 1 :])
    if chunk.kind == b"iTXt":
        packed, text = rest[:1] == b"\1", re.sub(rb"(?s)^..[^\0]*\0[^\0]*\0", b"", text)
    else:
        packed, text = chunk.kind == b"zTXt", text[chunk.kind == b"zTXt" :]
    return {key: (unpack(text) if packed else text[:MAX_TEXT]).decode("latin-1")}


def unpack(text: bytes) -> bytes:
    """Decompress the beginning of a text; empty if it is damaged."""
    try:
        return zlib.decompressobj().decompress(text, MAX_TEXT)
    except zlib.error:
        return b""


def is_animated_png(content: bytes) -> bool:
    """Tell whether a PNG file has more than one frame."""
    return sum(chunk.kind == b"fcTL" for chunk in read_chunks(content)) > 1


def check_header(content: bytes) -> str:
    """Return what makes the header of a PNG file unreadable; "" if nothing does."""
    first = next(read_chunks(content), None)
    if first is None:
        return ""
    if first.kind == b"CgBI":
        return "the file is a PNG optimized for an iPhone, which no other program reads: convert it back"
    if first.kind == b"IHDR" and len(first.data) == 13 and not first.intact(content):
        return "the checksum of its PNG header is wrong"
    return ""
