"""Depth and segmentation of rendered scenes from patch tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.data.synthetic.scenes import MATERIALS, SHAPES, TEXTURES, Scenes
from openjepa.evaluation.probes.knn import knn_predict, nearest_by_cosine
from openjepa.evaluation.probes.logistic import logistic_probe
from openjepa.evaluation.probes.split import validation_split

CLASSES = ("floor", *SHAPES)

MAX_PATCHES = 40_000  # random patches to train on; a quarter as many to test on

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # ridge penalties, relative to a feature's variance


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


def ridge_regression(x: Float[Tensor, "R D"], y: Float[Tensor, "R"], seed: int):
    """Fit ridge regression on standardized features, its penalty selected on 10 % of them; return the predictor."""
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    z, offset = ((x - mean) / std).double(), y.double().mean()
    shuffled, validation, training = validation_split(len(z), seed)

    def solve(rows: Tensor, strength: float) -> Tensor:
        gram = z[rows].T @ z[rows] / len(rows) + strength * torch.eye(z.shape[1], dtype=z.dtype)
        return torch.linalg.solve(gram, z[rows].T @ (y[rows].double() - offset) / len(rows))

    errors = [
        float((z[validation] @ solve(training, strength) + offset - y[validation]).square().mean())
        for strength in STRENGTHS
    ]
    weight = solve(shuffled, STRENGTHS[errors.index(min(errors))])
    return lambda q: (((q - mean) / std).double() @ weight + offset).float()


def knn_regression(x: Float[Tensor, "R D"], y: Float[Tensor, "R"], q: Float[Tensor, "Q D"], k: int = 20) -> Tensor:
    """Predict the mean of y over the k nearest rows by cosine."""
    return torch.cat([y[nearest].mean(1) for _, nearest in nearest_by_cosine(x, q, k)])


def r_squared(predicted: Float[Tensor, "Q"], truth: Float[Tensor, "Q"]) -> float:
    """Return R²: 1 for perfect predictions, 0 for always predicting the mean."""
    return float(1 - (predicted - truth).square().sum() / (truth - truth.mean()).square().sum())


def mean_iou(predicted: Int[Tensor, "Q"], truth: Int[Tensor, "Q"], classes: int) -> float:
    """Return the mean intersection over union of the classes that occur."""
    table = torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes).double()
    union = table.sum(0) + table.sum(1) - table.diagonal()
    return float((table.diagonal()[union > 0] / union[union > 0]).mean())
