"""Take from a JPEG file what its pixels need, so that broken metadata do not cost the image."""

from __future__ import annotations

EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

METADATA = frozenset({*range(0xE1, 0xEE), 0xEF, 0xFE})  # APP1 to APP13, APP15 and comments; not JFIF and Adobe

START_OF_SCAN = 0xDA

WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xDA)})  # markers that no segment follows


def essential_jpeg(content: bytes) -> tuple[bytes, dict[str, bytes | str]]:
    """Return a JPEG without metadata segments, and the metadata that may turn the image.

    EXIF data, profiles, comments, and the list of further images of an MPO file are left out.
    """
    pieces, info, start, first = [], {}, 2, 0
    while start + 4 <= len(content) and content[start] == 0xFF:
        marker = content[start + 1]
        if marker == 0xFF:  # a fill byte
            start += 1
            continue
        if marker == START_OF_SCAN or marker in WITHOUT_LENGTH:
            break
        end = start + 2 + max(2, int.from_bytes(content[start + 2 : start + 4]))
        if marker in METADATA and end <= len(content):
            segment = content[start + 4 : end]
            if segment.startswith(EXIF):
                info["exif"] = info.get("exif", EXIF) + segment[len(EXIF) :]
            elif segment.startswith(XMP):
                info["xmp"] = segment[len(XMP) :]
            pieces.append(content[first:start])
            first = end
        start = end
    return b"".join([*pieces, content[first:]]), info
