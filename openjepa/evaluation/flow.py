"""Optical flow of a run of MC-JEPA, and its end-point error.   C channels  H height  W width"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.data.flow_files import Flow
from openjepa.evaluation.method_runs import load_run_of
from openjepa.methods.mc_jepa import MotionContent
from openjepa.training.device import Device


def load_motion(run: str) -> MotionContent:
    """Load the networks of a run. Raises UserError if it estimates no flow."""
    return load_run_of(run, MotionContent, "mc-jepa", "estimates no flow")[1]


@torch.no_grad()
def estimate_flow(
    method: MotionContent, first: UInt8[Tensor, "C H W"], second: UInt8[Tensor, "c h w"], device: Device
) -> Float[np.ndarray, "2 H W"]:
    """Return the flow from the first to the second frame, in pixels. Raises UserError if their sizes differ."""
    if first.shape != second.shape:
        raise UserError(f"the frames have different sizes, {describe(first)} and {describe(second)}: crop them first")
    network = method.to(device.device)
    frames = (device.move(each[None]) for each in (first, second))
    with device.autocast():
        return network.estimate_flow(*frames)[0].float().cpu().numpy()


def end_point_error(estimate: Float[np.ndarray, "2 H W"], truth: Flow) -> float:
    """Return the mean length of the difference to the true flow, in pixels, where that is known.

    Raises UserError if the sizes differ or nothing is known.
    """
    if estimate.shape != truth.uv.shape:
        height, width = truth.uv.shape[1:]
        raise UserError(
            f"the true flow has {width}×{height} pixels, the frames {estimate.shape[2]}×{estimate.shape[1]}: they must "
            "be of the same frames"
        )
    if not truth.valid.any():
        raise UserError("the true flow is unknown at every pixel")
    return float(np.linalg.norm(estimate - truth.uv, axis=0)[truth.valid].mean())


def describe(frame: Any) -> str:
    """Return width and height."""
    return f"{frame.shape[2]}×{frame.shape[1]}"
