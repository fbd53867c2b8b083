"""Score how much samples differ from normal ones: by the density of features and by the error of predictions.

S samples  D width  N tokens
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.core.protocols import Dataset
from openjepa.core.types import Samples
from openjepa.evaluation.density import Gaussian
from openjepa.evaluation.feature_export import FEATURES_KEY, UNDECODABLE, nan_if_undecodable
from openjepa.evaluation.feature_store import FeatureChunk, FeatureWriter, collect_chunks
from openjepa.evaluation.features import Baseline, baselines_of, count_clips, encode_views, view_reader
from openjepa.evaluation.masked_error import MaskedError
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.training.device import Device

FOLDS = 5  # of the normal samples: each is scored by a distribution that was fitted to the others

FEWEST_NORMAL = 2 * FOLDS

BATCH = 64  # samples of a forward pass

ERRORS = "errors"


class Measured(NamedTuple):
    """What was measured of the samples that can be decoded."""

    kinds: dict[str, Float[Tensor, "S *F"]]  # features, prediction errors of tokens, and features of others by name
    files: list[str]
    classes: list[str]  # of each sample; "" where it is unknown
    undecodable: Int[Tensor, "S"]  # of all samples: below 0 where one cannot be decoded

    @property
    def features(self) -> Float[Tensor, "S D"]:
        return self.kinds[FEATURES_KEY]

    @property
    def errors(self) -> Float[Tensor, "S N"] | None:
        return self.kinds.get(ERRORS)


class Scores(NamedTuple):
    """How unusual samples are; higher is more unusual."""

    distance: Float64[Tensor, "S"]  # Mahalanobis distance of the features from those of normal samples
    error: Float64[Tensor, "S"] | None  # squared error of the token that is hardest to predict
    score: Float64[Tensor, "S"]  # both as deviations above normal samples, on a logarithmic scale, and their mean
    normal_share: Float64[Tensor, "S"]  # share of normal samples that are as unusual


def measure_samples(
    data: Dataset,
    encoder: PretrainedEncoder,
    device: Device,
    masked: MaskedError | None,
    others: dict[str, Baseline],
) -> Measured:
    """Measure every sample: its features, the prediction error of each token, and features of `others` by name."""
    clips = count_clips(encoder.modality)
    measures = {FEATURES_KEY: encoder_features(encoder, device), **others}
    if masked:
        measures[ERRORS] = masked.token_errors

    @torch.no_grad()
    def measure(first: int, samples: Samples) -> FeatureChunk:
        rows: dict[str, list[Tensor]] = {name: [] for name in measures}
        for views in zip(*(view.split(BATCH) for view in samples.views[:clips]), strict=True):
            for name, compute in measures.items():
                rows[name].append(torch.stack([compute(view) for view in views]).mean(0).float().cpu())
        return FeatureChunk(first, {name: torch.cat(parts) for name, parts in rows.items()}, samples.label)

    writer = FeatureWriter(view_reader(data), nan_if_undecodable(measure, data))
    chunks = collect_chunks(writer, len(data))
    rows = torch.where(chunks.label != UNDECODABLE)[0]
    names = [data.classes[number] if number >= 0 else "" for number in chunks.label[rows].tolist()]
    kinds = {name: x[rows] for name, x in chunks.kinds.items()}
    files = [data.source(row) for row in rows.tolist()]
    return Measured(kinds, files, names, torch.where(chunks.label == UNDECODABLE, -1, 0))


def encoder_features(encoder: PretrainedEncoder, device: Device) -> Baseline:
    """Return the function from a batch of evaluation views to pooled features."""
    encoder.network.to(device.device).eval()
    return lambda view: encode_views(encoder, (view,), device).last


def check_enough(count: int) -> None:
    """Raise UserError if there are too few normal samples."""
    if count < FEWEST_NORMAL:
        raise UserError(f"too few normal samples: {count}, at least {FEWEST_NORMAL} are needed")


def check_class(good: str, classes: Iterable[str]) -> None:
    """Raise UserError unless there is a class of normal samples and another one."""
    names = sorted(set(classes) - {""})
    if good not in names or len(names) < 2:
        raise UserError(f"--good {good} must be one of several classes, those here are: {', '.join(names) or 'none'}")


class NormalSamples(NamedTuple):
    """What normal samples are like: the distribution of their features, and the scores that they get themselves."""

    gaussian: Gaussian
    distance: Float64[Tensor, "S"]  # of each sample by a distribution fitted without it
    error: Float64[Tensor, "S"] | None

    @classmethod
    def of(cls, features: Float[Tensor, "S D"], errors: Float[Tensor, "S N"] | None = None) -> NormalSamples:
        """Fit the features of normal samples. Raises UserError if they are too few."""
        check_enough(len(features))
        fold, distance = torch.arange(len(features)) % FOLDS, torch.zeros(len(features), dtype=torch.float64)
        for each in range(FOLDS):
            distance[fold == each] = Gaussian.of(features[fold != each]).distance(features[fold == each])
        return cls(Gaussian.of(features), distance, None if errors is None else largest_error(errors))

    def score(self, features: Float[Tensor, "S D"], errors: Float[Tensor, "S N"] | None = None) -> Scores:
        """Score other samples."""
        distance, error = self.gaussian.distance(features), None if errors is None else largest_error(errors)
        score, own = self.combine(distance, error), self.own_score()
        as_unusual = len(own) - torch.searchsorted(own.sort().values, score)
        return Scores(distance, error, score, as_unusual.double() / len(own))

    def own_score(self) -> Float64[Tensor, "S"]:
        """Return the scores of the normal samples themselves."""
        return self.combine(self.distance, self.error)

    def combine(self, distance: Float64[Tensor, "S"], error: Float64[Tensor, "S"] | None) -> Float64[Tensor, "S"]:
        """Return the mean of both in deviations above normal samples, or the distance alone."""
        score = deviations(distance, self.distance)
        if error is None or self.error is None:
            return score
        return (score + deviations(error, self.error)) / 2


def largest_error(errors: Float[Tensor, "S N"]) -> Float64[Tensor, "S"]:
    """Return the error of the token that is hardest to predict, of those that any mask hides.

    A fault is often in one place, and the mean over all tokens hides it.
    """
    return errors.double().nan_to_num(0.0).amax(1)


def deviations(values: Float64[Tensor, "S"], normal: Float64[Tensor, "R"]) -> Float64[Tensor, "S"]:
    """Return how many standard deviations the logarithm of each value lies above that of normal samples."""
    own = normal.clamp(min=1e-12).log()
    return (values.clamp(min=1e-12).log() - own.mean()) / own.std().clamp(min=1e-6)


class Detection(NamedTuple):
    """How well a score tells anomalous samples from normal ones: the area under its ROC curve, in percent."""

    name: str
    auroc: float
    low: float
    high: float


def measure_detection(name: str, anomalous: Float64[Tensor, "S"], normal: Float64[Tensor, "R"]) -> Detection:
    """Return the probability that an anomalous sample has a higher score than a normal one, with its 95 % interval.

    Source: DeLong, DeLong and Clarke-Pearson, 1988, for the interval.
    """
    higher, lower = above(anomalous, normal), 1 - above(normal, anomalous)
    mean = higher.mean().item()
    variance = sum(each.var().item() / len(each) for each in (higher, lower) if len(each) > 1)
    margin = 1.96 * variance**0.5
    return Detection(name, 100 * mean, 100 * max(0.0, mean - margin), 100 * min(1.0, mean + margin))


def above(values: Float64[Tensor, "S"], others: Float64[Tensor, "R"]) -> Float64[Tensor, "S"]:
    """Return for each value the share of `others` that are lower; equal ones count half."""
    ordered = others.sort().values
    left, right = (torch.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return (left + right).double() / (2 * len(others))


def other_features(encoder: PretrainedEncoder, device: Device) -> dict[str, Baseline]:
    """Return what to compare the encoder's features with: those before training, and baselines without an encoder."""
    others = dict(baselines_of(encoder.modality))
    if encoder.untrained:
        untrained = encoder.untrained()
        others = {untrained.name: encoder_features(untrained, device), **others}
    return others


def detect(normal: Measured, measured: Measured, good: str) -> list[Detection]:
    """Measure how well each score tells the other classes of the samples from the normal one.

    Raises UserError unless there are samples of the normal class and of others.
    """
    check_class(good, measured.classes)  # of those that could be decoded
    is_normal = torch.tensor([name == good for name in measured.classes])
    scores = NormalSamples.of(normal.features, normal.errors).score(measured.features, measured.errors)
    columns = {"features and predictions": scores.score} if scores.error is not None else {}
    columns["features"] = scores.distance
    if scores.error is not None:
        columns["predictions"] = scores.error
    for name in normal.kinds:
        if name not in (FEATURES_KEY, ERRORS):
            columns[name] = NormalSamples.of(normal.kinds[name]).score(measured.kinds[name]).distance
    return [measure_detection(name, each[~is_normal], each[is_normal]) for name, each in columns.items()]


def write_scores(scores: Scores, files: list[str], file: Path) -> None:
    """Write a CSV file with a line per sample, the most unusual first."""
    with (
        atomic_write(file) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        lines = csv.writer(stream)
        lines.writerow(("file", "score", "normal_share", "distance", "error"))
        for row in scores.score.argsort(descending=True, stable=True).tolist():
            columns = (scores.score, scores.normal_share, scores.distance, scores.error)
            lines.writerow((files[row], *("" if each is None else f"{float(each[row]):.6g}" for each in columns)))
