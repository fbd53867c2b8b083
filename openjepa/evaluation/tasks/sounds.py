"""Generated sounds: the pitch of a tone, its rhythm, whether chirps rise, or the number of sources."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

from openjepa.core.capabilities import modality_name
from openjepa.core.errors import UserError
from openjepa.data.audio_files import AudioArray
from openjepa.data.synthetic.sounds import TASKS, render_sounds
from openjepa.evaluation.labeled import Baselines, Split, require_own_split
from openjepa.evaluation.settings import LabeledData

SOUNDS = (3_000, 1_000)  # generated sounds to train and test on

HELD_OUT = 10_000_000  # number of the first test sound; training sounds are numbered from 0


@dataclass(frozen=True)
class Sounds:
    """Training sounds, numbered from 0, and test sounds, numbered from `HELD_OUT`, as long as the encoder's input."""

    options: ClassVar[tuple[str, ...]] = tuple(TASKS)
    needs_root: ClassVar[bool] = False
    baselines: ClassVar[Baselines] = {}
    option: str

    def split(self, modality: Any, labeled: LabeledData, seed: int) -> Split:
        """Generate training and test sounds."""
        require_own_split(labeled)
        if modality_name(modality) != "audio":
            raise UserError(
                f"--data.labels sounds-{self.option} needs an encoder of audio, got {modality_name(modality)}"
            )
        classes, parts = tuple(map(str, range(TASKS[self.option]))), []
        for count, first in zip(SOUNDS, (0, HELD_OUT), strict=True):
            sounds = render_cached(count, modality.rate, modality.samples, seed, first)
            values = sounds.sound[:, None].expand(-1, modality.channels, -1)
            name = f"sounds-{self.option}-{count}-{first}-{seed}"
            parts.append(AudioArray(modality, values, getattr(sounds, self.option), name, classes))
        return Split(parts[0], parts[1], "generated")


render_cached = functools.lru_cache(maxsize=len(SOUNDS))(render_sounds)  # tasks and encoders share the sounds
