"""The arrow of time: does a clip run forwards or backwards? Needs no labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.capabilities import modality_name
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.rng import CounterRNG
from openjepa.core.types import Samples
from openjepa.data.video_controls import reverse_time
from openjepa.data.wrappers import ThreadedDataset
from openjepa.evaluation.labeled import Baselines, Split
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.splits import leave_group_out, sample_values
from openjepa.interop.inputs import replace_root

FORWARDS, BACKWARDS = 0, 1


class BothDirections:
    """Every clip twice: forwards, then backwards.

    Attributes:
        label: FORWARDS or BACKWARDS
        groups: those of the clips, or else a number for each clip: its two directions belong together
    """

    classes = ("forwards", "backwards")

    def __init__(self, data: Dataset):
        self.data = data
        groups = sample_values(data, "groups")
        self.groups = (torch.arange(len(data)) if groups is None else groups).repeat_interleave(2)
        self.label = torch.tensor([FORWARDS, BACKWARDS]).repeat(len(data))

    @property
    def fingerprint(self) -> str:
        return f"{self.data.fingerprint}-directions"

    def __len__(self) -> int:
        return len(self.label)

    def source(self, index: int) -> str:
        return self.data.source(index // 2)

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Read clips, and reverse those whose label is BACKWARDS; the label of undecodable ones stays -1."""
        samples = self.data.read(index // 2, rng)
        label = self.label[index]
        backwards = (label == BACKWARDS)[:, None, None, None, None]
        views = tuple(torch.where(backwards, reverse_time(view), view) for view in samples.views)
        return samples._replace(views=views, label=torch.where(samples.label < 0, samples.label, label))


@dataclass(frozen=True)
class Video:
    """Clips in both directions; each file, or group of files, is tested once, by probes of the others."""

    options: ClassVar[tuple[str, ...]] = ("reversed",)
    needs_root: ClassVar[bool] = True
    baselines: ClassVar[Baselines] = {}
    option: str

    def split(self, modality: Any, labeled: LabeledData, seed: int) -> Split:
        """Read the clips of all files in both directions, and divide them by files.

        Raises UserError for another split, for another modality, and for fewer than two files.
        """
        if modality_name(modality) != "video":
            raise UserError(
                f"--data.labels video-{self.option} needs an encoder of video, got {modality_name(modality)}"
            )
        if labeled.split not in ("auto", "groups"):
            raise UserError(
                f"--data.labels video-{self.option} holds out whole files: use --data.split groups, got {labeled.split}"
            )
        modality = replace_root(modality, labeled.root, labeled.eval_crop)
        both = BothDirections(modality.dataset(modality.listing()))
        if len(both.groups.unique()) < 2:
            raise UserError(
                f"--data.labels video-{self.option} needs at least 2 files, got {len(both.groups.unique())}"
            )
        data, folds = ThreadedDataset(both), tuple(leave_group_out(both.groups, labeled.folds))
        return Split(data, data, f"both directions of a file in one of {len(folds)} folds", folds)
