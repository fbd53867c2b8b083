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
    """Names of another project for our modules. One of our modules may be several of theirs: query, key and value."""

    block: str  # name of a transformer block, with {} for its number
    parts: dict[str, tuple[str, ...]]  # our module within a block -> their modules
    modules: dict[str, str]  # our module outside of blocks -> their module
    table: str  # fixed sine-cosine positional embedding, which we compute; empty: positions are rotary
    tensors: tuple[str, ...] = ()  # parameters outside of modules, with the same name in both
    stem: str = "patch_embed.proj"  # our module that is applied first

    def names(self, depth: int) -> dict[str, tuple[str, ...]]:
        """Map each of our tensors to the names of its parts there, in the order of their rows."""
        blocks = {
            f"blocks.{number}.{own}": tuple(f"{self.block.format(number)}.{part}" for part in parts)
            for number in range(depth)
            for own, parts in self.parts.items()
        }
        modules = {own: (external,) for own, external in self.modules.items()} | blocks
        parameters = {
            f"{own}.{kind}": tuple(f"{external}.{kind}" for external in modules[own])
            for own in modules
            for kind in PARAMETER_KINDS
        }
        return parameters | {name: (name,) for name in self.tensors}

    def to_external(self, state: StateDict, table: Float[Tensor, "1 N D"] | None = None) -> StateDict:
        """Return our tensors and the positional embedding, if there is one, under the other project's names."""
        renamed = {} if table is None else {self.table: table}
        for own, external in self.names(count_blocks(state, "blocks.{}")).items():
            renamed |= dict(zip(external, state[own].chunk(len(external)), strict=True))
        return {name: x.contiguous() for name, x in renamed.items()}

    def from_external(self, state: StateDict) -> StateDict:
        """Return the other project's tensors under our names, in fp32."""
        names = self.names(count_blocks(state, self.block))
        return {own: torch.cat([state[name] for name in external]).float() for own, external in names.items()}


TIMM = KeyMap(
    block="blocks.{}",
    parts={part: (part,) for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")},
    modules={"patch_embed.proj": "patch_embed.proj", "norm": "norm"},
    table="pos_embed",
)

OFFICIAL_PREDICTOR = TIMM._replace(  # of the released code
    block="predictor_blocks.{}",
    modules={"embed": "predictor_embed", "norm": "predictor_norm", "proj": "predictor_proj"},
    table="predictor_pos_embed",
    tensors=("mask_token",),
    stem="embed",
)

HF4 = KeyMap(  # files that transformers 4 and 5 write, and those on the hub
    block="encoder.layer.{}",
    parts={
        "norm1": ("layernorm_before",),
        "attn.qkv": tuple(f"attention.attention.{name}" for name in ("query", "key", "value")),
        "attn.proj": ("attention.output.dense",),
        "norm2": ("layernorm_after",),
        "mlp.fc1": ("intermediate.dense",),
        "mlp.fc2": ("output.dense",),
    },
    modules={"patch_embed.proj": "embeddings.patch_embeddings.projection", "norm": "layernorm"},
    table="embeddings.position_embeddings",
)

HF5 = HF4._replace(  # a model of transformers 5 in memory
    block="layers.{}",
    parts={
        "norm1": ("layernorm_before",),
        "attn.qkv": tuple(f"attention.{name}_proj" for name in "qkv"),
        "attn.proj": ("attention.o_proj",),
        "norm2": ("layernorm_after",),
        "mlp.fc1": ("mlp.fc1",),
        "mlp.fc2": ("mlp.fc2",),
    },
)


class TransformerSizes(NamedTuple):
    """Sizes of a transformer that follow from the shapes of its tensors."""

    dim: int
    depth: int
    hidden: int
    positions: int
    stem: tuple[int, ...]  # shape of the first weight

    @property
    def mlp_ratio(self) -> float:
        """Return the ratio for which `int(dim * ratio)` is exactly the hidden width."""
        ratio = self.hidden / self.dim
        return ratio if int(self.dim * ratio) == self.hidden else math.nextafter(ratio, math.inf)


def count_blocks(state: StateDict, block: str) -> int:
    """Return the number of blocks, by the highest block number."""
    pattern = re.compile(re.escape(block).replace(r"\{\}", r"(\d{1,4})") + r"\.")
    return max((int(match[1]) + 1 for name in state if (match := pattern.match(name))), default=0)


def read_sizes(state: StateDict, key_map: KeyMap, source: str) -> TransformerSizes:
    """Read the sizes of a transformer; raises UserError, which names `source`, if the tensors are not one."""
    names = {
        "stem": f"{key_map.modules[key_map.stem]}.weight",
        "table": key_map.table,
        "hidden": f"{key_map.block.format(0)}.{key_map.parts['mlp.fc1'][0]}.weight",
    }
    for name in names.values():
        if name not in state:
            raise UserError(f"{source} is not an I-JEPA encoder: it has no {name}, but {first_names(state)}")
    stem, table, hidden = (tuple(state[name].shape) for name in names.values())
    if len(table) != 3 or len(stem) not in (2, 4) or 0 in (*stem, *hidden):
        raise UserError(f"{source} is not an I-JEPA encoder: {key_map.table} has the shape {format_shape(table)}")
    depth = count_blocks(state, key_map.block)
    if depth > len(state):
        raise UserError(f"{source} is incomplete: it names {depth} blocks, but has {len(state)} tensors")
    return TransformerSizes(stem[0], depth, hidden[0], table[1], stem)


def first_names(state: StateDict) -> str:
    """Return the first names of a state dict, for messages."""
    names = sorted(state)
    return f"{', '.join(names[:3])} …" if names else "no tensors"


def check_and_rename(
    state: StateDict, key_map: KeyMap, network: nn.Module, table: Float[Tensor, "1 N D"], source: str
) -> StateDict:
    """Return external tensors under our names, if they match `network` (which may be on the meta device) and `table`.

    Raises:
        UserError: a tensor (the first is named) is missing, unknown or of another shape; or positions are trained.
    """
    check_tensors(state, key_map.to_external(empty_tensors(network), table), source)
    external = state[key_map.table]
    if (external.float() - table).abs().max() > (1e-4 if external.dtype == torch.float32 else 1e-2):
        raise UserError(
            f"{source}: {key_map.table} is not the sine-cosine table of its grid; trained positions are not supported"
        )
    return key_map.from_external(state)


def empty_tensors(network: nn.Module) -> StateDict:
    """Return tensors of the same names and shapes without values."""
    return {name: torch.empty(x.shape, device="meta") for name, x in network.state_dict().items()}


def check_tensors(actual: StateDict, expected: StateDict, source: str, project: str = "I-JEPA") -> None:
    """Raise UserError, which names the first, if a tensor is missing, unknown or of another shape than expected."""
    for name in sorted(expected.keys() | actual.keys()):
        shapes = [format_shape(tuple(each[name].shape)) if name in each else "" for each in (actual, expected)]
        if name not in actual:
            raise UserError(f"{source} is incomplete: {name} ({shapes[1]}) is missing")
        if name not in expected:
            raise UserError(f"{source} has {name} ({shapes[0]}), which is not part of {project}")
        if shapes[0] != shapes[1]:
            raise UserError(f"{source}: {name} has the shape {shapes[0]}, but the other tensors require {shapes[1]}")


def format_shape(shape: tuple[int, ...]) -> str:
    """Return a shape as text, such as 3×16×16."""
    return "×".join(map(str, shape)) or "scalar"


def position_table(grid: tuple[int, int], dim: int) -> Float[Tensor, "1 N D"]:
    """Return the positional embedding of the released code: sin and cos of the column, then of the row, from fp64.

    Our own positions are computed in fp32 in the forward pass, and differ by less than 2e-6 on grids up to 28×28.
    """
    frequency = 1.0 / 10000.0 ** (np.arange(dim // 4) / (dim / 4))
    y, x = np.meshgrid(*(np.arange(count) for count in grid), indexing="ij")
    halves = [np.concatenate([np.sin(angle), np.cos(angle)], 1) for angle in (np.outer(t, frequency) for t in (x, y))]
    return torch.from_numpy(np.concatenate(halves, 1).astype(np.float32))[None]


def strip_prefix(state: dict[str, Any], prefix: str) -> StateDict:
    """Remove a prefix from the names if all of them have it."""
    has_prefix = all(name.startswith(prefix) for name in state)
    return {name.removeprefix(prefix) if has_prefix else name: x for name, x in state.items()}
