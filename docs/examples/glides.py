"""Distinguish rising, steady and falling tones: a task for the modality `tones`."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from openjepa.evaluation.labeled import Baselines, Split, require_own_split
from openjepa.evaluation.settings import LabeledData

NOISE = {"clean": 0.3, "noisy": 1.0}


@dataclass(frozen=True)
class Glides:
    """`--data.labels glides-clean` or `glides-noisy`; the tones are generated, so that --data.root is not needed."""

    options: ClassVar[tuple[str, ...]] = tuple(NOISE)
    needs_root: ClassVar[bool] = False
    baselines: ClassVar[Baselines] = {}  # measured beside the encoder; empty: those of the modality
    option: str

    def split(self, modality: Any, labeled: LabeledData, seed: int) -> Split:
        """Generate tones to train probes on, and others to test them."""
        require_own_split(labeled)
        tones = dataclasses.replace(modality, noise=NOISE[self.option])
        train, test = (tones.synthetic(500, 2 * seed + each) for each in (1, 2))
        return Split(train, test, "generated")
