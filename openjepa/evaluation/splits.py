"""Split samples into what a probe trains on and what it is tested on: pure functions of counts, labels and groups."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.rng import epoch_order
from openjepa.data.wrappers import Relabeled, Subset, ThreadedDataset
from openjepa.evaluation.settings import LabeledData

HELD_OUT_FRACTION = 0.2  # of `random_split`


class Fold(NamedTuple):
    """Indices of the samples that one fold trains on, and of those that it is tested on."""

    train: Int[Tensor, "R"]
    test: Int[Tensor, "Q"]


def random_split(count: int, seed: int) -> list[Fold]:
    """Hold out a random fifth, at least one sample; the only fold."""
    shuffled = torch.from_numpy(epoch_order(seed, 0, count))
    held_out = max(1, int(count * HELD_OUT_FRACTION))
    return [Fold(shuffled[held_out:], shuffled[:held_out])]


def balanced_split(label: Int[Tensor, "S"], seed: int) -> list[Fold]:
    """Hold out a random fifth such that every class with at least two samples is in both parts; the only fold.

    That of `random_split` if it already is such, otherwise a fifth of each class, at least one sample. Samples of a
    class that has only one are trained on.
    """
    (fold,) = random_split(len(label), seed)
    counts = label[label >= 0].bincount()
    trained, tested = (label[rows][label[rows] >= 0].bincount(minlength=len(counts)) > 0 for rows in fold)
    if trained.all() and tested[counts > 1].all():
        return [fold]
    order = torch.cat([fold.test, fold.train])  # a random order
    held_out = torch.zeros(len(label), dtype=torch.bool)
    for number, count in enumerate(counts.tolist()):
        rows = order[label[order] == number]
        held_out[rows[: max(1, int(count * HELD_OUT_FRACTION)) if count > 1 else 0]] = True
    if not held_out.any():
        return [fold]
    return [Fold(order[~held_out[order]], order[held_out[order]])]


def k_fold(count: int, folds: int, seed: int, label: Int[Tensor, "S"] | None = None) -> list[Fold]:
    """Deal the samples into folds at random; with labels, each class is spread evenly over the folds."""
    check_folds(folds, count, "samples")
    shuffled = torch.from_numpy(epoch_order(seed, 0, count))
    if label is not None:
        shuffled = shuffled[label[shuffled].argsort(stable=True)]
    member = torch.empty(count, dtype=torch.long)
    member[shuffled] = torch.arange(count) % folds
    return [split_by(member == fold) for fold in range(folds)]


def leave_group_out(groups: Int[Tensor, "S"], folds: int = 0) -> list[Fold]:
    """Hold out whole groups: each in a fold of its own or, with fewer folds, several of them together.

    The largest group goes to the smallest fold first, so that folds are of similar size. 0 folds: one for each group.
    """
    names, member, sizes = groups.unique(return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise UserError(f"--data.split groups needs at least 2 groups, got {len(names)}")
    folds = len(names) if folds == 0 else min(folds, len(names))
    check_folds(folds, len(names), "groups")
    fold_of_group, filled = torch.empty(len(names), dtype=torch.long), [0] * folds
    for group in sizes.argsort(descending=True, stable=True).tolist():
        smallest = filled.index(min(filled))
        fold_of_group[group] = smallest
        filled[smallest] += int(sizes[group])
    return [split_by(fold_of_group[member] == fold) for fold in range(folds)]


def time_blocks(count: int, blocks: int, gap: int) -> list[Fold]:
    """Cut samples in the order of time into contiguous test blocks; drop `gap` neighbors at each border from training.

    Windows that overlap share raw values: the gap must be at least the number of later windows that a window overlaps.
    """
    check_folds(blocks, count, "samples")
    if gap < 0:
        raise UserError(f"--data.gap must be >= 0, got {gap}")
    time, folds = torch.arange(count), []
    for block in range(blocks):
        first, last = block * count // blocks, (block + 1) * count // blocks
        before, after = time < first - gap, time >= last + gap
        fold = Fold(time[before | after], time[first:last])
        if not len(fold.train):
            raise UserError(
                f"{blocks} blocks of {count} samples with a gap of {gap} leave none to train on: lower --data.gap"
            )
        folds.append(fold)
    return folds


def split_by(tested: Bool[Tensor, "S"]) -> Fold:
    """Return the fold that is tested on the marked samples and trains on all others."""
    return Fold(torch.where(~tested)[0], torch.where(tested)[0])


def check_folds(folds: int, count: int, what: str) -> None:
    """Raise UserError unless there can be so many folds."""
    if not 2 <= folds <= count:
        raise UserError(f"--data.folds must be 2 to the number of {what}, {count}, got {folds}")


def choose_folds(
    labeled: LabeledData, label: Int[Tensor, "S"], groups: Int[Tensor, "S"] | None, seed: int
) -> tuple[Fold, ...]:
    """Return the folds of --data.split over samples with these labels; empty if training and test data are separate."""
    if labeled.split == "k-fold":
        return tuple(k_fold(len(label), labeled.folds, seed, label))
    if labeled.split == "groups":
        if groups is None:
            raise UserError("--data.split groups: this data does not say which samples belong together")
        return tuple(leave_group_out(groups, labeled.folds))
    if labeled.split == "time-blocks":
        return tuple(time_blocks(len(label), labeled.folds, labeled.gap))
    return ()


def sample_values(data: Any, name: str) -> Tensor | None:
    """Return an attribute that holds a value for each sample, such as `groups`, also through wrappers; else None."""
    values = getattr(innermost(data), name, None)
    if values is None or not isinstance(data, ThreadedDataset | Relabeled | Subset):
        return values
    inner = sample_values(data.dataset, name)
    return inner[data.index] if isinstance(data, Subset) and inner is not None else inner


def innermost(data: Any) -> Any:
    """Return the dataset inside all wrappers."""
    while isinstance(data, ThreadedDataset | Relabeled | Subset):
        data = data.dataset
    return data
