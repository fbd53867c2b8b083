"""Picture files to bytes: decoded safely, the right way up, cropped and resized.   B batch  C channels  H height  W width"""

from __future__ import annotations

import io
import math
import struct
import time
import tokenize
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps
from torch import Tensor

from openjepa.archives import inside, read, size
from openjepa.core.rng import CounterRNG

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".npy"})

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

MODES = {1: "L", 3: "RGB"}

MOST_PIXELS = 100_000_000  # of a picture; more is taken for a decompression bomb

MOST_BYTES = 2**29  # of a file

ORIENTATION = 0x0112  # EXIF

DAMAGE = (  # what Pillow raises on files that are not what they seem
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    ZeroDivisionError, struct.error,
)  # fmt: skip

READS = 3  # tries to read a file before the run stops


class Undecodable(ValueError):
    """A file was read but is not a picture we can decode; the message is the reason."""


class Crop(NamedTuple):
    """Boxes in pixels of each picture, and whether to mirror."""

    top: Float[Tensor, "B"]
    left: Float[Tensor, "B"]
    height: Float[Tensor, "B"]
    width: Float[Tensor, "B"]
    flip: Tensor

    def box(self, row: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom, as Pillow wants them."""
        left, top = float(self.left[row]), float(self.top[row])
        return left, top, left + float(self.width[row]), top + float(self.height[row])


def random_crops(
    scale: tuple[float, float],
    aspect_range: tuple[float, float],
    flip: bool,
    height: Float[Tensor, "B"],
    width: Float[Tensor, "B"],
    draws: CounterRNG,
) -> Crop:
    """Boxes distributed as torchvision's RandomResizedCrop: ten tries at scale and aspect, then the centre."""
    u = draws.uniform("crop", 10, 2)
    area = height * width
    wanted = area[:, None] * (scale[0] + u[..., 0] * (scale[1] - scale[0]))
    low, high = math.log(aspect_range[0]), math.log(aspect_range[1])
    aspect = torch.exp(low + u[..., 1] * (high - low))
    w, h = (wanted * aspect).sqrt().round(), (wanted / aspect).sqrt().round()
    fits = (w > 0) & (h > 0) & (w <= width[:, None]) & (h <= height[:, None])
    chosen = fits.to(torch.uint8).argmax(1, keepdim=True)  # the first that fits
    w, h = w.gather(1, chosen)[:, 0], h.gather(1, chosen)[:, 0]

    ratio = (width / height).clamp(*aspect_range)
    none = ~fits.any(1)
    w = torch.where(none, torch.minimum(width, (height * ratio).round()), w)
    h = torch.where(none, torch.minimum(height, (width / ratio).round()), h)
    place = draws.uniform("crop place", 2)
    top = torch.where(none, ((height - h) / 2).round(), (place[:, 0] * (height - h + 1)).floor())
    left = torch.where(none, ((width - w) / 2).round(), (place[:, 1] * (width - w + 1)).floor())
    return Crop(top, left, h, w, (draws.uniform("flip") < 0.5) & flip)


Fit = Literal["crop", "margin", "squash"]


def centre_crops(size: tuple[int, int], height: Float[Tensor, "B"], width: Float[Tensor, "B"], fit: Fit) -> Crop:
    """The evaluation view: the largest centred box of the view's aspect ("crop"), the middle 7/8 of that, as by resizing
    to 256 and cutting 224 ("margin"), or the whole picture, whatever its aspect ("squash").
    """
    aspect, share = size[1] / size[0], 7 / 8 if fit == "margin" else 1.0
    w, h = share * torch.minimum(width, height * aspect), share * torch.minimum(height, width / aspect)
    if fit == "squash":
        w, h = width, height
    return Crop((height - h) / 2, (width - w) / 2, h, w, torch.zeros(len(h), dtype=torch.bool))


def resample(pictures: UInt8[Tensor, "B C H W"], crop: Crop, size: tuple[int, int]) -> UInt8[Tensor, "B C h w"]:
    """Every box resized to `size` in one call: bilinear with antialiasing, as two products with triangle weights."""
    batch, channels, height, width = pictures.shape
    rows, columns = triangles(crop.top, crop.height, size[0], height), triangles(crop.left, crop.width, size[1], width)
    columns = torch.where(crop.flip[:, None, None], columns.flip(1), columns)
    lines = pictures.transpose(1, 2).reshape(batch, height, channels * width).float()  # all channels in one product
    seen = (rows @ lines).view(batch, size[0] * channels, width) @ columns.mT
    seen = seen.round_().clamp_(0, 255).to(torch.uint8).view(batch, size[0], channels, size[1])
    return seen.transpose(1, 2).contiguous()


def triangles(
    start: Float[Tensor, "B"], length: Float[Tensor, "B"], out: int, size: int
) -> Float[Tensor, "B out size"]:
    """How much each source pixel gives to each output pixel."""
    scale = (length / out)[:, None, None]
    centre = start[:, None, None] + (torch.arange(out)[:, None] + 0.5) * scale
    source = torch.arange(size) + 0.5
    weight = (1 - (source - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((source > start[:, None, None]) & (source < (start + length)[:, None, None]))
    return weight / weight.sum(-1, keepdim=True).clamp(min=1e-12)


def read_bytes(path: str) -> bytes:
    """The bytes of a file, or of an address in an archive; a failure is tried again, then stops the run, since a replacement
    would make a resume differ. Undecodable if there are more than MOST_BYTES.
    """
    place = inside(path)
    for attempt in range(READS):
        try:
            if (size(place) if place else Path(path).stat().st_size) > MOST_BYTES:
                raise Undecodable(f"the file is larger than {MOST_BYTES // 2**20} MiB")
            return read(place) if place else Path(path).read_bytes()
        except OSError as error:
            if attempt == READS - 1:
                raise OSError(
                    f"{path} cannot be read ({error.strerror}): mend it or its disk, then go on with --resume"
                ) from error
            time.sleep(0.2 * 4**attempt)
    raise AssertionError


def opened(path: str) -> Pillow.Image:
    """The picture with its header read and checked. Undecodable, with the reason, if it is not one we open."""
    content = read_bytes(path)
    if not content:
        raise Undecodable("the file is empty")
    try:
        picture = Pillow.open(io.BytesIO(content), formats=FORMATS)
    except Pillow.DecompressionBombError as error:
        raise Undecodable("too many pixels: a decompression bomb?") from error
    except DAMAGE as error:
        raise Undecodable("not a picture of a known format") from error
    if picture.size[0] * picture.size[1] > min(MOST_PIXELS, Pillow.MAX_IMAGE_PIXELS or MOST_PIXELS):
        raise Undecodable(f"{picture.size[0]}×{picture.size[1]} pixels: a decompression bomb?")
    return picture


def upright(picture: Pillow.Image, channels: int, scale: float = 1.0) -> Pillow.Image:
    """The picture a person sees, in the wanted channels; a JPEG may come out up to `scale` times smaller."""
    if channels not in MODES:
        raise Undecodable(f"pictures have 1 or 3 channels, not {channels}: more come in .npy files")
    try:
        if scale > 1:
            picture.draft(None, (int(picture.size[0] / scale), int(picture.size[1] / scale)))
        picture.load()
        seen = ImageOps.exif_transpose(picture)
    except DAMAGE as error:
        raise Undecodable(f"cannot be decoded: {error}") from error
    if seen.mode.startswith(("I", "F")):  # 16 bits and more: the top eight
        array = np.asarray(seen).astype(np.float64)
        top = 65535.0 if seen.mode.startswith("I") else max(float(array.max()), 1e-12)
        seen = Pillow.fromarray((array / top * 255).clip(0, 255).round().astype(np.uint8), "L")
    if "A" in seen.mode or "transparency" in seen.info:
        seen = seen.convert("RGBA")
        seen = Pillow.alpha_composite(Pillow.new("RGBA", seen.size, "white"), seen)
    return seen.convert(MODES[channels])


class File(NamedTuple):
    """A picture that was read and not yet decoded."""

    height: int  # as a person sees it
    width: int
    content: Pillow.Image | UInt8[np.ndarray, "C H W"]


def look(path: str, channels: int) -> File:
    """A file's bytes, and from its header how high and wide it is. Undecodable if it has none."""
    if path.endswith(".npy"):
        array = array_of(path, channels)
        return File(array.shape[1], array.shape[2], array)
    picture = opened(path)
    width, height = picture.size
    try:
        turned = tagged(picture) and picture.getexif().get(ORIENTATION, 1) >= 5  # stored on its side
    except DAMAGE as error:
        raise Undecodable(f"its EXIF data cannot be read: {error}") from error
    return File(width, height, picture) if turned else File(height, width, picture)


def tagged(picture: Pillow.Image) -> bool:
    """Whether it may have EXIF data. Of a PNG they may come last, so that Pillow decodes it all to find that there are none."""
    if picture.format != "PNG" or not (isinstance(picture, ImageFile.ImageFile) and isinstance(picture.fp, io.BytesIO)):
        return True
    content = picture.fp.getvalue()
    return any(chunk in content for chunk in (b"eXIf", b"iTXt", b"zTXt", b"tEXt"))


def size_of(path: str, channels: int) -> tuple[int, int]:
    """Height and width as a person sees the picture, from its header. Undecodable if it has none."""
    return look(path, channels)[:2]


def decode(path: str, channels: int) -> UInt8[np.ndarray, "C H W"]:
    """The whole picture. Undecodable, with the reason, if it cannot be had."""
    if path.endswith(".npy"):
        return array_of(path, channels)
    with opened(path) as picture:
        return planes(upright(picture, channels))


def planes(picture: Pillow.Image) -> UInt8[np.ndarray, "C H W"]:
    array = np.asarray(picture)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def array_of(path: str, channels: int) -> UInt8[np.ndarray, "C H W"]:
    """A picture of any number of channels, kept as bytes of H W C in numpy's format."""
    array = plain_array(path)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != channels:
        raise Undecodable(f"{array.dtype} of shape {array.shape}, not uint8 of (H, W, {channels})")
    return array.transpose(2, 0, 1)


def plain_array(path: str) -> np.ndarray:
    """What a file of numpy's holds; never a pickle. Undecodable if it is none."""
    try:
        return np.lib.format.read_array(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError, MemoryError, tokenize.TokenError) as error:  # also of a shape that is a lie
        raise Undecodable("not a plain numpy array") from error


def cut(file: File, channels: int, crop: Crop, row: int, size: tuple[int, int]) -> UInt8[np.ndarray, "C h w"]:
    """The row-th of the boxes, from one decode at the smallest scale that serves. Undecodable, with the reason, if it cannot be had."""
    if isinstance(file.content, np.ndarray):
        whole = torch.from_numpy(np.ascontiguousarray(file.content))[None]
        return resample(whole, Crop(*(each[row : row + 1] for each in crop)), size)[0].numpy()
    scale = min(float(crop.height[row]) / size[0], float(crop.width[row]) / size[1])
    seen = upright(file.content, channels, scale)
    across, down = seen.size[0] / file.width, seen.size[1] / file.height
    left, top, right, bottom = crop.box(row)
    box = left * across, top * down, min(right * across, seen.size[0]), min(bottom * down, seen.size[1])
    out = seen.resize((size[1], size[0]), Pillow.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    return planes(out.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT) if crop.flip[row] else out)
