"""The labels and groups of listed files, for datasets.   S files"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.types import FileList


class FileLabels(NamedTuple):
    """The class of each file and its group's number; empty and None if they are not known."""

    names: tuple[str, ...]
    groups: Int[Tensor, "S"] | None

    @classmethod
    def of(cls, source: FileList) -> FileLabels | None:
        """Return the labels that come with a list of files; None without any."""
        if not source.labels and not source.groups:
            return None
        return cls(source.labels, number_names(source.groups)[1] if source.groups else None)


def number_names(names: Sequence[str]) -> tuple[tuple[str, ...], Int[Tensor, "S"]]:
    """Return the sorted different names, and the index of each name into them; -1 of an empty name."""
    classes = tuple(sorted(set(names) - {""}))
    index = {"": -1, **{name: position for position, name in enumerate(classes)}}
    return classes, torch.tensor([index[name] for name in names], dtype=torch.long)
