"""Map parameter names between this package, timm, the official code and Hugging Face.   D width  N positions"""

from __future__ import annotations

import math
import re
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from openjepa.core.errors import UserError

StateDict = dict[str, Tensor]

Shapes = dict[str, tuple[int, ...]]

PARAMETER_KINDS = ("weight", "bias")


class KeyMap(NamedTuple):
    """Their names for our modules. A module of ours is one of theirs, or queries, keys and values apart."""

    block: str  # of the number-th transformer block
    parts: dict[str, tuple[str, ...]]  # of a block
    modules: dict[str, str]  # outside of blocks
    table: str  # fixed sine-cosine positions, which we calculate
    tensors: tuple[str, ...] = ()  # outside of modules, named alike
    stem: str = "patch_embed.proj"  # our module that is applied first

    def names(self, depth: int) -> dict[str, tuple[str, ...]]:
        """Of each of our tensors, the names that its parts have there, first rows first."""
        blocks = {
            f"blocks.{number}.{own}": tuple(f"{self.block.format(number)}.{part}" for part in parts)
            for number in range(depth)
            for own, parts in self.parts.items()
        }
        modules = {own: (theirs,) for own, theirs in self.modules.items()} | blocks
        both = {
            f"{own}.{kind}": tuple(f"{each}.{kind}" for each in modules[own])
            for own in modules
            for kind in PARAMETER_KINDS
        }
        return both | {name: (name,) for name in self.tensors}

    def outward(self, state: StateDict, table: Float[Tensor, "1 N D"]) -> StateDict:
        """Our tensors, and the table of positions, under their names."""
        found = {self.table: table}
        for own, theirs in self.names(count_blocks(state, "blocks.{}")).items():
            found |= dict(zip(theirs, state[own].chunk(len(theirs)), strict=True))
        return {name: x.contiguous() for name, x in found.items()}

    def inward(self, state: StateDict) -> StateDict:
        """Their tensors under our names, in fp32."""
        names = self.names(count_blocks(state, self.block))
        return {own: torch.cat([state[each] for each in theirs]).float() for own, theirs in names.items()}


TIMM = KeyMap(
    block="blocks.{}",
    parts={part: (part,) for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")},
    modules={"patch_embed.proj": "patch_embed.proj", "norm": "norm"},
    table="pos_embed",
)

OFFICIAL_PREDICTOR = TIMM._replace(  # the authors'
    block="predictor_blocks.{}",
    modules={"embed": "predictor_embed", "norm": "predictor_norm", "proj": "predictor_proj"},
    table="predictor_pos_embed",
    tensors=("mask_token",),
    stem="embed",
)

HF4 = KeyMap(  # what transformers 4 and 5 write, and what lies on the hub
    block="encoder.layer.{}",
    parts={
        "norm1": ("layernorm_before",),
        "attn.qkv": tuple(f"attention.attention.{each}" for each in ("query", "key", "value")),
        "attn.proj": ("attention.output.dense",),
        "norm2": ("layernorm_after",),
        "mlp.fc1": ("intermediate.dense",),
        "mlp.fc2": ("output.dense",),
    },
    modules={"patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm"},
    table="embeddings.position_embeddings",
)

HF5 = HF4._replace(  # the model in memory of transformers 5
    block="layers.{}",
    parts={
        "norm1": ("layernorm_before",),
        "attn.qkv": tuple(f"attention.{each}_proj" for each in "qkv"),
        "attn.proj": ("attention.o_proj",),
        "norm2": ("layernorm_after",),
        "mlp.fc1": ("mlp.fc1",),
        "mlp.fc2": ("mlp.fc2",),
    },
)


class TransformerSizes(NamedTuple):
    """What can be read from the shapes of a transformer."""

    dim: int
    depth: int
    hidden: int
    positions: int
    stem: tuple[int, ...]  # shape of the first weight

    @property
    def mlp_ratio(self) -> float:
        """Such that `int(dim · ratio)` is the hidden width."""
        ratio = self.hidden / self.dim
        return ratio if int(self.dim * ratio) == self.hidden else math.nextafter(ratio, math.inf)


def count_blocks(state: StateDict, block: str) -> int:
    """How many blocks there are, by the highest number."""
    pattern = re.compile(re.escape(block).replace(r"\{\}", r"(\d{1,4})") + r"\.")
    return max((int(match[1]) + 1 for name in state if (match := pattern.match(name))), default=0)


def read_sizes(state: StateDict, layout: KeyMap, where: str) -> TransformerSizes:
    """The sizes of a transformer under their names. Mistake if it is none."""
    wanted = {
        "stem": f"{layout.modules[layout.stem]}.weight",
        "table": layout.table,
        "hidden": f"{layout.block.format(0)}.{layout.parts['mlp.fc1'][0]}.weight",
    }
    found = {part: tuple(state[name].shape) for part, name in wanted.items() if name in state}
    for part, name in wanted.items():
        if part not in found:
            raise UserError(f"{where} holds no I-JEPA encoder: there is no {name}, but {first_names(state)}")
    if len(found["table"]) != 3 or len(found["stem"]) not in (2, 4) or 0 in (*found["stem"], *found["hidden"]):
        raise UserError(f"{where} holds no I-JEPA encoder: {wanted['table']} is {format_shape(found['table'])}")
    depth = count_blocks(state, layout.block)
    if depth > len(state):
        raise UserError(f"{where} is incomplete: it names {depth} blocks and holds {len(state)} tensors")
    return TransformerSizes(found["stem"][0], depth, found["hidden"][0], found["table"][1], found["stem"])


def first_names(state: StateDict) -> str:
    names = sorted(state)
    return f"{', '.join(names[:3])} …" if names else "nothing"


def check_and_rename(
    state: StateDict, layout: KeyMap, network: nn.Module, table: Float[Tensor, "1 N D"], where: str
) -> StateDict:
    """Their tensors under our names, if they are those of `network`, which may lie on the meta device, and positions those
    of `table`. Mistake that names the first that is missing, too many or of another shape."""
    mine = {name: torch.empty(x.shape, device="meta") for name, x in network.state_dict().items()}
    expected = {name: tuple(x.shape) for name, x in layout.outward(mine, table).items()}
    actual = {name: tuple(x.shape) for name, x in state.items()}
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            raise UserError(f"{where} is incomplete: {name} ({format_shape(expected[name])}) is missing")
        if name not in expected:
            raise UserError(f"{where} has {name} ({format_shape(actual[name])}) besides, which no I-JEPA has")
        if actual[name] != expected[name]:
            raise UserError(
                f"{where}: {name} is {format_shape(actual[name])}, and {format_shape(expected[name])} by its other tensors"
            )
    theirs = state[layout.table]
    if (theirs.float() - table).abs().max() > (1e-4 if theirs.dtype == torch.float32 else 1e-2):
        raise UserError(f"{where}: {layout.table} is no sine-cosine table of its grid: trained positions are not read")
    return layout.inward(state)


def format_shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "one number"


def position_table(rows: int, columns: int, dim: int) -> Float[Tensor, "1 N D"]:
    """The table that the released code keeps: for each place sin and cos of its column, then of its row, in fp64, rounded.

    Our own positions are calculated in fp32 on the way, and differ by less than 2e-6 on grids up to 28×28.
    """
    frequency = 1.0 / 10000.0 ** (np.arange(dim // 4) / (dim / 4))
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    halves = [np.concatenate([np.sin(angle), np.cos(angle)], 1) for angle in (np.outer(t, frequency) for t in (x, y))]
    return torch.from_numpy(np.concatenate(halves, 1).astype(np.float32))[None]


def strip_prefix(state: dict[str, Any], prefix: str) -> StateDict:
    """Names without a prefix, if all bear it."""
    bare = all(name.startswith(prefix) for name in state)
    return {name.removeprefix(prefix) if bare else name: x for name, x in state.items()}
