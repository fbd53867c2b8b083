"""Measure encoders on labeled data: features, probes, label-free metrics."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from openjepa.core.distributed import is_main, rank_and_size
from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import DatasetEncoder, compute_features, raw_pixel_features
from openjepa.evaluation.label_free import label_free_metrics
from openjepa.evaluation.labeled import Split, split_labeled
from openjepa.evaluation.probing import EncoderPair, ProbeInput, ProbeResult, ProbeSettings, SplitFeatures, run_probes
from openjepa.interop.adapters import POOLED_KINDS, EncoderAdapter, PooledKind
from openjepa.training.device import Device, choose_device
from openjepa.training.parallel.launch import process_group


class Measurement(NamedTuple):
    """All that a table says."""

    found: list[ProbeResult]  # the first is whose confusion matrix is drawn
    free: dict[str, dict[str, float]]  # encoder → meters that need no label
    about: dict[str, Any]  # what all scores depend on: images, view, precision, seed
    encoders: dict[str, str]  # encoder → fingerprint
    data: Split


def measure_encoders(compared: list[EncoderAdapter], settings: ProbeSettings, pixels: bool) -> Measurement | None:
    """Every probe on every candidate, each with the pictures cut as it wants them; printed and written.

    Under torchrun the processes share the embedding; the main one alone goes on to the probes, the others get nothing.
    """
    if not settings.probes:
        raise UserError("no probe was asked for: try --probes logistic knn")
    where = choose_device(settings.device, settings.precision)
    with process_group(where.device):
        if rank_and_size()[1] > 1:
            if not settings.cache:
                raise UserError("processes share the features by a folder: give --cache FOLDER")
            for each in compared:
                split_features_of(each, settings, where)
        if not is_main():
            return None
    found: list[ProbeResult] = []
    free: dict[str, dict[str, float]] = {}
    for each in compared:
        data, parts = split_features_of(each, settings, where)
        found += run_probes(ProbeInput(each.name, parts, len(data.train.classes), settings))
        free[each.name] = label_free_metrics(DatasetEncoder(each, data.train, where), parts.test["last"], settings.seed)
    data = split_labeled(compared[0].data, settings.data, settings.seed)
    if pixels:
        parts = SplitFeatures(raw_pixel_features(data.train), raw_pixel_features(data.test))
        found += run_probes(ProbeInput("raw pixels", parts, len(data.train.classes), settings))
    about = {
        "images": [part.fingerprint for part in data[:2]],
        "labels": settings.data.labels,
        "fit": settings.data.eval_crop,
        "precision": where.precision,
        "seed": settings.seed,
    }
    encoders = {each.name: each.fingerprint for each in compared}
    return Measurement(found, free, about, encoders, data)


def split_features_of(each: EncoderAdapter, settings: ProbeSettings, where: Device) -> tuple[Split, SplitFeatures]:
    """The data as one encoder wants it, and its features."""
    data = dataclasses.replace(each.data, flip=settings.augment or each.data.flip)
    parts = split_labeled(data, settings.data, settings.seed)
    return parts, cached_features(each, parts, settings, where)


def cached_features(each: EncoderAdapter, parts: Split, settings: ProbeSettings, where: Device) -> SplitFeatures:
    """Both parts' features, from the folder where they are kept if they are there."""
    kinds: tuple[PooledKind, ...] = (
        POOLED_KINDS if "linear" in settings.probes or settings.features == "last4" else POOLED_KINDS[:1]
    )

    def made(data: Dataset) -> Features:
        own = f"{data.fingerprint}-{each.fingerprint}-{'-'.join(kinds)}-{settings.data.eval_crop}"
        return compute_features(each, data, where, kinds, settings.cache / own if settings.cache else None)

    views = EncoderPair(DatasetEncoder(each, parts.train, where), DatasetEncoder(each, parts.test, where))
    return SplitFeatures(made(parts.train), made(parts.test), views)
