"""Draw the variance spectrum of features over training.   S images  D features  R principal directions"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from openjepa.core.capabilities import plural_of
from openjepa.core.errors import UserError
from openjepa.interop.pretrained import PretrainedEncoder, from_network, load_run, untrained_encoder
from openjepa.nn.rank import rankme
from openjepa.training.checkpoint import list_checkpoints
from openjepa.training.config import Pretrain, is_run_folder, load_config
from openjepa.training.run_folder import read_valid_checkpoint
from openjepa.viz.canvas import COLORS, INK, CaptionedFigure, style_axes
from openjepa.viz.curves import DASHES
from openjepa.viz.html import to_svg
from openjepa.viz.inputs import figure_data, load_encoder, read_images, with_default_images
from openjepa.viz.settings import SpectrumOptions

MIN_SAMPLES = 8  # images; a spectrum has at most as many directions


def show_spectrum(settings: SpectrumOptions) -> list[CaptionedFigure]:
    """Draw one figure. Raises UserError if there are fewer than MIN_SAMPLES images."""
    settings = with_default_images(settings)  # type: ignore[assignment]
    folder = Path(settings.run)
    run = load_config(folder) if is_run_folder(folder) else None
    encoder = load_encoder(settings)
    data = figure_data(settings, run.data if run else encoder.data)
    images = read_images(tuple(settings.images), data, settings.count)
    if len(images.view) < MIN_SAMPLES:
        raise UserError(
            f"a spectrum needs at least {MIN_SAMPLES} {plural_of(data)}, better hundreds, got {len(images.view)}"
        )
    stages = training_stages(folder, run, settings.encoder) if run else iter([(settings.run, encoder)])
    return [
        draw_spectrum([(name, each.pooled(images.view)) for name, each in stages], len(images.view), plural_of(data))
    ]


def training_stages(folder: Path, run: Pretrain, which: str) -> Iterator[tuple[str, PretrainedEncoder]]:
    """Yield the untrained encoder and the encoder of every checkpoint, or of the export if there are no checkpoints."""
    yield "before training", untrained_encoder(run)
    paths = sorted(list_checkpoints(folder / "checkpoints"))
    for path in paths:
        loaded = read_valid_checkpoint(path)
        method = run.method.build(run.data)
        method.load_state_dict(loaded.model)
        yield f"step {loaded.step:,}", from_network(method.eval().encoder(which), run, "")
    if not paths:
        exported = load_run(folder, which)
        yield f"step {exported.step:,}", exported


def variance_shares(features: Float[Tensor, "S D"]) -> Float[np.ndarray, "R"]:
    """Compute the fraction of the variance along each principal direction, in descending order."""
    x = (features - features.mean(0)).double()
    values = torch.linalg.svdvals(x).square()
    return (values / values.sum().clamp(min=1e-30)).numpy()


def draw_spectrum(stages: list[tuple[str, Float[Tensor, "S D"]]], samples: int, plural: str) -> CaptionedFigure:
    """Draw the spectra of several training stages in one chart, with RankMe in the caption."""
    ranks = ", ".join(f"{name} {rankme(features):.0f}" for name, features in stages)
    caption = (
        f"Variance of pooled features along each principal direction, over {samples} {plural}. "
        f"A flat line uses many directions, a steep one few. RankMe (effective rank): {ranks}."
    )
    figure, page = spectrum_chart(stages, "black"), to_svg(spectrum_chart(stages, INK))
    return CaptionedFigure("spectrum", "Variance spectrum of features", caption, figure, page)


def spectrum_chart(stages: list[tuple[str, Float[Tensor, "S D"]]], ink: str) -> Figure:
    """Draw a line for each stage on log scales."""
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, features) in enumerate(stages):
        values = 100 * variance_shares(features)
        color, dash = COLORS[number % 7] if number else "#888888", DASHES[number % len(DASHES)]
        axes.loglog(np.arange(1, len(values) + 1), values, label=name, color=color, linestyle=dash, linewidth=1.5)
    axes.set_xlabel("principal direction", fontsize=9, color=ink)
    axes.set_ylabel("fraction of the variance, %", fontsize=9, color=ink)
    axes.set_ylim(bottom=1e-4)
    style_axes(axes, ink)
    axes.legend(fontsize=8, labelcolor=ink, framealpha=0)
    return figure
