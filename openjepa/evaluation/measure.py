"""Measure encoders on labeled data: features, probes, label-free metrics."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from openjepa.core.distributed import is_main, rank_and_size
from openjepa.core.errors import UserError
from openjepa.core.options import PooledKind
from openjepa.core.protocols import Dataset
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import DatasetEncoder, compute_features, raw_pixel_features
from openjepa.evaluation.label_free import label_free_metrics
from openjepa.evaluation.labeled import Split, split_labeled
from openjepa.evaluation.probing import EncoderPair, ProbeInput, ProbeResult, SplitFeatures, run_probes
from openjepa.evaluation.settings import ProbeSettings
from openjepa.interop.pretrained import POOLED_KINDS, PretrainedEncoder
from openjepa.training.device import Device, choose_device
from openjepa.training.parallel.launch import process_group


class Measurement(NamedTuple):
    """Scores and label-free metrics of several encoders, and what they depend on."""

    results: list[ProbeResult]  # the first one's confusion matrix is plotted
    label_free: dict[str, dict[str, float]]  # encoder -> metrics that need no labels
    about: dict[str, Any]  # what all scores depend on: images, crop, precision, seed
    encoders: dict[str, str]  # encoder -> fingerprint
    split: Split


def measure_encoders(compared: list[PretrainedEncoder], settings: ProbeSettings, pixels: bool) -> Measurement | None:
    """Run every probe and every label-free metric on every encoder, each with its own image preparation.

    Under torchrun all ranks compute features; rank 0 alone trains the probes, the other ranks return None.
    """
    if not settings.probes:
        raise UserError("--probes is empty: give at least one, e.g. --probes logistic knn")
    device = choose_device(settings.device, settings.precision)
    with process_group(device.device):
        if rank_and_size()[1] > 1:
            if not settings.cache:
                raise UserError("under torchrun the ranks share features through a folder: give --cache FOLDER")
            for encoder in compared:
                split_features_of(encoder, settings, device)
        if not is_main():
            return None
    results: list[ProbeResult] = []
    label_free: dict[str, dict[str, float]] = {}
    for encoder in compared:
        split, features = split_features_of(encoder, settings, device)
        results += run_probes(ProbeInput(encoder.name, features, len(split.train.classes), settings))
        train = DatasetEncoder(encoder, split.train, device)
        label_free[encoder.name] = label_free_metrics(train, features.test["last"], settings.seed)
    split = split_labeled(compared[0].data, settings.data, settings.seed)
    if pixels:
        features = SplitFeatures(raw_pixel_features(split.train), raw_pixel_features(split.test))
        results += run_probes(ProbeInput("raw pixels", features, len(split.train.classes), settings))
    about = {
        "images": [part.fingerprint for part in split[:2]],
        "labels": settings.data.labels,
        "fit": settings.data.eval_crop,
        "precision": device.precision,
        "seed": settings.seed,
    }
    encoders = {encoder.name: encoder.fingerprint for encoder in compared}
    return Measurement(results, label_free, about, encoders, split)


def split_features_of(
    encoder: PretrainedEncoder, settings: ProbeSettings, device: Device
) -> tuple[Split, SplitFeatures]:
    """Split the data with the encoder's image preparation and compute its features."""
    data = dataclasses.replace(encoder.data, flip=settings.augment or encoder.data.flip)
    split = split_labeled(data, settings.data, settings.seed)
    return split, cached_features(encoder, split, settings, device)


def cached_features(encoder: PretrainedEncoder, split: Split, settings: ProbeSettings, device: Device) -> SplitFeatures:
    """Compute the features of training and test data, or read them from --cache."""
    both = "linear" in settings.probes or settings.features == "last4"
    kinds: tuple[PooledKind, ...] = POOLED_KINDS if both else POOLED_KINDS[:1]

    def compute(data: Dataset) -> Features:
        name = f"{data.fingerprint}-{encoder.fingerprint}-{'-'.join(kinds)}-{settings.data.eval_crop}"
        return compute_features(encoder, data, device, kinds, settings.cache / name if settings.cache else None)

    views = EncoderPair(DatasetEncoder(encoder, split.train, device), DatasetEncoder(encoder, split.test, device))
    return SplitFeatures(compute(split.train), compute(split.test), views)
