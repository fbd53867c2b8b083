"""Sample images from a trained decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Real, UInt8
from torch import Tensor

from openjepa.core.capabilities import Inverts, PatchGrid, require
from openjepa.core.errors import UserError
from openjepa.core.options import FLOW_STEPS, Box, Precision
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Masks, Tokens
from openjepa.masking.region import hide_region
from openjepa.methods.decoder import Decoder, FlowDecoder, image_rng
from openjepa.nn.flow import Conditions
from openjepa.recipes.decoder import BLOCK_MASK
from openjepa.training.config import Pretrain, load_config
from openjepa.training.device import Device, choose_device
from openjepa.training.run_folder import load_newest_method


class LoadedDecoder(NamedTuple):
    """A trained decoder, ready to sample."""

    settings: Pretrain
    method: FlowDecoder
    step: int  # training steps of the weights
    device: Device

    @property
    def data(self) -> Any:
        """Return the modality of the decoder, which assembles images from patches."""
        return self.settings.data

    @property
    def decodes_predictions(self) -> bool:
        """Tell whether it decodes the predictor's output for a block, not the features of a whole image."""
        return self.method.config.condition == "prediction"


def load_decoder(folder: Path, device: str = "auto", precision: Precision = "auto") -> LoadedDecoder:
    """Load a decoder's newest valid checkpoint. Raises UserError if the folder is not a decoder."""
    settings = load_config(folder)
    if not isinstance(settings.method, Decoder):
        raise UserError(f"{folder} is not a decoder: train one with jepa decoder train {folder}")
    require(require(settings.data, Inverts, "jepa decoder"), PatchGrid, "jepa decoder")
    (method, step), chosen = load_newest_method(folder, settings), choose_device(device, precision)
    return LoadedDecoder(settings, method.to(chosen.device), step, chosen)


class DecoderSamples(NamedTuple):
    """Several samples from the condition of each image: S samples, B images, T tokens of E values."""

    views: UInt8[Tensor, "S B C H W"]  # whole images; outside a decoded block, the original pixels
    raw: Float[Tensor, "S B T E"]  # the sampled tokens


def decoder_mask(decoder: LoadedDecoder, count: int, box: Box | None, seed: int) -> Masks:
    """Build the mask of `count` images: target = the tokens to sample, context = all others.

    A decoder of features samples the whole image; one of predictions samples `box` or, without a box, a random block.
    """
    rows, columns = decoder.data.grid
    if not decoder.decodes_predictions:
        all_tokens = torch.arange(rows * columns).expand(count, -1)
        return Masks(all_tokens, all_tokens[:, None])
    if box is None:
        rng = CounterRNG.of(seed, 0, image_rng(seed, count).index)
        (mask,) = BLOCK_MASK(decoder.data.layout, None, None, rng, 0.0)
        return mask
    return hide_region(box, decoder.data.grid, count)


@torch.no_grad()
def decoder_conditions(decoder: LoadedDecoder, view: Real[Tensor, "B C H W"], mask: Masks) -> Conditions:
    """Compute the condition from which each image is sampled."""
    batch = Batch((view,), torch.arange(len(view)), (mask,))
    return Conditions(decoder.method.targets(decoder.device.move(batch)).x.cpu())


@torch.no_grad()
def pooled_condition(decoder: LoadedDecoder, tokens: Tokens) -> Float[Tensor, "B D"]:
    """Return the mean features of these tokens, encoded without the rest of the image."""
    return decoder.method.mean_features(decoder.device.move(tokens)).cpu()


def sample_images(
    decoder: LoadedDecoder,
    view: Real[Tensor, "B C H W"],
    conditions: Conditions,
    mask: Masks,
    samples: int,
    seed: int,
    steps: int = FLOW_STEPS,
) -> DecoderSamples:
    """Sample from each condition with `samples` seeds and insert the sampled tokens into the images."""
    tokens = decoder.data.tokens(view)
    target, views, raws = mask.target[:, 0], [], []
    for sample in range(samples):
        rng = image_rng(seed + sample, len(view))
        moved, positions = decoder.device.move((conditions, tokens.take(target).pos))
        with decoder.device.autocast():
            raw = decoder.method.sample(moved, positions, rng, steps).float().cpu()
        whole = tokens.x.scatter(1, target[..., None].expand_as(raw), raw.to(tokens.x.dtype))
        views.append(decoder.data.unpatchify(whole))
        raws.append(raw)
    return DecoderSamples(torch.stack(views), torch.stack(raws))
