"""Command `jepa horizon`: how far ahead does an encoder predict a video?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from openjepa.core.console import draw_safely, info
from openjepa.core.errors import UserError
from openjepa.core.fileio import write_text
from openjepa.core.tables import print_table
from openjepa.evaluation import horizon as measuring
from openjepa.evaluation.forecast import choose_context, load_forecaster
from openjepa.evaluation.settings import Horizon
from openjepa.interop.inputs import replace_root
from openjepa.training.device import choose_device
from openjepa.viz.forecasts import draw_horizon

COLUMNS = ("predictor", "roll_out", "persistence", "mean")


def horizon(settings: Horizon) -> dict[str, object]:
    """Measure the error of predicted features by how far ahead they lie; write JSON and a figure, print a table."""
    if settings.count < 2:
        raise UserError(f"--count must be >= 2, got {settings.count}")
    device = choose_device(settings.device, settings.precision)
    forecaster = load_forecaster(settings.run, {"fps": settings.fps, "stride": settings.stride}, device)
    context = choose_context(settings.context, forecaster.steps // 2, forecaster.steps)
    modality = replace_root(forecaster.data, (settings.clips,), forecaster.data.eval_crop)
    data = modality.dataset(modality.listing())
    rows = np.linspace(0, len(data) - 1, min(settings.count, len(data))).round().astype(int).tolist()
    result = measuring.measure_horizon(forecaster, data, rows, context)
    out = settings.out or Path(settings.run) / "horizon"
    content = {"clips_root": settings.clips, **result._asdict()}
    write_text(out.with_name(f"{out.name}.json"), json.dumps(content, indent=1))
    lines = [
        (f"{ahead:.3g}", *(f"{getattr(result, name)[step]:.3f}" for name in COLUMNS))
        for step, ahead in enumerate(result.ahead)
    ]
    head = (f"ahead, {result.unit}", "predictor", "roll-out", "persistence", "mean feature")
    print_table(head, lines, f"error / variance of features; time steps visible: {context}; {result.clips} clips")
    info(f"written    {out}.json")
    figure = out.with_name(f"{out.name}.png")
    name = Path(settings.clips).name
    if draw_safely(f"the figure {figure}", lambda: draw_horizon(result, name, figure)):
        info(f"figure     {figure}")
    return content
