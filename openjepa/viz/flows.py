"""Draw optical flow in colors, beside the frame and the true flow.   H height  W width"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from openjepa.data.flow_files import Flow
from openjepa.viz.canvas import CaptionedFigure, draw_tiles, save_figure
from openjepa.viz.flow_colors import color_flow, color_wheel


def draw_flow(frame: UInt8[np.ndarray, "3 H W"], flow: Flow, truth: Flow | None, out: Path) -> Path:
    """Draw the frame, the flow, the true flow if it is known, and the wheel of colors; both flows share their scale."""
    lengths = [np.linalg.norm(each.uv, axis=0)[each.valid] for each in (truth or flow,)]
    largest = max(1e-3, float(np.percentile(lengths[0], 99.5)))
    picture = np.ascontiguousarray(frame.transpose(1, 2, 0))
    tiles = [picture, color_flow(flow.uv, largest, flow.valid)]
    columns = ["first frame", "estimated flow"]
    if truth is not None:
        tiles.append(color_flow(truth.uv, largest, truth.valid))
        columns.append("true flow")
    tiles.append(color_wheel(64))
    columns.append(f"legend: up to {largest:.1f} pixels")
    caption = "Hue is the direction of motion, saturation its length; white does not move, black is unknown."
    return save_figure(CaptionedFigure("flow", "Optical flow", caption, draw_tiles([tiles], columns)), out)
