"""The values that pass between data, masks, methods and training.

B batch  N tokens  E width  P coordinates  M target blocks  T tokens per block  C context tokens
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor


def gather(values: Float[Tensor, "B N E"], index: Int[Tensor, "B *K"]) -> Float[Tensor, "B *K E"]:
    """Select rows of each sample by index, in the order of `index`."""
    batch, count, width = values.shape
    first = count * index.new_ones(batch).cumsum(0).sub(1).view(-1, *[1] * (index.dim() - 1))
    rows = values.reshape(batch * count, width).index_select(0, (index + first).flatten())
    return rows.view(*index.shape, width)


class Tokens(NamedTuple):
    """A batch of token sets with the position of each token."""

    x: Float[Tensor, "B N E"]  # raw values before the stem (a patch's pixels, a window), features after it
    pos: Float[Tensor, "B N P"]  # coordinates in the modality's units: (x, y), seconds, meters …
    valid: Bool[Tensor, "B N"] | None = None  # False on padding

    def take(self, index: Int[Tensor, "B K"], valid: Bool[Tensor, "B K"] | None = None) -> Tokens:
        """Select tokens by index; `valid` is False where `index` itself is padding."""
        if self.valid is not None:
            own = self.valid.gather(1, index)
            valid = own if valid is None else own & valid
        return Tokens(gather(self.x, index), gather(self.pos, index), valid)

    def mean(self) -> Float[Tensor, "B E"]:
        """Average the valid tokens of each sample, in fp32."""
        if self.valid is None:
            return self.x.float().mean(1)
        return (self.x.float() * self.valid[..., None]).sum(1) / self.valid.sum(1, keepdim=True).clamp(min=1)


class Masks(NamedTuple):
    """Context tokens, which the encoder sees, and target tokens, which the predictor predicts.

    Both are indices into a sample's N tokens.
    """

    context: Int[Tensor, "B C"]
    target: Int[Tensor, "B M T"]
    context_valid: Bool[Tensor, "B C"] | None = None  # False where a sample has fewer free tokens than C
    target_valid: Bool[Tensor, "B M T"] | None = None


class Batch(NamedTuple):
    """A batch from the loader: one or more views of each sample, and each sample's index in the run."""

    views: tuple[Any, ...]  # one for masked JEPAs; two for joint embedding, pairs and frames
    index: Int[Tensor, "B"]  # epoch * len(data) + position in this epoch's order
    conditions: Float[Tensor, "B H A"] | None = None  # actions or view parameters
    label: Int[Tensor, "B"] | None = None  # for probes only; no method reads it


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


class FileList(NamedTuple):
    """The files of a source in a fixed order, and a fingerprint of their names and sizes."""

    paths: list[str]
    fingerprint: str


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
