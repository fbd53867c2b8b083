"""Turn a path, a PIL image, an array or a tensor into the view that an encoder takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image as Pillow
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.data.archives import parse_address
from openjepa.data.crops import center_crops
from openjepa.data.image_io import MODES, EncodedImage, Undecodable, crop_file, read_image_file, upright_image
from openjepa.modalities.image import Image

ImageInput = Pillow.Image | np.ndarray | Tensor | str | Path


def evaluation_view(picture: ImageInput, data: Image, size: tuple[int, int]) -> UInt8[Tensor, "C h w"]:
    """What an encoder of such pictures is shown. Mistake in a sentence if it is none, or cannot be decoded."""
    if not (isinstance(size, tuple) and len(size) == 2 and all(side > 0 and side % data.patch == 0 for side in size)):
        raise UserError(f"{size} is no height and width in multiples of {data.patch} pixels: try {data.size}")
    try:
        file = open_input(picture, data.channels)
        sides = torch.tensor([file[:2]], dtype=torch.float32)
        crop = center_crops(size, sides[:, 0], sides[:, 1], data.eval_crop)
        return torch.from_numpy(np.ascontiguousarray(crop_file(file, data.channels, crop, 0, size)))
    except Undecodable as error:
        raise UserError(f"{describe_input(picture)}: {error}") from error


def iter_images(images: ImageInput | Sequence[ImageInput]) -> Iterator[ImageInput]:
    """One picture after the other."""
    if isinstance(images, Tensor | np.ndarray) and images.ndim == 4:
        yield from images
    elif isinstance(images, Pillow.Image | np.ndarray | Tensor | str | Path):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, bytes):
        yield from images
    else:
        raise UserError(f"a {type(images).__name__} is no picture: give a path, a PIL image, an array or a tensor")


def open_input(picture: ImageInput, channels: int) -> EncodedImage:
    """A picture of any kind, ready to be cut. Undecodable if it is none."""
    if isinstance(picture, str | Path):
        if not parse_address(str(picture)) and not Path(picture).is_file():
            raise UserError(f"{picture} is no file: give the path of a picture")
        return read_image_file(str(picture), channels)
    if isinstance(picture, Pillow.Image):
        seen = upright_image(picture, channels)
        return EncodedImage(seen.size[1], seen.size[0], seen)
    if not isinstance(picture, Tensor | np.ndarray):
        raise UserError(f"a {type(picture).__name__} is no picture: give a path, a PIL image, an array or a tensor")
    array = picture.cpu().numpy() if isinstance(picture, Tensor) else picture
    if array.dtype != np.uint8:
        raise UserError(
            f"pixels are bytes from 0 to 255, not {array.dtype}: give uint8, of values up to 1 (255 * x).round()"
        )
    if array.size == 0:
        raise UserError(f"pixels of shape {tuple(picture.shape)} are no picture: there are none")
    if (
        isinstance(picture, np.ndarray)
        and channels in MODES
        and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)))
    ):
        return open_input(
            Pillow.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array), channels
        )
    if isinstance(picture, np.ndarray) and array.ndim == 3:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or len(array) != channels:
        order = "(C, H, W)" if isinstance(picture, Tensor) else "(H, W, C)"
        raise UserError(f"pixels of shape {tuple(picture.shape)} are no picture of {channels} channels: want {order}")
    return EncodedImage(array.shape[1], array.shape[2], array)


def describe_input(picture: ImageInput) -> str:
    return str(picture) if isinstance(picture, str | Path) else f"this {type(picture).__name__}"
