"""Answer the questions of the explorer's page: similar patches, neighbors, hidden regions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from rich.progress import track
from torch import Tensor

from openjepa.core.arguments import Images, Run
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.evaluation.decoder import LoadedDecoder, decoder_conditions, decoder_mask, draw_samples, load_decoder
from openjepa.evaluation.feature_store import shows_progress as watched
from openjepa.evaluation.whitening import WHITENING_POWER, Whitening
from openjepa.interop.adapters import EncoderAdapter
from openjepa.interop.inputs import evaluation_view
from openjepa.masking.region import Box, covered_patches, hide_region
from openjepa.training.config import Pretrain
from openjepa.training.perf.flops import encoder_flops
from openjepa.viz.canvas import COLORS, ColorScale, enlarge, fade, heatmap, outline
from openjepa.viz.embedding_map import MAX_IMAGES, MIN_IMAGES
from openjepa.viz.inputs import (
    CHUNK_IMAGES,
    FigureOptions,
    ImageBatch,
    evenly_spaced,
    figure_data,
    load_encoder,
    read_images,
    with_default_images,
)
from openjepa.viz.prediction_error import gather_patches, load_predictive_method, nearest_patches, predict_hidden
from openjepa.viz.predictions import denormalize_pixels, error_map, fill_region

MAX_INDEXED_IMAGES = 10_000  # pictures

MAX_MEMORY = 2**29  # numbers of patches kept, two bytes each

MAX_FLOPS, GALLERY_IMAGES = (
    1e11,
    48,
)  # operations that an answer about a hidden box may take, about, and pictures beside it

FLOW_STEPS = 10  # of the decoder's flow

MAX_RESULTS = 12  # neighbours, and patches, shown

VIEW_SIDE = 384  # pixels of the picture that is clicked on


@dataclass(frozen=True, kw_only=True)
class Explore:
    """Opens a page in the browser, on this machine alone: click a patch, drop a picture, drag a box to hide, look at the map."""

    run: Run  # a run, an export, or weights of another project; what it expects wants a run
    images: Images = ()  # pictures or folders of them; by default what the run learnt from
    count: int = 2000  # pictures, evenly taken; 10,000 at most
    decoder: Path | None = None  # what jepa decoder train made of the run; by default RUN/decoder, if it is there
    map: int = 2000  # pictures on the map; 0: no map
    host: str = "127.0.0.1"  # who may open the page: this machine alone; 0.0.0.0: whoever reaches it
    port: int = 8080
    seed: int = 0


class PatchHit(NamedTuple):
    """A patch of a picture, and how alike it is."""

    row: int
    place: int
    cosine: float


class HiddenRegion(NamedTuple):
    """What is expected in a box that was hidden."""

    hole: np.ndarray
    errors: np.ndarray
    ratio: float  # error of the predictor, as a share of the mean's
    expected: np.ndarray  # as the nearest real patches
    pixels: np.ndarray | None  # where the run predicts them
    samples: tuple[np.ndarray, ...]  # by the decoder, if there is one


class Session:
    """An encoder, pictures, and their features; every answer is a function of these and of what is asked."""

    def __init__(self, this: EncoderAdapter, found: ImageBatch, seed: int = 0):
        self.this, self.found, self.seed = this, found, seed
        rows, columns = found.data.grid
        width = rows * columns * this.encode(found.view[:1]).last.shape[1]
        kept = min(len(found.view), max(8, MAX_MEMORY // width))
        pooled, patches = [], []
        parts = list(found.view.split(CHUNK_IMAGES))
        with torch.no_grad():
            for number, view in enumerate(track(parts, "looking", console=console, disable=not watched())):
                seen = this.encode(view)
                pooled.append(seen.last)
                patches.extend([seen.patches.half()] if number * CHUNK_IMAGES < kept else [])
        self.mean = torch.cat(patches)[:kept].float().mean(0)  # of each place
        self.patches = F.normalize(torch.cat(patches)[:kept] - self.mean.half(), dim=-1)
        self.pooled = torch.cat(pooled)
        self.space = Whitening.of(self.pooled.numpy(), WHITENING_POWER)
        self.quiet = self.compared(self.pooled)
        self.predictive: tuple[Pretrain, Any] | None = None
        self.decoder: LoadedDecoder | None = None

    @classmethod
    def opened(cls, settings: Explore) -> Session:
        """All that is needed, read and seen. Mistake in a sentence where something is not as it should be."""
        if not 1 <= settings.count <= MAX_INDEXED_IMAGES:
            raise UserError(
                f"{settings.count:,} pictures are not explored at once: try --count 2000; {MAX_INDEXED_IMAGES:,} is the most"
            )
        if settings.map and not MIN_IMAGES <= settings.map <= MAX_IMAGES:
            raise UserError(
                f"a map has {MIN_IMAGES} to {MAX_IMAGES:,} pictures, not {settings.map:,}: try --map 2000, or 0"
            )
        asked = with_default_images(FigureOptions(run=settings.run, images=settings.images))
        this = load_encoder(asked)
        found = read_images(tuple(asked.images), figure_data(asked, this.data), settings.count)
        self = cls(this, found, settings.seed)
        try:
            self.predictive = load_predictive_method(Path(settings.run))
        except UserError as mistake:
            info(f"hiding     left out: {mistake}")
        folder = settings.decoder or Path(settings.run) / "decoder"
        if settings.decoder or folder.is_dir():
            self.decoder = load_decoder(folder)
        return self

    @property
    def grid(self) -> tuple[int, int]:
        return self.found.data.grid

    @property
    def patch(self) -> int:
        """Pixels of a patch in the picture that is shown."""
        return self.large(self.found.view[0]).shape[0] // self.grid[0]

    def large(self, view: UInt8[Tensor, "C H W"]) -> np.ndarray:
        """The picture that is clicked on."""
        return enlarge(self.found.data.picture(view), VIEW_SIDE)

    def uploaded(self, file: Path) -> UInt8[Tensor, "C H W"]:
        """A file as the encoder is shown it. Mistake if it is no picture, or too large: the limits of all pictures."""
        return evaluation_view(file, self.found.data, self.found.data.size)

    def place(self, x: float, y: float) -> int:
        """The patch at a point of the picture that is shown, in its pixels."""
        rows, columns = self.grid
        row, column = (min(max(int(at // self.patch), 0), most - 1) for at, most in ((y, rows), (x, columns)))
        return row * columns + column

    @torch.no_grad()
    def directions(self, view: UInt8[Tensor, "C H W"]) -> Float[Tensor, "N D"]:
        """Patch features less their place's mean, of length 1."""
        return F.normalize(self.this.encode(view[None]).patches[0] - self.mean, dim=-1)

    def alike(self, view: UInt8[Tensor, "C H W"], place: int) -> tuple[np.ndarray, list[PatchHit]]:
        """Where else in the picture that patch is, as colours, and the patches of other pictures most like it, one of each."""
        own = self.directions(view)
        values = (own @ own[place]).view(self.grid).numpy()
        picture = enlarge(heatmap(values, ColorScale("", float(np.percentile(values, 2)), 1.0)), VIEW_SIDE)
        cosine, best = (self.patches @ own[place].half()).float().max(1)
        cosine[(self.found.view[: len(cosine)] == view).flatten(1).all(1)] = -2  # the picture itself
        rows = cosine.argsort(descending=True, stable=True)[:MAX_RESULTS].tolist()
        return picture, [PatchHit(row, int(best[row]), float(cosine[row])) for row in rows if cosine[row] > -2]

    def shown_patch(self, found: PatchHit) -> np.ndarray:
        """A picture with one of its patches framed."""
        inside = np.zeros(self.grid, bool)
        inside.flat[found.place] = True
        return outline(self.large(self.found.view[found.row]), inside, self.patch, COLORS[5], width=6)

    def compared(self, pooled: Float[Tensor, "S D"]) -> Float[Tensor, "S D"]:
        """Features less their mean, loud directions made quieter."""
        return torch.from_numpy(self.space.map(pooled.numpy()))

    @torch.no_grad()
    def neighbours(self, view: UInt8[Tensor, "C H W"]) -> list[tuple[int, float]]:
        """The rows most like a picture, with the cosine of features whose loud directions are quieter."""
        cosine = F.cosine_similarity(self.quiet, self.compared(self.this.encode(view[None]).last))
        cosine[(self.found.view == view).flatten(1).all(1)] = -2
        rows = cosine.argsort(descending=True, stable=True)[:MAX_RESULTS].tolist()
        return [(row, float(cosine[row])) for row in rows if cosine[row] > -2]

    def box(self, first: tuple[float, float], last: tuple[float, float]) -> Box:
        """Two corners of the picture that is shown as a box in shares."""
        height, width = (self.patch * side for side in self.grid)
        (left, right), (top, bottom) = (sorted((a, b)) for a, b in zip(first, last, strict=True))
        found = tuple(
            min(max(at / most, 0.0), 1.0)
            for at, most in zip((left, top, right, bottom), (width, height) * 2, strict=True)
        )
        return found  # type: ignore[return-value]

    def hidden(self, view: UInt8[Tensor, "C H W"], box: Box) -> HiddenRegion:
        """What the predictor expects in a box, beside a few of the other pictures, whose hidden patches lend their looks."""
        if self.predictive is None:
            raise UserError("these weights have no predictor: explore the run's folder to hide a box")
        run, method = self.predictive
        cost = encoder_flops(run.method, run.data, self.grid[0] * self.grid[1])
        others = self.found.view[: min(GALLERY_IMAGES, max(8, int(MAX_FLOPS / cost)))]
        found = self.found._replace(view=torch.cat([view[None], others]), names=("",) * (1 + len(others)))
        expected = predict_hidden(method, run, found, hide_region(box, self.grid, len(found.view)))
        hole = fade(found.data.picture(view), ~covered_patches(box, self.grid), found.data.patch)
        scale = ColorScale("", 0.0, 2.0)
        raw = gather_patches(found.data.tokens(found.view).x, expected.target)
        chosen = nearest_patches(expected.predicted[0], expected.truth[1:].flatten(0, 1))
        looks = fill_region(hole, raw[1:].flatten(0, 1)[chosen], expected.target[0], found)
        pixels = None
        if expected.pixels is not None:
            pixels = fill_region(hole, denormalize_pixels(expected.pixels[0], raw[0]), expected.target[0], found)
        errors = error_map(expected.errors.predictor[0], expected.target[0], self.grid, scale)
        ratio = float(expected.errors.predictor[0].mean() / expected.errors.mean[0].mean())
        hole, errors, looks = (enlarge(each, VIEW_SIDE) for each in (hole, errors, looks))
        pixels = None if pixels is None else enlarge(pixels, VIEW_SIDE)
        return HiddenRegion(hole, errors, ratio, looks, pixels, self.samples(view, box))

    def samples(self, view: UInt8[Tensor, "C H W"], box: Box, count: int = 3) -> tuple[np.ndarray, ...]:
        """What the decoder draws: in the box, or, of a decoder of features, of the whole picture; nothing without one."""
        if self.decoder is None:
            return ()
        views = view.expand(count, *view.shape)  # together: each has noise of its own
        mask = decoder_mask(self.decoder, count, box if self.decoder.predicts else None, self.seed)
        given = decoder_conditions(self.decoder, views, mask)
        drawn = draw_samples(self.decoder, views, given, mask, 1, self.seed, steps=FLOW_STEPS)
        return tuple(enlarge(self.decoder.data.picture(each), VIEW_SIDE) for each in drawn.views[0])

    def of_map(self, count: int) -> tuple[list[int], Float[np.ndarray, "M D"]]:
        """The pictures of a map, evenly taken, and their features."""
        rows = evenly_spaced(len(self.pooled), count)
        return rows, self.pooled[rows].numpy()
