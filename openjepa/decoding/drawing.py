"""`jepa decode sample`: what a decoder draws from what the representation holds of pictures.

B pictures  T tokens drawn  D width  S samples of each
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.core.arguments import Images, Run
from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, Masks, Tokens
from openjepa.figures.canvas import COLOURS, Plate, Scale, enlarged, framed, heat, paled, save, tiled
from openjepa.figures.shown import Asked, Shown, out_of, shown
from openjepa.masking.region import Box, hide_region, index_mask
from openjepa.methods.decoder import Decoder, FlowDecoder, image_rng
from openjepa.modalities.image import Image
from openjepa.nn.flow import Conditions
from openjepa.recipes.decoder import BLOCK_MASK
from openjepa.training.config import Pretrain, load_config
from openjepa.training.device import Device, Precision, choose_device
from openjepa.training.run_folder import load_newest_method

STEPS = 25  # of the flow


class Opened(NamedTuple):
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


def opened(folder: Path, device: str = "auto", precision: Precision = "auto") -> Opened:
    """A decoder's newest good checkpoint. Mistake if the folder has none."""
    settings = load_config(folder)
    if not isinstance(settings.method, Decoder):
        raise UserError(f"{folder} is no decoder: train one by jepa decode train {folder}")
    (method, step), where = load_newest_method(folder, settings), choose_device(device, precision)
    return Opened(settings, method.to(where.device), step, where)


class Drawn(NamedTuple):
    """What was drawn from one condition of each picture, several times."""

    views: UInt8[Tensor, "S B C H W"]  # whole pictures; of a block, the rest as it was
    raw: Float[Tensor, "S B T E"]  # the tokens drawn


def mask_of(decoder: Opened, count: int, box: Box | None, seed: int) -> Masks:
    """The block of each picture that is drawn, and all else as context; a whole picture where features are drawn."""
    rows, columns = decoder.data.grid
    if not decoder.predicts:
        everything = torch.arange(rows * columns).expand(count, -1)
        return Masks(everything, everything[:, None])
    if box is None:
        (mask,) = BLOCK_MASK.build(decoder.data.grid)(
            None, None, CounterRNG.of(seed, 0, image_rng(seed, count).numbers), 0.0
        )
        return mask
    return hide_region(box, decoder.data.grid, count)


@torch.no_grad()
def conditions(decoder: Opened, view: UInt8[Tensor, "B C H W"], mask: Masks) -> Conditions:
    """What is drawn from, of each picture."""
    batch = Batch((view,), torch.arange(len(view)))
    return Conditions(decoder.method.targets(*decoder.place.move((batch, (mask,)))).x.cpu())


@torch.no_grad()
def pooled(decoder: Opened, tokens: Tokens) -> Float[Tensor, "B D"]:
    """Features of tokens that are seen by themselves."""
    return decoder.method.pooled(decoder.place.move(tokens)).cpu()


def draw(
    decoder: Opened,
    view: UInt8[Tensor, "B C H W"],
    given: Conditions,
    mask: Masks,
    samples: int,
    seed: int,
    steps: int = STEPS,
) -> Drawn:
    """Each condition drawn from `samples` seeds, placed into the pictures."""
    tokens = decoder.data.tokens(view)
    asked, views, raws = mask.target[:, 0], [], []
    for sample in range(samples):
        draws = image_rng(seed + sample, len(view))
        moved, where = decoder.place.move((given, tokens.take(asked).pos))
        with decoder.place.autocast():
            raw = decoder.method.draw(moved, where, draws, steps).float().cpu()
        whole = tokens.x.scatter(1, asked[..., None].expand_as(raw), raw.to(tokens.x.dtype))
        views.append(decoder.data.pixels(whole))
        raws.append(raw)
    return Drawn(torch.stack(views), torch.stack(raws))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Draws pictures several times from what the representation holds of them: what agrees is in it, what varies is not."""

    decoder: Run  # what jepa decode train made
    images: Images = ()  # pictures or folders of them; by default what the decoder learnt from
    count: int = 6  # pictures
    samples: int = 6  # of each
    box: Box | None = None  # of a decoder of predictions: the block, as shares from 0 to 1; by default any
    steps: int = STEPS  # of the flow
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    out: Path | None = None  # a .png; by default DECODER/figures/samples.png


def sample(settings: Sample) -> Path:
    """A PNG with a row for each picture. Mistake in a sentence if the decoder, a picture or the box is no good."""
    decoder = opened(Path(settings.decoder), settings.device, settings.precision)
    if settings.box and not decoder.predicts:
        raise UserError("this decoder draws whole pictures from their features: leave --box out")
    if not 1 <= settings.samples <= 32 or settings.steps < 1:
        raise UserError("a picture is drawn 1 to 32 times, in one step at least: try --samples 6 --steps 25")
    asked = Asked(run=settings.decoder, images=settings.images, count=settings.count, out=settings.out)
    out = out_of(asked, "samples")
    found = shown(asked, decoder.data, of=settings.images or decoder.data.root)
    mask = mask_of(decoder, len(found.view), settings.box, settings.seed)
    drawn = draw(
        decoder,
        found.view,
        conditions(decoder, found.view, mask),
        mask,
        settings.samples,
        settings.seed,
        settings.steps,
    )
    plate = grid_of(decoder, found, mask, drawn)
    info(plate.caption)
    save(plate, out)
    info(f"picture    {out}")
    return out


def grid_of(decoder: Opened, found: Shown, mask: Masks, drawn: Drawn) -> Plate:
    """As the paper's figure 6: the picture, what was shown, and samples with a frame about what was drawn; how much they vary."""
    grid, patch, data = decoder.data.grid, decoder.data.patch, decoder.data
    values = drawn.views.float().std(0, correction=0).mean(1) if len(drawn.views) > 1 else None
    rows = []
    for row, picture in enumerate(found.pictures):
        inside = index_mask(mask.target[row, 0], None, grid[0] * grid[1]).reshape(grid)
        samples = [data.picture(view[row]) for view in drawn.views]
        framing = [
            framed(enlarged(each), inside, patch * (enlarged(each).shape[0] // each.shape[0]), COLOURS[2])
            for each in samples
        ]
        hole = [paled(picture, ~inside, patch)] if decoder.predicts else []
        varying = [heat(values[row].numpy(), Scale("", 0.0, 96.0))] if values is not None else []
        rows.append([picture, *hole, *(framing if decoder.predicts else samples), *varying])
    columns = [
        "picture",
        *(["what is shown"] if decoder.predicts else []),
        *(f"drawn {n + 1}" for n in range(len(drawn.views))),
    ]
    columns += ["how they vary"] if values is not None else []
    what = (
        "the mean of what the predictor expects in the frame"
        if decoder.predicts
        else "one vector, the mean of its patch features"
    )
    if decoder.predicts and not decoder.method.config.pooled:
        what = "what the predictor expects at every patch in the frame"
    caption = (
        f"Each picture drawn {len(drawn.views)} times from {what}; the decoder, of {decoder.step:,} steps, sees nothing else. What agrees is in the "
        "representation, what varies is not; bright: deviation over the samples, of 255, up to 96."
    )
    return Plate("samples", "What the representation holds", caption, tiled(rows, columns, found.titles))
