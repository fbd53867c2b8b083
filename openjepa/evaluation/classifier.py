"""Keep the linear classifier that a probe trained, and use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from openjepa.core.errors import UserError
from openjepa.core.fileio import atomic_write
from openjepa.evaluation.probes.logistic import LinearClassifier

SUFFIX = "-head.safetensors"  # NAME-head.safetensors beside NAME.json


class Classifier(NamedTuple):
    """Scores of classes, before softmax, are x @ weight.T + bias."""

    weight: Float[Tensor, "K D"]
    bias: Float[Tensor, "K"]
    classes: tuple[str, ...]
    encoder: str  # fingerprint of the encoder whose features it was trained on

    def chances(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """The probability of each class."""
        return (features.float() @ self.weight.T + self.bias).softmax(1)


def fold_classifier(model: LinearClassifier, classes: tuple[str, ...], encoder: str) -> Classifier:
    """A logistic regression as one linear map, its standardisation folded in."""
    weight = model.weight / model.std
    return Classifier(weight, model.bias - weight @ model.mean, classes, encoder)


def save_classifier(head: Classifier, file: Path) -> Path:
    about = {"classes": json.dumps(head.classes), "encoder": head.encoder}
    with atomic_write(file) as temporary:
        save_file({"weight": head.weight.contiguous(), "bias": head.bias.contiguous()}, temporary, about)
    return file


def load_classifier(file: Path) -> Classifier:
    """A head that was kept. Mistake in a sentence if it is none."""
    try:
        with safe_open(file, "pt") as opened:
            about = opened.metadata() or {}
            classes = json.loads(about["classes"])
            head = Classifier(opened.get_tensor("weight"), opened.get_tensor("bias"), tuple(classes), about["encoder"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{file} is no head that jepa probe has kept ({error}): probe again") from error
    if head.weight.ndim != 2 or head.bias.shape != (len(head.weight),) or len(head.classes) != len(head.weight):
        raise UserError(f"{file} is no head that jepa probe has kept: its shapes do not fit one another: probe again")
    return head


def find_classifier(run: Path, file: Path | None, encoder: str) -> Classifier:
    """The head asked for, or the only one beside a run. Mistake if there is none, several, or one of another encoder."""
    if file is None:
        kept = sorted((run / "probes").glob(f"*{SUFFIX}"))
        if len(kept) != 1:
            there = "there are " + ", ".join(map(str, kept)) if kept else f"{run} has none: jepa probe {run} keeps one"
            raise UserError(f"which classes? give --head; {there}")
        (file,) = kept
    head = load_classifier(file)
    if head.encoder != encoder:
        raise UserError(f"{file} was trained on another encoder's features: jepa probe {run} trains one for this")
    return head


def top_classes(chances: Float[Tensor, "B K"], count: int) -> list[list[tuple[int, float]]]:
    """Of each row the most likely classes and how likely they are."""
    found = torch.topk(chances, min(count, chances.shape[1]))
    return [
        list(zip(classes, shares, strict=True))
        for classes, shares in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]
