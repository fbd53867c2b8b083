"""Predictor fine-tuning: a frozen encoder, and its predictor trained as the first part of a classifier (IWM).

B samples  N tokens  D encoder width  E width of a prediction  K classes  R labeled samples  Q test samples
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from openjepa.core.capabilities import PatchGrid, require
from openjepa.core.errors import UserError
from openjepa.core.types import Score, Tokens
from openjepa.evaluation.evaluator import Prediction, ProbeInput, SplitFeatures, classification_score
from openjepa.evaluation.features import DatasetEncoder
from openjepa.evaluation.probes.attentive import AttentiveClassifier
from openjepa.evaluation.probes.finetune import warmup_cosine
from openjepa.evaluation.stored_tokens import store_tokens
from openjepa.nn.init import initialize
from openjepa.nn.positions import grid_positions
from openjepa.nn.predictor import Predictor

EPOCHS, BATCH_SIZE, LR, WEIGHT_DECAY = 10, 128, 1e-3, 0.05
PRETRAINED_LR = 0.1  # learning rate of pretrained weights, as a multiple of that of new ones (paper)
STRIDE = 2  # queries are at every second row and column, a quarter of the positions


class PredictorClassifier(nn.Module):
    """The predictor on all tokens, queried with the action that changes nothing, then attentive pooling."""

    pos: Tensor
    where: Tensor

    def __init__(self, predictor: Predictor, grid: tuple[int, int], classes: int, seed: int):
        super().__init__()
        self.predictor = predictor
        width = predictor.proj.out_features
        heads = max(1, width // 64) if width % 64 == 0 else 1
        self.head = AttentiveClassifier(width, heads, classes, seed)
        pos = grid_positions(*grid)
        queried = pos.view(*grid, 2)[::STRIDE, ::STRIDE].flatten(0, 1)
        self.register_buffer("pos", pos, persistent=False)
        self.register_buffer("where", queried, persistent=False)

    def forward(self, patches: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
        context = Tokens(patches, self.pos.expand(len(patches), -1, -1))
        predicted = self.predictor(context, self.where.expand(len(patches), 1, -1, -1))
        return self.head(predicted[:, 0])


def fit(
    model: PredictorClassifier,
    train: DatasetEncoder,
    index: Int[Tensor, "R"],
    label: Int[Tensor, "R"],
    predictor_lr: float,
    seed: int,
) -> PredictorClassifier:
    """Train predictor and head with AdamW and a cosine schedule; the encoder stays as it is."""
    tokens, device = store_tokens(train, index), train.device
    model = model.to(device.device)
    groups = [
        {"params": list(model.predictor.parameters()), "scale": predictor_lr},
        {"params": list(model.head.parameters()), "scale": 1.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, weight_decay=WEIGHT_DECAY)
    total, step = EPOCHS * math.ceil(len(index) / BATCH_SIZE), 0
    batches_of = tokens.epochs(index, BATCH_SIZE, seed, False)
    for epoch in range(EPOCHS):
        for features, rows in batches_of(epoch):
            for group in optimizer.param_groups:
                group["lr"] = LR * group["scale"] * warmup_cosine(step, total, 0.0)
            optimizer.zero_grad(set_to_none=True)
            with torch.enable_grad(), device.autocast():
                logits = model(features.patches)
                loss = F.cross_entropy(logits.float(), label[rows].to(device.device))
            loss.backward()
            optimizer.step()
            step += 1
    return model


@torch.no_grad()
def predict(model: PredictorClassifier, test: DatasetEncoder, index: Int[Tensor, "Q"]) -> Int[Tensor, "Q"]:
    """Predict the classes of some samples."""
    answers = []
    for rows in index.split(BATCH_SIZE):
        patches = test.encode(rows).patches
        with test.device.autocast():
            answers.append(model(patches).argmax(1).cpu())
    return torch.cat(answers)


@dataclass(frozen=True)
class PredictorFinetune:
    """Fine-tune the predictor on a frozen encoder, beside a predictor with random weights.

    Source: Garrido et al., 2024, arXiv 2403.00504, section 5: pretrained weights have a tenth of the learning rate.
    Differs: queries at a quarter of the positions.
    """

    seed: int = 0

    def run(self, subject: ProbeInput) -> Iterator[Score]:
        """Yield the accuracy with the pretrained predictor, and with random weights; baselines have no predictor."""
        views = subject.features.views
        if views is None or views.train.encoder.settings is None or views.train.encoder.step == 0:
            return
        trained = views.train.encoder.predictor
        if trained is None:
            raise UserError(
                "predictor-finetune needs a predictor of features: give the folder of a run of --method iwm"
            )
        fresh = copy.deepcopy(trained)
        initialize(fresh, torch.Generator().manual_seed(self.seed), "scaled")
        yield from self.scores(subject, "predictor-finetune", trained, PRETRAINED_LR)
        yield from self.scores(subject, "predictor-finetune random", fresh, 1.0)

    def scores(self, subject: ProbeInput, metric: str, predictor: Predictor, lr_scale: float) -> Iterator[Score]:
        """Yield the accuracy with this predictor, whose learning rate is multiplied by `lr_scale`."""

        def answer(part: SplitFeatures) -> Prediction:
            assert part.views
            train, test = part.views
            grid = require(train.encoder.modality, PatchGrid, metric).grid
            model = PredictorClassifier(copy.deepcopy(predictor).float(), grid, subject.classes, self.seed)
            model = fit(model.requires_grad_(True), train, part.train.labeled, part.train.y, lr_scale, self.seed)
            return Prediction(predict(model, test, part.test.labeled), {"lr": LR, "predictor_lr": LR * lr_scale})

        yield from classification_score(subject, metric, answer)
