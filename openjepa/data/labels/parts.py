"""Join training and test data that were given as separate folders."""

from __future__ import annotations

import hashlib

from openjepa.core.types import FileList
from openjepa.data.labels.describe import LabeledFiles


def join_parts(train: LabeledFiles, test: LabeledFiles) -> LabeledFiles:
    """Return the files of both parts, with the splits `train` and `test` whatever their folders are called."""
    one, other = train.listing, test.listing

    def fingerprint() -> str:
        return hashlib.sha256(f"{one.fingerprint}\0{other.fingerprint}".encode()).hexdigest()[:32]

    groups = (*one.groups, *other.groups) if one.groups and other.groups else ()
    listing = FileList(
        [*one.paths, *other.paths], fingerprint, None, (*one.left_out, *other.left_out), (*one.roots, *other.roots),
        (*one.labels, *other.labels), groups,
    )  # fmt: skip
    names = {"train": " ".join(one.roots), "test": " ".join(other.roots)}
    splits = ("train",) * len(one.paths) + ("test",) * len(other.paths)
    return LabeledFiles(listing, splits, train.how, names, (*train.notes, *test.notes), train.by_folders)
