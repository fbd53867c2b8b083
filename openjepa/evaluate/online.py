"""Probes during a run: labelled images that the run never learns from, measured every so often.

The run is bit for bit the same with and without them: nothing here touches a global generator, a weight or a mode.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch

from openjepa.core.errors import UserError
from openjepa.core.protocols import Dataset, Method
from openjepa.core.rng import epoch_order
from openjepa.data.wrappers import Subset
from openjepa.evaluate.embed import embed
from openjepa.evaluate.labelled import Labelled, split
from openjepa.evaluate.logistic import accuracy, probe
from openjepa.evaluate.neighbours import predict
from openjepa.interop.adapters import from_ours
from openjepa.modalities.image import Image
from openjepa.training.config import Pretrain
from openjepa.training.device import Device


class Online:
    """kNN and logistic accuracy of the target encoder on a part of a labelled folder."""

    def __init__(self, config: Pretrain, place: Device):
        if not isinstance(config.data, Image):
            raise UserError("signals cannot be probed during a run: leave --online.root out")
        self.config, self.place, most = config, place, config.online.samples
        parts = split(config.data, Labelled(config.online.root), seed=0)
        self.classes = len(parts.train.classes)
        self.train, self.test = some(parts.train, most), some(parts.test, max(1, most // 2))

    def due(self, done: int) -> bool:
        return done % self.config.online.every == 0 or done == self.config.steps

    def scores(self, method: Method) -> dict[str, float]:
        """Accuracies in [0, 1] for the log."""
        encoder = method.encoder("target")
        modes = [(module, module.training) for module in encoder.modules()]
        this = from_ours(encoder, self.config, "now")  # pyright: ignore[reportArgumentType]
        plainly = torch.compiler.set_stance("force_eager") if self.config.compile else nullcontext()
        with plainly:  # whole images have other shapes than a step's, which would be compiled now
            train, test = (embed(this, part, self.place) for part in (self.train, self.test))
        for module, training in modes:
            module.training = training
        nearest = predict(train["last"], train.y, test["last"], self.classes)
        linear = probe(train["last"], train.y, test["last"], self.classes).predicted
        return {
            "online_knn": accuracy(nearest, test.y),
            "online_logistic": accuracy(linear, test.y),
        }


def some(data: Dataset, most: int) -> Dataset:
    """As many of the samples, always the same."""
    return Subset(data, torch.from_numpy(epoch_order(0, 0, len(data))[:most]))
