"""Settings of the figures and of the interactive page; without torch, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from openjepa.core.arguments import Images, Run, Runs
from openjepa.core.options import Box, EvalCrop
from openjepa.planning.settings import RoomWorld


@dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """Settings that all figures share."""

    run: Run  # run folder, export, or weights of another project
    images: Images = ()  # images, clips or signals, or folders of them; by default those the run was trained on
    count: int = 6  # files to show, evenly spaced over the folder; at most 64
    size: tuple[int, int] | None = None  # height and width of the encoder's input; by default as in training
    eval_crop: EvalCrop = "crop"  # crop: largest centered box; margin: its central 7/8; squash: whole image, resized
    # name of the encoder; default: the method's first one, of a JEPA target: EMA encoder, as in the paper
    encoder: str = ""
    out: Path | None = None  # .png file to write, with a page of the same name; by default RUN/figures/NAME.png
    page: bool = field(default=True)  # also write an HTML page


@dataclass(frozen=True, kw_only=True)
class MasksOptions(FigureOptions):
    """Draw context and target blocks over images, and how often each patch is in them. RUN may be a recipe."""

    seed: int = 0  # seed of the masks


@dataclass(frozen=True, kw_only=True)
class FeaturesOptions(FigureOptions):
    """Draw the first three principal components of patch features as red, green and blue, one basis for all images."""

    layer: int = -1  # transformer block, counted from 0, or from the end; -1 = output of the encoder
    foreground: bool = False  # also split images by the sign of the first component and color one side of it


@dataclass(frozen=True, kw_only=True)
class SimilarityOptions(FigureOptions):
    """Draw the cosine similarity of one patch of the first image to all patches of all images."""

    at: tuple[tuple[float, float], ...] = ((0.5, 0.5),)  # x and y of the patch, from 0 to 1; several give several rows
    layer: int = -1  # transformer block, counted from 0, or from the end; -1 = output of the encoder


@dataclass(frozen=True, kw_only=True)
class TrackOptions(FigureOptions):
    """Follow a patch of each clip over time: where the most similar features are at each later time step."""

    count: int = 2  # clips to draw, evenly spaced over the folder; at most 64
    at: tuple[tuple[float, float], ...] = ((0.5, 0.5),)  # x and y of the patch, from 0 to 1; several give several rows
    box: Box | None = None  # follow the mean of all patches in a box instead: left, top, right, bottom in 0 to 1
    layer: int = -1  # transformer block, counted from 0, or from the end; -1 = output of the encoder


@dataclass(frozen=True, kw_only=True)
class PredictionOptions(FigureOptions):
    """Draw the predictor's error in target blocks next to baselines, and real patches nearest to its predictions."""

    box: Box | None = None  # target block as left, top, right, bottom in 0 to 1; by default a mask of the run's sampler
    seed: int = 0  # seed of the masks


@dataclass(frozen=True, kw_only=True)
class ImagineOptions(FigureOptions):
    """Draw what an image world model (--method iwm) imagines: changes of color in latent space, as real patches."""

    count: int = 3  # images to draw, evenly spaced over the folder; at most 64
    brightness: float = 0.4  # relative change of brightness; 0: leave it out
    contrast: float = 0.4  # relative change of contrast; 0: leave it out
    saturation: float = 0.0  # relative change of saturation; 0: leave it out
    hue: float = 0.1  # turn of the hue, as a fraction of a full turn; 0: leave it out
    seed: int = 0  # of the changes of the patches to choose from

    def strengths(self) -> dict[str, float]:
        """Return the parameters to change by name."""
        names = ("brightness", "contrast", "saturation", "hue")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True, kw_only=True)
class MapOptions(FigureOptions):
    """Draw images as points on a plane by UMAP or t-SNE of their features; in the page a point shows its image."""

    count: int = 2000  # files on the map, evenly spaced over the folder; 10 to 10,000
    layout: Literal["umap", "tsne"] = "umap"  # dimensionality reduction
    seed: int = 0  # seed of the layout


@dataclass(frozen=True, kw_only=True)
class CurvesOptions:
    """Draw the log of one run or several: losses, collapse signals with their healthy ranges, throughput."""

    runs: Runs
    out: Path | None = None  # .png file to write; by default RUN/figures/curves.png
    page: bool = True  # also write an HTML page with the charts as SVG


SAMPLES = 512  # images


@dataclass(frozen=True, kw_only=True)
class SpectrumOptions(FigureOptions):
    """Draw the variance of features along principal directions: untrained, at every checkpoint, and at the end."""

    count: int = SAMPLES  # images to compute features of, evenly spaced over the folder; at least 8


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """Settings that the figures of world models share."""

    run: Run  # folder of a run of jepa pretrain world-rooms
    env: RoomWorld | None = None  # default: the world that the run was trained in
    count: int = 3  # tasks to draw
    seed: int = 0  # of the tasks
    out: Path | None = None  # .png file to write, with a page of the same name; by default RUN/figures/NAME.png
    page: bool = True  # also write an HTML page


@dataclass(frozen=True, kw_only=True)
class PlanOptions(WorldOptions):
    """Draw how an agent plans: candidates, what it imagines beside what happens, and episodes in motion."""

    task: int = 0  # whose plans are drawn


@dataclass(frozen=True, kw_only=True)
class ValueOptions(WorldOptions):
    """Draw how far each position is from a goal: by latents, by the critic, and along the shortest way."""


@dataclass(frozen=True, kw_only=True)
class LevelsOptions(WorldOptions):
    """Draw how a hierarchy plans: sub-goals on the map and as real frames, and the energy of actions at each level."""

    task: int = 0  # whose plans are drawn


@dataclass(frozen=True, kw_only=True)
class Explore:
    """Serve a page on this machine: click a patch, drag a box to hide it, upload an image, browse the map."""

    run: Run  # run folder, export, or weights of another project; only runs have a predictor
    images: Images = ()  # images or clips, or folders of them; by default those the run was trained on
    count: int = 2000  # files to explore, evenly spaced over the folder; at most 10,000
    decoder: Path | None = None  # folder written by jepa decoder train; by default RUN/decoder if it exists
    map: int = 2000  # files on the map; 0 = no map
    host: str = "127.0.0.1"  # address to listen on: only this machine; 0.0.0.0 = everyone who can reach it
    port: int = 8080  # TCP port
    seed: int = 0  # seed of the map and of decoder samples


FIGURE_OPTIONS: dict[str, type] = {
    "masks": MasksOptions,
    "features": FeaturesOptions,
    "similarity": SimilarityOptions,
    "track": TrackOptions,
    "prediction": PredictionOptions,
    "imagine": ImagineOptions,
    "map": MapOptions,
    "curves": CurvesOptions,
    "spectrum": SpectrumOptions,
    "plan": PlanOptions,
    "value": ValueOptions,
    "levels": LevelsOptions,
}
