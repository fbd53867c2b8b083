"""The labels and groups of listed files, and what data sets of files share.   S files"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.types import FileList, compute_fingerprint
from openjepa.data.archives import label_folder
from openjepa.data.listing import MappedPathList


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


class FileDataset:
    """A data set of files: a fingerprint that is computed when it is needed, and classes by label or by folder."""

    def __init__(
        self, paths: list[str] | MappedPathList, fingerprint: str | Callable[[], str], labels: FileLabels | None
    ):
        self.paths, self.known_fingerprint, self.file_labels = paths, fingerprint, labels

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "known_fingerprint": self.fingerprint}  # without the list of files behind it

    @property
    def fingerprint(self) -> str:
        return self.computed_fingerprint

    @cached_property
    def computed_fingerprint(self) -> str:
        """Return the fingerprint of the files; figures do not need it, and it takes time."""
        return compute_fingerprint(self.known_fingerprint)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.file_classes[0]

    @cached_property
    def file_classes(self) -> tuple[tuple[str, ...], Int[Tensor, "S"]]:
        """Return the sorted names of the classes, or of the files' folders, and each file's index into them."""
        if self.file_labels and self.file_labels.names:
            return number_names(self.file_labels.names)
        return number_names([label_folder(path) for path in self.paths])
