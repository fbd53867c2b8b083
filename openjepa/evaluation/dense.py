"""Depth and segmentation of rendered scenes from patch tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.types import Score
from openjepa.data.synthetic.scenes import MATERIALS, SHAPES, TEXTURES, Scenes
from openjepa.evaluation.probes.knn import knn_predict, nearest_by_cosine
from openjepa.evaluation.probes.logistic import logistic_probe
from openjepa.evaluation.probes.ridge import r_squared, ridge_regression

DENSE_TASK = "scenes-patches"  # the task of these scores

CLASSES = ("floor", *SHAPES)

MAX_PATCHES = 40_000  # random patches to train on; a quarter as many to test on


class PatchLabels(NamedTuple):
    """Labels of each patch."""

    depth: Float[Tensor, "S N"]  # mean over its pixels, in CLEVR's units
    shape: Int[Tensor, "S N"]  # what most of its pixels show: 0 = floor, else the shape of the scene's objects


class DenseScores(NamedTuple):
    """Scores on patches of scenes that the probes were not trained on."""

    depth_linear: float  # R², the explained fraction of the variance of depth
    depth_knn: float
    shape_linear: float  # mean intersection over union of the four classes, over patches
    shape_knn: float

    def scores(self, features: str) -> Iterator[Score]:
        """Yield them as scores of one encoder, without intervals: patches of one scene are not independent."""
        for metric, value in self._asdict().items():
            unit = "R²" if metric.startswith("depth") else "mIoU"
            yield Score(DENSE_TASK, features, metric.replace("_", " "), value, unit=unit)


def patch_labels(scenes: Scenes, grid: tuple[int, int]) -> PatchLabels:
    """Compute depth and shape of each cell of the grid, in raster order."""
    depth = F.adaptive_avg_pool2d(scenes.depth[:, None], grid)
    covered = F.adaptive_avg_pool2d((scenes.instance > 0).float()[:, None], grid)
    kind = scenes.kind // (len(MATERIALS) * len(TEXTURES)) + 1  # all objects of a scene are of one kind
    shape = torch.where(covered > 0.5, kind[:, None, None, None], 0)
    return PatchLabels(depth.flatten(1), shape.flatten(1))


def measure_dense(
    train: tuple[Float[Tensor, "R D"], PatchLabels], test: tuple[Float[Tensor, "Q D"], PatchLabels], seed: int = 0
) -> DenseScores:
    """Compute all scores from features and labels of the patches of training and test scenes."""
    x, depth, shape = sample_patches(*train, MAX_PATCHES, seed)
    query, true_depth, true_shape = sample_patches(*test, MAX_PATCHES // 4, seed)
    classes = len(CLASSES)
    return DenseScores(
        r_squared(ridge_regression(x, depth, seed)(query), true_depth),
        r_squared(knn_regression(x, depth, query), true_depth),
        mean_iou(logistic_probe(x, shape, query, classes, seed).predicted, true_shape, classes),
        mean_iou(knn_predict(x, shape, query, classes), true_shape, classes),
    )


def sample_patches(
    features: Float[Tensor, "R D"], labels: PatchLabels, limit: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw at most `limit` patches without replacement; return features, depths and shapes."""
    pick = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[:limit]
    return features[pick], labels.depth.flatten()[pick], labels.shape.flatten()[pick]


def knn_regression(x: Float[Tensor, "R D"], y: Float[Tensor, "R"], q: Float[Tensor, "Q D"], k: int = 20) -> Tensor:
    """Predict the mean of y over the k nearest rows by cosine."""
    return torch.cat([y[nearest].mean(1) for _, nearest in nearest_by_cosine(x, q, k)])


def mean_iou(predicted: Int[Tensor, "Q"], truth: Int[Tensor, "Q"], classes: int) -> float:
    """Return the mean intersection over union of the classes that occur."""
    table = torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes).double()
    union = table.sum(0) + table.sum(1) - table.diagonal()
    return float((table.diagonal()[union > 0] / union[union > 0]).mean())
