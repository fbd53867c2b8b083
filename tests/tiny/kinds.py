"""A task: the kind of a generated sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from openjepa.evaluation.features import raw_features
from openjepa.evaluation.labeled import Baselines, Split
from openjepa.evaluation.settings import LabeledData


@dataclass(frozen=True)
class Kinds:
    """Samples that the modality generates from other seeds, with its own labels."""

    options: ClassVar[tuple[str, ...]] = ("",)
    needs_root: ClassVar[bool] = False
    baselines: ClassVar[Baselines] = {"raw values": raw_features}
    option: str = ""

    def split(self, modality: Any, labeled: LabeledData, seed: int) -> Split:
        return Split(modality.synthetic(96, seed + 1), modality.synthetic(48, seed + 2), "generated")
