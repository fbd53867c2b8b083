"""Say how many samples cannot be decoded, and refuse data if all of them cannot.   S samples"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from openjepa.core.capabilities import Inspects, Reads, plural_of, require
from openjepa.core.console import warn
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.core.types import Skipped
from openjepa.data.archives import parse_address
from openjepa.evaluation.index import Index
from openjepa.evaluation.splits import Fold, innermost, sample_values

PIECE = 256  # samples that are read again at a time, to find out why they cannot be decoded


class Undecoded(NamedTuple):
    """How many samples of a dataset cannot be decoded, and the first of them."""

    count: int
    total: int
    first: Skipped


def find_undecodable(data: Dataset, label: Int[Tensor, "S"]) -> Undecoded | None:
    """Read the samples without a label again, and return those that cannot be decoded; None if all can."""
    skipped: list[Skipped] = []
    for rows in torch.where(label < 0)[0].split(PIECE):
        if len(rows):
            skipped += data.read(rows, None).skipped
    return Undecoded(len(skipped), len(label), skipped[0]) if skipped else None


def describe_undecodable(bad: Undecoded, modality: Any, roots: Iterable[str], what: str = "") -> str:
    """Return one sentence: how many samples cannot be decoded, the first one, why, and what to type."""
    samples = f"{plural_of(modality)} {what}".strip()
    all_bad = bad.count == bad.total
    number = (
        f"none of the {bad.total:,} {samples} can" if all_bad else f"{bad.count:,} of {bad.total:,} {samples} cannot"
    )
    first = f"the first is {bad.first.path} ({bad.first.reason})"
    return f"{number} be decoded, {first}{doctor_advice(modality, roots)}"


def doctor_advice(modality: Any, roots: Iterable[str]) -> str:
    """Return what to type to see all files that cannot be decoded; empty if `jepa doctor` does not read such files."""
    return f": jepa doctor {shlex.join(roots)} lists them" if isinstance(modality, Inspects) else ""


def report_undecodable(
    data: Dataset, label: Int[Tensor, "S"], modality: Any, roots: Iterable[str], what: str = ""
) -> None:
    """Warn of samples that cannot be decoded, and of classes without any other.

    Raises:
        UserError: no sample can be decoded.
    """
    roots = tuple(roots)
    bad = find_undecodable(data, label)
    if bad is None:
        return
    sentence = describe_undecodable(bad, modality, roots, what)
    if bad.count == bad.total:
        raise UserError(sentence)
    warn(f"{sentence}; they are left out")
    if what and (lost := lost_classes(data, label)):
        names = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        effect = "accuracy is over the others" if "test" in what else "no probe can predict them"
        warn(f"no {plural_of(modality)[:-1]} {what} can be decoded of these classes: {names}; {effect}")


def report_empty_rows(index: Index, empty: Bool[np.ndarray, "S"]) -> None:
    """Warn of rows of an index without features, because their samples could not be decoded."""
    if not empty.any():
        return
    file = index.files[int(empty.argmax())]
    bad = Undecoded(int(empty.sum()), len(empty), Skipped(file, reason_of(index, file)))
    address = parse_address(file)
    warn(f"{describe_undecodable(bad, index.modality, [address.archive if address else str(Path(file).parent)])}")


def reason_of(index: Index, file: str) -> str:
    """Read a file of an index again, and return why it cannot be decoded."""
    try:
        require(index.modality, Reads, "a reason").read(file)
    except (UserError, OSError) as error:
        return str(error).removeprefix(f"{file}: ")
    return "now it can be: run jepa embed again"


def lost_classes(data: Dataset, label: Int[Tensor, "S"]) -> list[str]:
    """List the classes whose samples all cannot be decoded."""
    true_label = sample_values(data, "label")
    if true_label is None or len(true_label) != len(label):
        return []
    names = innermost(data).classes
    bad = {names[number] for number in true_label[label < 0].tolist() if number >= 0}
    return sorted(bad - {data.classes[number] for number in label[label >= 0].unique().tolist()})


def fold_of_labeled(fold: Fold, label: Int[Tensor, "S"]) -> Fold:
    """Renumber a fold of samples to count labeled samples only; the others are left out."""
    labeled = label >= 0
    row = labeled.long().cumsum(0) - 1
    return Fold(*(row[index[labeled[index]]] for index in fold))


def require_decodable(data: Dataset, modality: Any, roots: Iterable[str], what: str) -> None:
    """Read samples until one can be decoded.

    Raises:
        UserError: none can.
    """
    skipped: list[Skipped] = []
    for rows in torch.arange(len(data)).split(16):
        samples = data.read(rows, None)
        if len(samples.skipped) < len(rows):
            return
        skipped += samples.skipped
    if skipped:
        bad = Undecoded(len(skipped), len(data), skipped[0])
        raise UserError(describe_undecodable(bad, modality, roots, what))
