"""The variance spectrum of features before, during and after training.   S pictures  D width  R directions"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.interop.adapters import EncoderAdapter, from_ours
from openjepa.interop.pretrained import build_untrained, load_run
from openjepa.modalities.image import Image
from openjepa.nn.rank import rankme
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.config import Pretrain, is_run_folder, load_config
from openjepa.training.run_folder import read_valid_checkpoint
from openjepa.viz.canvas import COLORS, INK, CaptionedFigure, plain_axes
from openjepa.viz.curves import DASHES
from openjepa.viz.html import to_svg
from openjepa.viz.inputs import CHUNK_IMAGES, FigureOptions, figure_data, load_encoder, read_images, with_default_images

SAMPLES = 512  # pictures


@dataclass(frozen=True, kw_only=True)
class SpectrumOptions(FigureOptions):
    """Draws the variance of features along their principal directions, untrained, at every checkpoint kept, and in the end."""

    count: int = SAMPLES  # pictures whose features are looked at


def spectrum(settings: SpectrumOptions) -> list[CaptionedFigure]:
    """One figure. Mistake if there are too few pictures for a spectrum."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    folder = Path(settings.run)
    run = load_config(folder) if is_run_folder(folder) else None
    now = load_encoder(settings)
    found = read_images(
        tuple(settings.images),
        figure_data(settings, run.data if run and isinstance(run.data, Image) else now.data),
        settings.count,
    )
    if len(found.view) < 8:
        raise UserError(f"a spectrum of {len(found.view)} pictures says nothing: give 8 or more, better hundreds")
    stages = training_stages(folder, run, settings.encoder) if run else iter([(settings.run, now)])
    return [draw_spectrum([(name, pooled_features(each, found.view)) for name, each in stages], len(found.view))]


def training_stages(folder: Path, run: Pretrain, which: str) -> Iterator[tuple[str, EncoderAdapter]]:
    """The encoder untrained, and at every checkpoint that is kept, or as exported."""
    yield "before training", from_ours(build_untrained(run), run, "")
    paths = sorted(list_checkpoints(folder / "checkpoints"))
    for path in paths:
        loaded = read_valid_checkpoint(path)
        method = run.method.build(run.data)
        method.load_state_dict(loaded.model)
        yield f"step {loaded.step:,}", from_ours(method.eval().encoder(which), run, "")
    if not paths:
        found = load_run(folder, which)
        yield f"step {found.step:,}", from_ours(found.encoder, run, "")


@torch.no_grad()
def pooled_features(this: EncoderAdapter, view: UInt8[Tensor, "S C H W"]) -> Float[Tensor, "S D"]:
    this.network.eval()
    return torch.cat([this.encode(part).last for part in view.split(CHUNK_IMAGES)])


def variance_shares(features: Float[Tensor, "S D"]) -> Float[np.ndarray, "R"]:
    """Of each principal direction its share of the variance, the largest first."""
    x = (features - features.mean(0)).double()
    values = torch.linalg.svdvals(x).square()
    return (values / values.sum().clamp(min=1e-30)).numpy()


def draw_spectrum(stages: list[tuple[str, Float[Tensor, "S D"]]], samples: int) -> CaptionedFigure:
    ranks = {name: rankme(features) for name, features in stages}
    caption = (
        f"Variance of pooled features along each principal direction, over {samples} pictures. A flat line uses many "
        "directions, a steep one few. RankMe of these: "
        + ", ".join(f"{name} {rank:.0f}" for name, rank in ranks.items())
        + "."
    )
    return CaptionedFigure(
        "spectrum",
        "Over how many directions features spread",
        caption,
        spectrum_chart(stages, "black"),
        page=to_svg(spectrum_chart(stages, INK)),
    )


def spectrum_chart(stages: list[tuple[str, Float[Tensor, "S D"]]], ink: str) -> Figure:
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, features) in enumerate(stages):
        values = 100 * variance_shares(features)
        colour, dash = COLORS[number % 7] if number else "#888888", DASHES[number % len(DASHES)]
        axes.loglog(np.arange(1, len(values) + 1), values, label=name, color=colour, linestyle=dash, linewidth=1.5)
    axes.set_xlabel("principal direction", fontsize=9, color=ink)
    axes.set_ylabel("share of the variance, %", fontsize=9, color=ink)
    axes.set_ylim(bottom=1e-4)
    plain_axes(axes, ink)
    axes.legend(fontsize=8, labelcolor=ink, framealpha=0)
    return figure
