"""Rendered clips of moving objects: direction, speed, collision, reversed time or number of objects."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

from openjepa.core.capabilities import modality_name
from openjepa.core.errors import UserError
from openjepa.data.synthetic import moving_scenes as synthetic
from openjepa.data.synthetic.moving_scenes import MovingScenes
from openjepa.data.video_files import VideoArray
from openjepa.evaluation.labeled import Baselines, Split, require_own_split
from openjepa.evaluation.settings import LabeledData

CLIPS = (3_000, 1_000)  # rendered clips to train and test on

HELD_OUT = 10_000_000  # number of the first test clip; training clips are numbered from 0

MAX_SIDE = 96  # pixels of a rendered frame; larger inputs are upscaled


@dataclass(frozen=True)
class Moving:
    """Training clips, numbered from 0, and test clips, numbered from `HELD_OUT`; clips without the label are left out.

    Direction and speed are those of the red object. A clip is reversed if the other objects speed up instead of slowing
    down; they hit each other or not. The middle frame tells none of these, only the number of objects.

    Logistic regression on 2,000 clips of 16 frames of 64×64 pixels, tested on 1,000, seed 0, direction / speed / hit /
    reversed / count in percent: pixels 44 / 38 / 53 / 49 / 44, middle frame 12 / 22 / 53 / 51 / 51, frame differences
    40 / 40 / 52 / 80 / 70, chance 12.5 / 25 / 50 / 50 / 33. `pytest tests/test_moving_scenes.py -m slow` repeats
    direction and speed.
    """

    options: ClassVar[tuple[str, ...]] = tuple(synthetic.TASKS)
    needs_root: ClassVar[bool] = False
    baselines: ClassVar[Baselines] = {}
    option: str

    def split(self, modality: Any, labeled: LabeledData, seed: int) -> Split:
        """Render training and test clips with the frames and at the size of the encoder's input."""
        require_own_split(labeled)
        if modality_name(modality) != "video":
            raise UserError(
                f"--data.labels moving-{self.option} needs an encoder of video, got {modality_name(modality)}"
            )
        parts = []
        for count, first in zip(CLIPS, (0, HELD_OUT), strict=True):
            scenes = render_cached(count, modality.frames, min(MAX_SIDE, *modality.size), seed, first)
            parts.append(moving_dataset(scenes, modality, self.option, f"{count}-{first}-{seed}"))
        return Split(parts[0], parts[1], "rendered")


render_cached = functools.lru_cache(maxsize=len(CLIPS))(synthetic.render_clips)  # tasks and encoders share the clips


def moving_dataset(scenes: MovingScenes, modality: Any, task: str, name: str) -> VideoArray:
    """Return the clips that have a label of this task, in RGB or gray."""
    label = getattr(scenes, task)
    rows = (label >= 0).nonzero()[:, 0]
    clips = scenes.clips if len(rows) == len(label) else scenes.clips[rows]
    clips = synthetic.in_channels(clips, modality.channels)
    classes = tuple(map(str, range(synthetic.TASKS[task])))
    return VideoArray(modality, clips, label[rows], f"moving-{task}-{name}", classes)
