"""Depth and segmentation of rendered scenes from patch tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.data.synthetic.scenes import MATERIALS, SHAPES, TEXTURES, Scenes
from openjepa.evaluation.probes.knn import knn_predict
from openjepa.evaluation.probes.logistic import VALIDATION_FRACTION, logistic_probe

CLASSES = ("floor", *SHAPES)

MAX_PATCHES = 40_000  # patches to train on, drawn at random; a quarter of that to test on

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # of the ridge, as a share of a feature's variance


class PatchLabels(NamedTuple):
    """What is true of each patch."""

    depth: Float[Tensor, "S N"]  # mean over its pixels, in CLEVR's units
    shape: Int[Tensor, "S N"]  # what most of its pixels show: floor, or the shape of the scene's objects


class DenseScores(NamedTuple):
    """How well patches of unseen scenes are known."""

    depth_linear: float  # share of the variance of depth that is explained, R²
    depth_knn: float
    shape_linear: float  # mean intersection over union of the four classes, over patches
    shape_knn: float


def patch_labels(scenes: Scenes, grid: tuple[int, int]) -> PatchLabels:
    """Depth and shape of each cell of the grid, in raster order."""
    depth = F.adaptive_avg_pool2d(scenes.depth[:, None], grid)
    shown = F.adaptive_avg_pool2d((scenes.instance > 0).float()[:, None], grid)
    solid = scenes.kind // (len(MATERIALS) * len(TEXTURES)) + 1  # a scene's objects are of one kind
    shape = torch.where(shown > 0.5, solid[:, None, None, None], 0)
    return PatchLabels(depth.flatten(1), shape.flatten(1))


def measure_dense(
    train: tuple[Float[Tensor, "R D"], PatchLabels], test: tuple[Float[Tensor, "Q D"], PatchLabels], seed: int = 0
) -> DenseScores:
    """All four numbers, from patch features of training and of test scenes in the order of their targets."""
    (x, depth, shape), (q, far, truth) = (
        sample_patches(features, asked, count, seed)
        for (features, asked), count in ((train, MAX_PATCHES), (test, MAX_PATCHES // 4))
    )
    classes = len(CLASSES)
    return DenseScores(
        r_squared(ridge_regression(x, depth, seed)(q), far),
        r_squared(knn_regression(x, depth, q), far),
        mean_iou(logistic_probe(x, shape, q, classes, seed).predicted, truth, classes),
        mean_iou(knn_predict(x, shape, q, classes), truth, classes),
    )


def sample_patches(
    features: Float[Tensor, "R D"], asked: PatchLabels, most: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Some patches, drawn without replacement, with their depth and shape."""
    pick = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[:most]
    return features[pick], asked.depth.flatten()[pick], asked.shape.flatten()[pick]


def ridge_regression(x: Float[Tensor, "R D"], y: Float[Tensor, "R"], seed: int):
    """Linear regression on standardised features, its strength chosen on a tenth of them; a function of features."""
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    z, offset = ((x - mean) / std).double(), y.double().mean()
    shuffled = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))
    held, kept = shuffled.tensor_split([max(1, int(len(z) * VALIDATION_FRACTION))])

    def solved(rows: Tensor, strength: float) -> Tensor:
        gram = z[rows].T @ z[rows] / len(rows) + strength * torch.eye(z.shape[1], dtype=z.dtype)
        return torch.linalg.solve(gram, z[rows].T @ (y[rows].double() - offset) / len(rows))

    errors = [float((z[held] @ solved(kept, each) + offset - y[held]).square().mean()) for each in STRENGTHS]
    weight = solved(shuffled, STRENGTHS[errors.index(min(errors))])
    return lambda q: (((q - mean) / std).double() @ weight + offset).float()


def knn_regression(x: Float[Tensor, "R D"], y: Float[Tensor, "R"], q: Float[Tensor, "Q D"], k: int = 20) -> Tensor:
    """The mean of y over the k nearest by cosine."""
    x, q = F.normalize(x, dim=1), F.normalize(q, dim=1)
    return torch.cat([y[(part @ x.T).topk(min(k, len(x)), dim=1).indices].mean(1) for part in q.split(1024)])


def r_squared(predicted: Float[Tensor, "Q"], truth: Float[Tensor, "Q"]) -> float:
    """R²: 1 when right everywhere, 0 for always saying the mean."""
    return float(1 - (predicted - truth).square().sum() / (truth - truth.mean()).square().sum())


def mean_iou(predicted: Int[Tensor, "Q"], truth: Int[Tensor, "Q"], classes: int) -> float:
    """Mean intersection over union, over the classes that occur."""
    table = torch.bincount(truth * classes + predicted, minlength=classes**2).view(classes, classes).double()
    union = table.sum(0) + table.sum(1) - table.diagonal()
    return float((table.diagonal()[union > 0] / union[union > 0]).mean())
