"""Probe the encoder during a run, on labeled samples that the run does not train on."""

from __future__ import annotations

from contextlib import nullcontext

import torch

from openjepa.core.protocols import Dataset, Method
from openjepa.core.rng import epoch_order
from openjepa.data.wrappers import Subset
from openjepa.evaluation.features import compute_features
from openjepa.evaluation.labeled import split_labeled
from openjepa.evaluation.probes.knn import knn_predict
from openjepa.evaluation.probes.logistic import accuracy, logistic_probe
from openjepa.evaluation.settings import LabeledData
from openjepa.evaluation.undecodable import report_undecodable, require_decodable
from openjepa.interop.pretrained import from_network
from openjepa.training.config import Pretrain
from openjepa.training.device import Device


class OnlineEvaluator:
    """Measures kNN and logistic accuracy of the target encoder on some samples of a labeled folder."""

    def __init__(self, config: Pretrain, device: Device):
        self.config, self.device, samples = config, device, config.online_probe.samples
        parts = split_labeled(config.data, LabeledData(config.online_probe.root), seed=0)
        self.classes = len(parts.train.classes)
        self.train = random_subset(parts.train, samples)
        self.test = random_subset(parts.test, max(1, samples // 2))
        self.checked = False  # whether undecodable samples were reported
        for part, what in self.parts:
            require_decodable(part, config.data, config.online_probe.root, what)

    @property
    def parts(self) -> tuple[tuple[Dataset, str], ...]:
        """Return the data of the online probe, and what each is for."""
        return (self.train, "of the online probe to train on"), (self.test, "of the online probe to test")

    def due(self, done: int) -> bool:
        """Tell whether to measure after `done` steps: every `online_probe.every` steps and at the end."""
        return done % self.config.online_probe.every == 0 or done == self.config.steps

    def scores(self, method: Method) -> dict[str, float]:
        """Measure the accuracies, in [0, 1], for the log. Raises UserError if no sample can be decoded any more."""
        encoder = method.encoder()
        modes = [(module, module.training) for module in encoder.modules()]
        pretrained = from_network(encoder, self.config, "now")  # pyright: ignore[reportArgumentType]
        eager = torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext()
        with eager:  # whole samples have other shapes than a training step, which would trigger a compilation
            train, test = (compute_features(pretrained, part, self.device) for part in (self.train, self.test))
        if not self.checked:
            for (part, what), features in zip(self.parts, (train, test), strict=True):
                report_undecodable(part, features.label, self.config.data, self.config.online_probe.root, what)
            self.checked = True
        for module, training in modes:
            module.training = training
        nearest = knn_predict(train["last"], train.y, test["last"], self.classes)
        linear = logistic_probe(train["last"], train.y, test["last"], self.classes).predicted
        return {
            "online_knn": accuracy(nearest, test.y),
            "online_logistic": accuracy(linear, test.y),
        }


def random_subset(data: Dataset, count: int) -> Dataset:
    """Return a random subset of at most `count` samples, the same in every call."""
    return Subset(data, torch.from_numpy(epoch_order(0, 0, len(data))[:count]))
