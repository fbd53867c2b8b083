"""Turn a path, a PIL image, an array or a tensor into an evaluation view, and a file into a thumbnail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Real, UInt8
from PIL import Image as Pillow
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.options import EvalCrop
from openjepa.data.archives import parse_address
from openjepa.data.crops import center_crops
from openjepa.data.image_io import Undecodable, read_image_file
from openjepa.data.image_pixels import Pixels, StoredPixels, decode_pixels, draw_pixels
from openjepa.data.image_values import EncodedImage, crop_file, open_pixels, upright_image

ImageInput = Pillow.Image | np.ndarray | Tensor | str | Path


@runtime_checkable
class EvaluationCrop(Protocol):
    """The part of the image modality that an evaluation view needs."""

    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def patch(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def value_range(self) -> tuple[float, ...]: ...
    @property
    def eval_crop(self) -> EvalCrop: ...


def evaluation_view(image: ImageInput, data: EvaluationCrop, size: tuple[int, int]) -> Real[Tensor, "C h w"]:
    """Return the evaluation view of an image, on the scale of bytes.

    Raises UserError if it is not an image or cannot be decoded.
    """
    if not (isinstance(size, tuple) and len(size) == 2 and all(side > 0 and side % data.patch == 0 for side in size)):
        raise UserError(
            f"the size must be a height and width in multiples of {data.patch}, got {size}: try {data.size}"
        )
    try:
        file = open_input(image, data.channels, data.value_range)
        sides = torch.tensor([file[:2]], dtype=torch.float32)
        crop = center_crops(size, sides[:, 0], sides[:, 1], data.eval_crop)
        return torch.from_numpy(np.array(crop_file(file, data.channels, crop, 0, size, data.value_range)))
    except Undecodable as error:
        raise UserError(f"{describe_input(image)}: {error}") from error


def read_whole_image(path: str) -> UInt8[Tensor, "3 H W"]:
    """Return an image as RGB bytes at its own size. Raises UserError if it is not an image or cannot be decoded."""
    try:
        file = open_input(path, 3, ())
        sides = torch.tensor([file[:2]], dtype=torch.float32)
        size = file.height, file.width
        crop = center_crops(size, sides[:, 0], sides[:, 1], "squash")
        return torch.from_numpy(np.array(crop_file(file, 3, crop, 0, size, ())))
    except Undecodable as error:
        raise UserError(f"{path}: {error}") from error


def iter_images(images: ImageInput | Sequence[ImageInput]) -> Iterator[ImageInput]:
    """Yield one image after the other, from one image, a batch or a sequence."""
    if isinstance(images, Tensor | np.ndarray) and images.ndim == 4:
        yield from images
    elif isinstance(images, Pillow.Image | np.ndarray | Tensor | str | Path):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, bytes):
        yield from images
    else:
        raise UserError(f"a {type(images).__name__} is not an image: give a path, a PIL image, an array or a tensor")


def open_input(image: ImageInput, channels: int, value_range: tuple[float, ...]) -> EncodedImage:
    """Open an image of any type, ready to be cropped. Raises UserError or Undecodable if it is not an image."""
    if isinstance(image, str | Path):
        if not parse_address(str(image)) and not Path(image).is_file():
            raise UserError(f"{image} is not a file: give the path of an image")
        return read_image_file(str(image), channels)
    if isinstance(image, Pillow.Image):
        content = open_pixels(image, value_range)
        if isinstance(content, Pixels):
            return EncodedImage(content.form.height, content.form.width, content.values)
        upright = upright_image(content, channels, 1.0, value_range)
        return EncodedImage(upright.size[1], upright.size[0], upright)
    if not isinstance(image, Tensor | np.ndarray):
        raise UserError(f"a {type(image).__name__} is not an image: give a path, a PIL image, an array or a tensor")
    return open_array(image, channels, value_range)


def open_array(image: np.ndarray | Tensor, channels: int, value_range: tuple[float, ...]) -> EncodedImage:
    """Open an array (H, W) or (H, W, C), or a tensor (C, H, W).

    Raises UserError unless they hold bytes, or real numbers where a range of values is known.
    """
    array = image.cpu().numpy() if isinstance(image, Tensor) else image
    if array.dtype != np.uint8 and (len(value_range) < 2 or array.dtype.kind not in "uif"):
        raise UserError(
            f"pixels must be uint8, got {array.dtype}: for values in [0, 1] give (255 * x).round() as uint8"
        )
    if array.size == 0:
        raise UserError(f"an image of shape {tuple(image.shape)} has no pixels")
    if isinstance(image, np.ndarray) and array.dtype == np.uint8 and channels in (1, 3) and may_be_pillow(array):
        return open_input(Pillow.fromarray(array[..., 0] if array.shape[2:] == (1,) else array), channels, value_range)
    if isinstance(image, np.ndarray) and array.ndim in (2, 3):
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    if array.ndim != 3 or (len(array) != channels and (isinstance(image, Tensor) or len(array) != 1 or channels != 3)):
        expected = "(C, H, W)" if isinstance(image, Tensor) else "(H, W, C)"
        raise UserError(
            f"an image of shape {tuple(image.shape)} does not have {channels} channels: the shape must be {expected}"
        )
    return EncodedImage(array.shape[1], array.shape[2], array)


def may_be_pillow(array: np.ndarray) -> bool:
    """Return whether Pillow can hold an array: gray, RGB or RGBA."""
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))


def describe_input(image: ImageInput) -> str:
    """Return a name of an image for messages."""
    return str(image) if isinstance(image, str | Path) else f"this {type(image).__name__}"


def thumbnail_of(path: str, side: int, value_range: tuple[float, ...] = ()) -> Pillow.Image:
    """Load a whole image in RGB, its longer side of `side` pixels. Raises Undecodable or OSError."""
    content = read_image_file(path, 0).content
    if isinstance(content, Pillow.Image):
        picture = upright_image(content, 3, 1.0, value_range)
    else:
        pixels = decode_pixels(content) if isinstance(content, StoredPixels) else Pixels(content)
        picture = draw_pixels(pixels, value_range).convert("RGB")
    scale = side / max(picture.size)
    size = max(1, round(picture.size[0] * scale)), max(1, round(picture.size[1] * scale))
    return picture.resize(size, Pillow.Resampling.BILINEAR if scale < 1 else Pillow.Resampling.NEAREST, reducing_gap=2)
