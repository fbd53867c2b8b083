"""Compute the features of a dataset.   S samples  B batch  F width of features"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from openjepa.core.distributed import is_main
from openjepa.core.fileio import lock_folder
from openjepa.core.protocols import Dataset
from openjepa.core.rng import CounterRNG, epoch_order
from openjepa.core.types import Samples
from openjepa.evaluation.feature_store import (
    INDEX_FILE,
    FeatureChunk,
    Features,
    FeatureWriter,
    collect_chunks,
    store_features,
    write_index,
)
from openjepa.interop.adapters import EncoderAdapter, EncoderOutput, PooledKind
from openjepa.training.device import Device

RAW_PIXELS_SIDE = 32  # larger pictures are averaged down to this side for the raw-pixel baseline

Epochs = Callable[[int], Iterator[tuple[EncoderOutput, Int[Tensor, "B"]]]]  # epoch → what is seen, and the rows


def compute_features(
    candidate: EncoderAdapter,
    data: Dataset,
    place: Device,
    kinds: tuple[PooledKind, ...] = ("last",),
    folder: Path | None = None,
    batch: int = 256,
) -> Features:
    """Pooled features of each sample's evaluation view: `last`, `last4`, or both (paper, appendix A.2).

    With a folder they are written there, chunk after chunk, beside an index of files and classes, and read from there
    when they are already; an interrupted call goes on where it stopped, and ranks share the chunks. Samples that cannot
    be decoded have the label -1.
    """
    make = FeatureWriter(view_reader(data), feature_encoder(candidate, place, {kind: kind for kind in kinds}, batch))
    if folder is None:
        return collect_chunks(make, len(data))
    about = {"encoder": candidate.fingerprint, "data": data.fingerprint, "precision": place.precision}
    with lock_folder(folder, "embedding") if is_main() else nullcontext():
        features = store_features(make, len(data), about, folder)
        if is_main() and not (folder / INDEX_FILE).exists():
            write_index(data, features.label, folder / INDEX_FILE)
    return features


def view_reader(data: Dataset) -> Callable[[int, int], Samples]:
    """Evaluation views of some samples in a row."""
    return lambda first, last: data.read(torch.arange(first, last), None)


def feature_encoder(
    candidate: EncoderAdapter, place: Device, kinds: dict[str, str], batch: int = 256
) -> Callable[[int, Samples], FeatureChunk]:
    """What turns views into features: of each kind asked for, under the name given for it."""
    candidate.network.to(place.device).eval()

    @torch.no_grad()
    def encode(first: int, read: Samples) -> FeatureChunk:
        rows: dict[str, list[Tensor]] = {name: [] for name in kinds.values()}
        for view in read.views[0].split(batch):
            with place.autocast():
                seen = candidate.encode(place.move(view))
            for kind, name in kinds.items():
                rows[name].append(getattr(seen, kind).cpu())
        return FeatureChunk(first, {name: torch.cat(parts) for name, parts in rows.items()}, read.label)

    return encode


class DatasetEncoder(NamedTuple):
    """An encoder before a dataset: what it sees of samples, asked again and again."""

    encoder: EncoderAdapter
    data: Dataset
    device: Device

    def epochs(self, index: Int[Tensor, "R"], batch: int, seed: int, augment: bool, patches: bool = True) -> Epochs:
        """Epochs over some samples in an order of (seed, epoch): what is seen, and which of `index` it is.

        With `augment`, random crops keyed by (seed, epoch) too; the samples must be decodable. Without `patches`, only
        pooled features are kept, so that batches may be large.
        """

        def epoch_of(epoch: int) -> Iterator[tuple[EncoderOutput, Int[Tensor, "B"]]]:
            numbers = epoch * len(index) + np.arange(len(index))
            places = torch.from_numpy(epoch_order(seed, epoch, len(index)))
            for first, rows in zip(range(0, len(index), batch), places.split(batch), strict=True):
                draws = CounterRNG.of(seed, epoch, numbers[first : first + batch]) if augment else None
                yield self.encode(index[rows], draws, patches), rows

        return epoch_of

    @torch.no_grad()
    def encode(self, index: Int[Tensor, "B"], draws: CounterRNG | None = None, patches: bool = True) -> EncoderOutput:
        """Features of some samples, of evaluation views or of the crops that draws choose; 256 pass the encoder at a time."""
        parts = []
        for rows in torch.arange(len(index)).split(256):
            mine = draws.select(rows.numpy()) if draws else None
            with self.device.autocast():
                seen = self.encoder.encode(self.device.move(self.data.read(index[rows], mine).views[0]))
            parts.append(seen if patches else seen._replace(patches=seen.patches[:, :0]))
        return EncoderOutput(*(torch.cat(each) for each in zip(*parts, strict=True)))


def raw_pixel_features(data: Dataset) -> Features:
    """The evaluation views themselves as features, pictures averaged down to 32×32: the baseline that knows nothing."""

    def encode(first: int, read: Samples) -> FeatureChunk:
        view = read.views[0].float()
        if view.dim() == 4 and max(view.shape[2:]) > RAW_PIXELS_SIDE:
            view = torch.nn.functional.adaptive_avg_pool2d(view, RAW_PIXELS_SIDE)
        return FeatureChunk(first, {"last": view.flatten(1)}, read.label)

    return collect_chunks(FeatureWriter(view_reader(data), encode), len(data))
