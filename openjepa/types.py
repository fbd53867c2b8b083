"""The values that flow through every JEPA.   B batch  N tokens  E width  P coordinates  M blocks  T tokens per block  C context"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openjepa.draws import Draws


class Mistake(Exception):
    """Something that the person at the keyboard can mend; the message is a sentence that says how."""


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


class Pass(NamedTuple):
    """What goes through the networks at once, R contexts: what they show, where more is asked for, and what is there."""

    context: Tokens
    where: Float[Tensor, "R M T P"]
    asked: Float[Tensor, "R M T E"]
    valid: Bool[Tensor, "R M T"] | None


def passes(tokens: Tokens, there: Float[Tensor, "B N E"], masks: tuple[Masks, ...]) -> list[Pass]:
    """The samples under their masks: all masks in one pass where their shapes are equal, R = B · masks, else one by one.

    One pass of many contexts costs less than many of few; without padding the mean loss is the same.
    """
    alike = {tuple(part if part is None else part.shape for part in mask) for mask in masks}
    groups = [masks] if len(alike) == 1 else [(mask,) for mask in masks]
    return [passing(tokens, there, group) for group in groups]


def passing(tokens: Tokens, there: Float[Tensor, "B N E"], masks: tuple[Masks, ...]) -> Pass:
    """Masks of equal shapes in one pass, a sample's contexts one after the other."""
    context = torch.stack([mask.context for mask in masks], dim=1)
    target = torch.stack([mask.target for mask in masks], dim=1)
    shown = [mask.context_valid for mask in masks if mask.context_valid is not None]
    wanted = [mask.target_valid for mask in masks if mask.target_valid is not None]

    def apart(values: Tensor) -> Tensor:
        return values.unflatten(1, context.shape[1:]).flatten(0, 1)

    x, pos, valid = tokens.take(context.flatten(1), torch.cat(shown, dim=1) if shown else None)
    return Pass(
        Tokens(apart(x), apart(pos), None if valid is None else apart(valid)),
        gather(tokens.pos, target).flatten(0, 1),
        gather(there, target).flatten(0, 1),
        torch.stack(wanted, dim=1).flatten(0, 1) if wanted else None,
    )


class Batch(NamedTuple):
    """What a loader gives: one or more views of each sample, and the sample's number in the run."""

    views: tuple[Any, ...]  # one for masked JEPAs; two for joint embedding, pairs, frames
    number: Int[Tensor, "B"]  # n = epoch * len(data) + place in that epoch's order
    given: Float[Tensor, "B H A"] | None = None  # actions, view parameters
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


class Read(NamedTuple):
    """What a dataset gives for a list of indices."""

    views: tuple[Any, ...]
    label: Int[Tensor, "B"]  # -1 where there is none, or where the sample could not be decoded
    skipped: tuple[Skipped, ...] = ()


class Listing(NamedTuple):
    """The files of a source in a fixed order, and a fingerprint of their names and sizes."""

    paths: list[str]
    fingerprint: str


@runtime_checkable
class Dataset(Protocol):
    """Samples by index. `read` makes a whole batch in one call, in a worker."""

    @property
    def fingerprint(self) -> str:
        """Changes when the list of samples does."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels; empty without labels."""
        ...

    def __len__(self) -> int: ...

    def source(self, index: int) -> str:
        """The file that a sample comes from, or its number where there is no file."""
        ...

    def read(self, index: Int[Tensor, "B"], draws: Draws | None) -> Read:
        """With draws: training views, augmented as they say. Without: the evaluation view, the same every time."""
        ...


@runtime_checkable
class Masker(Protocol):
    """Decides what is shown and what is asked for. I-JEPA gives one Masks, V-JEPA several."""

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Bool[Tensor, "B N"] | None, draws: Draws, progress: float
    ) -> tuple[Masks, ...]: ...

    def shapes(self) -> list[tuple[int, int, int]]:
        """Every (C, M, T) it can give."""
        ...


@runtime_checkable
class Modality(Protocol):
    """The one seam to extend: what a view is, and how it becomes raw tokens. A frozen dataclass; see modalities/."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens; (1, N) where there is only one axis."""
        ...

    @property
    def coordinates(self) -> int:
        """P: numbers in a token's position."""
        ...

    @property
    def width(self) -> int:
        """E: numbers in a raw token."""
        ...

    def listing(self) -> Listing: ...
    def dataset(self, source: Listing, cache: Path | None = None) -> Dataset: ...
    def synthetic(self, size: int, seed: int) -> Dataset: ...
    def tokens(self, view: Any) -> Tokens: ...
    def stem(self, dim: int) -> nn.Module: ...

    def stem_work(self, dim: int) -> int:
        """Multiplications and additions of the stem on one raw token, forward."""
        ...


@runtime_checkable
class Method(Protocol):
    """An objective with its networks; an nn.Module."""

    views: int  # how many it wants of each sample

    def targets(self, batch: Batch, masks: tuple[Masks, ...]) -> Any: ...
    def forward(self, batch: Batch, masks: tuple[Masks, ...], targets: Any) -> Output: ...
    def after_step(self, momentum: float, taken: Tensor | None = None) -> None: ...
    def encoder(self, which: str) -> nn.Module: ...
