"""The values that flow through every JEPA.   B batch  N tokens  E width  P coordinates  M blocks  T tokens per block  C context"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor


def gather(values: Float[Tensor, "B N E"], index: Int[Tensor, "B *K"]) -> Float[Tensor, "B *K E"]:
    """The rows of each sample that `index` names, in its order."""
    batch, count, width = values.shape
    first = count * index.new_ones(batch).cumsum(0).sub(1).view(-1, *[1] * (index.dim() - 1))
    rows = values.reshape(batch * count, width).index_select(0, (index + first).flatten())
    return rows.view(*index.shape, width)


class Tokens(NamedTuple):
    """A batch of sets of tokens, and where each one is."""

    x: Float[Tensor, "B N E"]  # raw before the stem (a patch's pixels, a window), features after
    pos: Float[Tensor, "B N P"]  # coordinates in the modality's units: (x, y), seconds, metres …
    valid: Bool[Tensor, "B N"] | None = None  # False on padding

    def take(self, index: Int[Tensor, "B K"], valid: Bool[Tensor, "B K"] | None = None) -> Tokens:
        """The tokens that `index` names; `valid` marks those of them that are not padding."""
        if self.valid is not None:
            mine = self.valid.gather(1, index)
            valid = mine if valid is None else mine & valid
        return Tokens(gather(self.x, index), gather(self.pos, index), valid)

    def mean(self) -> Float[Tensor, "B E"]:
        """One vector a sample: the mean over its tokens, without padding, in fp32."""
        if self.valid is None:
            return self.x.float().mean(1)
        return (self.x.float() * self.valid[..., None]).sum(1) / self.valid.sum(1, keepdim=True).clamp(min=1)


class Masks(NamedTuple):
    """Which tokens are shown and which are asked for, as indices into one sample's N."""

    context: Int[Tensor, "B C"]
    target: Int[Tensor, "B M T"]
    context_valid: Bool[Tensor, "B C"] | None = None  # False where a sample had fewer free tokens than C
    target_valid: Bool[Tensor, "B M T"] | None = None


class Batch(NamedTuple):
    """What a loader gives: one or more views of each sample, and the sample's number in the run."""

    views: tuple[Any, ...]  # one for masked JEPAs; two for joint embedding, pairs, frames
    index: Int[Tensor, "B"]  # n = epoch * len(data) + place in that epoch's order
    conditions: Float[Tensor, "B H A"] | None = None  # actions, view parameters
    label: Int[Tensor, "B"] | None = None  # probes only; no method reads it


class Output(NamedTuple):
    """What a method's forward gives for one micro-batch."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor]  # scalars, detached; nobody calls .item() before logging
    features: Float[Tensor, "B D"]  # one detached vector a sample: what the health meters look at


class Skipped(NamedTuple):
    """A sample that could not be decoded, and why; another took its place."""

    path: str
    reason: str


class Samples(NamedTuple):
    """What a dataset gives for a list of indices."""

    views: tuple[Any, ...]
    label: Int[Tensor, "B"]  # -1 where there is none, or where the sample could not be decoded
    skipped: tuple[Skipped, ...] = ()


class FileList(NamedTuple):
    """The files of a source in a fixed order, and a fingerprint of their names and sizes."""

    paths: list[str]
    fingerprint: str
