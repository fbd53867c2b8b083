"""Load a run whose predictor predicts hidden tokens: of a JEPA or an MAE.   B samples  N tokens  E width"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.methods.jepa import JEPA
from openjepa.methods.latent_jepa import LatentJEPA
from openjepa.methods.mae import MAE
from openjepa.training.config import Pretrain, is_run_folder, load_config
from openjepa.training.run_folder import load_method


def has_predictor(run: Pretrain) -> bool:
    """Return whether the method of a run predicts target patches."""
    return type(run.method) in (JEPA, MAE, LatentJEPA)


def load_predictive_method(folder: Path) -> tuple[Pretrain, Any]:
    """Load a run's settings and all its networks. Raises UserError if it has no predictor."""
    if not is_run_folder(folder):
        raise UserError(f"{folder} is not a run and has no predictor: give a run folder or one made by jepa convert")
    run = load_config(folder)
    if not has_predictor(run):
        raise UserError(f"{folder} ({type(run.method).__name__}) has no predictor: give a run of a JEPA or an MAE")
    if isinstance(run.method, JEPA):
        run = dataclasses.replace(run, method=dataclasses.replace(run.method, target_stride=1))
    return run, load_method(folder, run)


def split_features_pixels(x: Float[Tensor, "B N E"], run: Pretrain) -> tuple[Tensor, Tensor | None]:
    """Split predictions or targets into features and pixels; for an MAE both are the pixels.

    Without a pixel loss, pixels are None.
    """
    if isinstance(run.method, MAE):
        return x, x
    width = run.data.token_dim if isinstance(run.method, JEPA) and run.method.pixel_loss_weight else 0
    return x[..., : x.shape[-1] - width], x[..., x.shape[-1] - width :] if width else None
