"""Measure encoders on labeled data: features, evaluators, label-free metrics."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from openjepa.core.capabilities import plural_of
from openjepa.core.distributed import is_main, rank_and_size
from openjepa.core.errors import UserError
from openjepa.core.options import PooledKind
from openjepa.core.protocols import Dataset
from openjepa.data.wrappers import Subset
from openjepa.evaluation.controls import ControlledEncoder, controlled_encoders
from openjepa.evaluation.evaluator import EncoderPair, Evaluator, ProbeInput, SplitFeatures
from openjepa.evaluation.feature_store import Features
from openjepa.evaluation.features import DatasetEncoder, compute_features
from openjepa.evaluation.label_free import label_free_metrics
from openjepa.evaluation.labeled import Split, find_task, labeled_fingerprint, split_labeled, task_baselines
from openjepa.evaluation.probing import ProbeResult, create_probes, run_probes
from openjepa.evaluation.settings import LabeledData, ProbeSettings
from openjepa.evaluation.splits import choose_folds, innermost, sample_values
from openjepa.evaluation.undecodable import fold_of_labeled, report_undecodable
from openjepa.interop.inputs import with_eval_clips
from openjepa.interop.pretrained import POOLED_KINDS, PretrainedEncoder
from openjepa.training.device import Device, choose_device
from openjepa.training.parallel.launch import process_group


class Measurement(NamedTuple):
    """Scores and label-free metrics of several encoders, and what they depend on."""

    results: list[ProbeResult]  # the first one's confusion matrix is plotted
    label_free: dict[str, dict[str, float]]  # encoder -> metrics that need no labels
    about: dict[str, Any]  # what all scores depend on: images, split, crop, precision, seed
    encoders: dict[str, str]  # encoder -> fingerprint
    split: Split
    plural: str  # what the samples are called
    used: tuple[int, int]  # samples to train on and to test that have a label and can be decoded


def measure_encoders(compared: list[PretrainedEncoder], settings: ProbeSettings, pixels: bool) -> Measurement | None:
    """Run every evaluator and every label-free metric on every encoder, each with its own image preparation.

    With `pixels`, also run the evaluators on the task's baselines and on the modality's controls. Under torchrun all
    ranks compute features; rank 0 alone trains the probes, the other ranks return None.
    """
    compared = [with_eval_clips(encoder, settings.data.eval_clips) for encoder in compared]
    probes, task = create_probes(settings), find_task(settings.data.labels)
    device = choose_device(settings.device, settings.precision)
    with process_group(device.device):
        if rank_and_size()[1] > 1:
            if not settings.cache:
                raise UserError("under torchrun the ranks share features through a folder: give --cache FOLDER")
            for encoder in compared:
                split_features_of(encoder, settings, probes, device)
        if not is_main():
            return None
    results: list[ProbeResult] = []
    label_free: dict[str, dict[str, float]] = {}
    used = (0, 0)
    for encoder in compared:
        split, features = split_features_of(encoder, settings, probes, device)
        if encoder is compared[0]:
            used = count_used(split, features, settings.data, encoder.data)
        results += run_probes(probe_input(encoder.name, split, features, settings), probes)
        for controlled in controlled_encoders(encoder) if pixels else ():
            changed = controlled_features(controlled, split, features, settings, device)
            results += run_probes(probe_input(controlled.encoder.name, split, changed, settings), probes)
        train = DatasetEncoder(encoder, labeled_part(split.train, features.train), device)
        label_free[encoder.name] = label_free_metrics(train, features.test["last"], settings.seed)
    split = split_labeled(compared[0].data, settings.data, settings.seed)
    for name, compute in task_baselines(task, compared[0].data).items() if pixels else ():
        train = compute(split.train)
        features = SplitFeatures(train, train if split.divided else compute(split.test))
        results += run_probes(probe_input(name, split, features, settings), probes)
    encoders = {encoder.name: encoder.fingerprint for encoder in compared}
    about, plural = describe_measurement(split, settings, device), plural_of(compared[0].data)
    return Measurement(results, label_free, about, encoders, split, plural, used)


def count_used(split: Split, features: SplitFeatures, labeled: LabeledData, modality: Any) -> tuple[int, int]:
    """Count the labeled samples to train on and to test that can be decoded; warn of the others.

    Raises UserError if of one part no sample can be decoded.
    """
    report_undecodable(
        split.train, features.train.label, modality, labeled.root, "" if split.divided else "to train on"
    )
    if not split.divided:
        report_undecodable(split.test, features.test.label, modality, labeled.root, "to test")
    return len(features.train.y), len(features.test.y)


def labeled_part(data: Dataset, features: Features) -> Dataset:
    """Return the samples that have a label, which can be decoded."""
    return data if len(features.labeled) == len(data) else Subset(data, features.labeled)


def describe_measurement(split: Split, settings: ProbeSettings, device: Device) -> dict[str, Any]:
    """Return what all scores depend on; folds only if the task or --data.split chooses them, as in old files."""
    labeled: LabeledData = settings.data
    about = {
        "images": [labeled_fingerprint(part) for part in split[:2]],
        "labels": "folders" if labeled.labels == "auto" else labeled.labels,
        "fit": labeled.eval_crop,
        "precision": device.precision,
        "seed": settings.seed,
    }
    return (
        about
        if labeled.split == "auto" and not split.folds
        else about | {"split": [labeled.split, labeled.folds, labeled.gap]}
    )


def probe_input(name: str, split: Split, features: SplitFeatures, settings: ProbeSettings) -> ProbeInput:
    """Collect what evaluators need: the features, the real-valued targets if the data has them, and the folds."""
    targets = [sample_values(part, "targets") for part in split[:2]]
    if targets[0] is not None and targets[1] is not None:
        rows = (features.train.labeled, features.test.labeled)
        features = features._replace(targets=(targets[0][rows[0]], targets[1][rows[1]]))
    groups, separate = (
        None if values is None else values[part.labeled]
        for values, part in zip([sample_values(part, "groups") for part in split[:2]], features[:2], strict=True)
    )
    chosen = choose_folds(settings.data, features.train.y, groups, settings.seed) if split.divided else ()
    label = features.train.label
    folds = tuple(fold_of_labeled(fold, label) for fold in split.folds) if (label < 0).any() else split.folds
    folds = folds or chosen
    unit = getattr(innermost(split.train), "target_unit", "")
    classes = len(split.train.classes)
    features = features._replace(groups=groups)
    return ProbeInput(settings.data.name, name, features, classes, folds, groups, separate, unit)


def split_features_of(
    encoder: PretrainedEncoder, settings: ProbeSettings, probes: dict[str, Evaluator], device: Device
) -> tuple[Split, SplitFeatures]:
    """Split the data with the encoder's image preparation and compute its features."""
    split = split_labeled(with_flips(encoder.data, settings.augment), settings.data, settings.seed)
    every_layer = settings.features == "last4" or needs_all_layers(probes)
    kinds: tuple[PooledKind, ...] = POOLED_KINDS if every_layer else POOLED_KINDS[:1]
    return split, cached_features(encoder, split, settings, kinds, device)


def with_flips(modality: Any, flips: bool) -> Any:
    """Return the modality with random flips in training, if it has that setting."""
    return dataclasses.replace(modality, flip=True) if flips and hasattr(modality, "flip") else modality


def needs_all_layers(probes: dict[str, Evaluator]) -> bool:
    """Tell whether an evaluator uses more than the last layer's features."""
    return any(getattr(each, "uses_all_layers", False) for each in probes.values())


def cached_features(
    encoder: PretrainedEncoder, split: Split, settings: ProbeSettings, kinds: tuple[PooledKind, ...], device: Device
) -> SplitFeatures:
    """Compute the features of training and test data, or read them from --cache."""
    views = EncoderPair(DatasetEncoder(encoder, split.train, device), DatasetEncoder(encoder, split.test, device))
    train = stored_features(encoder, split.train, settings, kinds, device)
    test = train if split.divided else stored_features(encoder, split.test, settings, kinds, device)
    return SplitFeatures(train, test, views)


def stored_features(
    encoder: PretrainedEncoder, data: Dataset, settings: ProbeSettings, kinds: tuple[PooledKind, ...], device: Device
) -> Features:
    """Compute the features of some data, or read them from --cache."""
    name = f"{labeled_fingerprint(data)}-{encoder.fingerprint}-{'-'.join(kinds)}-{settings.data.eval_crop}"
    return compute_features(encoder, data, device, kinds, settings.cache / name if settings.cache else None)


def controlled_features(
    controlled: ControlledEncoder, split: Split, plain: SplitFeatures, settings: ProbeSettings, device: Device
) -> SplitFeatures:
    """Compute features of changed views; the training data's only if probes are trained on them."""
    encoder = controlled.encoder
    kinds: tuple[PooledKind, ...] = POOLED_KINDS if "last4" in plain.train.kinds else POOLED_KINDS[:1]
    if controlled.trained:
        return cached_features(encoder, split, settings, kinds, device)
    assert plain.views
    test = stored_features(encoder, split.test, settings, kinds, device)
    return SplitFeatures(plain.train, test, plain.views._replace(test=DatasetEncoder(encoder, split.test, device)))
