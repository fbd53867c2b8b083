"""Find a task by name and split its labeled data into what a probe trains on and what it is tested on."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

from openjepa.core import registry
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import baseline_features, baselines_of, count_clips
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.splits import Fold, check_folds, sample_values


class Split(NamedTuple):
    """Training and test data with the same classes; with --data.split k-fold and the like, both are all the data."""

    train: Dataset
    test: Dataset
    how: str  # how the test data was chosen, for the output
    folds: tuple[Fold, ...] = ()  # of a task with a rule of its own; empty: --data.split chooses them

    @property
    def divided(self) -> bool:
        """Tell whether folds divide one set of data."""
        return self.train is self.test


Baselines = Mapping[str, Callable[[Dataset], Features]]  # name in the scores -> features without an encoder


@runtime_checkable
class Task(Protocol):
    """A kind of labeled data; a frozen dataclass in evaluation/tasks/, whose file's name begins its names.

    `--data.labels clevr-count` is the option `count` of the class Clevr in tasks/clevr.py. A dataset may have the
    attributes `groups` (a group's number for each sample), `targets` (a real number for each) and `target_unit`; a
    sample with a target but without a class has the label 0.
    """

    options: tuple[str, ...]  # what may follow the name and a dash; ("",) if nothing does
    needs_root: bool  # whether --data.root must be given
    baselines: Baselines  # empty: those of the modality

    def split(self, modality: Any, labeled: LabeledData, seed: int) -> Split:
        """Load training and test data, prepared as `modality` says."""
        ...


def find_task(labels: str) -> Task:
    """Return the task of a value of --data.labels. Raises UserError if there is no such task."""
    if LabeledData(labels=labels).has_classes:
        labels = "folders"
    name, _, option = (labels, "", "") if labels in registry.names("task") else labels.partition("-")
    cls = registry.find("task", name)
    if option not in cls.options:
        choices = ", ".join(f"{name}-{each}".rstrip("-") for each in cls.options)
        raise UserError(f"unknown --data.labels {labels!r}: choose from {choices}")
    return cls(option)


def task_baselines(task: Task, modality: Any) -> Baselines:
    """Return the baselines of a task, or else those of the modality."""
    clips = count_clips(modality)
    own = {
        name: partial(baseline_features, baseline=compute, clips=clips)
        for name, compute in baselines_of(modality).items()
    }
    return task.baselines or own


def split_labeled(modality: Any, labeled: LabeledData, seed: int) -> Split:
    """Split labeled data into training and test data as its task says. Raises UserError if that is impossible."""
    split = find_task(labeled.labels).split(modality, labeled, seed)
    if split.divided:
        check_folds(labeled.folds, len(split.train), "samples")
    if labeled.split == "groups" and sample_values(split.train, "groups") is None:
        raise UserError(
            "--data.split groups: this data does not say which samples belong together: name the column of the table "
            "with --group"
        )
    return split


def labeled_fingerprint(data: Dataset) -> str:
    """Return the fingerprint of the files and of their labels, which other settings may take from other places."""
    label = sample_values(data, "label")
    labels = b"" if label is None else label.numpy().tobytes()
    names = "\0".join(data.classes).encode("utf-8", "surrogateescape")
    return f"{data.fingerprint}-{zlib.crc32(labels, zlib.crc32(names)):08x}"


def require_own_split(labeled: LabeledData) -> None:
    """Raise UserError if a split was chosen for data that has its own test data."""
    if labeled.split != "auto":
        raise UserError(
            f"--data.labels {labeled.labels} has its own test data: leave --data.split out, got {labeled.split}"
        )
