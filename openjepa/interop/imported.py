"""Weights imported from another project: networks under our names and a config that fits them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from openjepa.core.errors import UserError
from openjepa.interop.key_maps import (
    KeyMap,
    StateDict,
    TransformerSizes,
    check_and_rename,
    format_shape,
    position_table,
)
from openjepa.interop.pretrained import PretrainedEncoder, from_network
from openjepa.masking.official import Official
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.predictor import PredictorConfig
from openjepa.nn.vit import VIT_SIZES, ViTConfig
from openjepa.training.config import Pretrain
from openjepa.training.run_folder import CONTEXT_FILE, ENCODER_FILE, PREDICTOR_FILE, Provenance, write_weights

IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # the released encoders were trained with these

HEADS_OF_WIDTH = {size["dim"]: size["num_heads"] for size in VIT_SIZES.values()}

FILE_OF_NETWORK = {"target": ENCODER_FILE, "context": CONTEXT_FILE, "predictor": PREDICTOR_FILE}


class ImportOptions(NamedTuple):
    """What the user may state because the file does not."""

    num_heads: int = 0  # 0: from the config beside the weights, or from the width, as in the paper's models
    license: str = ""  # license of the weights; empty: as the source states


class ImportedWeights(NamedTuple):
    """Imported networks by their role: "target", and "context" and "predictor" if the file has them."""

    settings: Pretrain
    networks: dict[str, StateDict]
    provenance: Provenance
    step: int = 0

    def write(self, folder: Path) -> Path:
        """Write a folder of weights that every command reads."""
        files = {FILE_OF_NETWORK[name]: state for name, state in self.networks.items()}
        return write_weights(folder, files, self.settings, self.step, self.provenance)

    def build_encoder(self, which: str = "") -> PretrainedEncoder:
        """Return the encoder, ready to use. Raises UserError if the file does not have it."""
        which = which or "target"
        if which not in self.networks:
            raise UserError(f"{self.provenance.source} has only one encoder, not a {which} encoder: omit the choice")
        data, method = self.settings.data, self.settings.method
        assert isinstance(method, JEPA)
        predictor = self.networks.get("predictor")
        return from_network(
            load_state(method.build_encoder(data), self.networks[which]),
            self.settings,
            self.provenance.source,
            step=self.step,
            predictor=load_state(method.build_predictor(data), predictor) if predictor else None,
            provenance=self.provenance,
        )


def load_state(network: Any, state: StateDict) -> Any:
    """Load weights into a network and freeze it."""
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


class Preprocessing(NamedTuple):
    """How the images of an encoder were cropped and normalized, as far as its files state."""

    size: tuple[int, int] | None = None  # None: square, from the number of positions
    mean: tuple[float, ...] = IMAGENET_MEAN_STD[0]
    std: tuple[float, ...] = IMAGENET_MEAN_STD[1]
    value_range: tuple[float, ...] = ()  # of images with more than 8 bits


def config_of_sizes(
    encoder: TransformerSizes, predictor: TransformerSizes | None, heads: int, preprocessing: Preprocessing, source: str
) -> Pretrain:
    """Return the settings whose networks have these sizes, with the released masks.

    Raises:
        UserError: the number of heads is unknown or impossible, or the positions do not fit a grid of patches.
    """
    heads = heads or HEADS_OF_WIDTH.get(encoder.dim, 0)
    if not heads:
        raise UserError(f"{source} does not state its number of heads (width {encoder.dim}): give --num-heads")
    if encoder.dim % heads or (predictor and predictor.dim % heads):
        raise UserError(
            f"{source} has the width {encoder.dim}, which {heads} heads do not divide: give another --num-heads"
        )
    patch, channels = encoder.stem[-1], encoder.stem[1]
    side = math.isqrt(encoder.positions)
    size = preprocessing.size or (side * patch, side * patch)
    if len(encoder.stem) != 4 or encoder.stem[2] != patch or size[0] * size[1] != encoder.positions * patch**2:
        raise UserError(
            f"{source} has {encoder.positions} positions for patches of {format_shape(encoder.stem[2:])} pixels: "
            "not a square grid, and its config states no image size"
        )
    method = JEPA(ViTConfig(encoder.dim, encoder.depth, heads, encoder.mlp_ratio))
    if predictor:
        method = dataclasses.replace(method, predictor=PredictorConfig(predictor.dim, predictor.depth))
    if len(preprocessing.mean) != channels:
        preprocessing = preprocessing._replace(mean=(0.5,) * channels, std=(0.5,) * channels)
    mean, std, value_range = preprocessing[1:]
    return Pretrain(
        data=Image(size=size, patch=patch, channels=channels, value_range=value_range, mean=mean, std=std),
        method=method,
        masks=Official(),
    )


def empty_network(settings: Pretrain, name: str) -> nn.Module:
    """Build one of the networks on the meta device: names and shapes of its tensors, without values."""
    assert isinstance(settings.method, JEPA)
    with torch.device("meta"):
        build = settings.method.build_predictor if name == "predictor" else settings.method.build_encoder
        return build(settings.data)


def to_our_names(state: StateDict, key_map: KeyMap, settings: Pretrain, name: str, source: str) -> StateDict:
    """Return an external network under our names, checked tensor by tensor."""
    network, grid = empty_network(settings, name), settings.data.grid
    return check_and_rename(state, key_map, network, position_table(grid, network_width(settings, name)), source)


def network_width(settings: Pretrain, name: str) -> int:
    """Return the width of the encoder or the predictor."""
    return (settings.method.predictor if name == "predictor" else settings.method.encoder).dim
