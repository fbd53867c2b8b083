"""Joint-Embedding Predictive Architectures: an encoder from unlabeled data, measured and ready to use.

Each command is a function here: `openjepa.pretrain(settings)` is `jepa pretrain`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

COMMANDS = (
    "pretrain", "probe", "compare", "suite", "doctor", "convert", "export", "push", "predict", "embed", "search",
    "duplicates", "cluster", "anomalies", "surprise", "horizon", "equivariance", "flow", "show", "report",
)  # fmt: skip
MODULES = {  # public name -> module, imported at first use
    **{name: f"openjepa.cli.{command}" for command in COMMANDS for name in (command, command.capitalize())},
    "Pretrain": "openjepa.training.config",
    "PretrainedEncoder": "openjepa.interop.pretrained",
    "load": "openjepa.interop.load",
    "load_recipe": "openjepa.recipes.registry",
    "Image": "openjepa.modalities.image",
    "Series": "openjepa.modalities.series",
    "Video": "openjepa.modalities.video",
    "JEPA": "openjepa.methods.jepa",
    "MAE": "openjepa.methods.mae",
    "ViTConfig": "openjepa.nn.vit",
    "PredictorConfig": "openjepa.nn.predictor",
    "MultiBlock": "openjepa.masking.multiblock",
    "Optim": "openjepa.training.optim",
}

__all__ = [*MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"openjepa has no {name!r}")
    return getattr(import_module(MODULES[name]), name)
