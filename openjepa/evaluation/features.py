"""Compute the features of a dataset.   S samples  B batch  F width of features"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.capabilities import Baselines, EvaluationClips, modality_name
from openjepa.core.distributed import is_main
from openjepa.core.fileio import lock_folder
from openjepa.core.options import PooledKind
from openjepa.core.protocols import Dataset, Modality
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
from openjepa.interop.pretrained import EncoderOutput, PretrainedEncoder
from openjepa.training.device import Device

RAW_SIDE = 32  # the raw baseline downsamples larger images to this side by averaging

Baseline = Callable[[Any], Float[Tensor, "B F"]]  # a batch of evaluation views -> features

Epochs = Callable[[int], Iterator[tuple[EncoderOutput, Int[Tensor, "B"]]]]  # epoch -> (features, rows)


def compute_features(
    encoder: PretrainedEncoder,
    data: Dataset,
    device: Device,
    kinds: tuple[PooledKind, ...] = ("last",),
    folder: Path | None = None,
    batch: int = 256,
) -> Features:
    """Compute pooled features of each sample's evaluation view: `last`, `last4`, or both (paper, appendix A.2).

    With a folder, features are written there chunk by chunk, with an index of files and classes; complete features are
    read from there, an interrupted call is resumed, and ranks share the chunks. Samples that cannot be decoded have the
    label -1.
    """
    writer = FeatureWriter(view_reader(data), feature_encoder(encoder, device, {kind: kind for kind in kinds}, batch))
    if folder is None:
        return collect_chunks(writer, len(data))
    about = {"encoder": encoder.fingerprint, "data": data.fingerprint, "precision": device.precision}
    with lock_folder(folder, "embedding") if is_main() else nullcontext():
        features = store_features(writer, len(data), about, folder)
        if is_main() and not (folder / INDEX_FILE).exists():
            write_index(data, features.label, folder / INDEX_FILE)
    return features


def view_reader(data: Dataset) -> Callable[[int, int], Samples]:
    """Return the function that reads the evaluation views of consecutive samples."""
    return lambda first, last: data.read(torch.arange(first, last), None)


def feature_encoder(
    encoder: PretrainedEncoder, device: Device, kinds: dict[str, str], batch: int = 256
) -> Callable[[int, Samples], FeatureChunk]:
    """Return the function that encodes samples; `kinds` maps each kind of features to its name in the result."""
    encoder.network.to(device.device).eval()
    clips = count_clips(encoder.modality)

    @torch.no_grad()
    def encode(first: int, samples: Samples) -> FeatureChunk:
        rows: dict[str, list[Tensor]] = {name: [] for name in kinds.values()}
        for views in zip(*(view.split(batch) for view in samples.views[:clips]), strict=True):
            output = encode_views(encoder, views, device)
            for kind, name in kinds.items():
                rows[name].append(getattr(output, kind).cpu())
        return FeatureChunk(first, {name: torch.cat(parts) for name, parts in rows.items()}, samples.label)

    return encode


def count_clips(modality: Modality) -> int:
    """Return how many evaluation views of a sample are averaged: 1, or the clips of a video."""
    return modality.eval_clips if isinstance(modality, EvaluationClips) else 1


def encode_views(encoder: PretrainedEncoder, views: tuple[Any, ...], device: Device) -> EncoderOutput:
    """Encode the views of a batch; of several views of a sample, average pooled features and join the tokens."""
    outputs = []
    for view in views:
        with device.autocast():
            outputs.append(encoder.encode(device.move(view)))
    if len(outputs) == 1:
        return outputs[0]
    patches, last, last4 = zip(*outputs, strict=True)
    return EncoderOutput(torch.cat(patches, 1), torch.stack(last).mean(0), torch.stack(last4).mean(0))


class DatasetEncoder(NamedTuple):
    """An encoder, a dataset and a device: encodes samples of the dataset by index."""

    encoder: PretrainedEncoder
    data: Dataset
    device: Device

    def epochs(self, index: Int[Tensor, "R"], batch: int, seed: int, augment: bool, patches: bool = True) -> Epochs:
        """Return a function from an epoch to its batches: features and the positions of the samples in `index`.

        The order is keyed by (seed, epoch); with `augment`, so are random crops. The samples must be decodable. Without
        `patches`, only pooled features are kept, so that batches can be large.
        """

        def batches_of(epoch: int) -> Iterator[tuple[EncoderOutput, Int[Tensor, "B"]]]:
            keys = epoch * len(index) + np.arange(len(index))
            order = torch.from_numpy(epoch_order(seed, epoch, len(index)))
            for first, rows in zip(range(0, len(index), batch), order.split(batch), strict=True):
                rng = CounterRNG.of(seed, epoch, keys[first : first + batch]) if augment else None
                yield self.encode(index[rows], rng, patches), rows

        return batches_of

    @torch.no_grad()
    def encode(self, index: Int[Tensor, "B"], rng: CounterRNG | None = None, patches: bool = True) -> EncoderOutput:
        """Encode some samples in batches of 256: their evaluation views or, with `rng`, random crops."""
        parts = []
        for rows in torch.arange(len(index)).split(256):
            samples = self.data.read(index[rows], rng.select(rows.numpy()) if rng else None)
            output = encode_views(self.encoder, samples.views[: count_clips(self.encoder.modality)], self.device)
            parts.append(output if patches else output._replace(patches=output.patches[:, :0]))
        return EncoderOutput(*(torch.cat(each) for each in zip(*parts, strict=True)))


def raw_features(data: Dataset) -> Features:
    """Return the values of evaluation views as features: the baseline without an encoder."""
    return baseline_features(data, raw_values)


def raw_values(view: Tensor) -> Float[Tensor, "B F"]:
    """Flatten views; images are downsampled to 32×32 first."""
    view = view.float()
    if view.dim() == 4 and max(view.shape[2:]) > RAW_SIDE:
        view = torch.nn.functional.adaptive_avg_pool2d(view, RAW_SIDE)
    return view.flatten(1)


def baselines_of(modality: Modality) -> dict[str, Baseline]:
    """Return by name the baselines without an encoder: those of the modality, or else its raw values."""
    if isinstance(modality, Baselines):
        return modality.baselines()
    return {"raw pixels" if modality_name(modality) == "image" else "raw values": raw_values}


def baseline_features(data: Dataset, baseline: Baseline, clips: int = 1) -> Features:
    """Compute a baseline's features of each sample's evaluation view, averaged over its clips if it has several."""

    def compute(first: int, samples: Samples) -> FeatureChunk:
        features = torch.stack([baseline(view) for view in samples.views[:clips]]).mean(0)
        return FeatureChunk(first, {"last": features}, samples.label)

    return collect_chunks(FeatureWriter(view_reader(data), compute), len(data))


raw_pixel_features = raw_features
