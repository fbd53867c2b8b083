"""Save, load and apply the linear classifier that a probe trained."""

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

CLASSIFIER_SUFFIX = "-head.safetensors"  # NAME-head.safetensors, in the folder of NAME.json


class Classifier(NamedTuple):
    """A linear classifier on features x: logits are x @ weight.T + bias."""

    weight: Float[Tensor, "K D"]
    bias: Float[Tensor, "K"]
    classes: tuple[str, ...]
    encoder: str  # fingerprint of the encoder that computed its training features

    def probabilities(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B K"]:
        """Return the probability of each class."""
        return (features.float() @ self.weight.T + self.bias).softmax(1)


def fold_classifier(model: LinearClassifier, classes: tuple[str, ...], encoder: str) -> Classifier:
    """Convert logistic regression on standardized features to a classifier of plain features."""
    weight = model.weight / model.std
    return Classifier(weight, model.bias - weight @ model.mean, classes, encoder)


def save_classifier(head: Classifier, file: Path) -> Path:
    """Write a classifier to a safetensors file and return its path."""
    metadata = {"classes": json.dumps(head.classes), "encoder": head.encoder}
    with atomic_write(file) as temporary:
        save_file({"weight": head.weight.contiguous(), "bias": head.bias.contiguous()}, temporary, metadata)
    return file


def load_classifier(file: Path) -> Classifier:
    """Load a classifier that `jepa probe` saved. Raises UserError if the file is not one."""
    try:
        with safe_open(file, "pt") as stored:
            metadata = stored.metadata() or {}
            weight, bias = stored.get_tensor("weight"), stored.get_tensor("bias")
            head = Classifier(weight, bias, tuple(json.loads(metadata["classes"])), metadata["encoder"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{file} is not a classifier saved by jepa probe ({error}): run jepa probe again") from error
    if head.weight.ndim != 2 or head.bias.shape != (len(head.weight),) or len(head.classes) != len(head.weight):
        shapes = f"weight {tuple(head.weight.shape)}, bias {tuple(head.bias.shape)}, {len(head.classes)} classes"
        raise UserError(f"{file} is not a classifier saved by jepa probe (shapes: {shapes}): run jepa probe again")
    return head


def find_classifier(run: Path, file: Path | None, encoder: str) -> Classifier:
    """Load the classifier in `file`, or else the only one in RUN/probes.

    Raises UserError if RUN/probes contains none or several, or if it belongs to another encoder.
    """
    if file is None:
        files = sorted((run / "probes").glob(f"*{CLASSIFIER_SUFFIX}"))
        if not files:
            raise UserError(
                f"{run}/probes has no classifier: run jepa probe {run} --data.root LABELED, or give --head FILE"
            )
        if len(files) > 1:
            raise UserError(f"give --head: {run}/probes has several classifiers ({', '.join(map(str, files))})")
        (file,) = files
    head = load_classifier(file)
    if head.encoder != encoder:
        raise UserError(
            f"{file} was trained on another encoder's features: jepa probe {run} trains one for this encoder"
        )
    return head


def top_classes(probabilities: Float[Tensor, "B K"], count: int) -> list[list[tuple[int, float]]]:
    """Return the most likely classes of each row with their probabilities, the most likely first."""
    values, indices = torch.topk(probabilities, min(count, probabilities.shape[1]))
    return [list(zip(*row, strict=True)) for row in zip(indices.tolist(), values.tolist(), strict=True)]
