"""`jepa decode`: a decoder on top of a run, what it draws, and whether that agrees with what it was drawn from.

B pictures  T tokens drawn  D width  S samples of each
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from openjepa import config, positional, runs, weights
from openjepa.config import Pretrain
from openjepa.device import Place, Precision, place
from openjepa.draws import Draws, order
from openjepa.durable import replacing
from openjepa.figures import prediction
from openjepa.figures.canvas import COLOURS, Plate, Scale, enlarged, framed, heat, paled, save, tiled
from openjepa.figures.masks import flags
from openjepa.figures.shown import Asked, Shown, out_of, shown, some
from openjepa.log import say, warn
from openjepa.masking import Masking
from openjepa.methods.decoder import Condition, Conditions, Decoder, Decoding, seeded
from openjepa.methods.jepa import JEPA
from openjepa.methods.mae import MAE
from openjepa.modalities.image import Image
from openjepa.optim import Optim
from openjepa.types import Batch, Masks, Mistake, Tokens

BLOCK = Masking(targets=1, target_scale=(0.25, 0.4), context_scale=(1.0, 1.0), budget=1.0)  # all else is shown
STEPS = 25  # of the flow
CENTRE = 0.25, 0.25, 0.75, 0.75  # the block that is drawn to be measured, in all pictures: features tell places, too
FEWEST = 20  # pictures that an agreement is measured on


@dataclass(frozen=True, kw_only=True)
class Train:
    """Trains a decoder on a run's pictures; the run's own networks stay as they are. Called again, it goes on."""

    run: positional.Run  # a run, or what jepa convert made
    out: Path | None = None  # the decoder's folder; by default RUN/decoder
    condition: Condition = (
        "features"  # the target encoder's features of a whole picture, or what is predicted in a block
    )
    pooled: bool = True  # of a prediction: its mean over the block, as in the paper; or every patch's by itself
    root: tuple[str, ...] = ()  # pictures to learn from; by default the run's own
    dim: int = 256
    depth: int = 8
    num_heads: int = 4
    lr: float = 1e-3
    batch_size: int = 64
    budget: str = "1h"  # time that it may take
    steps: int = 0  # or so many steps
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    threads: int = 0  # of the CPU; 0: all cores


def train(settings: Train) -> Path:
    """The decoder's folder, a run like any other: resumed exactly, logged, with its curves."""
    wanted = config_of(settings)
    if (wanted.out / "config.json").is_file():
        other = [each for each in config.differences(config.load(wanted.out), wanted) if each.startswith("method.")]
        if other:
            raise Mistake(
                f"{wanted.out} holds another decoder ({'; '.join(other)}): give those settings, or another --out"
            )
    runs.pretrain(wanted)
    return wanted.out


def config_of(settings: Train) -> Pretrain:
    """The run that trains the decoder. Mistake if the run to be decoded has no such networks."""
    run = Path(settings.run)
    theirs = config.load(run)
    if (
        not isinstance(theirs.data, Image)
        or not isinstance(theirs.method, JEPA | MAE)
        or isinstance(theirs.method, Decoder)
    ):
        raise Mistake(f"{run} is no run on images of a JEPA or an autoencoder: give one that is")
    if settings.condition == "prediction" and not isinstance(theirs.method, JEPA):
        raise Mistake(f"{run} predicts pixels, no features: leave --condition prediction out")
    if settings.condition == "prediction" and not any(
        name.startswith(weights.PREDICTOR) for name in weights.everything(run)
    ):
        raise Mistake(f"{run} has no predictor: give the run's folder, or leave --condition prediction out")
    if settings.dim % (4 * settings.num_heads):
        better = max(1, round(settings.dim / (4 * settings.num_heads))) * 4 * settings.num_heads
        raise Mistake(
            f"--dim {settings.dim} is not a multiple of four times {settings.num_heads} heads: try --dim {better}"
        )
    shared = {each.name for each in dataclasses.fields(JEPA)} & vars(theirs.method).keys()
    sizes = {name: getattr(theirs.method, name) for name in shared} | {"target_sees": "whole", "target_every": 1}
    drawn: dict[str, Any] = {
        "drawn_dim": settings.dim,
        "drawn_depth": settings.depth,
        "drawn_heads": settings.num_heads,
    }
    method = Decoder(**sizes, **drawn, condition=settings.condition, pooled=settings.pooled)
    root = settings.root or theirs.data.root
    if not root:
        raise Mistake(f"{run} does not say which pictures it learnt from: give some by --root")
    return Pretrain(
        dataclasses.replace(theirs.data, root=root, crop_scale=(0.7, 1.0), colour=0.0),
        method,
        BLOCK,
        Optim(settings.lr, 0.0, 1e-6, 0.05, 0.0, 0.01, 0.01, momentum=0.99, beta2=0.99, clip=1.0),
        steps=settings.steps,
        budget="" if settings.steps else settings.budget,
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=settings.device,
        precision=settings.precision,
        threads=settings.threads,
        out=settings.out or run / "decoder",
        resume="if-any",
        init_from=run,
    )


class Opened(NamedTuple):
    """A decoder, ready to draw."""

    settings: Pretrain
    method: Decoding
    step: int
    place: Place  # where it draws

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
    settings = config.load(folder)
    if not isinstance(settings.method, Decoder):
        raise Mistake(f"{folder} is no decoder: train one by jepa decode train {folder}")
    (method, step), where = weights.whole_method(folder, settings), place(device, precision)
    return Opened(settings, method.to(where.device), step, where)


class Drawn(NamedTuple):
    """What was drawn from one condition of each picture, several times."""

    views: UInt8[Tensor, "S B C H W"]  # whole pictures; of a block, the rest as it was
    raw: Float[Tensor, "S B T E"]  # the tokens drawn


def mask_of(decoder: Opened, count: int, box: prediction.Box | None, seed: int) -> Masks:
    """The block of each picture that is drawn, and all else as context; a whole picture where features are drawn."""
    rows, columns = decoder.data.grid
    if not decoder.predicts:
        everything = torch.arange(rows * columns).expand(count, -1)
        return Masks(everything, everything[:, None])
    if box is None:
        (mask,) = BLOCK.build(decoder.data.grid)(None, None, Draws.of(seed, 0, seeded(seed, count).numbers), 0.0)
        return mask
    inside = torch.from_numpy(prediction.boxed(box, decoder.data.grid)).flatten()
    if inside.all():
        raise Mistake(f"the box {box} hides all there is: leave something to be seen")
    context, target = (torch.where(each)[0].expand(count, -1) for each in (~inside, inside))
    return Masks(context, target[:, None])


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
        draws = seeded(seed + sample, len(view))
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

    decoder: positional.Run  # what jepa decode train made
    images: positional.Pictures = ()  # pictures or folders of them; by default what the decoder learnt from
    count: int = 6  # pictures
    samples: int = 6  # of each
    box: prediction.Box | None = None  # of a decoder of predictions: the block, as shares from 0 to 1; by default any
    steps: int = STEPS  # of the flow
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    out: Path | None = None  # a .png; by default DECODER/figures/samples.png


def sample(settings: Sample) -> Path:
    """A PNG with a row for each picture. Mistake in a sentence if the decoder, a picture or the box is no good."""
    decoder = opened(Path(settings.decoder), settings.device, settings.precision)
    if settings.box and not decoder.predicts:
        raise Mistake("this decoder draws whole pictures from their features: leave --box out")
    if not 1 <= settings.samples <= 32 or settings.steps < 1:
        raise Mistake("a picture is drawn 1 to 32 times, in one step at least: try --samples 6 --steps 25")
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
    say(plate.caption)
    save(plate, out)
    say(f"picture    {out}")
    return out


def grid_of(decoder: Opened, found: Shown, mask: Masks, drawn: Drawn) -> Plate:
    """As the paper's figure 6: the picture, what was shown, and samples with a frame about what was drawn; how much they vary."""
    grid, patch, data = decoder.data.grid, decoder.data.patch, decoder.data
    values = drawn.views.float().std(0, correction=0).mean(1) if len(drawn.views) > 1 else None
    rows = []
    for row, picture in enumerate(found.pictures):
        inside = flags(mask.target[row, 0], None, grid[0] * grid[1]).reshape(grid)
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


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Measures whether what is drawn agrees with what it was drawn from, and a control that should not."""

    decoder: positional.Run  # what jepa decode train made
    images: positional.Pictures = ()  # pictures that it did not learn from
    count: int = 256
    steps: int = STEPS
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"


class Agreement(NamedTuple):
    """How often a drawn picture's features are nearest, of all pictures', to those it was drawn from."""

    retrieval: float
    shuffled: float  # the same, drawn from another picture's condition: the control
    chance: float
    cosine: float  # of a drawn picture with its own, mean
    cosine_other: float  # with others', mean


def measure(settings: Measure) -> Agreement:
    """Retrieval by pooled features of what is drawn, seen by itself, among those of what is there, seen by itself.

    Of a decoder of features that is the very condition. Features are less their mean over the pictures, then compared by the
    cosine. Also in DECODER/agreement.json.
    """
    decoder = opened(Path(settings.decoder), settings.device, settings.precision)
    roots = settings.images or decoder.data.root
    if not settings.images:
        warn("these are pictures that the decoder learnt from: give others to know what it does with new ones")
    found = some(tuple(roots), decoder.data, settings.count)
    if len(found.view) < FEWEST:
        raise Mistake(f"{len(found.view)} pictures are too few to be told apart: give {FEWEST} or more")
    mask = mask_of(decoder, len(found.view), CENTRE if decoder.predicts else None, settings.seed)
    given = conditions(decoder, found.view, mask)
    other = Conditions(given.x[strangers(len(found.view), settings.seed)])
    here = decoder.data.tokens(found.view).take(mask.target[:, 0])
    truth = pooled(decoder, here)
    own, control = (
        pooled(decoder, here._replace(x=draw(decoder, found.view, each, mask, 1, settings.seed, settings.steps).raw[0]))
        for each in (given, other)
    )
    result = agreement(truth, own, control)
    say(
        f"of {len(found.view)} pictures drawn once, {100 * result.retrieval:.1f} % are found by their features (from another's "
        f"condition {100 * result.shuffled:.1f} %, by chance {100 * result.chance:.1f} %); cosine with their own "
        f"{result.cosine:.2f}, with others' {result.cosine_other:.2f}"
    )
    with replacing(Path(settings.decoder) / "agreement.json") as temporary:
        temporary.write_text(
            json.dumps(
                {
                    **result._asdict(),
                    "step": decoder.step,
                    "count": len(found.view),
                    "images": list(roots),
                    "seed": settings.seed,
                },
                indent=1,
            )
        )
    return result


def strangers(count: int, seed: int) -> Int[Tensor, "B"]:
    """For each picture another one, drawn at random: all in one ring."""
    ring = torch.from_numpy(order(seed, 0, count))
    return torch.empty_like(ring).scatter(0, ring, ring.roll(1))


def agreement(truth: Float[Tensor, "B D"], own: Float[Tensor, "B D"], control: Float[Tensor, "B D"]) -> Agreement:
    """Of drawn pictures' features, row by row, with those they were drawn from."""
    mean = truth.mean(0)
    there, drawn, shuffled = (F.normalize(each - mean, dim=1) for each in (truth, own, control))
    right = torch.arange(len(truth))
    cosine = drawn @ there.T
    others = (cosine.sum() - cosine.diagonal().sum()) / (len(truth) * (len(truth) - 1))
    hits, misses = (((each @ there.T).argmax(1) == right).float().mean() for each in (drawn, shuffled))
    return Agreement(float(hits), float(misses), 1 / len(truth), float(cosine.diagonal().mean()), float(others))


KINDS = {"train": (Train, train), "sample": (Sample, sample), "measure": (Measure, measure)}
