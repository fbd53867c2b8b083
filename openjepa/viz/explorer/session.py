"""Answer the queries of the explorer's page: similar patches, neighbors, hidden regions.   N patches  D features"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from openjepa.core.capabilities import Plays, require_grid
from openjepa.core.console import console, info
from openjepa.core.errors import UserError
from openjepa.core.options import Box
from openjepa.evaluation.decoder import LoadedDecoder, decoder_conditions, decoder_mask, load_decoder, sample_images
from openjepa.evaluation.feature_store import shows_progress
from openjepa.evaluation.nearest import NO_COSINE, ExactSearch
from openjepa.evaluation.predictive_runs import load_predictive_method
from openjepa.evaluation.whitening import WHITENING_POWER, Whitening
from openjepa.interop.pretrained import PretrainedEncoder, check_patch_tokens
from openjepa.masking.region import hide_region, index_mask
from openjepa.methods.latent_jepa import LatentJEPA
from openjepa.nn.latent import LatentConfig
from openjepa.training.config import Pretrain
from openjepa.viz.board import Board
from openjepa.viz.canvas import COLORS, ColorScale, colorize, enlarge, fade, outline
from openjepa.viz.embedding_map import MAX_IMAGES, MIN_IMAGES
from openjepa.viz.html import encode_data_url, moving_data_url, png_data_url
from openjepa.viz.inputs import (
    BATCH_IMAGES,
    ImageBatch,
    evenly_spaced,
    figure_data,
    load_encoder,
    read_images,
    with_default_images,
)
from openjepa.viz.prediction_error import (
    denormalize_pixels,
    gather_patches,
    nearest_patches,
    predict_hidden,
)
from openjepa.viz.predictions import draw_error_map, fill_region
from openjepa.viz.settings import Explore, FigureOptions

MAX_INDEXED_IMAGES = 10_000

MAX_PATCH_VALUES = 2**29  # patch features in memory, in values of two bytes

MAX_FLOPS = 1e11  # to predict a hidden box; limits the images of the gallery

GALLERY_IMAGES = 48  # other images whose patches can stand for predictions

FLOW_STEPS = 10  # integration steps of the decoder

MAX_RESULTS = 12  # neighbors or patches in an answer

VIEW_SIDE = 384  # pixels of a displayed image, at least

MAX_VIEW_BYTES = 2**30  # views in memory; limits the clips to explore

View = Tensor  # of an image C H W, of a clip F C H W

EXCLUDED = -2.0  # below every cosine


class PatchHit(NamedTuple):
    """A patch of an image and its cosine similarity to the query."""

    row: int  # of the image
    patch: int
    cosine: float


class HiddenRegion(NamedTuple):
    """Images that answer a hidden box."""

    hole: np.ndarray  # the context
    errors: np.ndarray
    ratio: float  # error of the predictor / error of the mean target
    predicted: np.ndarray  # predictions as the nearest real patches
    pixels: np.ndarray | None  # predicted pixels, if the run has a pixel loss
    samples: tuple[np.ndarray, ...]  # of the decoder, if there is one


class Session:
    """An encoder, images and their features. Every answer depends only on these and on the query."""

    def __init__(self, encoder: PretrainedEncoder, images: ImageBatch, seed: int = 0):
        self.encoder, self.images, self.seed = encoder, images, seed
        self.board = Board.of(images.data)
        first = encoder.encode(images.view[:1])
        check_patch_tokens(encoder.name, first.patches, images.data.layout.count)
        width = images.data.layout.count * first.last.shape[1]
        indexed = min(len(images.view), max(8, MAX_PATCH_VALUES // width))
        pooled, patches = [], []
        parts = list(images.view.split(BATCH_IMAGES))
        with torch.no_grad():
            for number, view in enumerate(track(parts, "encoding", console=console, disable=not shows_progress())):
                output = encoder.encode(view)
                pooled.append(output.last)
                if number * BATCH_IMAGES < indexed:
                    patches.append(output.patches.half())
        self.mean = torch.cat(patches)[:indexed].float().mean(0)  # at each position
        self.patches = F.normalize(torch.cat(patches)[:indexed] - self.mean.half(), dim=-1)
        self.pooled = torch.cat(pooled)
        self.space = Whitening.of(self.pooled.numpy(), WHITENING_POWER)
        self.search = ExactSearch(self.space.map(self.pooled.numpy()))
        self.predictive: tuple[Pretrain, Any] | None = None
        self.decoder: LoadedDecoder | None = None

    @classmethod
    def load(cls, settings: Explore) -> Session:
        """Load encoder, images, predictor and decoder. Raises UserError if a setting or file does not fit."""
        if not 1 <= settings.count <= MAX_INDEXED_IMAGES:
            raise UserError(f"--count must be 1 to {MAX_INDEXED_IMAGES:,}, got {settings.count:,}: try --count 2000")
        if settings.map and not MIN_IMAGES <= settings.map <= MAX_IMAGES:
            raise UserError(f"--map must be 0 or {MIN_IMAGES} to {MAX_IMAGES:,}, got {settings.map:,}: try --map 2000")
        options = with_default_images(FigureOptions(run=settings.run, images=settings.images))
        encoder = load_encoder(options)
        data = figure_data(options, require_grid(encoder.modality, "jepa explore"))
        images = read_images(tuple(options.images), data, min(settings.count, affordable_views(data)))
        self = cls(encoder, images, settings.seed)
        try:
            self.predictive = load_predictive_method(Path(settings.run))
        except UserError as error:
            info(f"predictor  left out: {error}")
        folder = settings.decoder or Path(settings.run) / "decoder"
        if settings.decoder or folder.is_dir():
            self.decoder = load_decoder(folder)
        return self

    @property
    def patch_side(self) -> int:
        """Return the pixels of a patch in a displayed image."""
        return self.display(self.images.view[0]).shape[0] // len(self.board.cells)

    def display(self, view: View) -> np.ndarray:
        """Return an image in RGB, enlarged for the page; of a clip, a frame for each time step."""
        return self.board.enlarge(self.board.picture(view), VIEW_SIDE)

    def tile(self, view: View) -> str:
        """Return the data: URL of a view: a clip plays."""
        data = self.images.data
        return moving_data_url(data.play(view)) if isinstance(data, Plays) else png_data_url(self.display(view))

    def sound(self, view: View) -> str:
        """Return the data: URL of a view as sound."""
        return encode_data_url("audio/wav", self.images.data.sound(view))

    def start_of(self, patch: int) -> float:
        """Return where a patch starts from left to right, from 0 to 1."""
        return self.board.cell_of(patch)[1] / self.board.cells.shape[1]

    def load_upload(self, file: Path) -> View:
        """Load an uploaded file as the encoder's input. Raises UserError if it cannot be read or is too large."""
        return self.images.data.read(file)

    def patch_at(self, x: float, y: float) -> int:
        """Return the index of the patch at a point, in pixels of the displayed image."""
        cells, side = self.board.cells, self.patch_side
        row, column = (min(max(int(at // side), 0), count - 1) for at, count in zip((y, x), cells.shape, strict=True))
        return int(cells[row, column]) if cells[row, column] >= 0 else int(cells.max())

    def patch_corners(self, patch: int) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return two opposite corners (x, y) of a patch, in pixels of the displayed image."""
        side, (row, column) = self.patch_side, self.board.cell_of(patch)
        return (float(column * side), float(row * side)), (float((column + 1) * side), float((row + 1) * side))

    @torch.no_grad()
    def patch_directions(self, view: View) -> Float[Tensor, "N D"]:
        """Compute patch features minus the mean at their position, scaled to norm 1."""
        return F.normalize(self.encoder.encode(view[None]).patches[0] - self.mean, dim=-1)

    def similar_patches(self, view: View, patch: int) -> tuple[np.ndarray, list[PatchHit]]:
        """Return the cosines of a patch in its own image as colors, and the most similar patches of other images."""
        own = self.patch_directions(view)
        values = (own @ own[patch]).numpy()
        scale = ColorScale("", float(np.percentile(values, 2)), 1.0)
        picture = self.board.enlarge(colorize(self.board.arrange(values, scale.low), scale), VIEW_SIDE)
        cosine, best = (self.patches @ own[patch].half()).float().max(1)
        cosine[(self.images.view[: len(cosine)] == view).flatten(1).all(1)] = EXCLUDED  # the image itself
        rows = cosine.argsort(descending=True, stable=True)[:MAX_RESULTS].tolist()
        return picture, [PatchHit(row, int(best[row]), float(cosine[row])) for row in rows if cosine[row] > EXCLUDED]

    def frame_patch(self, hit: PatchHit) -> np.ndarray:
        """Draw a frame around a patch of an image; of a clip, at its time step."""
        inside = np.zeros(self.board.frame, bool)
        step, patch = divmod(hit.patch, inside.size)
        inside.flat[patch] = True
        picture = enlarge(self.board.steps(self.images.view[hit.row])[step], VIEW_SIDE)
        return outline(picture, inside, len(picture) // len(inside), COLORS[5], width=6)

    @torch.no_grad()
    def neighbors(self, view: View) -> list[tuple[int, float]]:
        """Return the rows most similar to an image with their cosine of whitened features, without its copies."""
        copies = set((self.images.view == view).flatten(1).all(1).nonzero().flatten().tolist())
        query = self.space.map(self.encoder.encode(view[None]).last.numpy())
        near = self.search.find(query, MAX_RESULTS + len(copies))
        pairs = zip(near.rows[0].tolist(), near.cosine[0].tolist(), strict=True)
        return [(row, cosine) for row, cosine in pairs if row not in copies and cosine > NO_COSINE][:MAX_RESULTS]

    def box(self, first: tuple[float, float], last: tuple[float, float]) -> Box:
        """Convert two corners in pixels of the displayed image to left, top, right, bottom from 0 to 1.

        Of a clip, those of the frame in which the first corner is.
        """
        height, width = (self.patch_side * side for side in self.board.frame)
        across, down = (cells * self.patch_side for cells in reversed(self.board.cells.shape))
        x = width * int(min(max(first[0], 0), across - 1) // width)
        y = height * int(min(max(first[1], 0), down - 1) // height)
        left, right = sorted((first[0] - x, last[0] - x))
        top, bottom = sorted((first[1] - y, last[1] - y))
        edges = zip((left, top, right, bottom), (width, height) * 2, strict=True)
        return tuple(min(max(edge / side, 0.0), 1.0) for edge, side in edges)  # type: ignore[return-value]

    @property
    def latent(self) -> LatentConfig | None:
        """Return what the hidden variable of predictions is, if they have one."""
        method = self.predictive[0].method if self.predictive else None
        return method.latent if isinstance(method, LatentJEPA) else None

    def predict_region(self, view: View, box: Box, z: Float[Tensor, "Z"] | None = None) -> HiddenRegion:
        """Predict a hidden box, given z if there is one, and draw it. Raises UserError if there is no predictor."""
        if self.predictive is None:
            raise UserError("these weights have no predictor: explore the run's folder to hide a box")
        run, method = self.predictive
        cost = run.method.encoder_cost(run.data) or MAX_FLOPS  # not counted: few images
        others = self.images.view[: min(GALLERY_IMAGES, max(8, int(MAX_FLOPS / cost)))]
        images = self.images._replace(view=torch.cat([view[None], others]), names=("",) * (1 + len(others)))
        mask = hide_region(box, images.data.layout.shape, len(images.view))
        result, board = predict_hidden(method, run, images, mask, z), self.board
        target = result.target[0]
        visible = board.arrange(index_mask(mask.context[0], None, images.data.layout.count), True)
        hole = fade(board.picture(view), visible, images.data.patch)
        patches = gather_patches(images.data.tokens(images.view).x, result.target)
        nearest = nearest_patches(result.predicted[0], result.truth[1:].flatten(0, 1))
        predicted = fill_region(hole, patches[1:].flatten(0, 1)[nearest], target, board)
        pixels = None
        if result.pixels is not None:
            pixels = fill_region(hole, denormalize_pixels(result.pixels[0], patches[0]), target, board)
            pixels = board.enlarge(pixels, VIEW_SIDE)
        errors = draw_error_map(result.errors.predictor[0], target, board)
        ratio = float(result.errors.predictor[0].mean() / result.errors.mean[0].mean())
        hole, errors, predicted = (board.enlarge(each, VIEW_SIDE) for each in (hole, errors, predicted))
        return HiddenRegion(hole, errors, ratio, predicted, pixels, self.decode_region(view, box))

    def decode_region(self, view: View, box: Box, count: int = 3) -> tuple[np.ndarray, ...]:
        """Decode the predictions for the box, or the features of the whole image; empty without a decoder."""
        if self.decoder is None:
            return ()
        views = view.expand(count, *view.shape)  # one batch: each sample has its own noise
        mask = decoder_mask(self.decoder, count, box if self.decoder.decodes_predictions else None, self.seed)
        conditions = decoder_conditions(self.decoder, views, mask)
        samples = sample_images(self.decoder, views, conditions, mask, 1, self.seed, steps=FLOW_STEPS)
        return tuple(enlarge(self.decoder.data.picture(each), VIEW_SIDE) for each in samples.views[0])

    def map_features(self, count: int) -> tuple[list[int], Float[np.ndarray, "M D"]]:
        """Return evenly spaced rows for the map and their features."""
        rows = evenly_spaced(len(self.pooled), count)
        return rows, self.pooled[rows].numpy()


def affordable_views(data: Any) -> int:
    """Return how many views fit in MAX_VIEW_BYTES, of bytes."""
    return max(MIN_IMAGES, MAX_VIEW_BYTES // (data.layout.count * data.token_dim))
