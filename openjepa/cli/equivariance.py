"""Command `jepa equivariance`: does an image world model know what a change of color does?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from openjepa.core.console import info
from openjepa.core.errors import UserError
from openjepa.core.fileio import write_text
from openjepa.core.tables import print_table
from openjepa.evaluation.equivariance import measure_equivariance
from openjepa.evaluation.forecast import read_views
from openjepa.evaluation.imagination import SCALE_IMAGES, load_imagination
from openjepa.evaluation.settings import Equivariance
from openjepa.interop.inputs import replace_root
from openjepa.training.device import choose_device


def equivariance(settings: Equivariance) -> dict[str, object]:
    """Measure the mean reciprocal rank of imagined features; write a JSON file, print a table."""
    for name in ("count", "candidates"):
        if getattr(settings, name) < 2:
            raise UserError(f"--{name} must be >= 2, got {getattr(settings, name)}")
    imagination = load_imagination(settings.run, choose_device(settings.device, settings.precision))
    modality = replace_root(imagination.data, (settings.images,))
    data = modality.dataset(modality.listing())
    count = min(max(settings.count, SCALE_IMAGES), len(data))
    rows = np.linspace(0, len(data) - 1, count).round().astype(int).tolist()
    readable = list(read_views(data, rows))
    if not readable:
        raise UserError(f"no image of {settings.images} can be decoded: see jepa doctor {settings.images}")
    views = torch.cat(readable)
    chosen = views[:: max(1, len(views) // settings.count)][: settings.count]
    result = measure_equivariance(imagination.with_scale(views), chosen, settings.candidates, settings.seed)
    content = {
        "images_root": settings.images,
        "ranks": [each._asdict() for each in result.ranks],
        "chance": result.chance,
        "images": result.images,
        "candidates": result.candidates,
    }
    out = settings.out or Path(settings.run) / "equivariance.json"
    write_text(out, json.dumps(content, indent=1))
    lines = [(each.name, f"{each.value:.3f}", f"{each.low:.3f} to {each.high:.3f}") for each in result.ranks]
    title = f"which of {result.candidates} changed images is it? {result.images} images; 1 is perfect"
    print_table(("change", "MRR", "95 % interval"), [*lines, ("chance", f"{result.chance:.3f}", "")], title)
    info(f"written    {out}")
    return content
