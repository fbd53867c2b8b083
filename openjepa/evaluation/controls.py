"""Encoders that see changed views: what a score is worth without motion, or without the order of frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from openjepa.core.capabilities import Control, Controls
from openjepa.interop.pretrained import BEFORE_TRAINING, PretrainedEncoder


class ControlledEncoder(NamedTuple):
    """An encoder whose views are changed before it sees them."""

    encoder: PretrainedEncoder
    trained: bool  # whether probes are trained on its features, too; otherwise only tested on them


def controlled_encoders(encoder: PretrainedEncoder) -> Iterator[ControlledEncoder]:
    """Yield the encoder behind each control of its modality; none for the encoder before training."""
    if encoder.name == BEFORE_TRAINING or not isinstance(encoder.modality, Controls):
        return
    for name, control in encoder.modality.controls().items():
        yield ControlledEncoder(change_views(encoder, name, control), control.trained)


def change_views(encoder: PretrainedEncoder, name: str, control: Control) -> PretrainedEncoder:
    """Return the encoder with a control applied to every view, under a name and a fingerprint of its own."""
    return dataclasses.replace(
        encoder,
        name=f"{encoder.name}, {name}",
        layers=lambda view: encoder.layers(control.change(view)),
        made_by=f"{encoder.made_by} {name}",
    )
