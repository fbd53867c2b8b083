"""A trained encoder in hand: features of anything that is a picture.   B batch  C channels  H height  W width  N tokens  D width"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image as Pillow
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.data.archives import parse_address
from openjepa.data.crops import center_crops
from openjepa.data.image_io import MODES, EncodedImage, Undecodable, crop_file, read_image_file, upright_image
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import Predictor
from openjepa.nn.vit import ViT
from openjepa.training.config import Pretrain
from openjepa.training.run_folder import Provenance

LAST = 4  # layers of the paper's `last4`

Kind = Literal["last", "last4", "patches"]

Places = Sequence[int] | Tensor  # of patches, in raster order

Picture = Pillow.Image | np.ndarray | Tensor | str | Path


@dataclass(frozen=True)
class Trained:
    """An encoder in evaluation mode, the config it was made by, and what was learnt with it."""

    encoder: ViT
    config: Pretrain  # its `data` cuts pictures into tokens
    step: int = 0
    predictor: Predictor | None = None
    about: Provenance = Provenance()

    @property
    def device(self) -> torch.device:
        return self.encoder.norm.weight.device

    @property
    def data(self) -> Image:
        """How pictures are cut. Mistake if the encoder was trained on signals."""
        if not isinstance(self.config.data, Image):
            raise UserError("this encoder was trained on signals: give its tokens to .encoder")
        return self.config.data

    def to(self, device: str | torch.device) -> Trained:
        """The same, on a device."""
        predictor = self.predictor.to(device) if self.predictor else None
        return dataclasses.replace(self, encoder=self.encoder.to(device), predictor=predictor)

    def transform(self, picture: Picture, size: tuple[int, int] | None = None) -> UInt8[Tensor, "C h w"]:
        """The evaluation view of a picture: its largest centred box at the trained size, or at `size`, as bytes.

        Takes a path, a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W), the last two of bytes. Mistake in
        a sentence if it is none of them, or cannot be decoded. A tensor that has the size already comes back as it is.
        """
        return view_of(picture, self.data, size or self.data.size)

    @torch.no_grad()
    def features(
        self,
        images: Picture | Sequence[Picture],
        kind: Kind = "last",
        size: tuple[int, int] | None = None,
        batch: int = 64,
    ) -> Float[Tensor, "B *F"]:
        """Features of pictures, in fp32 on the CPU: (B, D) for "last", the mean over patches as in the paper; (B, 4 D) for
        "last4", four layers side by side (appendix A.2); (B, N, D) for "patches", in raster order.

        Takes one picture or many, each as for `transform`, or a tensor (B, C, H, W) or array (B, H, W, C) of bytes. At
        another `size` than trained, positions are rescaled to the trained extent.
        """
        if kind not in get_args(Kind):
            raise UserError(f"there are no features {kind!r}: ask for last, last4 or patches")
        layers = tuple(range(max(-LAST, -len(self.encoder.blocks)), 0)) if kind == "last4" else (-1,)
        found, queue = [], each(images)
        while some := list(islice(queue, batch)):
            view = torch.stack([self.transform(picture, size) for picture in some]).to(self.device)
            seen = [tokens.x.float() for tokens in self.encoder(self.data.tokens(view), layers)]
            found.append((seen[-1] if kind == "patches" else torch.cat([x.mean(1) for x in seen], 1)).cpu())
        if not found:
            raise UserError("no picture was given")
        return torch.cat(found)

    @torch.no_grad()
    def predict(
        self, image: Picture, context: Places, targets: Places | Sequence[Sequence[int]]
    ) -> Float[Tensor, "M T D"]:
        """What the predictor expects at `targets`, one block of patches (T) or several (M, T), seeing `context` alone.

        Patches are numbered in raster order. To be compared with `layer_norm` of the features there, which is what it was
        trained on. Mistake where the predictor was not kept: give the run's folder, or a conversion that has it.
        """
        if self.predictor is None or not isinstance(self.config.method, JEPA):
            raise UserError(
                "these weights have no predictor of features: load the run's folder, or convert a file that has"
            )
        tokens = self.data.tokens(self.transform(image)[None].to(self.device))
        shown, asked = (numbers(places).to(self.device) for places in (context, targets))
        count = tokens.x.shape[1]
        for places in (shown, asked):
            if not places.numel() or places.min() < 0 or places.max() >= count:
                raise UserError(
                    f"patches are numbered from 0 to {count - 1}: give some of these, to be shown and to be asked for"
                )
        blocks = asked if asked.ndim == 2 else asked[None]
        (seen,) = self.encoder(tokens.take(shown.flatten()[None]))
        return self.predictor(seen, where=tokens.pos[:, blocks])[0, :, :, : self.target_width].float().cpu()

    @property
    def target_width(self) -> int:
        """How many of the predictor's numbers are features; where pixels are asked for, too, they come after."""
        method = self.config.method
        joined = isinstance(method, JEPA) and method.target_join == "concat"
        return method.dim * (len(method.target_layers) if isinstance(method, JEPA) and joined else 1)

    @torch.no_grad()
    def targets(self, images: Picture | Sequence[Picture]) -> Float[Tensor, "B N D"]:
        """The features that `predict` is to be compared with: layer norm on every patch, no affine (as released)."""
        x = self.features(images, "patches")
        return F.layer_norm(x, x.shape[-1:])


def numbers(places: Places | Sequence[Sequence[int]]) -> Tensor:
    """Numbers of patches; of a mask, one flag for each patch, where it is true."""
    found = torch.as_tensor(places)
    if found.dtype == torch.bool and found.ndim == 1:
        return found.nonzero()[:, 0]
    if found.numel() and (found.dtype == torch.bool or found.is_floating_point()):
        raise UserError("patches are told by their numbers, or by one mask of all of them")
    return found.long()


def view_of(picture: Picture, data: Image, size: tuple[int, int]) -> UInt8[Tensor, "C h w"]:
    """What an encoder of such pictures is shown. Mistake in a sentence if it is none, or cannot be decoded."""
    if not (isinstance(size, tuple) and len(size) == 2 and all(side > 0 and side % data.patch == 0 for side in size)):
        raise UserError(f"{size} is no height and width in multiples of {data.patch} pixels: try {data.size}")
    try:
        file = looked(picture, data.channels)
        sides = torch.tensor([file[:2]], dtype=torch.float32)
        crop = center_crops(size, sides[:, 0], sides[:, 1], data.fit)
        return torch.from_numpy(np.ascontiguousarray(crop_file(file, data.channels, crop, 0, size)))
    except Undecodable as error:
        raise UserError(f"{named(picture)}: {error}") from error


def each(images: Picture | Sequence[Picture]) -> Iterator[Picture]:
    """One picture after the other."""
    if isinstance(images, Tensor | np.ndarray) and images.ndim == 4:
        yield from images
    elif isinstance(images, Pillow.Image | np.ndarray | Tensor | str | Path):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, bytes):
        yield from images
    else:
        raise UserError(f"a {type(images).__name__} is no picture: give a path, a PIL image, an array or a tensor")


def looked(picture: Picture, channels: int) -> EncodedImage:
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
        return looked(Pillow.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array), channels)
    if isinstance(picture, np.ndarray) and array.ndim == 3:
        array = array.transpose(2, 0, 1)
    if array.ndim != 3 or len(array) != channels:
        order = "(C, H, W)" if isinstance(picture, Tensor) else "(H, W, C)"
        raise UserError(f"pixels of shape {tuple(picture.shape)} are no picture of {channels} channels: want {order}")
    return EncodedImage(array.shape[1], array.shape[2], array)


def named(picture: Picture) -> str:
    return str(picture) if isinstance(picture, str | Path) else f"this {type(picture).__name__}"
