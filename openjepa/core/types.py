"""The values that pass between data, masks, methods and training.

B batch  N tokens  E width  P coordinates  M target blocks  T tokens per block  C context tokens  G groups of tokens
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def gather(values: Float[Tensor, "B N E"], index: Int[Tensor, "B *K"]) -> Float[Tensor, "B *K E"]:
    """Select rows of each sample by index, in the order of `index`."""
    batch, count, width = values.shape
    first = count * index.new_ones(batch).cumsum(0).sub(1).view(-1, *[1] * (index.dim() - 1))
    rows = values.reshape(batch * count, width).index_select(0, (index + first).flatten())
    return rows.view(*index.shape, width)


def zero_padding(values: Float[Tensor, "B N E"], valid: Bool[Tensor, "B N"] | None) -> Float[Tensor, "B N E"]:
    """Set padding to 0, whatever it holds, so that a sum over tokens ignores it; None: no padding."""
    return values if valid is None else values.masked_fill(~valid[..., None], 0.0)


class Layout(NamedTuple):
    """How the tokens of a view are arranged: a grid of equal cells with any number of axes, or a set of points."""

    shape: tuple[int, ...] | None  # cells along each axis in raster order, slowest first; None: a set
    count: int  # tokens of a view; of a ragged set: the largest number, with padding
    coordinates: int  # P, the number of coordinates of a token's position

    @classmethod
    def grid(cls, *shape: int) -> Layout:
        """Return the layout of a grid, whose tokens have a coordinate per axis."""
        return cls(shape, math.prod(shape), len(shape))

    @property
    def rows_columns(self) -> tuple[int, int]:
        """Return a grid's size with two axes: the last one, and all others together; a set is one row."""
        columns = self.shape[-1] if self.shape else self.count
        return self.count // columns, columns


class Tokens(NamedTuple):
    """A batch of token sets with the position of each token."""

    x: Float[Tensor, "B N E"]  # raw values before the tokenizer (a patch's pixels, a window), features after it
    pos: Float[Tensor, "B N P"]  # coordinates in the modality's units: (x, y), seconds, meters …
    valid: Bool[Tensor, "B N"] | None = None  # False on padding
    edges: Bool[Tensor, "B N N"] | None = None  # neighbors, for tokenizers that mix them; absent after `take`

    def take(self, index: Int[Tensor, "B K"], valid: Bool[Tensor, "B K"] | None = None) -> Tokens:
        """Select tokens by index; `valid` is False where `index` itself is padding."""
        if self.valid is not None:
            own = self.valid.gather(1, index)
            valid = own if valid is None else own & valid
        return Tokens(gather(self.x, index), gather(self.pos, index), valid)

    def take_groups(self, keep: Keep) -> Tokens:
        """Select G groups of tokens of each sample: B·G samples, those of a sample one after another."""
        _, groups, count = keep.index.shape
        rows = self.take(keep.index.flatten(1), None if keep.valid is None else keep.valid.flatten(1))

        def split_groups(values: Tensor) -> Tensor:
            return values.unflatten(1, (groups, count)).flatten(0, 1)

        valid = None if rows.valid is None else split_groups(rows.valid)
        return Tokens(split_groups(rows.x), split_groups(rows.pos), valid)

    def hide_all_but(self, keep: Keep) -> Tokens:
        """Return B·G samples of all tokens; those outside a group are 0 and count as padding."""
        batch, groups, _ = keep.index.shape
        valid = keep.index.new_zeros(batch, groups, self.x.shape[1], dtype=torch.bool)
        visible = torch.ones_like(keep.index, dtype=torch.bool) if keep.valid is None else keep.valid
        valid = valid.scatter_reduce(2, keep.index, visible, "amax").flatten(0, 1)
        x, pos, own, edges = (None if part is None else part.repeat_interleave(groups, 0) for part in self)
        valid = valid if own is None else valid & own
        return Tokens(x.masked_fill(~valid[..., None], 0), pos, valid, edges)  # type: ignore[union-attr, arg-type]

    def mean(self) -> Float[Tensor, "B E"]:
        """Average the valid tokens of each sample, in fp32."""
        if self.valid is None:
            return self.x.float().mean(1)
        return zero_padding(self.x.float(), self.valid).sum(1) / self.valid.sum(1, keepdim=True).clamp(min=1)


class Keep(NamedTuple):
    """The tokens that an encoder sees: G groups of C tokens of each sample, as indices into its N tokens."""

    index: Int[Tensor, "B G C"]
    valid: Bool[Tensor, "B G C"] | None = None  # False on padding

    def flatten_groups(self) -> Keep:
        """Return the same groups as one group each of B·G samples."""
        index, valid = (None if part is None else part.flatten(0, 1)[:, None] for part in self)
        return Keep(index, valid)  # type: ignore[arg-type]


MaskShape = tuple[int, int, int]  # C, M, T: context tokens, target blocks, tokens per block


class Masks(NamedTuple):
    """Context tokens, which the encoder sees, and target tokens, which the predictor predicts.

    Both are indices into a sample's N tokens.
    """

    context: Int[Tensor, "B C"]
    target: Int[Tensor, "B M T"]
    context_valid: Bool[Tensor, "B C"] | None = None  # False where a sample has fewer free tokens than C
    target_valid: Bool[Tensor, "B M T"] | None = None

    def keep_context(self) -> Keep:
        """Return the context tokens as the one group of tokens that an encoder sees."""
        return Keep(self.context[:, None], None if self.context_valid is None else self.context_valid[:, None])


class Batch(NamedTuple):
    """A batch from the loader: views of each sample, each sample's index in the run, and masks."""

    views: tuple[Any, ...]  # one for masked JEPAs; two for joint embedding, pairs and frames
    index: Int[Tensor, "B"]  # epoch * len(data) + position in this epoch's order
    masks: tuple[Masks, ...] = ()  # one or more masks of each sample
    conditions: Float[Tensor, "B H A"] | None = None  # H steps of actions, or the parameters of H views
    stream: int = 0  # which of the run's data sets the batch comes from


class Shared(NamedTuple):
    """A value that all samples of a batch share, such as a statistic: micro-batches get it whole."""

    value: Any


class Output(NamedTuple):
    """The result of a method's forward pass on one micro-batch."""

    loss: Float[Tensor, ""]
    metrics: dict[str, Tensor]  # detached scalars; call .item() only when logging, it waits for the GPU
    features: Float[Tensor, "B D"]  # one detached vector per sample, for the collapse metrics


class Skipped(NamedTuple):
    """A sample that could not be decoded, and why; another sample replaced it."""

    path: str
    reason: str


class Samples(NamedTuple):
    """What a dataset returns for a batch of indices."""

    views: tuple[Any, ...]
    label: Int[Tensor, "B"]  # -1 without a label, or if the sample could not be decoded
    skipped: tuple[Skipped, ...] = ()
    pos: Float[Tensor, "B N P"] | None = None  # positions of the tokens, for maskers, where they differ by sample
    valid: Bool[Tensor, "B N"] | None = None  # False on padding, where samples have different numbers of tokens
    conditions: Float[Tensor, "B H A"] | None = None  # actions, or the parameters of the views


class ParamGroup(NamedTuple):
    """Parameters that are trained with the same multiple of the learning rate."""

    params: list[nn.Parameter]
    lr_scale: float = 1.0


class StepFlops(NamedTuple):
    """FLOPs of a training step, for one sample."""

    target: int  # the target encoder, forward
    context: int  # the context encoder, forward and backward
    predictor: int  # forward and backward

    @property
    def total(self) -> int:
        return self.target + self.context + self.predictor


class Signal(NamedTuple):
    """A logged metric to watch: its healthy range, the value below which it is an alarm, and what is wrong then."""

    name: str  # of the metric
    healthy: str
    alarm: float
    meaning: str
    low: float = 0.0  # of the healthy range
    high: float = float("inf")
    problem: str = "the representation is collapsing"


@dataclass(eq=False)
class FileList:
    """The files of a source in a fixed order, with a fingerprint of their names and contents, and their labels.

    Lists are equal if paths and fingerprints are.
    """

    paths: list[str]
    known_fingerprint: str | Callable[[], str]  # or a function that computes it when needed: that reads the files
    # returns the fingerprint that versions before content fingerprints recorded, given the roots as typed then
    earlier: Callable[[Sequence[str]], str] | None = None
    left_out: tuple[Any, ...] = ()  # LeftOut: how many files beside them are not read, and why
    roots: tuple[str, ...] = ()  # the folders and files that were listed
    labels: tuple[str, ...] = ()  # class of each file, "" without one; empty: datasets take the names of folders
    groups: tuple[str, ...] = ()  # subject, patient, recording … of each file; empty if not known

    @cached_property
    def fingerprint(self) -> str:
        return compute_fingerprint(self.known_fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileList) and (self.paths, self.fingerprint) == (other.paths, other.fingerprint)


def compute_fingerprint(known: str | Callable[[], str]) -> str:
    """Return a fingerprint, or call the function that computes it."""
    return known if isinstance(known, str) else known()


class Score(NamedTuple):
    """One value that an evaluator measured, with its 95 % interval."""

    task: str  # the labeled data: a folder's name, or a task's such as clevr-count
    features: str  # what was measured: "this encoder", "raw pixels", the name of a run
    metric: str  # the evaluator and its options, such as "logistic" or "kNN last4"; unique within a table
    value: float  # in `unit`: accuracies are percentages from 0 to 100, never fractions
    low: float | None = None  # 95 % interval, in `unit`; None: not computed
    high: float | None = None
    unit: str = "%"  # "%", "R²", "m" …; "" for plain numbers
    higher_is_better: bool = True
    chosen: dict[str, Any] = {}  # noqa: RUF012  what was selected, such as a strength; never written to
