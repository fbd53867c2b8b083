"""Read and write optical flow: Middlebury's .flo files and KITTI's PNG files of 16 bits.   H height  W width

A .flo file is little-endian: the float 202021.25 as a tag, width and height as int32, then (u, v) as float32 by row; a
value beyond 1e9 means unknown. A PNG has the channels u, v, valid, where u in pixels is (value - 2^15) / 64.

Source: Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011 (.flo); Menze and Geiger, Object
Scene Flow for Autonomous Vehicles, CVPR 2015 (PNG).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.data.deep_png import decode_png16, encode_png16
from openjepa.data.image_opening import Undecodable
from openjepa.data.png_chunks import SIGNATURE

FLO_HEADER = struct.Struct("<fii")  # tag, width, height

FLO_TAG = 202021.25  # its four bytes are the letters PIEH

FLO_PIXEL = 8  # bytes

LARGEST_KNOWN = 1e9  # pixels; a larger value in a .flo file means unknown

UNKNOWN = 1e10  # written for unknown values

PNG_ZERO, PNG_SCALE = 2**15, 64  # value of no motion, and steps per pixel

MAX_FILE_BYTES = 2**30

EXPECTED = "give a .flo file, or a PNG of 16 bits with the channels u, v, valid"


class Flow(NamedTuple):
    """Motion of each pixel from one frame to the next, in pixels: to the right (u), then down (v)."""

    uv: Float[np.ndarray, "2 H W"]  # 0 where unknown
    valid: Bool[np.ndarray, "H W"]  # False where unknown


def read_flow(path: str | Path) -> Flow:
    """Read a flow file; its first bytes decide which format it has.

    Raises:
        UserError: the file is missing, of another format, damaged, truncated, or too large.
    """
    content = read_content(Path(path))
    try:
        if content.startswith(FLO_HEADER.pack(FLO_TAG, 0, 0)[:4]):
            return parse_flo(content)
        if content.startswith(SIGNATURE):
            return parse_png(content)
    except Undecodable as error:
        raise UserError(f"{path} cannot be read as optical flow: {error}") from error
    raise UserError(f"{path} is no flow file, as it begins with the bytes {content[:4]!r}: {EXPECTED}")


def write_flow(path: str | Path, flow: Flow) -> None:
    """Write a flow file: a name that ends in .flo is exact, one in .png rounds to 1/64 pixel.

    Raises:
        UserError: the ending is another one, the sizes differ, or a valid value cannot be stored.
    """
    path, formats = Path(path), {".flo": format_flo, ".png": format_png}
    if path.suffix.lower() not in formats:
        raise UserError(f"{path} must end in .flo or .png")
    if flow.uv.shape != (2, *flow.valid.shape) or not flow.valid.size:
        raise UserError(f"flow must have the shape (2, H, W) and valid (H, W), got {flow.uv.shape}, {flow.valid.shape}")
    if not (np.abs(flow.uv[:, flow.valid]) <= LARGEST_KNOWN).all():
        raise UserError(f"{path}: flow has NaN or values above {LARGEST_KNOWN:g} pixels, set valid to False there")
    content = formats[path.suffix.lower()](flow)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def read_content(path: Path) -> bytes:
    """Return the bytes of a file. Raises UserError if it cannot be read or is too large."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path} is larger than {MAX_FILE_BYTES // 2**20} MiB: {EXPECTED}")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {EXPECTED}") from error


def parse_flo(content: bytes) -> Flow:
    """Return the flow of a .flo file. Raises Undecodable if its size is not what its header promises."""
    if len(content) < FLO_HEADER.size:
        raise Undecodable(f"the file is truncated: {len(content)} bytes, less than its header")
    _, width, height = FLO_HEADER.unpack_from(content)
    if min(width, height) < 1:
        raise Undecodable(f"its header says {width}×{height} pixels: must have at least 1×1")
    size = FLO_HEADER.size + width * height * FLO_PIXEL
    if len(content) != size:
        state = "truncated" if len(content) < size else "damaged"
        raise Undecodable(f"the file is {state}: {len(content):,} bytes, but {width}×{height} pixels need {size:,}")
    values = np.frombuffer(content, "<f4", offset=FLO_HEADER.size).reshape(height, width, 2)
    valid = np.abs(values).max(-1) <= LARGEST_KNOWN  # False for NaN, too
    return build_flow(values, valid)


def parse_png(content: bytes) -> Flow:
    """Return the flow of a PNG of 16 bits. Raises Undecodable if the third channel is not 0 or 1."""
    values = decode_png16(content)
    if (largest := int(values[..., 2].max())) > 1:
        raise Undecodable(f"its third channel must be 0 or 1 (valid), got {largest}: an image of colors?")
    uv = (values[..., :2].astype(np.float32) - PNG_ZERO) / PNG_SCALE
    return build_flow(uv, values[..., 2] == 1)


def build_flow(values: Float[np.ndarray, "H W 2"], valid: Bool[np.ndarray, "H W"]) -> Flow:
    """Return a flow with u and v first and 0 where unknown."""
    known = np.where(valid[..., None], values, 0).astype(np.float32)
    return Flow(np.ascontiguousarray(known.transpose(2, 0, 1)), valid)


def format_flo(flow: Flow) -> bytes:
    """Return the bytes of a .flo file."""
    height, width = flow.valid.shape
    values = np.where(flow.valid, flow.uv, UNKNOWN).transpose(1, 2, 0)
    return FLO_HEADER.pack(FLO_TAG, width, height) + values.astype("<f4").tobytes()


def format_png(flow: Flow) -> bytes:
    """Return the bytes of a PNG of 16 bits. Raises UserError for motion that it cannot hold."""
    scaled = np.where(flow.valid, (flow.uv * PNG_SCALE).round() + PNG_ZERO, 0)
    if scaled.min() < 0 or scaled.max() >= 2 * PNG_ZERO:
        longest = np.abs(flow.uv[:, flow.valid]).max()
        raise UserError(f"a PNG holds motion from -512 to 511.98 pixels, got {longest:g}: write a .flo file")
    return encode_png16(np.stack([*scaled, flow.valid], -1).astype(np.uint16))
