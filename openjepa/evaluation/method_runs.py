"""Load the run of a certain method, for commands that need what only this method has."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from torch import nn

from openjepa.core.errors import UserError
from openjepa.training.config import Pretrain, is_run_folder, load_config
from openjepa.training.run_folder import load_method

M = TypeVar("M", bound=nn.Module)


def load_run_of(run: str, kind: type[M], name: str, lacks: str) -> tuple[Pretrain, M]:
    """Return the settings and the networks of a run of the method `name`, whose networks are a `kind`.

    Raises UserError for a folder that is no run, and for a run of another method, which `lacks` something.
    """
    folder = Path(run)
    if not is_run_folder(folder):
        raise UserError(f"{run} is not a run and {lacks}: give the folder of a run of --method {name}")
    settings = load_config(folder)
    method = load_method(folder, settings)
    if not isinstance(method, kind):
        raise UserError(f"{run} ({type(settings.method).__name__}) {lacks}: give a run of --method {name}")
    return settings, method.eval()
