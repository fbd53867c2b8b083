"""Turn a path, a PIL image, an array or a tensor into an evaluation view, and a file into a thumbnail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image as Pillow
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.options import EvalCrop
from openjepa.data.archives import parse_address
from openjepa.data.crops import center_crops
from openjepa.data.image_io import (
    MODES,
    EncodedImage,
    Undecodable,
    crop_file,
    load_npy,
    open_image,
    read_image_file,
    upright_image,
)

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
    def eval_crop(self) -> EvalCrop: ...


def evaluation_view(image: ImageInput, data: EvaluationCrop, size: tuple[int, int]) -> UInt8[Tensor, "C h w"]:
    """Return the evaluation view of an image, as bytes. Raises UserError if it is not an image or cannot be decoded."""
    if not (isinstance(size, tuple) and len(size) == 2 and all(side > 0 and side % data.patch == 0 for side in size)):
        raise UserError(
            f"the size must be a height and width in multiples of {data.patch}, got {size}: try {data.size}"
        )
    try:
        file = open_input(image, data.channels)
        sides = torch.tensor([file[:2]], dtype=torch.float32)
        crop = center_crops(size, sides[:, 0], sides[:, 1], data.eval_crop)
        return torch.from_numpy(np.ascontiguousarray(crop_file(file, data.channels, crop, 0, size)))
    except Undecodable as error:
        raise UserError(f"{describe_input(image)}: {error}") from error


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


def open_input(image: ImageInput, channels: int) -> EncodedImage:
    """Open an image of any type, ready to be cropped. Raises UserError or Undecodable if it is not an image."""
    if isinstance(image, str | Path):
        if not parse_address(str(image)) and not Path(image).is_file():
            raise UserError(f"{image} is not a file: give the path of an image")
        return read_image_file(str(image), channels)
    if isinstance(image, Pillow.Image):
        upright = upright_image(image, channels)
        return EncodedImage(upright.size[1], upright.size[0], upright)
    if not isinstance(image, Tensor | np.ndarray):
        raise UserError(f"a {type(image).__name__} is not an image: give a path, a PIL image, an array or a tensor")
    return open_array(image, channels)


def open_array(image: np.ndarray | Tensor, channels: int) -> EncodedImage:
    """Open a uint8 array (H, W) or (H, W, C), or a uint8 tensor (C, H, W). Raises UserError for others."""
    array = image.cpu().numpy() if isinstance(image, Tensor) else image
    if array.dtype != np.uint8:
        raise UserError(
            f"pixels must be uint8, got {array.dtype}: for values in [0, 1] give (255 * x).round() as uint8"
        )
    if array.size == 0:
        raise UserError(f"an image of shape {tuple(image.shape)} has no pixels")
    if isinstance(image, np.ndarray) and channels in MODES and may_be_pillow(array):
        return open_input(Pillow.fromarray(array[..., 0] if array.shape[2:] == (1,) else array), channels)
    if isinstance(image, np.ndarray) and array.ndim == 3:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or len(array) != channels:
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


def thumbnail_of(path: str, side: int) -> Pillow.Image:
    """Load a whole image in RGB, its longer side of `side` pixels. Raises Undecodable or OSError."""
    picture = upright_image(open_image(path), 3, 1.0) if not path.lower().endswith(".npy") else array_picture(path)
    scale = side / max(picture.size)
    size = max(1, round(picture.size[0] * scale)), max(1, round(picture.size[1] * scale))
    return picture.resize(size, Pillow.Resampling.BILINEAR if scale < 1 else Pillow.Resampling.NEAREST, reducing_gap=2)


def array_picture(path: str) -> Pillow.Image:
    """Load the first three channels of a .npy file, or the first one if it has fewer."""
    array = load_npy(path)
    if array.dtype != "uint8" or array.ndim != 3:
        raise Undecodable(f"{array.dtype} of shape {array.shape}")
    return Pillow.fromarray(array[..., :3] if array.shape[2] >= 3 else array[..., 0]).convert("RGB")
