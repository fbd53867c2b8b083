"""A pretrained encoder: features, predictions and targets of pictures.   B batch  C channels  H height  W width  N tokens  D width"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.interop.inputs import ImageInput, evaluation_view, iter_images
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import Predictor
from openjepa.nn.vit import ViT
from openjepa.training.config import Pretrain, load_config
from openjepa.training.run_folder import (
    CONTEXT_FILE,
    ENCODER_FILE,
    PREDICTOR_FILE,
    Provenance,
    load_newest_method,
    load_weights_into,
    read_provenance,
    read_step_metadata,
)


def load_run(folder: Path, which: str = "target") -> PretrainedEncoder:
    """The encoder of a run (its newest good checkpoint) or of an export. Mistake in a sentence if there is none."""
    settings = load_config(folder)
    if (folder / ENCODER_FILE).is_file():
        return load_export(folder, settings, which)
    method, step = load_newest_method(folder, settings)
    predictor = getattr(method, "predictor", None)  # of joint embedding it is an expander
    predictor = predictor if isinstance(predictor, Predictor) else None
    return PretrainedEncoder(method.encoder(which), settings, step, predictor, read_provenance(folder))


def load_export(folder: Path, settings: Pretrain, which: str) -> PretrainedEncoder:
    """What a folder of weights holds."""
    file = folder / (ENCODER_FILE if which == "target" else CONTEXT_FILE)
    if not file.is_file():
        raise UserError(f"{folder} is an export, which holds the target encoder alone: give the run's folder")
    predictor = None
    if (folder / PREDICTOR_FILE).is_file():
        predictor = load_weights_into(settings.method.predictor(settings.data), folder / PREDICTOR_FILE)  # type: ignore[union-attr]
    encoder = load_weights_into(settings.method.encoder(settings.data), file)
    step = int(read_step_metadata(file).get("step", settings.steps))
    return PretrainedEncoder(encoder, settings, step, predictor, read_provenance(folder))


def build_untrained(settings: Pretrain) -> ViT:
    """The encoder as the run's seed makes it; a run with --init-from began elsewhere."""
    return settings.method.build(settings.data, settings.seed).encoder("target").eval()


LAST_LAYERS = 4  # layers of the paper's `last4`

FeatureKind = Literal["last", "last4", "patches"]

PatchIndices = Sequence[int] | Tensor  # of patches, in raster order


OWN_RUN = Provenance()


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder in evaluation mode, the config it was made by, and what was learnt with it."""

    encoder: ViT
    config: Pretrain  # its `data` cuts pictures into tokens
    step: int = 0
    predictor: Predictor | None = None
    provenance: Provenance = OWN_RUN

    @property
    def device(self) -> torch.device:
        return self.encoder.norm.weight.device

    @property
    def data(self) -> Image:
        """How pictures are cut. Mistake if the encoder was trained on signals."""
        if not isinstance(self.config.data, Image):
            raise UserError("this encoder was trained on signals: give its tokens to .encoder")
        return self.config.data

    def to(self, device: str | torch.device) -> PretrainedEncoder:
        """The same, on a device."""
        predictor = self.predictor.to(device) if self.predictor else None
        return dataclasses.replace(self, encoder=self.encoder.to(device), predictor=predictor)

    def transform(self, picture: ImageInput, size: tuple[int, int] | None = None) -> UInt8[Tensor, "C h w"]:
        """The evaluation view of a picture: its largest centred box at the trained size, or at `size`, as bytes.

        Takes a path, a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W), the last two of bytes. Mistake in
        a sentence if it is none of them, or cannot be decoded. A tensor that has the size already comes back as it is.
        """
        return evaluation_view(picture, self.data, size or self.data.size)

    @torch.no_grad()
    def features(
        self,
        images: ImageInput | Sequence[ImageInput],
        kind: FeatureKind = "last",
        size: tuple[int, int] | None = None,
        batch: int = 64,
    ) -> Float[Tensor, "B *F"]:
        """Features of pictures, in fp32 on the CPU: (B, D) for "last", the mean over patches as in the paper; (B, 4 D) for
        "last4", four layers side by side (appendix A.2); (B, N, D) for "patches", in raster order.

        Takes one picture or many, each as for `transform`, or a tensor (B, C, H, W) or array (B, H, W, C) of bytes. At
        another `size` than trained, positions are rescaled to the trained extent.
        """
        if kind not in get_args(FeatureKind):
            raise UserError(f"there are no features {kind!r}: ask for last, last4 or patches")
        layers = tuple(range(max(-LAST_LAYERS, -len(self.encoder.blocks)), 0)) if kind == "last4" else (-1,)
        found, queue = [], iter_images(images)
        while some := list(islice(queue, batch)):
            view = torch.stack([self.transform(picture, size) for picture in some]).to(self.device)
            seen = [tokens.x.float() for tokens in self.encoder(self.data.tokens(view), layers)]
            found.append((seen[-1] if kind == "patches" else torch.cat([x.mean(1) for x in seen], 1)).cpu())
        if not found:
            raise UserError("no picture was given")
        return torch.cat(found)

    @torch.no_grad()
    def predict(
        self, image: ImageInput, context: PatchIndices, targets: PatchIndices | Sequence[Sequence[int]]
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
        shown, asked = (patch_indices(places).to(self.device) for places in (context, targets))
        count = tokens.x.shape[1]
        for places in (shown, asked):
            if not places.numel() or places.min() < 0 or places.max() >= count:
                raise UserError(
                    f"patches are numbered from 0 to {count - 1}: give some of these, to be shown and to be asked for"
                )
        blocks = asked if asked.ndim == 2 else asked[None]
        (seen,) = self.encoder(tokens.take(shown.flatten()[None]))
        return self.predictor(seen, where=tokens.pos[:, blocks])[0, :, :, : self.target_dim].float().cpu()

    @property
    def target_dim(self) -> int:
        """How many of the predictor's numbers are features; where pixels are asked for, too, they come after."""
        method = self.config.method
        joined = isinstance(method, JEPA) and method.target_join == "concat"
        return method.dim * (len(method.target_layers) if isinstance(method, JEPA) and joined else 1)

    @torch.no_grad()
    def targets(self, images: ImageInput | Sequence[ImageInput]) -> Float[Tensor, "B N D"]:
        """The features that `predict` is to be compared with: layer norm on every patch, no affine (as released)."""
        x = self.features(images, "patches")
        return F.layer_norm(x, x.shape[-1:])


def patch_indices(places: PatchIndices | Sequence[Sequence[int]]) -> Tensor:
    """Numbers of patches; of a mask, one flag for each patch, where it is true."""
    found = torch.as_tensor(places)
    if found.dtype == torch.bool and found.ndim == 1:
        return found.nonzero()[:, 0]
    if found.numel() and (found.dtype == torch.bool or found.is_floating_point()):
        raise UserError("patches are told by their numbers, or by one mask of all of them")
    return found.long()
