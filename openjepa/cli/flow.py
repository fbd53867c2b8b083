"""Command `jepa flow`: the optical flow between two frames, as a file and in colors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow

from openjepa.core.console import draw_safely, info
from openjepa.core.errors import UserError
from openjepa.data.flow_files import Flow, read_flow, write_flow
from openjepa.evaluation.flow import end_point_error, estimate_flow, load_motion
from openjepa.evaluation.settings import FlowOptions
from openjepa.training.device import choose_device
from openjepa.viz.flows import draw_flow


def flow(settings: FlowOptions) -> dict[str, object]:
    """Estimate the flow; write it and a picture, and print its length and, with the true flow, its error."""
    method, device = load_motion(settings.run), choose_device(settings.device, settings.precision)
    frames = [load_frame(file) for file in (settings.first, settings.second)]
    estimate = estimate_flow(method, frames[0], frames[1], device)
    known = Flow(estimate, np.ones(estimate.shape[1:], bool))
    out = settings.out or Path(settings.run) / "flow" / f"{settings.first.stem}.flo"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_flow(out, known)
    length = np.linalg.norm(estimate, axis=0)
    result: dict[str, object] = {"mean_length": float(length.mean()), "largest": float(length.max()), "file": str(out)}
    info(f"flow       {length.mean():.2f} pixels on average, {length.max():.1f} at most")
    truth = read_flow(settings.truth) if settings.truth else None
    if truth is not None:
        result["end_point_error"] = end_point_error(estimate, truth)
        result["zero_flow_error"] = end_point_error(np.zeros_like(estimate), truth)
        info(f"error      {result['end_point_error']:.3f} pixels; no motion: {result['zero_flow_error']:.3f}")
    info(f"written    {out}")
    picture = out.with_name(f"{out.stem}-colors.png")
    if draw_safely(f"the figure {picture}", lambda: draw_flow(frames[0].numpy(), known, truth, picture)):
        info(f"figure     {picture}")
    return result


def load_frame(file: Path) -> torch.Tensor:
    """Load a frame as bytes (3, H, W). Raises UserError if it is not an image."""
    if not file.is_file():
        raise UserError(f"{file} is not a file: give two frames")
    try:
        with Pillow.open(file) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: {error}") from error
