"""Probes during a run, on labeled images that the run never trains on."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Method
from openjepa.core.rng import epoch_order
from openjepa.data.wrappers import Subset
from openjepa.evaluation.features import compute_features
from openjepa.evaluation.labeled import LabeledData, split_labeled
from openjepa.evaluation.probes.knn import knn_predict
from openjepa.evaluation.probes.logistic import accuracy, logistic_probe
from openjepa.interop.adapters import from_ours
from openjepa.modalities.image import Image
from openjepa.training.config import Pretrain
from openjepa.training.device import Device


class OnlineEvaluator:
    """kNN and logistic accuracy of the target encoder on a part of a labelled folder."""

    def __init__(self, config: Pretrain, place: Device):
        if not isinstance(config.data, Image):
            raise UserError("signals cannot be probed during a run: leave --online-probe.root out")
        self.config, self.place, most = config, place, config.online_probe.samples
        parts = split_labeled(config.data, LabeledData(config.online_probe.root), seed=0)
        self.classes = len(parts.train.classes)
        self.train, self.test = (
            evenly_spaced_subset(parts.train, most),
            evenly_spaced_subset(parts.test, max(1, most // 2)),
        )

    def due(self, done: int) -> bool:
        return done % self.config.online_probe.every == 0 or done == self.config.steps

    def scores(self, method: Method) -> dict[str, float]:
        """Accuracies in [0, 1] for the log."""
        encoder = method.encoder("target")
        modes = [(module, module.training) for module in encoder.modules()]
        this = from_ours(encoder, self.config, "now")  # pyright: ignore[reportArgumentType]
        plainly = torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext()
        with plainly:  # whole images have other shapes than a step's, which would be compiled now
            train, test = (compute_features(this, part, self.place) for part in (self.train, self.test))
        for module, training in modes:
            module.training = training
        nearest = knn_predict(train["last"], train.y, test["last"], self.classes)
        linear = logistic_probe(train["last"], train.y, test["last"], self.classes).predicted
        return {
            "online_knn": accuracy(nearest, test.y),
            "online_logistic": accuracy(linear, test.y),
        }


def evenly_spaced_subset(data: Dataset, most: int) -> Dataset:
    """As many of the samples, always the same."""
    return Subset(data, torch.from_numpy(epoch_order(0, 0, len(data))[:most]))
