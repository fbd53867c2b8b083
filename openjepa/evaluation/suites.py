"""Suites: named sets of evaluation tasks."""

from __future__ import annotations

from typing import NamedTuple

from openjepa.core.options import EvalCrop
from openjepa.evaluation.probes.linear_recipes import LinearRecipeName


class SuiteTask(NamedTuple):
    """One task of a suite: labels, crop and probes."""

    labels: str
    eval_crop: EvalCrop
    probes: tuple[str, ...]
    linear: LinearRecipeName = "default"
    augment: bool = False
    shots: tuple[float, ...] = (1.0, 10.0)


SMALL_PROBES: tuple[str, ...] = ("logistic", "linear", "knn")

SUITES: dict[str, dict[str, SuiteTask]] = {
    "small": {
        "cifar10": SuiteTask("folders", "crop", (*SMALL_PROBES, "lowshot"), shots=(1.0, 10.0, 100.0, 1000.0)),
        "scenes-count": SuiteTask("scenes-count", "crop", SMALL_PROBES),
        "scenes-distance": SuiteTask("scenes-distance", "crop", SMALL_PROBES),
        "scenes-kind": SuiteTask("scenes-kind", "crop", SMALL_PROBES),
    },
    "paper": {  # tables 1 to 4 of the paper, frozen encoder
        "in1k": SuiteTask("folders", "margin", ("linear", "lowshot"), "in1k", augment=True, shots=(0.01,)),
        "cifar100": SuiteTask("folders", "margin", ("linear",), "cifar100", augment=True),
        "places205": SuiteTask("folders", "margin", ("linear",), "places205", augment=True),
        "inat18": SuiteTask("folders", "margin", ("linear",), "inat18", augment=True),
        "clevr-count": SuiteTask("clevr-count", "squash", ("linear",), "clevr-count"),
        "clevr-dist": SuiteTask("clevr-dist", "squash", ("linear",), "clevr-dist"),
    },
}
