"""Depth, segmentation and box centers of rendered scenes, read from single patch tokens."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from openjepa.core.bootstrap import bootstrap_sums
from openjepa.core.types import Score
from openjepa.data.synthetic.scenes import COUNTS, MATERIALS, SHAPES, TEXTURES, Scenes, render
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.probes.knn import knn_predict, nearest_by_cosine
from openjepa.evaluation.probes.logistic import logistic_probe
from openjepa.evaluation.probes.ridge import ridge_regression
from openjepa.evaluation.tasks.scenes import HELD_OUT, rendered_size, scene_dataset
from openjepa.interop.pretrained import PretrainedEncoder, check_patch_tokens
from openjepa.training.device import Device

DENSE_TASK = "scenes-patches"  # the task of these scores

DENSE_SCENES = (2_000, 500)  # scenes to train and test on

CLASSES = ("floor", *SHAPES)

MAX_PATCHES = 40_000  # random patches to train on; a quarter as many to test on


class PatchLabels(NamedTuple):
    """Labels of each patch."""

    depth: Float[Tensor, "S N"]  # mean over its pixels, in CLEVR's units
    shape: Int[Tensor, "S N"]  # what most of its pixels show: 0 = floor, else the shape of the scene's objects
    center: Float[Tensor, "S N 2"]  # (x, y) to the center of its object's box, as a fraction of the image; floor: NaN


class DrawnPatches(NamedTuple):
    """Some patches of all scenes: features, labels, and the number of the scene."""

    x: Float[Tensor, "R D"]
    depth: Float[Tensor, "R"]
    shape: Int[Tensor, "R"]
    center: Float[Tensor, "R 2"]
    scene: Int[Tensor, "R"]

    def on_objects(self) -> DrawnPatches:
        """Return the patches that show an object."""
        return DrawnPatches(*(part[self.shape > 0] for part in self))


def dense_scores(encoder: PretrainedEncoder, device: Device, seed: int = 0) -> list[Score]:
    """Render scenes and measure all dense tasks from the patch tokens of an encoder.

    Raises UserError if it has no token for each patch.
    """
    encoder.network.to(device.device).eval()
    parts = []
    for count, first in zip(DENSE_SCENES, (0, HELD_OUT), strict=True):
        scenes = render(count, rendered_size(encoder.data), seed, first)
        data = DatasetEncoder(encoder, scene_dataset(scenes, encoder.data, scenes.count, "scenes"), device)
        patches = torch.cat([data.encode(index).patches.cpu() for index in torch.arange(count).split(256)])
        labels = patch_labels(scenes, encoder.data.grid)
        check_patch_tokens(encoder.name, patches, labels.depth.shape[1])
        parts.append((patches.flatten(0, 1), labels))
    train, test = parts
    return measure_dense(encoder.name, train, test, seed)


def raw_patches(data: Any) -> PretrainedEncoder:
    """Return the normalized pixels of each patch in place of an encoder, as a baseline."""
    return PretrainedEncoder("raw pixels", data, torch.nn.Identity(), lambda view: (data.tokens(view).x,))


def patch_labels(scenes: Scenes, grid: tuple[int, int]) -> PatchLabels:
    """Compute depth, shape and box center of each cell of the grid, in raster order."""
    depth = F.adaptive_avg_pool2d(scenes.depth[:, None], grid)
    covered = F.adaptive_avg_pool2d((scenes.instance > 0).float()[:, None], grid)
    kind = scenes.kind // (len(MATERIALS) * len(TEXTURES)) + 1  # all objects of a scene are of one kind
    shape = torch.where(covered > 0.5, kind[:, None, None, None], 0).flatten(1)
    masks = [scenes.instance == number for number in range(1, COUNTS[1] + 1)]
    share = torch.stack([F.adaptive_avg_pool2d(mask.float(), grid).flatten(1) for mask in masks], -1)  # S N K
    boxes = torch.stack([box_center(mask) for mask in masks], 1)  # S K 2
    of_object = boxes.gather(1, share.argmax(-1)[..., None].expand(-1, -1, 2))
    x, y = ((torch.arange(size) + 0.5) / size for size in (grid[1], grid[0]))
    of_patch = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
    center = torch.where(shape[..., None] > 0, of_object - of_patch, torch.nan)
    return PatchLabels(depth.flatten(1), shape, center)


def box_center(mask: Tensor) -> Float[Tensor, "S 2"]:
    """Return the center (x, y) of the smallest box around the pixels of each mask (S H W), as fractions of the image.

    NaN for an empty mask.
    """
    centers = []
    for axis in (1, 2):
        occupied = mask.any(axis)
        position = (torch.arange(occupied.shape[1]) + 0.5) / occupied.shape[1]
        first = torch.where(occupied, position, torch.inf).amin(1)
        last = torch.where(occupied, position, -torch.inf).amax(1)
        centers.append((first + last) / 2)
    return torch.stack(centers, -1)


def measure_dense(
    name: str,
    train: tuple[Float[Tensor, "R D"], PatchLabels],
    test: tuple[Float[Tensor, "Q D"], PatchLabels],
    seed: int = 0,
) -> list[Score]:
    """Return all scores of the features of the patches of training and test scenes; intervals resample test scenes."""
    train_patches, test_patches = draw_patches(*train, MAX_PATCHES, seed), draw_patches(*test, MAX_PATCHES // 4, seed)
    x, query = train_patches.x, test_patches.x
    depth, shape, classes = train_patches.depth, train_patches.shape, len(CLASSES)
    objects, query_objects = train_patches.on_objects(), test_patches.on_objects()
    centers = [ridge_regression(objects.x, each, seed)(query_objects.x) for each in objects.center.unbind(1)]
    predictions = {
        "depth linear": ridge_regression(x, depth, seed)(query),
        "depth knn": knn_regression(x, depth, query),
        "shape linear": logistic_probe(x, shape, query, classes, seed).predicted,
        "shape knn": knn_predict(x, shape, query, classes),
        "center linear": torch.stack(centers, 1),
        "center knn": knn_regression(objects.x, objects.center, query_objects.x),
    }
    return [score_patches(name, metric, each, test_patches) for metric, each in predictions.items()]


def score_patches(name: str, metric: str, predicted: Tensor, patches: DrawnPatches) -> Score:
    """Return the score of one probe: R², or mean intersection over union of the classes over patches."""
    label = metric.split()[0]
    patches = patches.on_objects() if label == "center" else patches
    truth = getattr(patches, label)
    if label == "shape":
        per_patch, statistic, unit = F.one_hot(truth * len(CLASSES) + predicted, len(CLASSES) ** 2), mean_iou, "mIoU"
    else:
        error, spread = ((truth - other).square() for other in (predicted, truth.mean(0)))
        per_patch = torch.stack([error.view(len(truth), -1).sum(1), spread.view(len(truth), -1).sum(1)], 1)
        statistic, unit = explained, "R²"
    scenes = int(patches.scene.max()) + 1
    sums = torch.zeros(scenes, per_patch.shape[1], dtype=torch.float64).index_add_(0, patches.scene, per_patch.double())
    value = float(statistic(sums.sum(0, keepdim=True)))
    return Score(DENSE_TASK, name, metric, value, *bootstrap_sums(statistic, sums), unit)


def explained(sums: Float[Tensor, "T 2"]) -> Float[Tensor, "T"]:
    """Return R² for the sums of the squared errors and of the squared distances to the mean label."""
    return 1 - sums[:, 0] / sums[:, 1]


def mean_iou(table: Float[Tensor, "T K"]) -> Float[Tensor, "T"]:
    """Return the mean intersection over union of the classes that occur, for counts of (true, predicted) classes."""
    table = table.unflatten(1, (len(CLASSES), len(CLASSES)))
    hits = table.diagonal(dim1=1, dim2=2)
    union = table.sum(1) + table.sum(2) - hits
    return (hits / union).nanmean(1)


def draw_patches(features: Float[Tensor, "R D"], labels: PatchLabels, limit: int, seed: int) -> DrawnPatches:
    """Draw at most `limit` patches of all scenes without replacement."""
    pick = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[:limit]
    depth, shape, center = (label.flatten(0, 1)[pick] for label in labels)
    return DrawnPatches(features[pick], depth, shape, center, pick // labels.depth.shape[1])


def knn_regression(x: Float[Tensor, "R D"], y: Float[Tensor, "R *C"], q: Float[Tensor, "Q D"], k: int = 20) -> Tensor:
    """Predict the mean of y over the k nearest rows by cosine."""
    return torch.cat([y[nearest].mean(1) for _, nearest in nearest_by_cosine(x, q, k)])
