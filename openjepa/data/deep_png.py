"""Read and write color PNG files of 16 bits per channel exactly, which Pillow reduces to 8.   H height  W width

Source: Portable Network Graphics (PNG) Specification, third edition, W3C, sections 9 (filters) and 11 (chunks).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from jaxtyping import Int16, UInt8, UInt16

from openjepa.data.image_opening import Undecodable, check_pixel_count
from openjepa.data.png_chunks import SIGNATURE, read_chunks

HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, color type, compression, filter method, interlacing

RGB_16 = (16, 2, 0, 0, 0)  # of a header: 16 bits, RGB, Deflate, five filters, rows in order

PIXEL_BYTES = 6

SUB, FILTERS = 1, 5  # the filter written here, and how many kinds a row may have

MAX_RATIO = 1032  # bytes that one byte of Deflate can become


def decode_png16(content: bytes) -> UInt16[np.ndarray, "H W 3"]:
    """Decode an RGB PNG of 16 bits per channel.

    Raises:
        Undecodable: the file is of another kind, damaged, truncated, or has too many pixels.
    """
    header, packed = essential_chunks(content)
    width, height, *kind = HEADER.unpack(header)
    if tuple(kind) != RGB_16:
        bits, color, *_, interlacing = kind
        raise Undecodable(
            f"a PNG of {bits} bits, color type {color}, interlacing {interlacing}: "
            "must have 16 bits, color type 2 (RGB) and no interlacing (0)"
        )
    if min(width, height) < 1:
        raise Undecodable(f"{width}×{height} pixels: must have at least 1×1")
    check_pixel_count(width, height)
    rows = np.frombuffer(decompress(packed, height * (1 + width * PIXEL_BYTES)), np.uint8).reshape(height, -1)
    if rows[:, 0].max() >= FILTERS:
        raise Undecodable(f"its PNG data is damaged: a row has filter {rows[:, 0].max()}, must be 0 to 4")
    restored = undo_filters(rows[:, 0], rows[:, 1:].reshape(height, width, PIXEL_BYTES))
    return restored.view(">u2").astype(np.uint16)


def encode_png16(values: UInt16[np.ndarray, "H W 3"]) -> bytes:
    """Encode RGB values of 16 bits as a PNG file; every row has the filter Sub."""
    height, width, _ = values.shape
    pixels = np.ascontiguousarray(values.astype(">u2")).view(np.uint8)  # H W 6
    pixels[:, 1:] -= pixels[:, :-1].copy()
    rows = np.full((height, 1 + width * PIXEL_BYTES), SUB, np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    chunks = (
        (b"IHDR", HEADER.pack(width, height, *RGB_16)),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    )
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def essential_chunks(content: bytes) -> tuple[bytes, bytes]:
    """Return the header and the compressed pixels of a PNG file.

    Raises:
        Undecodable: the bytes are not a PNG, or one of these chunks is missing, cut or damaged.
    """
    if not content.startswith(SIGNATURE):
        raise Undecodable("the file is not a PNG")
    header, packed = b"", []
    for chunk in read_chunks(content):
        if chunk.critical and not chunk.intact(content):
            name = chunk.kind.decode("ascii", "replace")
            reason = "the file is truncated" if chunk.end > len(content) else "its checksum is wrong"
            raise Undecodable(f"chunk {name} of the PNG is damaged: {reason}")
        if chunk.kind == b"IHDR":
            header = bytes(chunk.data)
        elif chunk.kind == b"IDAT":
            packed.append(chunk.data)
        elif chunk.kind == b"IEND":
            break
    if len(header) != HEADER.size or not packed:
        raise Undecodable("the file is truncated: it has no complete PNG header, or no pixels")
    return header, b"".join(packed)


def decompress(packed: bytes, size: int) -> bytes:
    """Decompress exactly `size` bytes; never allocates more.

    Raises:
        Undecodable: the data are damaged, or become fewer or more bytes.
    """
    if size > MAX_RATIO * len(packed):
        raise Undecodable(f"its PNG header promises {size:,} bytes of pixels, which {len(packed):,} cannot hold")
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise Undecodable(f"its PNG data is damaged ({error})") from error
    if len(data) != size or not stream.eof:
        raise Undecodable(f"its PNG data is truncated or has more than the {size:,} bytes that its header promises")
    return data


def undo_filters(kinds: UInt8[np.ndarray, "H"], filtered: UInt8[np.ndarray, "H W 6"]) -> UInt8[np.ndarray, "H W 6"]:
    """Undo the filter of each row, along diagonals: a pixel needs those to its left, above, and above on the left."""
    height, width, _ = filtered.shape
    whole = np.zeros((height + 1, width + 1, PIXEL_BYTES), np.uint8)  # with zeros above and on the left
    for diagonal in range(height + width - 1):
        row = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        column = diagonal - row
        left, above, corner = whole[row + 1, column], whole[row, column + 1], whole[row, column]
        predicted = predict_bytes(kinds[row], *(each.astype(np.int16) for each in (left, above, corner)))
        whole[row + 1, column + 1] = filtered[row, column] + predicted.astype(np.uint8)
    return whole[1:, 1:]


def predict_bytes(
    kinds: UInt8[np.ndarray, "N"],
    left: Int16[np.ndarray, "N 6"],
    above: Int16[np.ndarray, "N 6"],
    corner: Int16[np.ndarray, "N 6"],
) -> Int16[np.ndarray, "N 6"]:
    """Predict bytes from their neighbors, by filter: None, Sub, Up, Average or Paeth."""
    estimate = left + above - corner
    to_left, to_above, to_corner = (abs(estimate - each) for each in (left, above, corner))
    paeth = np.where(to_above <= to_corner, above, corner)
    paeth = np.where((to_left <= to_above) & (to_left <= to_corner), left, paeth)
    return np.choose(kinds[:, None], (np.zeros_like(left), left, above, (left + above) // 2, paeth))
