"""Sample pictures from a decoder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Masks, Tokens
from openjepa.masking.region import Box, hide_region
from openjepa.methods.decoder import Decoder, FlowDecoder, image_rng
from openjepa.modalities.image import Image
from openjepa.nn.flow import Conditions
from openjepa.recipes.decoder import BLOCK_MASK
from openjepa.training.config import Pretrain, load_config
from openjepa.training.device import Device, Precision, choose_device
from openjepa.training.run_folder import load_newest_method

FLOW_STEPS = 25  # of the flow


class LoadedDecoder(NamedTuple):
    """A decoder, ready to draw."""

    settings: Pretrain
    method: FlowDecoder
    step: int
    place: Device  # where it draws

    @property
    def data(self) -> Image:
        assert isinstance(self.settings.data, Image)
        return self.settings.data

    @property
    def predicts(self) -> bool:
        """Whether it draws what is expected in a block, not what is seen in a whole picture."""
        return self.method.config.condition == "prediction"


def load_decoder(folder: Path, device: str = "auto", precision: Precision = "auto") -> LoadedDecoder:
    """A decoder's newest good checkpoint. Mistake if the folder has none."""
    settings = load_config(folder)
    if not isinstance(settings.method, Decoder):
        raise UserError(f"{folder} is no decoder: train one by jepa decoder train {folder}")
    (method, step), where = load_newest_method(folder, settings), choose_device(device, precision)
    return LoadedDecoder(settings, method.to(where.device), step, where)


class DecoderSamples(NamedTuple):
    """What was drawn from one condition of each picture, several times."""

    views: UInt8[Tensor, "S B C H W"]  # whole pictures; of a block, the rest as it was
    raw: Float[Tensor, "S B T E"]  # the tokens drawn


def decoder_mask(decoder: LoadedDecoder, count: int, box: Box | None, seed: int) -> Masks:
    """The block of each picture that is drawn, and all else as context; a whole picture where features are drawn."""
    rows, columns = decoder.data.grid
    if not decoder.predicts:
        everything = torch.arange(rows * columns).expand(count, -1)
        return Masks(everything, everything[:, None])
    if box is None:
        (mask,) = BLOCK_MASK.build(decoder.data.grid)(
            None, None, CounterRNG.of(seed, 0, image_rng(seed, count).index), 0.0
        )
        return mask
    return hide_region(box, decoder.data.grid, count)


@torch.no_grad()
def decoder_conditions(decoder: LoadedDecoder, view: UInt8[Tensor, "B C H W"], mask: Masks) -> Conditions:
    """What is drawn from, of each picture."""
    batch = Batch((view,), torch.arange(len(view)))
    return Conditions(decoder.method.targets(*decoder.place.move((batch, (mask,)))).x.cpu())


@torch.no_grad()
def pooled_condition(decoder: LoadedDecoder, tokens: Tokens) -> Float[Tensor, "B D"]:
    """Features of tokens that are seen by themselves."""
    return decoder.method.pooled(decoder.place.move(tokens)).cpu()


def draw_samples(
    decoder: LoadedDecoder,
    view: UInt8[Tensor, "B C H W"],
    given: Conditions,
    mask: Masks,
    samples: int,
    seed: int,
    steps: int = FLOW_STEPS,
) -> DecoderSamples:
    """Each condition drawn from `samples` seeds, placed into the pictures."""
    tokens = decoder.data.tokens(view)
    asked, views, raws = mask.target[:, 0], [], []
    for sample in range(samples):
        draws = image_rng(seed + sample, len(view))
        moved, where = decoder.place.move((given, tokens.take(asked).pos))
        with decoder.place.autocast():
            raw = decoder.method.draw(moved, where, draws, steps).float().cpu()
        whole = tokens.x.scatter(1, asked[..., None].expand_as(raw), raw.to(tokens.x.dtype))
        views.append(decoder.data.unpatchify(whole))
        raws.append(raw)
    return DecoderSamples(torch.stack(views), torch.stack(raws))
