"""Weights imported from another project: networks under our names and a config that fits them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from openjepa.core.errors import UserError
from openjepa.interop.key_maps import KeyMap, StateDict, TransformerSizes, check_and_rename, position_table
from openjepa.interop.pretrained import PretrainedEncoder
from openjepa.masking.config import Masking
from openjepa.methods.jepa import JEPA
from openjepa.modalities.image import Image
from openjepa.nn.vit import VIT_SIZES
from openjepa.training.config import Pretrain
from openjepa.training.run_folder import CONTEXT_FILE, ENCODER_FILE, PREDICTOR_FILE, Provenance, write_weights

# mean and deviation that the released encoders were trained with
IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

HEADS_OF_WIDTH = {size["dim"]: size["num_heads"] for size in VIT_SIZES.values()}

FILE_OF_NETWORK = {"target": ENCODER_FILE, "context": CONTEXT_FILE, "predictor": PREDICTOR_FILE}


class ImportOptions(NamedTuple):
    """What a file does not say, and the person may."""

    num_heads: int = 0  # 0: by the config beside the weights, or by the width, as in the paper's family
    license: str = ""  # of the weights, where it is not as the file's home says


class ImportedWeights(NamedTuple):
    """Networks by what they are to us: "target", and where there are, "context" and "predictor"."""

    settings: Pretrain
    networks: dict[str, StateDict]
    provenance: Provenance
    step: int = 0

    def write(self, folder: Path) -> Path:
        """A folder of weights that every verb takes."""
        files = {FILE_OF_NETWORK[name]: state for name, state in self.networks.items()}
        return write_weights(folder, files, self.settings, self.step, self.provenance)

    def trained(self, which: str = "target") -> PretrainedEncoder:
        """The encoder, ready to use. Mistake if there is no such one."""
        if which not in self.networks:
            raise UserError(f"{self.provenance.source} has one encoder, no {which} and another: leave the choice out")
        data, method = self.settings.data, self.settings.method
        assert isinstance(method, JEPA)
        predictor = self.networks.get("predictor")
        return PretrainedEncoder(
            load_state(method.encoder(data), self.networks[which]),
            self.settings,
            self.step,
            load_state(method.predictor(data), predictor) if predictor else None,
            self.provenance,
        )


def load_state(network: Any, state: StateDict) -> Any:
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


class Preprocessing(NamedTuple):
    """How an encoder's pictures were cut, as far as its file says."""

    size: tuple[int, int] | None = None  # None: square, by the number of positions
    mean: tuple[float, ...] = IMAGENET_MEAN_STD[0]
    std: tuple[float, ...] = IMAGENET_MEAN_STD[1]


def config_of_sizes(
    encoder: TransformerSizes, predictor: TransformerSizes | None, heads: int, seen: Preprocessing, where: str
) -> Pretrain:
    """The config whose networks have these sizes, with the released masks. Mistake if none has."""
    heads = heads or HEADS_OF_WIDTH.get(encoder.dim, 0)
    if not heads:
        raise UserError(f"{where} does not say how many heads its width of {encoder.dim} has: give --num-heads")
    if encoder.dim % heads or (predictor and predictor.dim % heads):
        raise UserError(f"{where} cannot have {heads} heads: its width is {encoder.dim}: give another --num-heads")
    patch, channels = encoder.stem[-1], encoder.stem[1]
    side = math.isqrt(encoder.positions)
    size = seen.size or (side * patch, side * patch)
    if len(encoder.stem) != 4 or encoder.stem[2] != patch or size[0] * size[1] != encoder.positions * patch**2:
        raise UserError(
            f"{where} has {encoder.positions} positions for patches of {encoder.stem[2:]}: no square grid, and no size is said"
        )
    method = JEPA(encoder.dim, encoder.depth, heads, encoder.mlp_ratio)
    if predictor:
        method = dataclasses.replace(method, predictor_dim=predictor.dim, predictor_depth=predictor.depth)
    if len(seen.mean) != channels:
        seen = seen._replace(mean=(0.5,) * channels, std=(0.5,) * channels)
    return Pretrain(
        data=Image(size=size, patch=patch, channels=channels, mean=seen.mean, std=seen.std),
        method=method,
        masks=Masking(sampler="official"),
    )


def empty_network(settings: Pretrain, name: str) -> nn.Module:
    """One of a config's networks without numbers: its tensors' names and shapes."""
    assert isinstance(settings.method, JEPA)
    with torch.device("meta"):
        make = settings.method.predictor if name == "predictor" else settings.method.encoder
        return make(settings.data)


def to_our_names(state: StateDict, layout: KeyMap, settings: Pretrain, name: str, where: str) -> StateDict:
    """A network of theirs under our names, checked tensor by tensor."""
    network, grid = empty_network(settings, name), settings.data.grid
    return check_and_rename(state, layout, network, position_table(*grid, network_width(settings, name)), where)


def network_width(settings: Pretrain, name: str) -> int:
    return settings.method.predictor_dim if name == "predictor" else settings.method.dim
