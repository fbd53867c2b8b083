"""Joint-Embedding Predictive Architectures: an encoder from unlabelled data, measured and ready to use.

Each verb of the command line is a function here: `openjepa.pretrain(config)` is `jepa pretrain`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

WHERE = {  # public name -> module, imported when first asked for
    "pretrain": "openjepa.runs",
    "Pretrain": "openjepa.config",
    "probe": "openjepa.evaluate.probing",
    "Probe": "openjepa.evaluate.probing",
    "compare": "openjepa.evaluate.probing",
    "Compare": "openjepa.evaluate.probing",
    "suite": "openjepa.evaluate.suite",
    "Suite": "openjepa.evaluate.suite",
    "doctor": "openjepa.checkup",
    "Doctor": "openjepa.checkup",
    "convert": "openjepa.exchange",
    "Convert": "openjepa.exchange",
    "export": "openjepa.exchange",
    "Export": "openjepa.exchange",
    "push": "openjepa.exchange",
    "Push": "openjepa.exchange",
    "predict": "openjepa.evaluate.predicting",
    "Predict": "openjepa.evaluate.predicting",
    "embed": "openjepa.evaluate.embedding",
    "Embed": "openjepa.evaluate.embedding",
    "search": "openjepa.retrieval.searching",
    "Search": "openjepa.retrieval.searching",
    "duplicates": "openjepa.retrieval.twins",
    "Duplicates": "openjepa.retrieval.twins",
    "cluster": "openjepa.retrieval.clusters",
    "Cluster": "openjepa.retrieval.clusters",
    "show": "openjepa.figures.showing",
    "Show": "openjepa.figures.showing",
    "report": "openjepa.figures.report",
    "Report": "openjepa.figures.report",
    "Candidate": "openjepa.evaluate.candidates",
    "load": "openjepa.formats.reading",
    "recipe": "openjepa.recipes",
    "Image": "openjepa.modalities.image",
    "Series": "openjepa.modalities.series",
    "JEPA": "openjepa.methods.jepa",
    "MAE": "openjepa.methods.mae",
    "Masking": "openjepa.masking",
    "Optim": "openjepa.optim",
}

__all__ = [*WHERE]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"openjepa has no {name!r}")
    return getattr(import_module(WHERE[name]), name)
