"""The protocols that datasets, maskers, modalities and methods implement."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from openjepa.core.rng import CounterRNG
from openjepa.core.types import Batch, FileList, Masks, Output, Samples, Tokens


@runtime_checkable
class Dataset(Protocol):
    """Samples by index; `read` loads a whole batch in one call, in a data-loader worker."""

    @property
    def fingerprint(self) -> str:
        """Return a hash that changes when the list of samples changes."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names; empty without labels."""
        ...

    def __len__(self) -> int: ...

    def source(self, index: int) -> str:
        """Return the file that a sample comes from, or its index if it has no file."""
        ...

    def read(self, index: Int[Tensor, "B"], rng: CounterRNG | None) -> Samples:
        """Load samples: randomly augmented training views with `rng`, fixed evaluation views without."""
        ...


@runtime_checkable
class Masker(Protocol):
    """Choose context and target tokens for every sample of a batch.

    Returns one Masks per mask of a sample: I-JEPA draws one, V-JEPA several. `progress` is the fraction of the run that
    is done, from 0 to 1.
    """

    def __call__(
        self, pos: Float[Tensor, "B N P"] | None, valid: Bool[Tensor, "B N"] | None, rng: CounterRNG, progress: float
    ) -> tuple[Masks, ...]: ...

    def shapes(self) -> list[tuple[int, int, int]]:
        """Return every (C, M, T) that the masks can have: context tokens, target blocks, tokens per block."""
        ...


@runtime_checkable
class Modality(Protocol):
    """Define what a view is and how it becomes raw tokens; a frozen dataclass. See modalities/."""

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of tokens; (1, N) if there is only one axis."""
        ...

    @property
    def coordinates(self) -> int:
        """Return P, the number of coordinates of a token's position."""
        ...

    @property
    def token_dim(self) -> int:
        """Return E, the number of values in a raw token."""
        ...

    def listing(self) -> FileList: ...
    def dataset(self, source: FileList, cache: Path | None = None) -> Dataset: ...
    def synthetic(self, size: int, seed: int) -> Dataset: ...
    def tokens(self, view: Any) -> Tokens: ...
    def tokenizer(self, dim: int) -> nn.Module: ...

    def tokenizer_flops(self, dim: int) -> int:
        """Return the forward FLOPs (multiplications plus additions) of the tokenizer for one raw token."""
        ...


@runtime_checkable
class Method(Protocol):
    """A training objective with its networks; an nn.Module.

    `after_step` updates the EMA encoder; it changes nothing if the flag `finite` is False, i.e. if the optimizer step
    was skipped because a gradient was not finite. `encoder` returns the "target" or "context" encoder for evaluation.
    """

    num_views: int  # views of each sample that the objective needs

    def targets(self, batch: Batch, masks: tuple[Masks, ...]) -> Any: ...
    def forward(self, batch: Batch, masks: tuple[Masks, ...], targets: Any) -> Output: ...
    def after_step(self, momentum: float, finite: Tensor | None = None) -> None: ...
    def encoder(self, which: str) -> nn.Module: ...
