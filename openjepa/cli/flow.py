"""Command `jepa flow`: the optical flow between two frames, as a file and in colors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from openjepa.core.console import draw_safely, info
from openjepa.data import flow_files
from openjepa.data.image_inputs import read_whole_image
from openjepa.evaluation.flow import end_point_error, estimate_flow, load_motion
from openjepa.evaluation.settings import Flow
from openjepa.training.device import choose_device
from openjepa.viz.flows import draw_flow


def flow(settings: Flow) -> dict[str, object]:
    """Estimate the flow; write it and a picture, and print its length and, with the true flow, its error."""
    method, device = load_motion(settings.run), choose_device(settings.device, settings.precision)
    first, second = (read_whole_image(str(file)) for file in (settings.first, settings.second))
    truth = flow_files.read_flow(settings.truth) if settings.truth else None
    estimate = estimate_flow(method, first, second, device)
    known = flow_files.Flow(estimate, np.ones(estimate.shape[1:], bool))
    out = settings.out or Path(settings.run) / "flow" / f"{settings.first.stem}.flo"
    out.parent.mkdir(parents=True, exist_ok=True)
    flow_files.write_flow(out, known)
    length = np.linalg.norm(estimate, axis=0)
    result: dict[str, object] = {"mean_length": float(length.mean()), "largest": float(length.max()), "file": str(out)}
    info(f"flow       {length.mean():.2f} pixels on average, {length.max():.1f} at most")
    if truth is not None:
        result["end_point_error"] = end_point_error(estimate, truth)
        result["zero_flow_error"] = end_point_error(np.zeros_like(estimate), truth)
        info(f"error      {result['end_point_error']:.3f} pixels; no motion: {result['zero_flow_error']:.3f}")
    info(f"written    {out}")
    picture = out.with_name(f"{out.stem}-colors.png")
    if draw_safely(f"the figure {picture}", lambda: draw_flow(first.numpy(), known, truth, picture)):
        info(f"figure     {picture}")
    return result
